//! Clients as their users use them: the official Python client, kube-rs's runtime, and what calls Services: gRPC, HTTP/2 and
//! WebSocket libraries.

mod kube_rs;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use podium_e2e::{Cluster, cluster::repository};

use crate::guests as flags;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        python("python_client", "kubernetes", python_client),
        python("calls by gRPC, HTTP/2 and WebSocket libraries", "grpc_health, httpx, websocket", network_client),
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
    let cluster = flags::Cluster::start(&["--test-images", "-f", &files[0], "-f", &files[1], "-f", &files[2]])?;
    cluster.until_ready("health")?;
    let port = cluster.get("service", "health")?["spec"]["ports"][0]["nodePort"].to_string();
    let ingress = cluster.up.url.trim_start_matches("http://").trim_end_matches('/');
    run(Command::new(python).arg(script("network_client.py")).args([ingress, &port]))?;
    cluster.up.stop()?;
    Ok(())
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
