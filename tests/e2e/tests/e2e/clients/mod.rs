//! Clients as their users use them: the official Python client, kube-rs's runtime, and what calls Services: gRPC, HTTP/2 and
//! WebSocket libraries.

mod kube_rs;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use podium_e2e::{
    Cluster,
    cluster::{loopback, repository},
};
use serde_json::json;

use crate::guests as flags;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        python("python_client", "kubernetes", python_client),
        python("calls by gRPC, HTTP/2 and WebSocket libraries", "grpc_health, h2, httpx, websocket", network_client),
        crate::trial("kube_rs", kube_rs::run),
    ]
}

/// A trial that needs packages of Python. Without them it counts as not run.
fn python(name: &'static str, packages: &str, test: fn(&Path) -> Result<()>) -> Trial {
    let python = python_with(packages);
    let absent = python.is_none();
    if absent {
        eprintln!("\n*** Python has not all of {packages}: the test `{name}` is NOT RUN ***\n");
    }
    let run = move || {
        let python = python.context("no Python with what it needs");
        python.and_then(|python| test(&python)).map_err(|e| Failed::from(format!("{e:?}")))
    };
    Trial::test(name, run).with_ignored_flag(absent)
}

/// A Python that has these packages: that of CI's virtual environment, or the machine's.
fn python_with(packages: &str) -> Option<PathBuf> {
    let candidates = [repository().join("target/clients/bin/python"), PathBuf::from("python3")];
    candidates.into_iter().find(|python| {
        let probe = Command::new(python).args(["-c", &format!("import {packages}")]).output();
        probe.is_ok_and(|output| output.status.success())
    })
}

fn python_client(python: &Path) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    run(Command::new(python).arg(script("python_client.py")).env("KUBECONFIG", cluster.kubeconfig()))?;
    cluster.podium.stop()?;
    Ok(())
}

fn network_client(python: &Path) -> Result<()> {
    let files = ["examples/hello", "examples/websocket", "tests/e2e/fixtures/grpc.yaml"];
    let files = files.map(|file| repository().join(file).to_string_lossy().into_owned());
    let https = format!("{}:8443", loopback());
    let more = ["--test-images", "--https", &https, "-f", &files[0], "-f", &files[1], "-f", &files[2]];
    let cluster = flags::Cluster::start(&more)?;
    let certificate = repository().join("tests/e2e/fixtures/shop.crt");
    secure_ingress(&cluster, &certificate)?;
    cluster.until_ready("health")?;
    let gateway = grpc_gateway(&cluster, &cluster.address)?;
    let node_port = cluster.node_port("health")?;
    let ingress = cluster.up.url.trim_start_matches("http://").trim_end_matches('/');
    run(Command::new(python)
        .arg(script("network_client.py"))
        .args([ingress, &node_port, &gateway, &https])
        .arg(certificate))?;
    cluster.up.stop()?;
    Ok(())
}

/// An Ingress for `shop.test` that shows a certificate.
fn secure_ingress(cluster: &flags::Cluster, certificate: &Path) -> Result<()> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let data = json!({ "tls.crt": read(certificate)?, "tls.key": read(&certificate.with_extension("key"))? });
    let meta = json!({ "name": "shop" });
    let (v1, of) = ("v1", "kubernetes.io/tls");
    cluster.apply(
        &json!({ "apiVersion": v1, "kind": "Secret", "metadata": meta, "type": of, "stringData": data }).to_string(),
    )?;
    let backend = json!({ "service": { "name": "hello", "port": { "number": 80 } } });
    let rule = json!({ "host": "shop.test", "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } });
    let spec = json!({ "tls": [{ "hosts": ["shop.test"], "secretName": "shop" }], "rules": [rule] });
    let ingress = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec });
    cluster.apply(&ingress.to_string())
}

/// A Gateway for calls of gRPC; host and port, once it leads somewhere.
fn grpc_gateway(cluster: &flags::Cluster, address: &str) -> Result<String> {
    let manifest = std::fs::read_to_string(repository().join("tests/e2e/fixtures/grpc-gateway.yaml"))?;
    cluster.apply(&manifest.replace("ADDRESS", address))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let status = cluster.get("gateway", "grpc")?["status"].clone();
        if status["listeners"][0]["attachedRoutes"] == 1 && status["addresses"][0]["value"] == address {
            return Ok(format!("{address}:5000"));
        }
    }
    bail!("the Gateway does not listen: {}", cluster.get("gateway", "grpc")?)
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/e2e/clients").join(name)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("run a client")?;
    if !output.status.success() {
        bail!("{command:?} is not content:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
