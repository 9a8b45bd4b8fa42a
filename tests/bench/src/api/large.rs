//! Many pods: whole lists, the time until the first byte, and what they take in memory. Gated, so that nothing runs them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use podium_e2e::Cluster;

use super::{connect, runtime};
use crate::{Args, figure::Figure, process::resident_mib};

/// How often each list is read.
const ROUNDS: u32 = 5;

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let pid = cluster.podium.pid();
    let figures = runtime()?.block_on(async {
        let client = connect(&cluster).await?;
        let empty = resident_mib(pid)?;
        let mut figures = Vec::new();
        fill(&client, 0..5_000).await?;
        figures.extend(list(&client, 5_000).await?);
        fill(&client, 5_000..10_000).await?;
        let mib = resident_mib(pid)?;
        figures.push(Figure::new("resident with 10,000 pods", mib, "MiB").at_most(200.0));
        figures.push(Figure::new("… of that for each pod", (mib - empty) * 1024.0 / 10_000.0, "KiB"));
        fill(&client, 10_000..50_000).await?;
        figures.extend(list(&client, 50_000).await?);
        Ok::<_, anyhow::Error>(figures)
    })?;
    cluster.podium.stop()?;
    Ok(figures)
}

fn pod(i: usize) -> Result<Pod> {
    Ok(serde_json::from_value(serde_json::json!({
        "metadata": {"name": format!("p{i}"), "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5"}},
        "spec": {
            "schedulingGates": [{"name": "podium.dev/bench"}],
            "containers": [{
                "name": "main",
                "image": "registry.example/web:1.0",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}],
                "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
            }],
        },
    }))?)
}

async fn fill(client: &Client, numbers: std::ops::Range<usize>) -> Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let create = |i| {
        let api = api.clone();
        async move { anyhow::Ok(api.create(&PostParams::default(), &pod(i)?).await.map(drop)?) }
    };
    futures::stream::iter(numbers.map(create)).buffer_unordered(64).try_collect().await
}

/// Megabytes per second of whole lists, and the time until their first byte.
async fn list(client: &Client, pods: usize) -> Result<[Figure; 2]> {
    let (mut bytes, mut first) = (0usize, Duration::ZERO);
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let request = http::Request::get("/api/v1/pods").body(kube::client::Body::empty())?;
        let begun = Instant::now();
        let mut body = client.send(request).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let data: Bytes = frame.context("the list breaks off")?.into_data().unwrap_or_default();
            if length == 0 {
                first += begun.elapsed();
            }
            length += data.len();
        }
        ensure!(length > pods * 500, "a list of {pods} pods has only {length} bytes");
        bytes += length;
    }
    let rate = bytes as f64 / 1e6 / since.elapsed().as_secs_f64();
    let first = first.as_secs_f64() * 1e3 / f64::from(ROUNDS);
    Ok([
        Figure::new(format!("LIST of {pods} pods"), rate, "MB/s").at_least(490.0),
        Figure::new(format!("… its first byte, of {:.1} MB", bytes as f64 / 1e6 / f64::from(ROUNDS)), first, "ms"),
    ])
}
