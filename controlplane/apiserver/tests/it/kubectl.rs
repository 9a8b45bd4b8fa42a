//! kubectl, unmodified. A machine without kubectl 1.27 or newer says so and runs nothing here.

use std::process::{Command, Stdio};

use crate::harness::Cluster;

fn version() -> Option<u32> {
    let out = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

async fn run(cluster: &Cluster, args: &[&str], input: &str) -> (bool, String) {
    let mut command = tokio::process::Command::new("kubectl");
    command.args(args).env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.folder());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.unwrap();
    drop(stdin);
    let out = child.wait_with_output().await.unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'file:///x.wasm'}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: b}
";

/// A kind that nobody serves.
const NONSENSE: &str = "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_session() {
    if version().is_none_or(|minor| minor < 27) {
        eprintln!("NOT RUN: there is no kubectl 1.27 or newer");
        return;
    }
    let cluster = Cluster::start().await;
    for (args, input, good, wanted) in [
        ("apply -f -", MANIFEST, true, "deployment.apps/web created\nconfigmap/settings created\n"),
        ("apply -f -", MANIFEST, true, "deployment.apps/web unchanged\nconfigmap/settings unchanged\n"),
        ("get deploy", "", true, "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    0/2"),
        ("scale deploy web --replicas=3", "", true, "deployment.apps/web scaled\n"),
        ("set image deploy web web=file:///y.wasm", "", true, "deployment.apps/web image updated\n"),
        ("label cm settings x=y", "", true, "configmap/settings labeled\n"),
        ("annotate cm settings x=y", "", true, "configmap/settings annotated\n"),
        ("explain deploy.spec.replicas", "", true, "GROUP:      apps\nKIND:       Deployment\n"),
        (
            "explain deploy.spec.replicas --output=plaintext-openapiv2",
            "",
            true,
            "KIND:     Deployment\nVERSION:  apps/v1\n",
        ),
        ("explain pod --recursive", "", true, "KIND:       Pod\nVERSION:    v1\n"),
        ("get cm settings -o jsonpath={.data}", "", true, "{\"a\":\"b\"}"),
        ("get cm -A --chunk-size=1", "", true, "NAMESPACE"),
        ("describe deploy web", "", true, "Name:                   web\n"),
        ("get none", "", false, "error: the server doesn't have a resource type \"none\"\n"),
        ("get pod none", "", false, "Error from server (NotFound): pods \"none\" not found\n"),
        ("create ns t", "", true, "namespace/t created\n"),
        ("create ns t", "", false, "Error from server (AlreadyExists): namespaces \"t\" already exists\n"),
        ("delete cm settings", "", true, "configmap \"settings\" deleted"),
        ("create deploy two --image=x --port=80 --replicas=0", "", true, "deployment.apps/two created\n"),
        ("create ingress i --rule=web.test/*=web:80", "", true, "ingress.networking.k8s.io/i created\n"),
        (
            "get ingress i -o jsonpath={.spec.rules[0].http.paths[0].backend}",
            "",
            true,
            "{\"service\":{\"name\":\"web\"",
        ),
        ("create secret generic s --from-literal=a=b", "", true, "secret/s created\n"),
        ("get secret s -o jsonpath={.data}", "", true, "{\"a\":\"Yg==\"}"),
        ("apply -f -", NONSENSE, false, "error: resource mapping not found for name: \"x\""),
        ("version", "", true, "Client Version"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (ok, text) = run(&cluster, &args, input).await;
        assert!(ok == good && text.starts_with(wanted), "kubectl {args:?}\n{text}");
    }
    cluster.stop().await;
}
