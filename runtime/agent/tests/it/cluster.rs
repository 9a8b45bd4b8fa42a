//! A cluster of one node: the model of the API, a sandbox, a network and an agent.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use podium_agent::{Agent, AgentConfig, LogOptions};
use podium_api::{KindRef, Object, ObjectKey, k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions, kinds};
use podium_client::{Api, MirrorScope, Patch, SystemClock, model::ModelApi};
use podium_network::{Body, CallError, Caller, Network, NetworkConfig};
use podium_sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};

use crate::PATIENCE;

pub(crate) struct Cluster {
    pub(crate) api: Arc<ModelApi>,
    pub(crate) network: Network,
    sandbox: Sandbox,
    dir: tempfile::TempDir,
    agent: Option<Agent>,
    tune: Tune,
}

/// A container of the hello example.
pub(crate) fn hello() -> Value {
    json!({ "name": "app", "image": "file://hello.wasm", "ports": [{ "containerPort": 8080 }],
        "env": [{ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }] })
}

pub(crate) fn kind(name: &str) -> KindRef {
    kinds::all().into_iter().find(|k| k.names().kind == name).unwrap()
}

/// A change of the agent's settings.
type Tune = fn(&mut AgentConfig);

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With settings of its own.
    pub(crate) async fn start_with(tune: Tune) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/hello/hello.wasm");
        for folder in ["images", "host", "memory", "static"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::copy(examples, dir.path().join("images/hello.wasm")).unwrap();
        let sandbox = Sandbox::new(SandboxConfig { instances_max: 64, ..SandboxConfig::default() }).unwrap();
        let mut cluster = Self {
            api: Arc::new(ModelApi::new(Arc::new(SystemClock))),
            network: Network::new(NetworkConfig::default()),
            sandbox,
            dir,
            agent: None,
            tune,
        };
        cluster.start_agent().await;
        cluster
    }

    pub(crate) async fn start_agent(&mut self) {
        let mut config = AgentConfig::new("n1", self.dir.path().join("data"));
        config.image_dirs = vec![self.dir.path().join("images")];
        config.host_path_dirs = vec![self.dir.path().join("host")];
        config.memory_dir = Some(self.dir.path().join("memory"));
        config.static_pods_dir = Some(self.dir.path().join("static"));
        // The machine's disk may be as full as it likes.
        config.eviction_disk_bytes = 0;
        config.static_pods_every = std::time::Duration::from_millis(20);
        (self.tune)(&mut config);
        self.network = Network::new(NetworkConfig::default());
        let agent = Agent::start(config, self.api.clone(), self.sandbox.clone(), self.network.clone()).await;
        self.agent = Some(agent.unwrap());
    }

    pub(crate) async fn stop_agent(&mut self) {
        self.agent.take().unwrap().shutdown().await;
    }

    pub(crate) async fn shutdown(mut self) {
        self.stop_agent().await;
    }

    /// Puts a WebAssembly text into the granted folder.
    pub(crate) fn image(&self, name: &str, wat: &str) {
        std::fs::write(self.dir.path().join("images").join(name), wat::parse_str(wat).unwrap()).unwrap();
    }

    pub(crate) async fn create(&self, kind_name: &str, object: Value) {
        self.api.create(kind(kind_name).decode_value(object).unwrap().object).await.unwrap();
    }

    /// Copies a guest of the sandbox's tests into the granted folder.
    pub(crate) fn guest(&self, name: &str) {
        let guests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/guests");
        std::fs::copy(guests.join(name), self.dir.path().join("images").join(name)).unwrap();
    }

    /// The cluster's own folder.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Creates a pod on the node.
    pub(crate) async fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = "n1".into();
        let metadata = json!({ "name": name, "namespace": "default" });
        self.create("Pod", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await;
    }

    /// Gives a pod's container other amounts.
    pub(crate) async fn resize(&self, name: &str, resources: Value) {
        let patch = json!({ "spec": { "containers": [{ "name": "app", "resources": resources }] } });
        let key = ObjectKey::new("default", name);
        self.api.patch(&kind("Pod"), &key, Patch::Strategic(patch), Some("resize")).await.unwrap();
    }

    /// Waits for an event about a pod of which reason and message begin and contain this.
    pub(crate) async fn until_event(&self, pod: &str, reason: &str, words: &str) -> Value {
        let mirror = self.api.mirror(&kind("Event"), MirrorScope::default()).await.unwrap();
        let mut changes = mirror.subscribe();
        let wait = async {
            while let Some(delta) = changes.recv().await {
                let event = delta.object().to_value().unwrap();
                let about = event["involvedObject"]["name"] == pod && event["reason"] == reason;
                if about && event["message"].as_str().unwrap().contains(words) {
                    return event;
                }
            }
            panic!("no more events");
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.unwrap_or_else(|_| panic!("no event {reason} about {pod} that says {words:?}"))
    }

    pub(crate) async fn delete(&self, name: &str) {
        let key = ObjectKey::new("default", name);
        self.api.delete(&kind("Pod"), &key, DeleteOptions::default()).await.unwrap();
    }

    pub(crate) async fn json(&self, kind_name: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = self.api.get(&kind(kind_name), &ObjectKey::new(namespace, name)).await.ok()?;
        Some(object.to_value().unwrap())
    }

    /// Waits until an object is as wanted.
    #[track_caller]
    pub(crate) fn until(
        &self,
        kind_name: &'static str,
        namespace: &str,
        name: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> impl Future<Output = Option<Value>> {
        let caller = std::panic::Location::caller();
        let (api, key) = (self.api.clone(), ObjectKey::new(namespace, name));
        async move {
            let kind = kind(kind_name);
            let mirror = api.mirror(&kind, MirrorScope::default()).await.unwrap();
            let mut changes = mirror.subscribe();
            let look = || mirror.get(&key).map(|object: Arc<dyn Object>| object.to_value().unwrap());
            let wait = async {
                loop {
                    let found = look();
                    if wanted(found.as_ref()) {
                        return found;
                    }
                    while changes.recv().await.is_some_and(|delta| delta.object().key() != key) {}
                }
            };
            let found = tokio::time::timeout(PATIENCE, wait).await;
            found.unwrap_or_else(|_| panic!("{caller}: {kind_name} {key} did not become as wanted: {:#?}", look()))
        }
    }

    pub(crate) async fn until_pod(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until("Pod", "default", name, |pod| pod.is_some_and(&wanted)).await.unwrap()
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Value {
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        self.until_pod(name, ready).await
    }

    /// What a GET at a pod's port 8080 answers.
    pub(crate) async fn get(&self, ip: &str) -> String {
        self.get_path(ip, "/").await
    }

    pub(crate) async fn get_path(&self, ip: &str, path: &str) -> String {
        match self.ask(ip, path).await {
            Ok(answer) => {
                let bytes = answer.into_body().collect().await.unwrap().to_bytes();
                String::from_utf8(bytes.to_vec()).unwrap()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Sends a GET to a pod's port 8080.
    pub(crate) async fn ask(&self, ip: &str, path: &str) -> Result<http::Response<Body>, CallError> {
        let caller =
            Caller { namespace: "default".into(), pod: "test".into(), service_account: String::new(), ip: None };
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::get(format!("http://{ip}:8080{path}")).body(body).unwrap();
        self.network.dialer(caller).send(request).await
    }

    pub(crate) async fn logs(&self, name: &str, options: LogOptions) -> Result<String, String> {
        let reader = self.agent.as_ref().unwrap().logs();
        let stream = reader.logs(&ObjectKey::new("default", name), options).await.map_err(|e| e.to_string())?;
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap()).collect().await;
        Ok(String::from_utf8(chunks.concat()).unwrap())
    }

    /// The node's own endpoints.
    pub(crate) fn endpoints(&self) -> podium_agent::Endpoints {
        self.agent.as_ref().unwrap().endpoints()
    }

    pub(crate) fn streaming(&self) -> Arc<dyn podium_agent::streams::Streaming> {
        self.agent.as_ref().unwrap().streaming()
    }

    pub(crate) fn log_folders(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("data/logs")).unwrap().count()
    }
}
