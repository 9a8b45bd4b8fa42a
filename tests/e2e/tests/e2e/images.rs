//! Images: pushed, run, kept over a restart, pushed by another client.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use podium_e2e::{
    Podium,
    cluster::{Ended, repository, run},
    http,
};
use serde_json::Value;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("an image is pushed, run, and kept when its file is gone and the cluster starts again", pushed)]
}

fn pushed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let kubeconfig = data.join("kubeconfig").display().to_string();
    let data = data.display().to_string();
    let wasm = folder.path().join("hello.wasm");
    fs::copy(repository().join("examples/hello/hello.wasm"), &wasm)?;
    let file = wasm.display().to_string();
    let args =
        ["--data-dir", data.as_str(), "--api", "127.0.0.1:0", "--http", "127.0.0.1:0", "--registry", "127.0.0.1:0"];
    let up = Podium::start(&args)?;

    let podium = |args: &[&str]| run(&[&["--kubeconfig", kubeconfig.as_str()], args].concat());
    let push = podium(&["push", &file, "demo/hello:v1", "-o", "json"])?;
    ensure!(push.status.success(), "push: {}", push.stderr);
    let made: Value = serde_json::from_str(&push.stdout)?;
    let again = podium(&["push", &file, "demo/hello:v1", "-o", "json"])?;
    ensure!(again.stdout == push.stdout, "the same file makes another image: {}", again.stdout);
    for (args, code, words) in [
        (vec!["push", "/etc/passwd", "demo/hello:v1"], 1, "no WebAssembly"),
        (vec!["push", &file, "ghcr.io/demo/hello"], 2, "names a registry"),
        (vec!["push", &file, "demo..hello"], 1, "no repository can have this name"),
    ] {
        let ended = podium(&args)?;
        let said = ended.status.code() == Some(code) && ended.stderr.contains(words);
        ensure!(said, "{args:?}: {:?} {}", ended.status, ended.stderr);
    }
    let host = up.stdout.split_whitespace().find(|word| word.starts_with("localhost:")).context("no registry")?;
    let (status, listed) = http::get(&format!("http://{host}/v2/demo/hello/tags/list"))?;
    ensure!(status == 200 && listed.contains("\"v1\""), "{status}: {listed}");

    let pod = folder.path().join("pod.yaml");
    fs::write(&pod, POD)?;
    let applied = podium(&["apply", "-f", &pod.display().to_string()])?;
    ensure!(applied.status.success(), "apply: {}", applied.stderr);
    let running = until_ready(&podium, "")?;
    let shown = running["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default();
    let digest = made["digest"].as_str().unwrap_or_default();
    ensure!(shown == format!("demo/hello@{digest}"), "imageID is {shown}, not of {digest}");

    fs::remove_file(&wasm)?;
    up.stop()?;
    // Neither the file nor what the registry has is needed any more.
    fs::remove_dir_all(folder.path().join("data/registry/blobs"))?;
    let _up = Podium::start(&args)?;
    let before = running["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    until_ready(&podium, before).map(drop)
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  containers:
  - {name: hello, image: demo/hello:v1, ports: [{containerPort: 8080}], readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}}
";

/// Asks until the pod answers, in a container other than `before`.
fn until_ready(podium: &dyn Fn(&[&str]) -> Result<Ended>, before: &str) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let got = podium(&["get", "pod", "hello", "-o", "json"])?;
        let pod: Value = serde_json::from_str(&got.stdout).unwrap_or_default();
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        let container = &pod["status"]["containerStatuses"][0];
        if ready && container["state"]["running"].is_object() && container["containerID"] != before {
            return Ok(pod);
        }
    }
    let said = podium(&["describe", "pod", "hello"])?;
    bail!("the pod is not ready: {}", said.stdout)
}
