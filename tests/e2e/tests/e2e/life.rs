//! A cluster's life: start, serve, heal, roll, stop, crash, come back.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use podium_e2e::{
    Cluster, Podium,
    cluster::{self, podium_binary},
    http::{self, Load},
};

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("quick_start_serves_and_comes_back", quick_start_serves_and_comes_back),
        trial("a_crash_loses_nothing", a_crash_loses_nothing),
        trial("a_second_up_says_who_holds_the_folder", a_second_up_says_who_holds_the_folder),
        trial("deleted_pods_are_replaced", deleted_pods_are_replaced),
        trial("rollouts_under_load_drop_no_request", rollouts_under_load_drop_no_request),
    ]
}

/// `podium` against a cluster; its standard output.
pub(crate) fn podium(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let output = Command::new(podium_binary()?)
        .args(args)
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .context("start podium")?;
    ensure!(output.status.success(), "podium {args:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Applies the text of a manifest.
pub(crate) fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    let path = cluster.work_dir.join("manifest.yaml");
    std::fs::write(&path, manifest)?;
    podium(cluster, &["apply", "-f", &path.to_string_lossy()]).map(drop)
}

pub(crate) fn json(cluster: &Cluster, args: &[&str]) -> Result<serde_json::Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json"]);
    Ok(serde_json::from_str(&podium(cluster, &all)?)?)
}

/// Asks until the answer is yes, at most for a minute.
pub(crate) fn until(what: &str, mut yes: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if yes()? {
            return Ok(());
        }
    }
    bail!("it did not happen within a minute: {what}")
}

fn ready_pods(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = json(cluster, &["get", "pods", "-l", "app=hello"])?;
    let is_ready = |pod: &&serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        ready && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let items = pods["items"].as_array().context("a list has items")?;
    Ok(items.iter().filter(is_ready).filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

fn quick_start_serves_and_comes_back() -> Result<()> {
    let cluster = Cluster::start(&["examples/hello"])?;
    let (status, body) = http::get(&cluster.podium.url)?;
    ensure!(status == 200 && body.starts_with("Hello from hello-"), "{status}: {body}");
    ensure!(body.contains(", request "), "{body}");
    let uid =
        |c: &Cluster| Ok::<_, anyhow::Error>(json(c, &["get", "deployment", "hello"])?["metadata"]["uid"].clone());
    let before = uid(&cluster)?;
    let (ended, cluster) = cluster.restart(Podium::stop)?;
    ensure!(ended.status.code() == Some(0), "Ctrl-C ended with {}: {}", ended.status, ended.stderr);
    ensure!(uid(&cluster)? == before, "the Deployment is another one");
    until("the pods serve again", || Ok(http::get(&cluster.podium.url)?.0 == 200))
}

fn a_crash_loses_nothing() -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let map =
        |i: i32| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{i}}}\ndata: {{i: \"{i}\"}}\n---\n");
    apply(&cluster, &(0..50).map(map).collect::<String>())?;
    let (_, cluster) = cluster.restart(Podium::kill)?;
    let maps = json(&cluster, &["get", "configmaps"])?;
    let items = maps["items"].as_array().context("a list has items")?;
    let found = |i: i32| {
        let (name, value) = (format!("m{i}"), i.to_string());
        items.iter().any(|m| m["metadata"]["name"] == *name && m["data"]["i"] == *value)
    };
    ensure!((0..50).all(found), "some of the 50 are gone");
    Ok(())
}

fn a_second_up_says_who_holds_the_folder() -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let data = cluster.data_dir.to_string_lossy();
    let second = cluster::run(&["up", "--data-dir", &data, "--api", "127.0.0.1:0", "--http", "127.0.0.1:0"])?;
    ensure!(!second.status.success(), "the second up started");
    let pid = cluster.podium.pid().to_string();
    ensure!(second.stderr.contains(&pid), "it does not name process {pid}: {}", second.stderr);
    ensure!(second.stderr.contains(&*data), "it does not name the folder: {}", second.stderr);
    Ok(())
}

fn deleted_pods_are_replaced() -> Result<()> {
    let cluster = Cluster::start(&["examples/hello"])?;
    let before = ready_pods(&cluster)?;
    ensure!(before.len() == 3, "{before:?}");
    podium(&cluster, &["delete", "pod", &before[0], "--wait=false"])?;
    until("a new pod takes its place", || {
        let now = ready_pods(&cluster)?;
        Ok(now.len() == 3 && !now.contains(&before[0]))
    })
}

fn rollouts_under_load_drop_no_request() -> Result<()> {
    let cluster = Cluster::start(&["examples/hello"])?;
    let load = Load::start(&cluster.podium.url, 4);
    for round in 0..3 {
        podium(&cluster, &["rollout", "restart", "deployment/hello"])?;
        podium(&cluster, &["rollout", "status", "deployment/hello", "--timeout", "60s"])?;
        load.go_on(50)?;
        podium(&cluster, &["scale", "deployment/hello", "--replicas", if round % 2 == 0 { "6" } else { "3" }])?;
        podium(&cluster, &["rollout", "status", "deployment/hello", "--timeout", "60s"])?;
    }
    let answered = load.stop()?;
    ensure!(answered > 300, "only {answered} requests were made");
    Ok(())
}
