//! The whole process: start, restart with many objects, memory and CPU when idle.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use podium_e2e::{Cluster, Podium};

use crate::{
    Args,
    api::{connect, runtime},
    figure::Figure,
};

/// Objects in the store when a restart is timed.
const OBJECTS: usize = 10_000;
/// How long the idle process is watched.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let mut figures =
        vec![Figure::new("first start of an empty cluster", cluster.podium.start_time.as_secs_f64() * 1e3, "ms")];
    figures.extend(idle(cluster.podium.pid())?);
    runtime()?.block_on(fill(&cluster))?;
    let (_, cluster) = cluster.restart(Podium::stop)?;
    let restart = cluster.podium.start_time.as_secs_f64() * 1e3;
    figures.push(Figure::new(format!("restart with {OBJECTS} objects"), restart, "ms").at_most(1000.0));
    let mib = resident_mib(cluster.podium.pid())?;
    figures.push(Figure::new(format!("resident with {OBJECTS} ConfigMaps"), mib, "MiB").at_most(200.0));
    cluster.podium.stop()?;
    Ok(figures)
}

fn idle(pid: u32) -> Result<[Figure; 2]> {
    settle();
    let (cpu, since) = (cpu_seconds(pid)?, Instant::now());
    std::thread::park_timeout(IDLE);
    let percent = (cpu_seconds(pid)? - cpu) / since.elapsed().as_secs_f64() * 100.0;
    Ok([
        Figure::new("idle: resident", resident_mib(pid)?, "MiB").at_most(60.0),
        Figure::new("idle: CPU of one core", percent, "%").at_most(0.5),
    ])
}

/// Lets what a start leaves behind finish.
fn settle() {
    std::thread::park_timeout(Duration::from_secs(3));
}

async fn fill(cluster: &Cluster) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(connect(cluster).await?);
    let create = |i: usize| {
        let api = api.clone();
        async move {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(format!("m{i}"));
            map.data = Some([("key".to_owned(), "value".repeat(20))].into());
            api.create(&PostParams::default(), &map).await.map(drop)
        }
    };
    use futures::{StreamExt, TryStreamExt};
    futures::stream::iter((0..OBJECTS).map(create)).buffer_unordered(64).try_collect::<()>().await?;
    Ok(())
}

/// CPU time of a process so far, user and system.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the process's statistics")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    // USER_HZ has been 100 on Linux ever since.
    Ok(ticks / 100.0)
}

/// Resident memory of a process.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("the status names VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS has a value")?.parse()?;
    Ok(kib / 1024.0)
}
