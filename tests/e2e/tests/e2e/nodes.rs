//! A cluster of three processes: the control plane with its node, and two nodes that join it by a token. Pods on all of them
//! answer for one Service, the API server's subresources reach all of them, and one of them dies and comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use podium_e2e::{Cluster, Podium, cluster, http, kubectl::Kubectl};
use serde_json::Value;

use crate::{
    life::{json, podium, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("three_nodes_are_one_cluster", three_nodes_are_one_cluster)]
}

/// Six pods of the example, two on each node, that leave a node that is lost at once; a client on node-2 whose image comes
/// out of the cluster's registry.
const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 6
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        nodeTaintsPolicy: Honor
        labelSelector: {matchLabels: {app: spread}}
      containers:
      - name: app
        image: file://hello.wasm
        ports: [{name: http, containerPort: 8080}]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: Hi}
---
apiVersion: v1
kind: Service
metadata: {name: spread}
spec:
  selector: {app: spread}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: spread}
spec: {defaultBackend: {service: {name: spread, port: {number: 80}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeSelector: {kubernetes.io/hostname: node-2}
  containers: [{name: box, image: registry.k8s.io/e2e-test-images/agnhost:2.53, args: [pause]}]
";

const ONLY_FRIENDS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friends}
spec:
  podSelector: {matchLabels: {app: spread}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
";

/// Flags of a node whose death is noticed soon, though not as soon as a busy machine is slow.
const LEASE: [&str; 3] = ["--node-lease-duration", "4", "--test-images"];

struct Three {
    cluster: Cluster,
    nodes: BTreeMap<&'static str, Podium>,
}

impl Three {
    fn start() -> Result<Self> {
        let mut args = vec!["--node-monitor-grace-period", "12", "--node-listen", "127.0.0.1:0"];
        args.extend(LEASE);
        let cluster = Cluster::start_with(&[], &args)?;
        let command = podium(&cluster, &["token", "create", "--print-join-command"])?;
        let words: Vec<&str> = command.split_whitespace().collect();
        ensure!(words.starts_with(&["podium", "node", "join"]), "{command}");
        let mut three = Self { cluster, nodes: BTreeMap::new() };
        for (name, address) in [("node-2", "127.0.0.2"), ("node-3", "127.0.0.3")] {
            let mut join = words[3..].to_vec();
            join.extend(["--node-port-address", address]);
            three.join(name, &join)?;
        }
        Ok(three)
    }

    /// Starts a node on its own folder.
    fn join(&mut self, name: &'static str, more: &[&str]) -> Result<()> {
        let data = self.cluster.folder().join(name);
        let (data, images) = (data.to_string_lossy(), self.cluster.work_dir.join("hello"));
        let images = images.to_string_lossy();
        let mut args =
            vec!["--data-dir", &data, "--node-name", name, "--listen", "127.0.0.1:0", "--image-dir", &images];
        args.extend(LEASE);
        args.extend(more);
        self.nodes.insert(name, Podium::join(&args)?);
        Ok(())
    }

    fn apply(&self, manifest: &str) -> Result<()> {
        let path = self.cluster.work_dir.join("manifest.yaml");
        std::fs::write(&path, manifest)?;
        podium(&self.cluster, &["apply", "-f", &path.to_string_lossy()]).map(drop)
    }

    /// Whether a node's condition `Ready` says so.
    fn is_ready(&self, node: &str, wanted: &str) -> Result<bool> {
        let node = json(&self.cluster, &["get", "node", node])?;
        let conditions = node["status"]["conditions"].as_array().context("a node has conditions")?;
        Ok(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == wanted))
    }

    /// The node of each pod of the Deployment that is ready and stays, and how many are on their way out.
    fn pods(&self) -> Result<(BTreeMap<String, String>, usize)> {
        let found = json(&self.cluster, &["get", "pods", "-l", "app=spread"])?;
        let items = found["items"].as_array().context("a list has items")?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let is_ready = |pod: &Value| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ready = items.iter().filter(stays).filter(|pod| is_ready(pod));
        let ready = ready.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])));
        Ok((ready.collect(), items.iter().filter(|pod| !stays(pod)).count()))
    }

    /// Whether six pods are ready, on these nodes.
    fn are_ready_on(&self, nodes: &[&str]) -> Result<bool> {
        let (pods, _) = self.pods()?;
        let on: BTreeSet<&str> = pods.values().map(String::as_str).collect();
        Ok(pods.len() == 6 && on.iter().copied().eq(nodes.iter().copied()))
    }

    /// Asks by the Ingress until every pod has answered.
    fn all_answer(&self) -> Result<()> {
        let mut missing: BTreeSet<String> = self.pods()?.0.into_keys().collect();
        until("all pods answer", || {
            let (status, body) = http::get(&self.cluster.podium.url)?;
            ensure!(status == 200, "{status}: {body}");
            let name = body.strip_prefix("Hi from ").and_then(|rest| rest.split(',').next()).context("a greeting")?;
            missing.remove(name);
            Ok(missing.is_empty())
        })
    }

    /// The name and the address of a pod on a node.
    fn pod_on(&self, node: &str) -> Result<(String, String)> {
        let (pods, _) = self.pods()?;
        let (name, _) = pods.iter().find(|(_, on)| *on == node).with_context(|| format!("no pod on {node}"))?;
        let pod = json(&self.cluster, &["get", "pod", name])?;
        let ip = pod["status"]["podIP"].as_str().context("a pod has an address")?;
        Ok((name.clone(), ip.to_owned()))
    }

    /// `kubectl` with input: its exit code and what it printed.
    fn kubectl(&self, args: &[&str], input: &str) -> Result<(i32, String)> {
        let mut child = Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("stdin is piped")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// Whether the client's pod gets an answer of an address.
    fn client_reaches(&self, ip: &str) -> Result<bool> {
        let url = format!("http://{ip}:8080/");
        let (code, said) = self.kubectl(&["exec", "client", "--", "wget", "-q", "-T", "5", "-O", "-", &url], "")?;
        Ok(code == 0 && said.contains("Hi from "))
    }
}

fn three_nodes_are_one_cluster() -> Result<()> {
    let mut three = Three::start()?;
    for node in ["node-1", "node-2", "node-3"] {
        until("a node is ready", || three.is_ready(node, "True"))?;
    }
    who_has_no_leave_does_not_join(&three)?;
    three.apply(MANIFEST)?;
    until("two pods on each node", || three.are_ready_on(&["node-1", "node-2", "node-3"]))?;
    three.all_answer()?;
    if Kubectl::find() == Kubectl::Usable {
        subresources_reach_other_nodes(&three)?;
        policies_hold_between_nodes(&three)?;
    } else {
        eprintln!("*** kubectl is not usable: streams and policies between nodes are NOT RUN ***");
    }

    let lost = three.nodes.remove("node-3").context("it has joined")?;
    lost.kill()?;
    until("the lost node is noticed", || three.is_ready("node-3", "Unknown"))?;
    until("its pods are replaced elsewhere", || three.are_ready_on(&["node-1", "node-2"]))?;
    three.all_answer()?;
    // It needs no token any more.
    three.join("node-3", &["--node-port-address", "127.0.0.3"])?;
    until("it comes back", || three.is_ready("node-3", "True"))?;
    until("what it ran before has ended", || Ok(three.pods()?.1 == 0))?;
    for (name, node) in std::mem::take(&mut three.nodes) {
        let ended = node.stop()?;
        ensure!(ended.status.success(), "{name} ended with {}: {}", ended.status, ended.stderr);
    }
    Ok(())
}

fn who_has_no_leave_does_not_join(three: &Three) -> Result<()> {
    let command = podium(&three.cluster, &["token", "create", "--print-join-command"])?;
    let words: Vec<&str> = command.split_whitespace().collect();
    let value = |flag: &str| words.iter().position(|w| *w == flag).and_then(|i| words.get(i + 1)).copied();
    let server = value("--server").context("a server")?;
    let (token, hash) = (value("--token").context("a token")?, value("--ca-cert-hash").context("a hash")?);
    let data = three.cluster.folder().join("nobody");
    let data = data.to_string_lossy();
    let other = format!("sha256:{}", "0".repeat(64));
    for (token, hash, why) in
        [("abcdef.0123456789abcdef", hash, "Unauthorized"), (token, other.as_str(), "is not the one that was named")]
    {
        let args = ["node", "join", "--server", server, "--token", token, "--ca-cert-hash", hash, "--data-dir", &data];
        let ended = cluster::run(&args)?;
        ensure!(!ended.status.success() && ended.stderr.contains(why), "{why}: {}", ended.stderr);
    }
    let listed = podium(&three.cluster, &["token", "list"])?;
    let (id, secret) = token.split_once('.').context("a token has a dot")?;
    ensure!(listed.contains(id) && !listed.contains(secret), "{listed}");
    podium(&three.cluster, &["token", "delete", id])?;
    Ok(())
}

fn subresources_reach_other_nodes(three: &Three) -> Result<()> {
    for node in ["node-1", "node-3"] {
        let (pod, _) = three.pod_on(node)?;
        let raw = |path: &str| three.kubectl(&["get", "--raw", path], "");
        let (code, said) = raw(&format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/"))?;
        ensure!(code == 0 && said.contains(&format!("Hi from {pod}")), "{code} {said}");
        let (code, said) = three.kubectl(&["logs", &pod], "")?;
        ensure!(code == 0 && said.contains("request 1"), "{code} {said}");
        let (code, said) = three.kubectl(&["exec", "-i", &pod, "--", "cat"], "through the tunnel")?;
        ensure!(code == 0 && said.contains("through the tunnel"), "{code} {said}");
        let (code, said) = three.kubectl(&["exec", &pod, "--", "sh", "-c", "exit 3"], "")?;
        ensure!(code == 3, "{code} {said}");
        let (code, said) = raw(&format!("/api/v1/nodes/{node}/proxy/stats/summary"))?;
        ensure!(code == 0 && said.contains(&pod), "{code} {said}");
    }
    until("all nodes say what they use", || {
        let (code, said) = three.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"], "")?;
        Ok(code == 0 && ["node-1", "node-2", "node-3"].iter().all(|node| said.contains(node)))
    })
}

fn policies_hold_between_nodes(three: &Three) -> Result<()> {
    let (_, ip) = three.pod_on("node-3")?;
    until("a pod of another node answers", || three.client_reaches(&ip))?;
    three.apply(ONLY_FRIENDS)?;
    until("strangers are refused", || Ok(!three.client_reaches(&ip)?))?;
    let (code, said) = three.kubectl(&["label", "pod", "client", "app=friend"], "")?;
    ensure!(code == 0, "{said}");
    until("friends are let in", || three.client_reaches(&ip))?;
    let (code, said) = three.kubectl(&["delete", "networkpolicy", "only-friends"], "")?;
    ensure!(code == 0, "{said}");
    Ok(())
}
