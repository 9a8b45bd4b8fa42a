//! An admission webhook that is a Wasm component, in the process of the API server that asks it.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use podium_e2e::{Cluster, cluster::podium_binary};

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_wasm_pod_is_a_webhook", a_wasm_pod_is_a_webhook)]
}

const GUARDED: &str = "apiVersion: v1
kind: Namespace
metadata: {name: guarded, labels: {guarded: 'yes'}}
";

fn apply(cluster: &Cluster, name: &str, manifest: &str) -> Result<Output> {
    let path = cluster.work_dir.join(format!("{name}.yaml"));
    std::fs::write(&path, manifest)?;
    let mut command = std::process::Command::new(podium_binary()?);
    let command = command.args(["apply", "-f"]).arg(path).env("KUBECONFIG", cluster.kubeconfig());
    command.output().context("start podium")
}

fn map(name: &str, namespace: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n")
}

fn a_wasm_pod_is_a_webhook() -> Result<()> {
    // It returns when the pods are ready: from then on the webhook answers.
    let cluster = Cluster::start(&["examples/webhook"])?;
    ensure!(apply(&cluster, "guarded", GUARDED)?.status.success(), "the namespace is not made");
    for (name, namespace, labels, why) in [
        ("owned", "guarded", "{team: blue}", None),
        ("elsewhere", "default", "{}", None),
        (
            "nobodys",
            "guarded",
            "{}",
            Some("admission webhook \"teams.example.com\" denied the request: say whose it is: label it with team"),
        ),
    ] {
        let output = apply(&cluster, name, &map(name, namespace, labels))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == why.is_none(), "{name}: {said}");
        ensure!(why.is_none_or(|why| said.contains(why)), "{name}: {said}");
    }
    Ok(())
}
