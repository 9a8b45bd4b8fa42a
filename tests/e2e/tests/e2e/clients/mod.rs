//! Client libraries as their users use them: the official Python client, and kube-rs's runtime.

mod kube_rs;

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use podium_e2e::{Cluster, cluster::repository};

pub(crate) fn trials() -> Vec<Trial> {
    let python = python();
    if python.is_none() {
        eprintln!("\n*** Python has no package `kubernetes`: the tests of the Python client are NOT RUN ***\n");
    }
    let absent = python.is_none();
    let run = move || {
        let python = python.context("no Python with the package kubernetes");
        python.and_then(|python| python_client(&python)).map_err(|e| Failed::from(format!("{e:?}")))
    };
    vec![Trial::test("python_client", run).with_ignored_flag(absent), crate::trial("kube_rs", kube_rs::run)]
}

/// A Python that has the client: that of CI's virtual environment, or the machine's.
fn python() -> Option<PathBuf> {
    let candidates = [repository().join("target/clients/bin/python"), PathBuf::from("python3")];
    candidates.into_iter().find(|python| {
        let probe = Command::new(python).args(["-c", "import kubernetes"]).output();
        probe.is_ok_and(|output| output.status.success())
    })
}

fn python_client(python: &std::path::Path) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let output = Command::new(python)
        .arg(repository().join("tests/e2e/clients/python_client.py"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .context("run the Python client")?;
    if !output.status.success() {
        bail!("the Python client is not content:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    cluster.podium.stop()?;
    Ok(())
}
