//! Controllers on nodes that only exist as objects: large Deployments, a roll-out, a namespace that goes, and what a hundred
//! thousand pods take in memory. One task says what agents would: that bound pods run, and that those on their way out have
//! ended.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use podium_e2e::Podium;
use podium_scheduler::synthetic;
use serde_json::json;

use crate::{
    Args,
    api::runtime,
    figure::Figure,
    process::resident_mib,
    scheduler::{connect, each},
};

/// Each takes 1,000 pods.
const NODES: usize = 120;
/// How large the Deployments are, and how soon all of their pods should run: a tenth of what Kubernetes took, in seconds.
const DEPLOYMENTS: [(i32, Option<f64>); 2] = [(1_000, Some(0.7)), (10_000, None)];
/// Replicas of the Deployment that is rolled out anew.
const ROLLED: i32 = 1_000;
/// Objects of the namespace that is deleted.
const OBJECTS: usize = 10_000;
/// Deployments of 10,000 replicas that are there when memory is measured.
const LARGE: i32 = 10;
/// Writes of the agents under way at a time.
const AGENT_WRITES: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long anything may take: a watch does not last longer.
const TIMEOUT_SECONDS: u32 = 290;

/// Measures all of it in one cluster.
pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let data = folder.path().to_string_lossy().into_owned();
    let address = "127.0.0.1:0";
    let podium = Podium::start(&["--data-dir", &data, "--api", address, "--http", address, "--no-agent"])?;
    let pid = podium.pid();
    let figures = runtime()?.block_on(async {
        let client = connect(folder.path()).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let create = |number| {
            let nodes = nodes.clone();
            async move { anyhow::Ok(nodes.create(&PostParams::default(), &synthetic::node(number)).await.map(drop)?) }
        };
        each((0..NODES).map(create)).await?;
        let agents = [tokio::spawn(beat(client.clone())), tokio::spawn(run_pods(connect(folder.path()).await?))];
        let figures = all(&client, pid).await;
        agents.iter().for_each(tokio::task::JoinHandle::abort);
        figures
    })?;
    podium.stop()?;
    Ok(figures)
}

async fn all(client: &Client, pid: u32) -> Result<Vec<Figure>> {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut figures = Vec::new();
    for (replicas, budget) in DEPLOYMENTS {
        let name = format!("many-{replicas}");
        let up = deploy(&api, &name, replicas).await?;
        let what = format!("Deployment of {replicas} on {NODES} simulated nodes, apply to all Running");
        let figure = Figure::new(what, up.as_secs_f64(), "s");
        figures.push(match budget {
            Some(budget) => figure.at_most(budget),
            None => figure,
        });
        if replicas == ROLLED {
            let rolled = roll_out(&api, &name, replicas).await?;
            figures.push(Figure::new("… its rolling update", rolled.as_secs_f64(), "s"));
        }
        let gone = scale_down(&api, &name).await?;
        figures.push(Figure::new("… to 0 replicas, all gone", gone.as_secs_f64(), "s"));
    }
    let gone = delete_namespace(client).await?;
    figures.push(Figure::new(format!("namespace with {OBJECTS} objects, delete to gone"), gone.as_secs_f64(), "s"));
    let before = resident_mib(pid)?;
    for number in 0..LARGE {
        deploy(&api, &format!("large-{number}"), 10_000).await?;
    }
    let pods = f64::from(LARGE) * 10_000.0;
    let after = resident_mib(pid)?;
    figures.push(Figure::new(format!("resident with {pods} Running pods"), after, "MiB"));
    figures.push(Figure::new("… for each 1,000 of them", (after - before) * 1_000.0 / pods, "MiB"));
    Ok(figures)
}

fn deployment(name: &str, replicas: i32, image: &str) -> Result<Deployment> {
    let requests = json!({"cpu": "10m", "memory": "16Mi"});
    Ok(serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": image, "resources": {"requests": requests}}],
            }},
        },
    }))?)
}

async fn deploy(api: &Api<Deployment>, name: &str, replicas: i32) -> Result<Duration> {
    let create = async { anyhow::Ok(api.create(&PostParams::default(), &deployment(name, replicas, "one")?).await?) };
    let is_so = |d: &Deployment| d.status.as_ref().and_then(|s| s.available_replicas) == Some(replicas);
    Box::pin(until(api, name, create, is_so)).await
}

async fn roll_out(api: &Api<Deployment>, name: &str, replicas: i32) -> Result<Duration> {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "two"}]}}}});
    let (params, patch) = (PatchParams::default(), Patch::Strategic(image));
    until(api, name, async { Ok(api.patch(name, &params, &patch).await?) }, |d| {
        let status = d.status.clone().unwrap_or_default();
        let counts = [status.updated_replicas, status.replicas, status.available_replicas];
        status.observed_generation == d.metadata.generation && counts == [Some(replicas); 3]
    })
    .await
}

/// To nothing, so that the pods' end can be watched in the status.
async fn scale_down(api: &Api<Deployment>, name: &str) -> Result<Duration> {
    let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": {"replicas": 0}})));
    let none = |d: &Deployment| {
        let status = d.status.clone().unwrap_or_default();
        status.observed_generation == d.metadata.generation && status.replicas.unwrap_or(0) == 0
    };
    let took = until(api, name, async { Ok(api.patch(name, &params, &patch).await?) }, none).await?;
    api.delete(name, &DeleteParams::default()).await.context("delete the Deployment")?;
    Ok(took)
}

/// Does something to a Deployment and waits until it is so.
async fn until(
    api: &Api<Deployment>,
    name: &str,
    change: impl Future<Output = Result<Deployment>>,
    is_so: impl Fn(&Deployment) -> bool,
) -> Result<Duration> {
    let version = api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(TIMEOUT_SECONDS);
    let mut events = pin!(api.watch(&params, &version).await?);
    let since = Instant::now();
    change.await?;
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(d) | WatchEvent::Modified(d) = event
            && is_so(&d)
        {
            return Ok(since.elapsed());
        }
    }
    bail!("Deployment {name} did not become what it should within {TIMEOUT_SECONDS} s")
}

async fn delete_namespace(client: &Client) -> Result<Duration> {
    let (name, namespaces) = ("full", Api::<Namespace>::all(client.clone()));
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
    let create = |i: usize| {
        let maps = maps.clone();
        async move {
            let map = serde_json::from_value(json!({"metadata": {"name": format!("m{i}")}, "data": {"key": "value"}}))?;
            anyhow::Ok(maps.create(&PostParams::default(), &map).await.map(drop)?)
        }
    };
    each((0..OBJECTS).map(create)).await?;
    let version = namespaces.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(TIMEOUT_SECONDS);
    let mut events = pin!(namespaces.watch(&params, &version).await?);
    let since = Instant::now();
    namespaces.delete(name, &DeleteParams::default()).await?;
    while let Some(event) = events.try_next().await? {
        if matches!(event, WatchEvent::Deleted(_)) {
            return Ok(since.elapsed());
        }
    }
    bail!("namespace {name} was not gone within {TIMEOUT_SECONDS} s")
}

/// Renews the leases of all nodes.
async fn beat(client: Client) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        for number in 0..NODES {
            let name = format!("node-{number}");
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()},
            });
            api.patch(&name, &PatchParams::apply("agents").force(), &Patch::Apply(lease)).await?;
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(k8s_openapi::jiff::Timestamp::now())
}

/// Brings every pod that has a node one step further.
async fn run_pods(client: Client) -> Result<()> {
    let api: Api<Pod> = Api::all(client.clone());
    loop {
        let listed = api.list(&ListParams::default()).await?;
        let version = listed.metadata.resource_version.clone().unwrap_or_default();
        ensure!(!version.is_empty(), "a list has a version");
        futures::stream::iter(listed.items).for_each_concurrent(AGENT_WRITES, |pod| attend(&client, pod)).await;
        let events = api.watch(&WatchParams::default().timeout(TIMEOUT_SECONDS), &version).await?;
        let pods = events.filter_map(async |event| match event {
            Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => Some(pod),
            _ => None,
        });
        pods.for_each_concurrent(AGENT_WRITES, |pod| attend(&client, pod)).await;
    }
}

/// What is refused has been overtaken by another change, which comes by here as well.
async fn attend(client: &Client, pod: Pod) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_none() {
        return;
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
    } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running") {
        let ready = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now()});
        let status = json!({"status": {"phase": "Running", "conditions": [ready("Ready"), ready("ContainersReady")]}});
        let _ = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await;
    }
}
