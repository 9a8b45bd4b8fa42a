//! The entry: what an embedder starts and stops.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use podium_api::{ApiError, Kind, kind_of};
use podium_client::{Api, ApiRef, Mirror, MirrorScope, Recorder};
use podium_network::{ListenError, Network, TunnelConfig, TunnelLimits};
use podium_sandbox::Sandbox;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use crate::{
    AgentConfig, CoreDumpReader, Endpoints, FileImages, LogReader,
    driver::{
        Report, Shared, balancer,
        bound_pods::BoundPods,
        core_dumps,
        exec::Streamer,
        id_of,
        images::{Images, garbage},
        ingress,
        logs::LogIndex,
        meter::Meter,
        meter_series::ContainerSeries,
        metrics::Metrics,
        node::{self, Machine},
        nodes::follow_nodes,
        pods::Pods,
        policies::Policies,
        pressure::{self, NodeState},
        static_pods,
        status::StatusWriter,
        traffic, translate,
    },
    gateway,
    images::{
        puller::{PullConfig, Puller},
        store::Store,
    },
    ipam::Ipam,
    logs::writer::{LogWriter, Rotation},
    node_access::{NodeAccess, NodeServer},
    raise_open_files_limit,
    streams::Streaming,
    volumes::{self, Facts, Places, Volumes},
};

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API refused something without which there is no node.
    #[error("cannot {operation}")]
    Api {
        /// What was tried.
        operation: &'static str,
        /// What the API said.
        source: ApiError,
    },
    /// A folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Other nodes cannot reach this one.
    #[error("cannot listen for other nodes")]
    Listen(#[source] ListenError),
    /// The thread that writes logs cannot be started.
    #[error("cannot start the thread that writes logs")]
    Thread(#[source] std::io::Error),
}

/// A running node agent.
pub struct Agent {
    shared: Arc<Shared>,
    owner: JoinHandle<()>,
    others: JoinSet<()>,
}

impl Agent {
    /// Registers the node, finds the pods that are bound to it, and runs them until [`Agent::shutdown`].
    ///
    /// Raises this process' limit on open files to the hard limit.
    ///
    /// # Errors
    /// When the node cannot be registered, the pods cannot be watched, or the log folder cannot be made.
    pub async fn start(
        mut config: AgentConfig,
        api: ApiRef,
        sandbox: Sandbox,
        network: Network,
    ) -> Result<Self, StartError> {
        raise_open_files_limit();
        let server = Arc::new(NodeServer::default());
        config.port = listen(&config, &api, &network, &server).await?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(|source| StartError::Folder { path: dir.clone(), source })?;
        let machine = Machine::look(dir);
        let registered = node::register(&config, &*api, &machine).await;
        let cidr = registered.map_err(|source| StartError::Api { operation: "register the node", source })?;
        if let Ok(range) = cidr.to_string().parse() {
            network.add_cluster_range(range);
        }
        let (reports, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(share(config, api, sandbox, network, &machine, reports).await?);
        clean(&shared);
        let tables = translate::Sources {
            namespaces: shared.namespaces.clone(),
            services: shared.services.clone(),
            slices: mirror::<EndpointSlice>(&*shared.api, None).await?,
        };

        let mut others = JoinSet::new();
        server.begin(Endpoints::new(shared.clone()), Arc::new(Streamer(shared.clone())));
        if shared.config.tunnel.is_some() {
            let nodes = mirror::<Node>(&*shared.api, None).await?;
            others.spawn(follow_nodes(shared.network.clone(), nodes, shared.config.node_name.clone()));
        }
        traffic::connect(&shared).await;
        let policies = Policies::load(&shared.api, &shared.network, shared.pods.clone()).await;
        let policies = policies.map_err(|source| StartError::Api { operation: "watch the policies", source })?;
        others.spawn(policies.follow());
        if shared.config.gateways {
            others.spawn(gateway::follow(shared.clone()));
        }
        let ingresses = mirror::<Ingress>(&*shared.api, None).await?;
        others.spawn(ingress::follow(shared.clone(), ingresses));
        others.spawn(translate::follow(shared.network.clone(), tables, shared.recorder.clone()));
        let writes_max = shared.config.status_writes_max;
        let status = StatusWriter::new(shared.api.clone(), shared.pods.clone(), writes_max, shared.metrics.clone());
        let pods = Pods::new(shared.clone(), status, Ipam::new(cidr));
        // Before the API's pods: a mirror means nothing without its file.
        static_pods::read_once(&shared).await;
        others.spawn(static_pods::mirror(shared.clone(), pods.mirrors()));
        others.spawn(static_pods::follow(shared.clone()));
        others.spawn(pressure::watch(shared.clone()));
        others.spawn(node::heartbeat(shared.clone()));
        others.spawn(node::keep_status(shared.clone(), machine));
        others.spawn(forward(shared.clone()));
        others.spawn(garbage::keep(shared.clone()));
        others.spawn(balancer::keep(shared.clone()));
        others.spawn(volumes::provision(shared.volumes.clone(), shared.config.node_name.clone()));
        let owner = tokio::spawn(pods.run(inbox));
        Ok(Self { shared, owner, others })
    }

    /// Reads the logs of this node's containers.
    pub fn logs(&self) -> Arc<dyn LogReader> {
        self.shared.clone()
    }

    /// Reads the core dumps of this node's containers.
    pub fn core_dumps(&self) -> Arc<dyn CoreDumpReader> {
        core_dumps::reader(&self.shared)
    }

    /// What API servers ask of this node's containers.
    pub fn access(&self) -> NodeAccess {
        NodeAccess { logs: self.logs(), core_dumps: self.core_dumps(), streaming: self.streaming() }
    }

    /// Where other nodes reach this one.
    pub fn port(&self) -> Option<u16> {
        self.shared.config.port
    }

    /// What this node's pods use now, and the machine: kubelet's `/stats/summary`.
    pub fn stats(&self) -> impl Fn() -> serde_json::Value + Send + Sync + use<> {
        let meter = self.shared.meter.clone();
        move || meter.summary()
    }

    /// The node's own HTTP endpoints: those of a kubelet's port.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints::new(self.shared.clone())
    }

    /// Streams into this node's containers.
    pub fn streaming(&self) -> Arc<dyn Streaming> {
        Arc::new(Streamer(self.shared.clone()))
    }

    /// Lets requests under way finish (at most `drain_timeout`), then stops all guests. Pods stay in the API as they are.
    pub async fn shutdown(mut self) {
        self.others.shutdown().await;
        let (done, ended) = oneshot::channel();
        self.shared.report(Report::Shutdown(done));
        // An error means that it has ended already.
        let _ = ended.await;
        let _ = (&mut self.owner).await;
        self.shared.log_writer.stop().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.owner.abort();
    }
}

/// Lets other nodes in, if there are to be any; answers with the port.
async fn listen(
    config: &AgentConfig,
    api: &ApiRef,
    network: &Network,
    server: &Arc<NodeServer>,
) -> Result<Option<u16>, StartError> {
    let Some(tunnel) = &config.tunnel else { return Ok(None) };
    let settings = TunnelConfig {
        node: config.node_name.clone(),
        identity: tunnel.identity.clone(),
        roots: tunnel.roots.clone(),
        limits: TunnelLimits::default(),
        node_requests: Some(server.clone()),
        workloads: Some(Arc::new(BoundPods::new(api.clone()))),
    };
    let mut refused = None;
    for address in &tunnel.listen {
        match network.listen_tunnel(settings.clone(), *address).await {
            Ok(address) => return Ok(Some(address.port())),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), |error| Err(StartError::Listen(error)))
}

async fn share(
    config: AgentConfig,
    api: ApiRef,
    sandbox: Sandbox,
    network: Network,
    machine: &Machine,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<Shared, StartError> {
    let dir = config.data_dir.join("logs");
    std::fs::create_dir_all(&dir).map_err(|source| StartError::Folder { path: dir.clone(), source })?;
    let rotation = Rotation { file_bytes_max: config.log_file_bytes_max, files_max: config.log_files_max.max(1) };
    let fields = format!("spec.nodeName={}", config.node_name);
    let node = machine.allocatable(&config);
    let places = Places::new(&config.data_dir, config.memory_dir.as_deref(), config.host_path_dirs.clone());
    let facts = Facts { host_ip: config.node_ip, node };
    Ok(Shared {
        volumes: Volumes::new(places, api.clone(), config.clock.clone(), facts),
        recorder: Recorder::start(api.clone(), config.clock.clone(), "kubelet", &config.node_name),
        images: images(&config, sandbox.clone())?,
        log_writer: LogWriter::start(rotation, config.clock.clone()).map_err(StartError::Thread)?,
        log_index: LogIndex::new(dir),
        meter: meter(&config),
        pods: mirror::<Pod>(&*api, Some(fields)).await?,
        state: NodeState::new(
            mirror::<Node>(&*api, Some(format!("metadata.name={}", config.node_name))).await?,
            &config.node_name,
        ),
        services: mirror::<Service>(&*api, None).await?,
        namespaces: mirror::<Namespace>(&*api, None).await?,
        node,
        metrics: Metrics::new(&config.metrics),
        clock: config.clock.clone(),
        api,
        sandbox,
        network,
        config,
        reports,
    })
}

fn images(config: &AgentConfig, sandbox: Sandbox) -> Result<Images, StartError> {
    let dir = config.data_dir.join("images");
    let store = Store::open(&dir).map_err(|source| StartError::Folder { path: dir, source })?;
    let pulls = PullConfig::new(config.registries.clone(), config.image_bytes_max, config.image_pulls_max);
    let files = FileImages::new(config.image_dirs.clone(), config.image_bytes_max);
    Ok(Images::new(files, Puller::new(pulls, Arc::new(store)), sandbox, config.tools.clone()))
}

/// Measures containers, and shows them where metrics are registered.
fn meter(config: &AgentConfig) -> Arc<Meter> {
    let meter = Meter::new(config.clock.clone(), config.node_name.clone());
    if let Err(error) = config.metrics.register(Box::new(ContainerSeries::new(meter.clone()))) {
        tracing::warn!(%error, "the series of containers are not shown");
    }
    meter
}

async fn mirror<K: Kind>(api: &dyn Api, fields: Option<String>) -> Result<Arc<dyn Mirror>, StartError> {
    let mirror = api.mirror(&kind_of::<K>(), MirrorScope { namespace: None, fields }).await;
    mirror.map_err(|source| StartError::Api { operation: "watch what the node needs", source })
}

/// Hands on what the API says about pods.
async fn forward(shared: Arc<Shared>) {
    let mut deltas = shared.pods.subscribe();
    while let Some(delta) = deltas.recv().await {
        shared.report(Report::Pod(delta));
    }
}

/// Removes the logs and volumes of pods that went while no agent ran.
fn clean(shared: &Arc<Shared>) {
    let pods: Vec<Arc<Pod>> = shared.pods.list(None).into_iter().filter_map(|pod| pod.downcast_arc()).collect();
    for dir in shared.log_index.stale(&pods) {
        shared.log_writer.remove(dir);
    }
    let uids = pods.iter().map(|pod| id_of(pod).uid.to_string()).collect();
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || {
        shared.clean_core_dumps(&uids);
        shared.volumes.clean(&uids);
    });
}
