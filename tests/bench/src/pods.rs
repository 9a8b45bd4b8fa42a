//! Pods: from apply to Ready, one at a time and a thousand at once.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use podium_e2e::Cluster;
use serde_json::json;

use crate::{
    Args,
    api::{connect, runtime},
    figure::{Figure, Times},
    process::resident_mib,
};

/// Pods started one after the other.
const ONE_BY_ONE: usize = 200;
/// Replicas of the large Deployments, and how soon they should be Ready: seconds. A node takes 10,000 pods.
const DEPLOYMENTS: [(i32, Option<f64>); 2] = [(1000, Some(2.0)), (9_990, None)];

fn pod_spec() -> serde_json::Value {
    json!({"containers": [{
        "name": "app", "image": "file://hello.wasm", "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"memory": "1Mi"}, "limits": {"memory": "16Mi"}},
    }]})
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

pub(crate) fn ready(_args: &Args) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let times = runtime()?.block_on(async {
        let api: Api<Pod> = Api::default_namespaced(connect(&cluster).await?);
        // The first one compiles the image.
        one_pod(&api, "warm-up").await?;
        let mut times = Vec::new();
        for i in 0..ONE_BY_ONE {
            times.push(one_pod(&api, &format!("pod-{i}")).await?);
        }
        Ok::<_, anyhow::Error>(Times::new(times))
    })?;
    cluster.podium.stop()?;
    Ok(vec![
        Figure::new("create to Ready, image cached, p50", times.percentile_ms(50.0), "ms").at_most(10.0),
        Figure::new("create to Ready, image cached, p99", times.percentile_ms(99.0), "ms").at_most(50.0),
    ])
}

/// From sending a pod until a watcher sees it Ready.
async fn one_pod(api: &Api<Pod>, name: &str) -> Result<Duration> {
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(60);
    let mut events = pin!(api.watch(&params, &version).await?);
    let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": pod_spec()}))?;
    let since = Instant::now();
    api.create(&PostParams::default(), &pod).await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
            && is_ready(&pod)
        {
            return Ok(since.elapsed());
        }
    }
    bail!("pod {name} was not ready in time")
}

pub(crate) fn deployment(_args: &Args) -> Result<Vec<Figure>> {
    let each = DEPLOYMENTS.iter().map(|(replicas, budget)| deployment_of(*replicas, *budget));
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

fn deployment_of(replicas: i32, budget: Option<f64>) -> Result<Vec<Figure>> {
    let cluster = Cluster::start(&[])?;
    let pid = cluster.podium.pid();
    let figures = runtime()?.block_on(async {
        let client = connect(&cluster).await?;
        one_pod(&Api::default_namespaced(client.clone()), "warm-up").await?;
        let api: Api<Deployment> = Api::default_namespaced(client);
        let before = resident_mib(pid)?;
        let up = to_ready(&api, replicas).await?;
        let memory = (resident_mib(pid)? - before) * 1024.0 / f64::from(replicas);
        let down = to_gone(&api).await?;
        let ready = Figure::new(format!("Deployment of {replicas}, apply to all Ready"), up.as_secs_f64(), "s");
        Ok::<_, anyhow::Error>(vec![
            match budget {
                Some(budget) => ready.at_most(budget),
                None => ready,
            },
            Figure::new("… resident memory for each idle pod, control plane included", memory, "KiB"),
            Figure::new("… delete to all gone", down.as_secs_f64(), "s"),
        ])
    })?;
    cluster.podium.stop()?;
    Ok(figures)
}

async fn to_ready(api: &Api<Deployment>, replicas: i32) -> Result<Duration> {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {"metadata": {"labels": {"app": "many"}}, "spec": pod_spec()},
        },
    });
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let mut events = pin!(api.watch(&WatchParams::default().timeout(120), &version).await?);
    let since = Instant::now();
    api.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(d) | WatchEvent::Modified(d) = event
            && d.status.and_then(|s| s.ready_replicas) == Some(replicas)
        {
            return Ok(since.elapsed());
        }
    }
    bail!("the Deployment was not ready in time")
}

/// Scales to nothing, so that the pods' end can be watched in the status.
async fn to_gone(api: &Api<Deployment>) -> Result<Duration> {
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let mut events = pin!(api.watch(&WatchParams::default().timeout(120), &version).await?);
    let since = Instant::now();
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch("many", &PatchParams::default(), &none).await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Modified(d) = event
            && d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0) == 0
            && d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation
        {
            api.delete("many", &DeleteParams::default()).await.context("delete the Deployment")?;
            return Ok(since.elapsed());
        }
    }
    bail!("the pods did not go in time")
}
