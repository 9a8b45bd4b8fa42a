//! The node agent of `podium up`, and what all nodes are told by flags.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use podium_agent::{
    Agent, AgentConfig, Credentials, InterfaceGroups, InterfacePatterns, InterfacePolicy, TunnelSettings,
    credentials::{Pem, Purpose},
    follow_nodes,
    streams::Tools,
};
use podium_api::{
    Reason,
    k8s_openapi::{
        api::{core::v1::Node, storage::v1::StorageClass},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    },
    kind_of,
};
use podium_apiserver::{ApiServer, Identity};
use podium_client::{ApiRef, MirrorScope, SystemClock};
use podium_network::{Network, TunnelConfig, TunnelLimits};
use podium_sandbox::{CompilerCommand, Sandbox, SandboxConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::task::JoinHandle;

use super::{UpArgs, data_dir::DataDir};

/// Where a kubelet listens.
const KUBELET_PORT: u16 = 10_250;

/// What the node agent is told.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NodeArgs {
    /// Name of the node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Folder below which `file://` images may lie. Repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) image_dir: Vec<PathBuf>,
    /// Commands that `kubectl exec` finds in every container beside those of its image: `builtin`, `none`, or an image
    #[arg(long, value_name = "TOOLS", default_value = "builtin")]
    pub(crate) tools: String,
    /// Folder below which `hostPath` volumes may lie. Repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) host_path_dir: Vec<PathBuf>,
    /// Groups of interfaces that pods may use at most, for example wasi:http,wasi:keyvalue [default: all]
    #[arg(long, value_name = "GROUPS")]
    pub(crate) max_allowed_interfaces: Option<InterfaceGroups>,
    /// Interfaces that no pod's image may import, for example wasi:sockets/udp*,wasi_snapshot_preview1::sock_accept
    #[arg(long, value_name = "PATTERNS")]
    pub(crate) refused_interfaces: Option<InterfacePatterns>,
    /// Folder of manifests of static pods: they run whatever the API says, which shows mirrors of them
    #[arg(long, value_name = "DIR")]
    pub(crate) static_pods: Option<PathBuf>,
    /// The node's own address, by which other nodes reach it [default: that by which the cluster is reached]
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Labels of the node, for example topology.kubernetes.io/zone=a,disk=ssd
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// Seconds that the node's lease lasts; it is renewed four times in that time
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) node_lease_duration: u64,
}

/// What the agent of this process is started among.
pub(super) struct Around<'a> {
    pub(super) args: &'a UpArgs,
    pub(super) data: &'a DataDir,
    pub(super) server: &'a ApiServer,
    pub(super) network: &'a Network,
    pub(super) metrics: prometheus::Registry,
    pub(super) registry: SocketAddr,
}

/// A node agent, and what keeps its certificates.
pub(super) struct OwnNode {
    pub(super) agent: Agent,
    pub(super) renewing: JoinHandle<()>,
}

impl Around<'_> {
    fn api(&self, user: String, group: &str) -> ApiRef {
        self.server.api(Identity::new(user, &[group]))
    }

    /// Who the API server is to nodes.
    fn api_server(&self) -> Pem {
        let (certificate, key) = self.server.kubelet_client();
        Pem { certificate: certificate.to_owned(), key: key.to_owned() }
    }

    /// Starts the agent of this process, and makes what a cluster with it has.
    ///
    /// # Errors
    /// When a flag names what cannot be used, or the sandbox or the agent does not start.
    pub(super) async fn start(&self) -> Result<OwnNode> {
        let Self { args, data, network, .. } = *self;
        let api = self.api("system:node".to_owned(), "system:masters");
        let of_manifest =
            |path: &PathBuf| if path.is_dir() { Some(path.clone()) } else { path.parent().map(Path::to_path_buf) };
        let granted = args.node.image_dir.iter().cloned().chain(args.filename.iter().filter_map(of_manifest));
        let mut config = settings(&args.node, data, granted)?;
        config.metrics = self.metrics.clone();
        config.registries = args.images.registries()?;
        if args.images.test_images {
            super::test_images::stand_in(&mut config.registries, self.registry)?;
        }
        config.registries.built_in = Some(self.registry.to_string());
        let ip = args.node.node_ip.unwrap_or_else(|| own_address(args.api.ip()));
        config.node_ip = ip;
        let outside = Some(args.http.ip()).filter(|ip| !ip.is_unspecified()).unwrap_or(ip);
        config.load_balancer = Some(args.load_balancer.clone().unwrap_or_else(|| outside.into()));
        let credentials = self.credentials(&config.node_name).await?;
        config.tunnel = Some(TunnelSettings {
            listen: args.node_listen.map_or_else(|| listen_default(args.api.ip()), |address| vec![address]),
            identity: credentials.clone(),
            roots: roots(self.server.ca_pem())?,
        });
        let own = self.api(format!("system:node:{}", config.node_name), "system:nodes");
        let agent = Agent::start(config, api.clone(), sandbox(data)?, network.clone()).await;
        let agent = agent.context("the node agent did not start")?;
        // Each new connection takes what is current: nobody has to be told.
        let renewing = tokio::spawn(async move { credentials.keep(&*own, |_| {}).await });
        match api.create(Box::new(storage_class())).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error).context("make the default storage class"),
            _ => Ok(OwnNode { agent, renewing }),
        }
    }

    /// The certificates of this process' node, signed as those of others are.
    async fn credentials(&self, node: &str) -> Result<Arc<Credentials>> {
        let dir = self.data.join("pki").join("node");
        let credentials = Credentials::open(dir, node, Arc::new(SystemClock))?.with_api_server(&self.api_server())?;
        let own = self.api(format!("system:node:{node}"), "system:nodes");
        for purpose in [Purpose::Client, Purpose::Serving] {
            credentials.ensure(&*own, purpose).await.context("the node has no certificate")?;
        }
        Ok(Arc::new(credentials))
    }

    /// The way to nodes where there is none in this process.
    ///
    /// # Errors
    /// When the nodes cannot be watched.
    pub(super) async fn reach_others(&self) -> Result<JoinHandle<()>> {
        let dir = self.data.join("pki").join("node");
        let credentials = Credentials::open(dir, "", Arc::new(SystemClock))?.with_api_server(&self.api_server())?;
        self.network.set_tunnel(TunnelConfig {
            node: String::new(),
            identity: Arc::new(credentials),
            roots: roots(self.server.ca_pem())?,
            limits: TunnelLimits::default(),
            node_requests: None,
            workloads: None,
        });
        let api = self.api("system:apiserver".to_owned(), "system:masters");
        let nodes = api.mirror(&kind_of::<Node>(), MirrorScope::default()).await.context("watch the nodes")?;
        Ok(tokio::spawn(follow_nodes(self.network.clone(), nodes, String::new())))
    }
}

/// The settings of a node that flags say, whoever its API server is.
///
/// # Errors
/// When a flag names what cannot be used.
pub(crate) fn settings(
    args: &NodeArgs,
    data: &DataDir,
    image_dirs: impl Iterator<Item = PathBuf>,
) -> Result<AgentConfig> {
    let mut config = AgentConfig::new(node_name(args)?, data.path());
    config.image_dirs = image_dirs
        .map(|dir| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir })
        .map(|dir| dir.canonicalize().with_context(|| format!("cannot use the image folder {}", dir.display())))
        .collect::<Result<_>>()?;
    config.host_path_dirs = canonical(&args.host_path_dir, "--host-path-dir")?;
    config.interfaces = InterfacePolicy {
        max_allowed: args.max_allowed_interfaces.clone(),
        refused: args.refused_interfaces.clone().unwrap_or_default(),
    };
    config.static_pods_dir.clone_from(&args.static_pods);
    config.tools = tools(&args.tools);
    config.labels = args.node_labels.iter().cloned().collect();
    config.lease_renew_every = Duration::from_secs(args.node_lease_duration) / 4;
    Ok(config)
}

/// The sandbox of a node that keeps its data there.
///
/// # Errors
/// When it does not start.
pub(crate) fn sandbox(data: &DataDir) -> Result<Sandbox> {
    let config = SandboxConfig {
        cache_dir: Some(data.join("cache")),
        compiler: Some(compiler()?),
        scratch_dir: Some(data.join("scratch")),
        ..SandboxConfig::default()
    };
    Sandbox::new(config).context("the sandbox did not start")
}

/// The certificates of a PEM text.
///
/// # Errors
/// When it is none.
pub(crate) fn certificates(ca_pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca_pem.as_bytes()).collect();
    read.context("the cluster's CA is no certificate")
}

/// Whom nodes believe.
///
/// # Errors
/// When the CA is no certificate.
pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).context("the cluster's CA cannot be trusted")?;
    }
    Ok(roots)
}

/// Where a node of this address listens for others: at a kubelet's port, or any that is free.
pub(crate) fn listen_default(ip: IpAddr) -> Vec<SocketAddr> {
    vec![SocketAddr::new(ip, KUBELET_PORT), SocketAddr::new(ip, 0)]
}

/// The address that others know this machine by: that of the API server.
fn own_address(api: IpAddr) -> IpAddr {
    if api.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { api }
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}

/// Claims that name no class get a folder of the node that their first pod runs on.
fn storage_class() -> StorageClass {
    let default = ("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned());
    StorageClass {
        metadata: ObjectMeta {
            name: Some("local".to_owned()),
            annotations: Some([default].into()),
            ..ObjectMeta::default()
        },
        provisioner: podium_agent::PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
}

/// Folders by their real paths.
fn canonical(dirs: &[PathBuf], flag: &str) -> Result<Vec<PathBuf>> {
    let real = |dir: &PathBuf| dir.canonicalize().with_context(|| format!("cannot use {flag} {}", dir.display()));
    dirs.iter().map(real).collect()
}

/// What `--tools` says.
fn tools(name: &str) -> Tools {
    match name {
        "none" => Tools::Off,
        "builtin" => Tools::Module(Bytes::from_static(include_bytes!("../../../sdk/tools/tools.wasm"))),
        image => Tools::Image(image.to_owned()),
    }
}

/// This program itself compiles, in processes of its own.
fn compiler() -> Result<CompilerCommand> {
    // Still the same program when a newer one has taken its file's place.
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() {
        running.to_owned()
    } else {
        std::env::current_exe().context("cannot find the program's own file")?
    };
    Ok(CompilerCommand { program, args: vec![crate::COMPILE_WORKER.to_owned()] })
}

/// The node's name: a DNS subdomain, as Kubernetes wants it.
///
/// # Errors
/// When it is none.
pub(crate) fn node_name(args: &NodeArgs) -> Result<String> {
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => {
            let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
            let name: String =
                host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
            let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
            if name.is_empty() { "podium".to_owned() } else { name }
        }
    };
    if let Some(why) = podium_api::names::is_dns1123_subdomain(&name).first() {
        bail!("{name:?} cannot be the node's name: {why}: name it with --node-name");
    }
    Ok(name)
}
