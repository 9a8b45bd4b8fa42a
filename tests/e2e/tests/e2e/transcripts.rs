//! Every file of `transcripts/`, replayed in a cluster of its own. `UPDATE_EXPECT=1` writes what came out. A first line
//! `# podium up FLAGS` says how the cluster is started.

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use podium_e2e::{
    Cluster, Podium,
    cluster::{podium_binary, repository},
    kubectl::Kubectl,
    transcript,
};

use crate::life::podium;

pub(crate) fn trials() -> Vec<Trial> {
    let folder = repository().join("tests/e2e/transcripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    files.sort();
    let kubectl = Kubectl::find();
    if let Kubectl::NotUsable(why) = &kubectl {
        eprintln!("\n*** {why}: the transcripts of kubectl are NOT RUN ***\n");
    }
    files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).flat_map(|f| of_file(f, &kubectl)).collect()
}

/// What comes out the same where the pods run on a node that is elsewhere: streams, logs, proxies, core dumps.
const ELSEWHERE: [&str; 3] = ["kubectl-streams", "kubectl-debug", "kubectl-proxy"];

fn of_file(file: PathBuf, kubectl: &Kubectl) -> Vec<Trial> {
    let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let not_run = name.starts_with("kubectl") && *kubectl != Kubectl::Usable;
    let trial = |name: String, replay: fn(&Path) -> Result<()>| {
        let file = file.clone();
        let replay = move || replay(&file).map_err(|e| Failed::from(format!("{e:?}")));
        Trial::test(name, replay).with_ignored_flag(not_run)
    };
    let elsewhere = ELSEWHERE.contains(&name.as_str());
    let elsewhere = elsewhere.then(|| trial(format!("transcript_{name}_elsewhere"), replay_elsewhere));
    std::iter::once(trial(format!("transcript_{name}"), replay)).chain(elsewhere).collect()
}

fn replay(file: &Path) -> Result<()> {
    let script = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let flags = script.lines().next().and_then(|line| line.strip_prefix("# podium up "));
    let flags: Vec<&str> = flags.unwrap_or_default().split_whitespace().collect();
    let cluster = Cluster::start_with(&[], &flags)?;
    compare(file, &cluster)?;
    cluster.podium.stop()?;
    Ok(())
}

/// The same in a cluster whose control plane has no node: all pods run in another process.
fn replay_elsewhere(file: &Path) -> Result<()> {
    let cluster = Cluster::start_with(&[], &["--no-agent"])?;
    let command = podium(&cluster, &["token", "create", "--print-join-command"])?;
    let data = cluster.folder().join("node").to_string_lossy().into_owned();
    let (work, hello) = (cluster.work_dir.to_string_lossy(), cluster.work_dir.join("hello"));
    let hello = hello.to_string_lossy();
    let mut join: Vec<&str> = command.split_whitespace().skip(3).collect();
    join.extend(["--data-dir", &data, "--node-name", "node-1", "--listen", "127.0.0.1:0"]);
    join.extend(["--image-dir", &work, "--image-dir", &hello]);
    let node = Podium::join(&join)?;
    compare(file, &cluster)?;
    node.stop()?;
    cluster.podium.stop()?;
    Ok(())
}

fn compare(file: &Path, cluster: &Cluster) -> Result<()> {
    let script = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let out = transcript::replay(&script, cluster, &podium_binary()?)?;
    let expected = expect_test::expect_file![file];
    let compared = std::panic::catch_unwind(AssertUnwindSafe(|| expected.assert_eq(&out)));
    if compared.is_err() {
        bail!("{} came out differently (see above)", file.display());
    }
    Ok(())
}
