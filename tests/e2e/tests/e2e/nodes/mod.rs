//! Clusters of several processes: the control plane with its node, and nodes that join it by a token.

mod cut;
mod load;
mod together;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use podium_e2e::{Cluster, Podium, http};
use serde_json::Value;

use crate::{
    life::{json, podium, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("three_nodes_are_one_cluster", together::three_nodes_are_one_cluster),
        trial("load_on_three_nodes_loses_nothing", load::load_on_three_nodes_loses_nothing),
        trial("a_node_is_cut_off_and_healed", cut::a_node_is_cut_off_and_healed),
    ]
}

/// Six pods of the example, as many on each node, that leave a node that is lost at once, behind a Service with a node port
/// and an Ingress.
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
  type: NodePort
  selector: {app: spread}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: spread}
spec: {defaultBackend: {service: {name: spread, port: {number: 80}}}}
";

/// Flags of a node whose death is noticed soon, though not as soon as a busy machine is slow.
const LEASE: [&str; 3] = ["--node-lease-duration", "4", "--test-images"];

/// The control plane, and the nodes that have joined it.
struct Nodes {
    cluster: Cluster,
    nodes: BTreeMap<&'static str, Podium>,
}

impl Nodes {
    /// A control plane with its node.
    fn one(more: &[&str]) -> Result<Self> {
        let mut args = vec!["--node-monitor-grace-period", "12", "--node-listen", "127.0.0.1:0"];
        args.extend(LEASE);
        args.extend(more);
        Ok(Self { cluster: Cluster::start_with(&[], &args)?, nodes: BTreeMap::new() })
    }

    /// The same, and two nodes that have joined it; all are ready.
    fn three() -> Result<Self> {
        let mut three = Self::one(&[])?;
        let leave = three.leave()?;
        for (name, address) in [("node-2", "127.0.0.2"), ("node-3", "127.0.0.3")] {
            let mut join: Vec<&str> = leave.iter().map(String::as_str).collect();
            let http = format!("{address}:0");
            join.extend(["--node-port-address", address, "--http", &http]);
            three.join(name, &join)?;
        }
        for node in ["node-1", "node-2", "node-3"] {
            until("a node is ready", || three.is_ready(node, "True"))?;
        }
        Ok(three)
    }

    /// Flags by which a node joins.
    fn leave(&self) -> Result<Vec<String>> {
        let command = podium(&self.cluster, &["token", "create", "--print-join-command"])?;
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        ensure!(words.starts_with(&["podium", "node", "join"].map(str::to_owned)), "{command}");
        Ok(words[3..].to_vec())
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
        let all = until("all pods answer", || {
            let (status, body) = http::get(&self.cluster.podium.url)?;
            ensure!(status == 200, "{status}: {body}");
            let name = body.strip_prefix("Hi from ").and_then(|rest| rest.split(',').next()).context("a greeting")?;
            missing.remove(name);
            Ok(missing.is_empty())
        });
        all.with_context(|| {
            let endpoints = podium(&self.cluster, &["describe", "service", "spread"]);
            format!("these do not: {missing:?}\n{}", endpoints.unwrap_or_default())
        })
    }

    /// What there is to see of nodes and pods, for whoever reads why a test failed.
    fn told(&self) -> String {
        let lists: [&[&str]; 3] = [&["describe", "nodes"], &["get", "pods", "-o", "yaml"], &["get", "events", "-A"]];
        lists.map(|list| podium(&self.cluster, list).unwrap_or_else(|error| format!("{error:#}"))).join("\n")
    }

    /// Changes the Deployment, and waits until its pods are as it says.
    fn rolled_out(&self, change: &[&str]) -> Result<()> {
        podium(&self.cluster, change)?;
        podium(&self.cluster, &["rollout", "status", "deployment/spread", "--timeout", "60s"]).map(drop)
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

    /// The URL of the Service's node port at an address.
    fn node_port(&self, address: &str) -> Result<String> {
        let service = json(&self.cluster, &["get", "service", "spread"])?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("the Service has a node port")?;
        Ok(format!("http://{address}:{port}/"))
    }
}

/// Whether a pod answers there.
fn answers(url: &str) -> Result<bool> {
    Ok(http::get(url).is_ok_and(|(status, body)| status == 200 && body.starts_with("Hi from ")))
}
