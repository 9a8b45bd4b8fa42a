//! A single-node cluster in this process: every part wired to the others, stopped in the reverse order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use podium_agent::Agent;
use podium_api::{k8s_openapi::api::core::v1::Node, kind_of};
use podium_apiserver::{ApiServer, Identity, ServerConfig};
use podium_client::{ApiRef, MirrorScope};
use podium_drivers::{ControllerManager, Handle, ManagerConfig, Scheduler, SchedulerConfig};
use podium_network::{Network, NetworkConfig};
use podium_store::{
    Store,
    sled::{SledConfig, SledStore},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpListener;

use super::{
    UpArgs,
    data_dir::DataDir,
    gateway::Nodes,
    node::{Around, OwnNode},
    own_kinds,
    registry::Images,
    services::Pods,
};

/// How long requests of clients outside may take once a stop has begun.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the store is asked whether it still takes writes.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// A running cluster.
pub(crate) struct Cluster {
    store: Arc<dyn Store>,
    compactor: tokio::task::JoinHandle<()>,
    server: ApiServer,
    images: Images,
    api: ApiRef,
    network: Network,
    controllers: Handle,
    scheduler: Handle,
    /// `None`: nodes join from elsewhere.
    agent: Option<Agent>,
    /// Keeps the node's certificates, or the way to other nodes.
    nodes: tokio::task::JoinHandle<()>,
    http: SocketAddr,
    dns: Option<SocketAddr>,
    kubeconfig: PathBuf,
}

/// The network with its listeners for clients outside.
struct Listening {
    network: Network,
    http: SocketAddr,
    dns: Option<SocketAddr>,
}

impl Listening {
    async fn open(args: &UpArgs) -> Result<Self> {
        let mut config = NetworkConfig {
            node_port_address: args.http.ip(),
            host_targets: args.allow_host_network_targets.clone().unwrap_or_default(),
            max_hosts: args.max_allowed_outbound_hosts.clone(),
            ..NetworkConfig::default()
        };
        args.outside.apply(&mut config)?;
        args.limits.apply(&mut config);
        let network = Network::new(config);
        let http = network.listen_ingress(args.http).await.context("name another address with --http")?;
        if let Some(address) = args.https {
            network.listen_ingress_tls(address).await.context("name another address with --https")?;
        }
        let dns = args.names.listen(&network).await?;
        args.traces.start(&network, args.node.node_name.clone())?;
        Ok(Self { network, http, dns })
    }
}

impl Cluster {
    /// Starts everything.
    pub(crate) async fn start(args: &UpArgs, data: &DataDir, scheduling: podium_scheduler::Config) -> Result<Self> {
        // Whoever holds the folder is said before any port, which is most likely theirs too.
        let store: Arc<dyn Store> = Arc::new(SledStore::open(SledConfig::new(data.join("store")))?);
        must_be_free(args.api, "--api").await?;
        let Listening { network, http, dns } = Listening::open(args).await?;
        let compactor = podium_store::spawn_compactor(store.clone(), podium_store::CompactionPolicy::default());
        let mut config = ServerConfig::new(data.path(), args.api);
        args.server.apply(&mut config)?;
        network.add_cluster_range(config.service_cidr.to_string().parse()?);
        let metrics = config.metrics.clone();
        for collector in network.metrics().collectors() {
            metrics.register(collector).context("register the network's metrics")?;
        }
        let drivers = podium_drivers::Metrics::new(&metrics);
        let server = ApiServer::start(config, store.clone()).await.context("the API server did not start")?;
        network.open_endpoint(server.addr(), CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).ok());
        let kubeconfig = data.join("kubeconfig");
        server.write_kubeconfig(&kubeconfig, &server.url())?;
        let api = server.api(Identity::new("podium-up", &["system:masters"]));
        own_kinds::install(&api).await?;
        let images = Images::start(&args.images, data, &server, &api).await?;
        let component = |name: &str| server.api(Identity::new(format!("system:{name}"), &["system:masters"]));
        let controllers = ControllerManager::start(
            component("kube-controller-manager"),
            ManagerConfig {
                metrics: drivers.clone(),
                controllers: podium_drivers::controllers(args.server.controllers()),
                ..ManagerConfig::default()
            },
        );
        let scheduler = Scheduler::start(
            component("kube-scheduler"),
            SchedulerConfig { config: Arc::new(scheduling), metrics: drivers, ..SchedulerConfig::default() },
        );
        let around = Around { args, data, server: &server, network: &network, metrics, registry: images.address() };
        let (agent, nodes) = match args.no_agent {
            true => (None, around.reach_others().await?),
            false => {
                let OwnNode { agent, renewing } = around.start().await?;
                (Some(agent), renewing)
            }
        };
        let of_nodes = api.mirror(&kind_of::<Node>(), MirrorScope::default()).await.context("watch the nodes")?;
        server.connect_node(Arc::new(Nodes::new(agent.as_ref(), network.clone(), of_nodes)));
        server.connect_services(Arc::new(Pods::new(network.clone())));
        Ok(Self {
            store,
            compactor,
            server,
            images,
            api,
            network,
            controllers,
            scheduler,
            agent,
            nodes,
            http,
            dns,
            kubeconfig,
        })
    }

    pub(crate) fn api(&self) -> &ApiRef {
        &self.api
    }

    pub(crate) fn api_url(&self) -> String {
        self.server.url()
    }

    /// Where the registry is served.
    pub(crate) fn registry(&self) -> String {
        self.images.host()
    }

    /// Where Ingresses are served.
    pub(crate) fn http_url(&self) -> String {
        format!("http://{}/", self.http)
    }

    /// Where names are answered for clients outside, where that is wanted.
    pub(crate) fn dns(&self) -> Option<SocketAddr> {
        self.dns
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client as any other process would have it.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Ends when the cluster cannot go on, and says why.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Unpin + use<> {
        let store = self.store.clone();
        Box::pin(async move {
            let mut every = tokio::time::interval(HEALTH_EVERY);
            loop {
                every.tick().await;
                if let Some(failure) = store.failure() {
                    return format!("{failure}; what was answered is safe. Free the disk or mend it, and start again");
                }
            }
        })
    }

    /// Stops in the reverse order: clients outside first, the store last.
    pub(crate) async fn shutdown(self) {
        self.nodes.abort();
        self.network.shutdown(DRAIN).await;
        if let Some(agent) = self.agent {
            agent.shutdown().await;
        }
        self.scheduler.shutdown().await;
        self.controllers.shutdown().await;
        self.images.shutdown(DRAIN).await;
        self.server.shutdown().await;
        self.compactor.abort();
        self.store.close().await;
    }
}

async fn must_be_free(address: SocketAddr, flag: &str) -> Result<()> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("cannot listen on {address}: the port is already in use: name another address with {flag}")
        }
        Err(e) => Err(e).with_context(|| format!("cannot listen on {address}: name another address with {flag}")),
    }
}
