//! kube-rs's runtime: reflectors (listed and streamed), a controller with a finalizer that applies what it owns, and custom
//! resources without types.

#![expect(clippy::large_futures, reason = "kube-rs's own, which a test has the stack for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Client, Config, Resource, ResourceExt,
    api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    discovery::{Discovery, verbs},
};
use kube_runtime::{
    Controller, WatchStreamExt,
    controller::Action,
    finalizer::{self, Event, finalizer},
    reflector, wait, watcher,
};
use podium_e2e::Cluster;
use serde_json::json;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
const FINALIZER: &str = "podium.dev/test";

pub(super) fn run() -> Result<()> {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::start(&[])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        for streamed in [false, true] {
            reflected(&client, streamed).await.context("reflector")?;
        }
        controlled(&client).await.context("controller")?;
        custom(&client).await.context("custom resources")?;
        discovered(&client).await.context("discovery")
    })?;
    drop(runtime);
    cluster.podium.stop()?;
    Ok(())
}

async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))?
}

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name, "labels": {"by": "kube-rs"}}, "data": {"k": "v"}}))?)
}

/// A reflector's store follows what happens.
async fn reflected(client: &Client, streamed: bool) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let before = format!("before-{streamed}");
    api.create(&PostParams::default(), &config_map(&before)?).await?;
    let config = watcher::Config::default().labels("by=kube-rs");
    let config = if streamed { config.streaming_lists() } else { config.page_size(1) };
    let (store, writer) = reflector::store();
    let stream = watcher(api.clone(), config).default_backoff().reflect(writer).applied_objects();
    let follow = tokio::spawn(stream.try_for_each(|_| futures::future::ready(Ok(()))));
    within("the first state", async { Ok(store.wait_until_ready().await?) }).await?;
    ensure!(store.state().iter().any(|m| m.name_any() == before), "the store lacks what was there before");
    let after = format!("after-{streamed}");
    api.create(&PostParams::default(), &config_map(&after)?).await?;
    api.delete(&before, &DeleteParams::default()).await?;
    within("the changes", async {
        loop {
            let names: Vec<String> = store.state().iter().map(|m| m.name_any()).collect();
            if names.contains(&after) && !names.contains(&before) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await?;
    follow.abort();
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("the object has no reference")]
    NoReference,
    #[error("finalizer: {0}")]
    Finalizer(#[source] Box<finalizer::Error<Failure>>),
}

struct State {
    client: Client,
    cleaned: AtomicUsize,
}

/// Applies a Secret for each ConfigMap, owned by it.
async fn reconcile(map: Arc<ConfigMap>, state: Arc<State>) -> Result<Action, Failure> {
    let maps: Api<ConfigMap> = Api::default_namespaced(state.client.clone());
    let act = |event| async {
        match event {
            Event::Apply(map) => {
                let map: Arc<ConfigMap> = map;
                let owner = map.controller_owner_ref(&()).ok_or(Failure::NoReference)?;
                let secret = json!({
                    "apiVersion": "v1", "kind": "Secret",
                    "metadata": {"name": map.name_any(), "ownerReferences": [owner]},
                    "stringData": {"copied": map.data.as_ref().and_then(|d| d.get("k"))},
                });
                let secrets: Api<Secret> = Api::default_namespaced(state.client.clone());
                let params = PatchParams::apply("kube-rs-test").force();
                secrets.patch(&map.name_any(), &params, &Patch::Apply(secret)).await?;
            }
            Event::Cleanup(_) => {
                state.cleaned.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Action::await_change())
    };
    finalizer(&maps, FINALIZER, map, act).await.map_err(|e| Failure::Finalizer(Box::new(e)))
}

/// A controller finalizes and applies; what it owns goes with its owner.
async fn controlled(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let state = Arc::new(State { client: client.clone(), cleaned: AtomicUsize::new(0) });
    let mine = watcher::Config::default().labels("by=controller");
    let controller = Controller::new(maps.clone(), mine)
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), state.clone())
        .for_each(|_| futures::future::ready(()));
    let running = tokio::spawn(controller);
    let mut map = config_map("owner")?;
    map.metadata.labels = Some([("by".to_owned(), "controller".to_owned())].into());
    maps.create(&PostParams::default(), &map).await?;
    let made = wait::await_condition(secrets.clone(), "owner", |s: Option<&Secret>| s.is_some());
    within("the secret", async { Ok(made.await?) }).await?;
    let owner = maps.get("owner").await?;
    ensure!(owner.finalizers() == [FINALIZER], "the finalizer is not set: {:?}", owner.finalizers());
    let uid = owner.uid().context("the owner has a uid")?;
    maps.delete("owner", &DeleteParams::default()).await?;
    let gone = wait::await_condition(maps.clone(), "owner", wait::conditions::is_deleted(&uid));
    within("the end of the owner", async { Ok(gone.await?) }).await?;
    ensure!(state.cleaned.load(Ordering::Relaxed) > 0, "the finalizer did not run");
    let gone = wait::await_condition(secrets, "owner", |s: Option<&Secret>| s.is_none());
    within("the garbage collection of the secret", async { Ok(gone.await?) }).await?;
    running.abort();
    Ok(())
}

/// Custom resources, applied by two managers.
async fn custom(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = serde_json::from_value(json!({
        "metadata": {"name": "gadgets.kube-rs.example"},
        "spec": {
            "group": "kube-rs.example", "scope": "Namespaced",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "parts": {
                            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "count": {"type": "integer"},
                            }},
                        },
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    }))?;
    definitions.create(&PostParams::default(), &definition).await?;
    let established =
        wait::await_condition(definitions.clone(), "gadgets.kube-rs.example", wait::conditions::is_crd_established());
    within("the definition", async { Ok(established.await?) }).await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kube-rs.example", "v1", "Gadget"));
    let gadgets: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &kind);
    let gadget = |parts: serde_json::Value| json!({"apiVersion": "kube-rs.example/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"parts": parts}});
    for (manager, parts) in [("one", json!([{"name": "a", "count": 1}])), ("two", json!([{"name": "b", "count": 2}]))] {
        gadgets.patch("g", &PatchParams::apply(manager), &Patch::Apply(gadget(parts))).await?;
    }
    let both = gadgets.get("g").await?;
    ensure!(both.data["spec"]["parts"].as_array().map(Vec::len) == Some(2), "parts: {}", both.data["spec"]);
    let stolen = gadget(json!([{"name": "b", "count": 3}]));
    let refused = gadgets.patch("g", &PatchParams::apply("one"), &Patch::Apply(stolen)).await;
    let Err(kube::Error::Api(status)) = refused else { anyhow::bail!("a field was stolen: {refused:?}") };
    ensure!(status.code == 409 && status.message.contains("conflict with \"two\""), "{status:?}");
    // What a manager applies no more is gone.
    let left = gadgets.patch("g", &PatchParams::apply("one"), &Patch::Apply(gadget(json!([])))).await?;
    ensure!(left.data["spec"]["parts"] == json!([{"name": "b", "count": 2}]), "parts: {}", left.data["spec"]);
    let status = json!({"status": {"ready": true}});
    gadgets.patch_status("g", &PatchParams::default(), &Patch::Merge(status)).await?;
    ensure!(gadgets.get_status("g").await?.data["status"]["ready"] == json!(true), "the status was not written");
    let uid = definitions.get("gadgets.kube-rs.example").await?.uid().context("the definition has a uid")?;
    definitions.delete("gadgets.kube-rs.example", &DeleteParams::default()).await?;
    let gone = wait::await_condition(definitions, "gadgets.kube-rs.example", wait::conditions::is_deleted(&uid));
    within("the end of the definition and its objects", async { Ok(gone.await?) }).await?;
    let left = gadgets.get("g").await;
    ensure!(matches!(left, Err(kube::Error::Api(status)) if status.code == 404), "an object outlived its definition");
    Ok(())
}

/// Every resource that discovery says can be listed can be listed.
async fn discovered(client: &Client) -> Result<()> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut listed = 0;
    for group in discovery.groups() {
        for (kind, capabilities) in group.recommended_resources() {
            if capabilities.supports_operation(verbs::LIST) {
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
                api.list(&Default::default()).await.with_context(|| format!("list {}", kind.plural))?;
                listed += 1;
            }
        }
    }
    ensure!(listed > 50, "only {listed} kinds can be listed");
    Ok(())
}
