//! Three processes are one cluster: pods on all of them answer for one Service, the API server's subresources reach all of
//! them, and one of them dies and comes back.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use podium_e2e::{cluster, kubectl::Kubectl};
use serde_json::Value;

use super::{MANIFEST, Nodes, answers};
use crate::life::{apply, json, podium, until};

/// A client on node-2, whose image comes out of the cluster's registry.
const CLIENT: &str = "
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

/// A pod of the example on each node.
const EVERYWHERE: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: file://hello.wasm}]
";

impl Nodes {
    /// The name and the address of a pod on a node.
    fn pod_on(&self, node: &str) -> Result<(String, String)> {
        let (pods, _) = self.pods()?;
        let (name, _) = pods.iter().find(|(_, on)| *on == node).with_context(|| format!("no pod on {node}"))?;
        let pod = json(&self.cluster, &["get", "pod", name])?;
        let ip = pod["status"]["podIP"].as_str().context("a pod has an address")?;
        Ok((name.clone(), ip.to_owned()))
    }

    /// Whether the client's pod gets an answer of an address.
    fn client_reaches(&self, ip: &str) -> Result<bool> {
        let url = format!("http://{ip}:8080/");
        let (code, said) = self.kubectl(&["exec", "client", "--", "wget", "-q", "-T", "5", "-O", "-", &url], "")?;
        Ok(code == 0 && said.contains("Hi from "))
    }
}

pub(super) fn three_nodes_are_one_cluster() -> Result<()> {
    let mut three = Nodes::three()?;
    who_has_no_leave_does_not_join(&three)?;
    apply(&three.cluster, &format!("{MANIFEST}{CLIENT}"))?;
    until("two pods on each node", || three.are_ready_on(&["node-1", "node-2", "node-3"]))?;
    three.all_answer()?;
    // Each node serves node ports at its own address, and Ingresses.
    for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let url = three.node_port(address)?;
        until("a node port answers", || answers(&url))?;
    }
    for node in three.nodes.values() {
        until("an Ingress answers", || answers(&node.url))?;
    }
    if Kubectl::find() == Kubectl::Usable {
        subresources_reach_other_nodes(&three)?;
        policies_hold_between_nodes(&three)?;
        a_daemon_sets_rollback_leaves_those_that_were_not_updated(&three)?;
    } else {
        eprintln!("*** kubectl is not usable: streams, policies and rollbacks on several nodes are NOT RUN ***");
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

fn who_has_no_leave_does_not_join(three: &Nodes) -> Result<()> {
    let words = three.leave()?;
    let value = |flag: &str| words.iter().position(|w| *w == flag).and_then(|i| words.get(i + 1)).map(String::as_str);
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

fn subresources_reach_other_nodes(three: &Nodes) -> Result<()> {
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

fn policies_hold_between_nodes(three: &Nodes) -> Result<()> {
    let (_, ip) = three.pod_on("node-3")?;
    until("a pod of another node answers", || three.client_reaches(&ip))?;
    // Who has asked is known there: the cluster says the same of it as its node does.
    let (code, said) = three.kubectl(&["get", "--raw", "/api/v1/nodes/node-3/proxy/metrics"], "")?;
    let known = "podium_tunnel_received_total{namespace=\"default\",service_account=\"default\"}";
    ensure!(code == 0 && said.contains(known), "{code} {said}");
    apply(&three.cluster, ONLY_FRIENDS)?;
    until("strangers are refused", || Ok(!three.client_reaches(&ip)?))?;
    let (code, said) = three.kubectl(&["label", "pod", "client", "app=friend"], "")?;
    ensure!(code == 0, "{said}");
    until("friends are let in", || three.client_reaches(&ip))?;
    let (code, said) = three.kubectl(&["delete", "networkpolicy", "only-friends"], "")?;
    ensure!(code == 0, "{said}");
    Ok(())
}

/// As Kubernetes' conformance tests have it (`test/e2e/apps/daemon_set.go`, "rollback without unnecessary restarts").
fn a_daemon_sets_rollback_leaves_those_that_were_not_updated(three: &Nodes) -> Result<()> {
    let cluster = &three.cluster;
    // Names by image, of those that stay.
    let pods = || {
        let found = json(cluster, &["get", "pods", "-l", "app=everywhere"])?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let mut pods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in found["items"].as_array().context("a list has items")?.iter().filter(stays) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let image = text(&pod["spec"]["containers"][0]["image"]);
            pods.entry(image).or_default().insert(text(&pod["metadata"]["name"]));
        }
        Ok::<_, anyhow::Error>(pods)
    };
    let kubectl = |args: &[&str]| {
        let (code, said) = three.kubectl(args, "")?;
        ensure!(code == 0, "kubectl {args:?}: {code} {said}");
        Ok::<_, anyhow::Error>(())
    };
    let rolled_out = || kubectl(&["rollout", "status", "daemonset/everywhere", "--timeout=60s"]);
    apply(cluster, EVERYWHERE)?;
    rolled_out()?;
    kubectl(&["set", "image", "daemonset/everywhere", "app=file://absent.wasm"])?;
    until("one of them is updated", || Ok(pods()?.contains_key("file://absent.wasm")))?;
    let before = pods()?.remove("file://hello.wasm").unwrap_or_default();
    ensure!(before.len() == 2, "one at a time is updated: {before:?}");
    kubectl(&["rollout", "undo", "daemonset/everywhere"])?;
    rolled_out()?;
    let after = pods()?;
    let [(image, names)] = after.iter().collect::<Vec<_>>()[..] else { bail!("not all were rolled back: {after:?}") };
    ensure!(image == "file://hello.wasm" && names.len() == 3 && names.is_superset(&before), "{before:?} {after:?}");
    kubectl(&["delete", "daemonset", "everywhere"])
}
