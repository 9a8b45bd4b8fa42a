//! The API server over HTTPS: durable writes, reads, lists, and the time from a write to its watchers.

pub(crate) mod custom;
pub(crate) mod large;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{TryStreamExt, future::try_join_all};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use podium_e2e::Cluster;
use tokio::sync::mpsc;

use crate::{
    Args,
    figure::{Figure, Times},
};

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start a runtime")
}

/// A client of its own: own connections.
pub(crate) async fn connect(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let seconds = Duration::from_secs(u64::from(args.seconds));
    let figures = runtime()?.block_on(async {
        let mut figures = Vec::new();
        for clients in [1, 16, 64] {
            let (rate, times) = writes(&cluster, clients, seconds).await?;
            let figure = Figure::new(format!("durable ConfigMap creates, {clients} clients"), rate, "1/s");
            figures.push(if clients == 16 { figure.at_least(7_000.0) } else { figure });
            figures.push(Figure::new(format!("… p99 with {clients} clients"), times.percentile_ms(99.0), "ms"));
        }
        let (rate, times) = patches(&cluster, 16, seconds).await?;
        figures.push(Figure::new("merge patches, 16 clients", rate, "1/s").at_least(3_750.0));
        figures.push(Figure::new("… p99", times.percentile_ms(99.0), "ms"));
        let rate = gets(&cluster, 16, seconds).await?;
        figures.push(Figure::new("GETs, 16 clients", rate, "1/s").at_least(28_500.0));
        figures.push(Figure::new("LIST", list(&cluster).await?, "MB/s").at_least(490.0));
        for (watchers, budget) in [(100, Some(2.0)), (1000, None)] {
            let times = watch(&cluster, watchers).await?;
            let what = format!("write to watch, {watchers} watchers");
            figures.push(Figure::new(format!("{what}, p50"), times.percentile_ms(50.0), "ms"));
            let figure = Figure::new(format!("{what}, p99"), times.percentile_ms(99.0), "ms");
            figures.push(budget.map_or(figure.clone(), |most| figure.at_most(most)));
        }
        Ok::<_, anyhow::Error>(figures)
    })?;
    cluster.podium.stop()?;
    Ok(figures)
}

fn map(name: String) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name);
    map.data = Some([("key".to_owned(), "value".to_owned())].into());
    map
}

/// Creates for a while; the rate and the time of each.
async fn writes(cluster: &Cluster, clients: usize, time: Duration) -> Result<(f64, Times)> {
    let since = Instant::now();
    let client = |c: usize| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(connect(cluster).await?);
        let mut times = Vec::new();
        while since.elapsed() < time {
            let begun = Instant::now();
            api.create(&PostParams::default(), &map(format!("w{clients}-{c}-{}", times.len()))).await?;
            times.push(begun.elapsed());
        }
        Ok::<_, anyhow::Error>(times)
    };
    let times: Vec<Duration> = try_join_all((0..clients).map(client)).await?.concat();
    Ok((times.len() as f64 / since.elapsed().as_secs_f64(), Times::new(times)))
}

/// Merge patches for a while, each client of an object of its own; the rate and the time of each.
async fn patches(cluster: &Cluster, clients: usize, time: Duration) -> Result<(f64, Times)> {
    let since = Instant::now();
    let client = |c: usize| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(connect(cluster).await?);
        let name = format!("patched-{c}");
        api.create(&PostParams::default(), &map(name.clone())).await?;
        let mut times = Vec::new();
        while since.elapsed() < time {
            let begun = Instant::now();
            let patch = Patch::Merge(serde_json::json!({"data": {"key": times.len().to_string()}}));
            api.patch(&name, &PatchParams::default(), &patch).await?;
            times.push(begun.elapsed());
        }
        Ok::<_, anyhow::Error>(times)
    };
    let times: Vec<Duration> = try_join_all((0..clients).map(client)).await?.concat();
    Ok((times.len() as f64 / since.elapsed().as_secs_f64(), Times::new(times)))
}

async fn gets(cluster: &Cluster, clients: usize, time: Duration) -> Result<f64> {
    let since = Instant::now();
    let client = |_| async move {
        let client = connect(cluster).await?;
        let mut count = 0u64;
        while since.elapsed() < time {
            let request = http::Request::get("/api/v1/namespaces/default/configmaps/w1-0-0").body(Vec::new())?;
            client.request_text(request).await?;
            count += 1;
        }
        Ok::<_, anyhow::Error>(count)
    };
    let counts = try_join_all((0..clients).map(client)).await?;
    Ok(counts.iter().sum::<u64>() as f64 / since.elapsed().as_secs_f64())
}

/// Megabytes per second of whole lists.
async fn list(cluster: &Cluster) -> Result<f64> {
    let client = connect(cluster).await?;
    let (mut bytes, since) = (0, Instant::now());
    for _ in 0..10 {
        let request = http::Request::get("/api/v1/configmaps").body(Vec::new())?;
        bytes += client.request_text(request).await?.len();
    }
    Ok(bytes as f64 / 1e6 / since.elapsed().as_secs_f64())
}

/// The times from sending a write until each watcher has seen it.
async fn watch(cluster: &Cluster, watchers: usize) -> Result<Times> {
    const WRITES: usize = 200;
    let api: Api<ConfigMap> = Api::default_namespaced(connect(cluster).await?);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let (seen, mut sightings) = mpsc::unbounded_channel();
    let opened = Arc::new(tokio::sync::Barrier::new(watchers + 1));
    for _ in 0..watchers {
        let api: Api<ConfigMap> = Api::default_namespaced(connect(cluster).await?);
        let (seen, opened, version) = (seen.clone(), opened.clone(), version.clone());
        tokio::spawn(async move {
            let stream = api.watch(&WatchParams::default().timeout(60), &version).await;
            opened.wait().await;
            let Ok(stream) = stream else { return };
            let mut stream = pin!(stream);
            while let Ok(Some(event)) = stream.try_next().await {
                if let WatchEvent::Added(map) = event {
                    let _ = seen.send((map.metadata.name.unwrap_or_default(), Instant::now()));
                }
            }
        });
    }
    opened.wait().await;
    let mut times = Vec::with_capacity(WRITES * watchers);
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for i in 0..WRITES {
        pace.tick().await;
        let (name, begun) = (format!("seen-{i}"), Instant::now());
        api.create(&PostParams::default(), &map(name.clone())).await?;
        for _ in 0..watchers {
            let next = tokio::time::timeout(Duration::from_secs(5), sightings.recv()).await;
            let (what, when) = next.context("a watcher saw nothing")?.context("all watchers ended")?;
            if what == name {
                times.push(when - begun);
            }
        }
    }
    Ok(Times::new(times))
}
