//! The scheduler: how long a decision takes, and how many pods a second are created and bound on nodes that only exist
//! as objects, with and without what pods ask of each other.

use std::{
    collections::HashMap,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use podium_e2e::Podium;
use podium_scheduler::{
    Profile,
    synthetic::{self, Workload},
};
use tokio::time::timeout;

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
};

/// Nodes, and pods onto them.
const SIZES: [(usize, usize); 2] = [(1_000, 10_000), (5_000, 50_000)];
const WORKLOADS: [(&str, Workload); 4] = [
    ("plain", Workload::Plain),
    ("affinity", Workload::Affinity),
    ("anti-affinity", Workload::AntiAffinity),
    ("spread", Workload::Spread),
];
/// Creates under way at a time.
const CREATES_AT_ONCE: usize = 64;
/// How long all pods may take to be bound.
const BOUND_TIMEOUT_SECONDS: u32 = 290;
/// How long a cluster may take, its nodes included.
const ROUND_TIMEOUT: Duration = Duration::from_secs(400);

/// The decisions alone.
pub(crate) fn decisions(_args: &Args) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (nodes, pods) in SIZES {
        for (name, workload) in WORKLOADS {
            let mut snapshot = synthetic::cluster(nodes);
            let profile = Profile::default();
            let mut times = Vec::with_capacity(pods);
            let since = Instant::now();
            for number in 0..pods {
                let begun = Instant::now();
                let placed = synthetic::place(&mut snapshot, &profile, number, workload);
                times.push(begun.elapsed());
                ensure!(placed, "{name}: pod {number} found none of {nodes} nodes");
            }
            let rate = pods as f64 / since.elapsed().as_secs_f64();
            let what = format!("decisions, {pods} {name} pods onto {nodes} nodes");
            figures.push(Figure::new(what, rate, "1/s").at_least(8_000.0));
            figures.push(Figure::new("… p99 of one", Times::new(times).percentile_ms(99.0), "ms"));
        }
    }
    Ok(figures)
}

/// From creating pods until a watcher has seen them bound.
pub(crate) fn end_to_end(_args: &Args) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (nodes, pods) in SIZES {
        for (name, workload) in WORKLOADS {
            let folder = tempfile::tempdir().context("make a folder")?;
            let data = folder.path().to_string_lossy().into_owned();
            let address = "127.0.0.1:0";
            let podium = Podium::start(&["--data-dir", &data, "--api", address, "--http", address, "--no-agent"])?;
            let bound = async { timeout(ROUND_TIMEOUT, bind_all(folder.path(), nodes, pods, workload)).await };
            let (rate, times) = runtime()?.block_on(bound).with_context(|| format!("{name}: out of time"))??;
            podium.stop()?;
            let what = format!("created to bound, {pods} {name} pods onto {nodes} nodes");
            figures.push(Figure::new(what, rate, "1/s").at_least(5_000.0));
            figures.push(Figure::new("… p99 of one", times.percentile_ms(99.0), "ms"));
        }
    }
    Ok(figures)
}

pub(crate) async fn connect(data: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(data.join("kubeconfig"))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn bind_all(data: &Path, nodes: usize, pods: usize, workload: Workload) -> Result<(f64, Times)> {
    let client = connect(data).await?;
    let api: Api<Node> = Api::all(client.clone());
    let create = |number| {
        let api = api.clone();
        async move { anyhow::Ok(api.create(&PostParams::default(), &synthetic::node(number)).await.map(drop)?) }
    };
    each((0..nodes).map(create)).await?;
    let watching = tokio::spawn(watch(connect(data).await?, pods));
    let api: Api<Pod> = Api::default_namespaced(client);
    let since = Instant::now();
    let create = |number| {
        let api = api.clone();
        async move {
            let mut pod = synthetic::pod(number, workload);
            pod.metadata.uid = None;
            let begun = Instant::now();
            api.create(&PostParams::default(), &pod).await?;
            anyhow::Ok((format!("pod-{number}"), begun))
        }
    };
    let begun: HashMap<String, Instant> = each((0..pods).map(create)).await?.into_iter().collect();
    let bound = watching.await??;
    let last = bound.iter().map(|(_, at)| *at).max().context("no pod was bound")?;
    let times = bound.iter().filter_map(|(name, at)| Some(at.duration_since(*begun.get(name)?))).collect();
    Ok((pods as f64 / last.duration_since(since).as_secs_f64(), Times::new(times)))
}

pub(crate) async fn each<T>(requests: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    futures::stream::iter(requests).buffer_unordered(CREATES_AT_ONCE).try_collect().await
}

/// When each pod was seen to have a node.
async fn watch(client: Client, pods: usize) -> Result<Vec<(String, Instant)>> {
    let api: Api<Pod> = Api::default_namespaced(client);
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let mut events = pin!(api.watch(&WatchParams::default().timeout(BOUND_TIMEOUT_SECONDS), &version).await?);
    let mut bound: HashMap<String, Instant> = HashMap::with_capacity(pods);
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
            && pod.spec.is_some_and(|s| s.node_name.is_some())
        {
            bound.entry(pod.metadata.name.unwrap_or_default()).or_insert_with(Instant::now);
            if bound.len() == pods {
                return Ok(bound.into_iter().collect());
            }
        }
    }
    ensure!(bound.len() == pods, "only {} of {pods} pods were bound within {BOUND_TIMEOUT_SECONDS} s", bound.len());
    Ok(bound.into_iter().collect())
}
