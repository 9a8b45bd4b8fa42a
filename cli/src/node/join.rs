//! `podium node join`: an agent that speaks with an API server elsewhere, until Ctrl-C.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use podium_agent::{
    Agent, AgentConfig, Credentials, TunnelSettings,
    credentials::{Pem, Purpose},
    ipam::Cidr,
};
use podium_client::{RemoteApi, SystemClock};
use podium_network::{HostPatterns, Network, NetworkConfig};
use podium_registry::Listener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{
    known::{self, Known},
    relay::Cluster,
};
use crate::{
    connect::ConnectOptions,
    up::{
        data_dir::DataDir, limits::LimitArgs, node, outside::OutsideArgs, registry::RegistryArgs, test_images,
        traces::TraceArgs,
    },
};

/// How long requests of clients outside may take once a stop has begun.
const DRAIN: Duration = Duration::from_secs(10);

/// Joins a cluster as a node and runs its pods
///
/// The first time it takes a token (or --kubeconfig); the node's certificate, which it gets for it, is kept in its folder and
/// renewed, so that afterwards `podium node join` is enough.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium node join --server https://10.0.0.1:6443 --token ID.SECRET --ca-cert-hash sha256:HASH
  podium node join --kubeconfig admin.conf --node-name worker-1
  podium node join                        once more, as the node that it was")]
pub(super) struct JoinArgs {
    /// The API server: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// A bootstrap token: `podium token create` makes one
    #[arg(long, value_name = "TOKEN", requires = "server", env = "PODIUM_JOIN_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Hash of the public key of the cluster's CA, sha256:HEX. Repeatable
    #[arg(long, value_name = "HASH", requires = "server")]
    pub(super) ca_cert_hash: Vec<String>,
    /// Where the node keeps its data [default: ~/.podium-node]
    #[arg(long, value_name = "DIR", env = "PODIUM_NODE_DIR")]
    data_dir: Option<PathBuf>,
    /// Where other nodes and the API server reach this node; port 0 picks a free one [default: the node's address, port
    /// 10250 or a free one]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Addresses of this node's pods, where the cluster gives it none, for example 10.200.1.0/24
    #[arg(long, value_name = "RANGE")]
    pod_cidr: Option<Cidr>,
    /// Where node ports are served [default: the node's address]
    #[arg(long, value_name = "IP")]
    node_port_address: Option<IpAddr>,
    /// Where Ingresses are served; port 0 picks a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// What of this host itself pods may reach, if they are granted it as well. Without it, nothing
    #[arg(long, value_name = "HOSTS")]
    allow_host_network_targets: Option<HostPatterns>,
    /// What pods may reach outside the cluster at most [default: no bound beside their own]
    #[arg(long, value_name = "HOSTS")]
    max_allowed_outbound_hosts: Option<HostPatterns>,
    #[command(flatten)]
    outside: OutsideArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    node: node::NodeArgs,
    #[command(flatten)]
    images: RegistryArgs,
    /// What to log on standard error, for example info or podium_agent=debug
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// What keeps the node from starting: no cluster there, no leave to join it, a taken port or folder.
pub(super) async fn run(args: JoinArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let since = Instant::now();
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?} is no filter", args.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    podium_agent::raise_open_files_limit();
    let data = DataDir::open(Some(args.data_dir.clone().map_or_else(default_dir, Ok)?))?;
    let _held = hold(&data)?;
    println!("Podium {} in {}", env!("CARGO_PKG_VERSION"), data.path().display());
    let mut told = Told::new()?;
    let name = node::node_name(&args.node)?;
    let started = tokio::select! {
        started = Running::start(&args, connect, &data, &name) => started?,
        why = told.next() => {
            println!("\n{why}: stopping before the node has joined …");
            return Ok(ExitCode::SUCCESS);
        }
    };
    println!("  cluster      {}", started.server);
    println!("  node         {name} at {}", started.address);
    if let Some(http) = started.http {
        println!("  ingresses    http://{http}/");
    }
    println!("\nJoined after {:.2} s: kubectl get nodes shows it.\n", since.elapsed().as_secs_f64());
    println!("Ctrl-C drains and stops; pods stay bound to the node.");
    println!("\n{}: draining …", told.next().await);
    tokio::select! {
        () = started.shutdown() => {}
        _ = told.interrupt.recv() => {
            eprintln!("podium: stopped without draining");
            return Ok(ExitCode::from(130));
        }
    }
    println!("Stopped. The data stays in {}.", data.path().display());
    Ok(ExitCode::SUCCESS)
}

fn default_dir() -> Result<PathBuf> {
    let home = std::env::home_dir().context("there is no home folder: name a folder with --data-dir")?;
    Ok(home.join(".podium-node"))
}

/// Nobody else may use the folder meanwhile.
fn hold(data: &DataDir) -> Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("{} is in use by another node: name another folder with --data-dir", data.path().display()),
    }
}

/// What ends the process.
struct Told {
    interrupt: Signal,
    terminate: Signal,
}

impl Told {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// A node that has joined.
struct Running {
    agent: Agent,
    network: Network,
    registry: Listener,
    renewing: tokio::task::JoinHandle<()>,
    server: String,
    address: SocketAddr,
    /// Where Ingresses are served.
    http: Option<SocketAddr>,
}

impl Running {
    async fn start(args: &JoinArgs, connect: &ConnectOptions, data: &DataDir, name: &str) -> Result<Self> {
        let credentials = Arc::new(Credentials::open(data.join("pki"), name, Arc::new(SystemClock))?);
        let (known, api) = join(args, connect, data, &credentials).await?;
        let endpoint = resolve(&known.server).await?;
        let node_ip = args.node.node_ip.map_or_else(|| own_address(endpoint), Ok)?;
        let network = network(args, node_ip, &known, endpoint)?;
        args.traces.start(&network, Some(name.to_owned()))?;
        let http = match args.http {
            Some(http) => Some(network.listen_ingress(http).await.context("name another address with --http")?),
            None => None,
        };
        let upstream = podium_registry::relay(Arc::new(Cluster(api.clone())));
        let at = args.images.registry.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        let registry = Listener::start(at, upstream).await.context("name another address with --registry")?;
        let listen = args.listen.map_or_else(|| node::listen_default(node_ip), |address| vec![address]);
        let mut config = config(args, data, registry.address())?;
        for collector in network.metrics().collectors() {
            config.metrics.register(collector).context("register the network's metrics")?;
        }
        config.node_ip = node_ip;
        config.tunnel =
            Some(TunnelSettings { listen, identity: credentials.clone(), roots: node::roots(&known.ca_pem)? });
        let sandbox = node::sandbox(data)?;
        let agent = Agent::start(config, api.clone(), sandbox, network.clone()).await;
        let agent = agent.context("the node agent did not start")?;
        let address = SocketAddr::new(node_ip, agent.port().unwrap_or_default());
        let server = known.server.clone();
        let renewing = tokio::spawn(renew(credentials, api, known));
        Ok(Self { agent, network, registry, renewing, server, address, http })
    }

    async fn shutdown(self) {
        self.renewing.abort();
        self.network.shutdown(DRAIN).await;
        self.agent.shutdown().await;
        self.registry.shutdown(DRAIN).await;
    }
}

/// Gets the node its certificates, and its own connection to the API.
async fn join(
    args: &JoinArgs,
    connect: &ConnectOptions,
    data: &DataDir,
    credentials: &Credentials,
) -> Result<(Known, Arc<RemoteApi>)> {
    let (known, leave) = known::find(args, connect, data).await?;
    let access = match (known.as_node(credentials), leave) {
        (Some(access), _) => access,
        (None, Some(leave)) => {
            let asked = credentials.ensure(&leave, Purpose::Client).await;
            asked.with_context(|| format!("{} gives this node no certificate", known.server))?;
            known.as_node(credentials).context("the certificate has ended already: are the clocks right?")?
        }
        (None, None) => bail!(
            "this node has no certificate (any more): join with --server {}, --token and --ca-cert-hash; \
             podium token create --print-join-command says them",
            known.server
        ),
    };
    let api = Arc::new(RemoteApi::connect(&access)?);
    for purpose in [Purpose::Client, Purpose::Serving] {
        let ensured = credentials.ensure(&*api, purpose).await;
        ensured.with_context(|| format!("{} gives this node no certificate", known.server))?;
    }
    known.write(data)?;
    Ok((known, api))
}

async fn renew(credentials: Arc<Credentials>, api: Arc<RemoteApi>, known: Known) {
    let renewed = |_: Pem| {
        let Some(access) = known.as_node(&credentials) else { return };
        if let Err(error) = api.reconnect(&access) {
            tracing::error!(%error, "the new certificate cannot be used");
        }
    };
    credentials.keep(&*api, renewed).await;
}

/// Where a server's URL leads to.
async fn resolve(server: &str) -> Result<SocketAddr> {
    let uri: http::Uri = server.parse().with_context(|| format!("{server:?} is no server"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(443))).await;
    found.ok().and_then(|mut all| all.next()).with_context(|| format!("the host of {server} has no address"))
}

/// This machine's address as the cluster sees it.
fn own_address(server: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    // Nothing is sent: the system says from where it would be.
    let socket = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(server).map(|()| socket));
    let address = socket.and_then(|socket| socket.local_addr());
    Ok(address.context("this machine has no way to the cluster: name its address with --node-ip")?.ip())
}

fn network(args: &JoinArgs, node_ip: IpAddr, known: &Known, server: SocketAddr) -> Result<Network> {
    let mut config = NetworkConfig {
        node_port_address: args.node_port_address.unwrap_or(node_ip),
        host_targets: args.allow_host_network_targets.clone().unwrap_or_default(),
        max_hosts: args.max_allowed_outbound_hosts.clone(),
        ..NetworkConfig::default()
    };
    args.outside.apply(&mut config)?;
    args.limits.apply(&mut config);
    let network = Network::new(config);
    network.open_endpoint(server, node::certificates(&known.ca_pem)?.into_iter().next());
    Ok(network)
}

fn config(args: &JoinArgs, data: &DataDir, registry: SocketAddr) -> Result<AgentConfig> {
    let mut config =
        node::settings(&args.node, data, args.node.image_dir.iter().map(PathBuf::as_path).map(Path::to_owned))?;
    config.pod_cidr = args.pod_cidr;
    // They are served by the control plane's node.
    config.gateways = false;
    config.registries = args.images.registries()?;
    if args.images.test_images {
        test_images::stand_in(&mut config.registries, registry)?;
    }
    config.registries.built_in = Some(registry.to_string());
    Ok(config)
}
