//! What an embedder may set: plain data, read once at start.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use podium_client::{ClockRef, SystemClock};
use podium_network::TunnelIdentity;
use rustls::RootCertStore;

use crate::{AddressPool, ImageGc, InterfacePolicy, Registries, ipam::Cidr, streams::Tools};

/// How other nodes and API servers reach this node.
#[derive(Clone)]
pub struct TunnelSettings {
    /// Where it listens: at the first of these that nobody else has; port 0 picks one.
    pub listen: Vec<SocketAddr>,
    /// What it shows.
    pub identity: Arc<dyn TunnelIdentity>,
    /// Whom it believes: the cluster's CA.
    pub roots: RootCertStore,
}

impl fmt::Debug for TunnelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelSettings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Settings of an [`crate::Agent`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Where the agent keeps its files; logs go to `logs` below it.
    pub data_dir: PathBuf,
    /// Folders below which `file://` images may lie. None: no `file://` image can be used.
    pub image_dirs: Vec<PathBuf>,
    /// Folders below which `hostPath` volumes may lie. None: no such volume can be used.
    pub host_path_dirs: Vec<PathBuf>,
    /// Which interfaces of the host pods may use at most.
    pub interfaces: InterfacePolicy,
    /// A memory file system for Secrets, tokens and volumes of `medium: Memory`, used if it can be; else they lie below
    /// `data_dir`.
    pub memory_dir: Option<PathBuf>,
    /// Largest image file, in bytes.
    pub image_bytes_max: u64,
    /// Which registries are asked for images.
    pub registries: Registries,
    /// Images pulled at once.
    pub image_pulls_max: usize,
    /// When unused images go.
    pub image_gc: ImageGc,
    /// The commands that `exec` finds in every container beside those of its image.
    pub tools: Tools,
    /// Addresses of pods that a new Node object asks for; `None`: those that the cluster gives it. What the Node has
    /// counts (`spec.podCIDR`).
    pub pod_cidr: Option<Cidr>,
    /// The node's own address, shown as `hostIP` and `InternalIP`.
    pub node_ip: IpAddr,
    /// Whether Gateways are served here, and told how they are: by one node of a cluster.
    pub gateways: bool,
    /// How other nodes reach it. `None`: it is the only one.
    pub tunnel: Option<TunnelSettings>,
    /// Where its tunnel listens, once it does.
    pub(crate) port: Option<u16>,
    /// Pods that the node takes.
    pub pods_max: u32,
    /// Labels of the Node beside those that the agent sets itself.
    pub labels: BTreeMap<String, String>,
    /// Memory that a container without `limits.memory` may use; never more than the node's allocatable memory.
    pub memory_default_bytes: u64,
    /// Memory kept back from pods for this process itself.
    pub memory_reserved_bytes: u64,
    /// Less memory than this available: a pod is evicted at once. Not allocatable.
    pub eviction_memory_bytes: u64,
    /// Less memory than this available for so long: a pod is evicted within its grace.
    pub eviction_memory_soft: Option<(u64, Duration)>,
    /// Less disk than this available, or than a tenth of all of it if that is less: a pod is evicted at once.
    pub eviction_disk_bytes: u64,
    /// The most grace that an evicted pod gets past a soft threshold.
    pub eviction_grace_max: Duration,
    /// A folder of manifests of pods that run here whatever the API says; mirrors of them are shown there.
    pub static_pods_dir: Option<PathBuf>,
    /// How often that folder is looked at.
    pub static_pods_every: Duration,
    /// Size at which a log file is rotated.
    pub log_file_bytes_max: u64,
    /// Log files kept of one run of a container, the current one included.
    pub log_files_max: u32,
    /// Status writes under way at once.
    pub status_writes_max: usize,
    /// How often the Lease is renewed; it lasts four times as long.
    pub lease_renew_every: Duration,
    /// Addresses of this host that load balancers get; `None`: load balancers are somebody else's.
    pub load_balancer: Option<AddressPool>,
    /// How long requests under way may take at shutdown.
    pub drain_timeout: Duration,
    /// The time of day.
    pub clock: ClockRef,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
}

impl AgentConfig {
    /// The defaults for a node of this name that keeps its files in `data_dir`.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            data_dir: data_dir.into(),
            image_dirs: Vec::new(),
            host_path_dirs: Vec::new(),
            interfaces: InterfacePolicy::default(),
            memory_dir: Some(PathBuf::from("/dev/shm")),
            image_bytes_max: 256 << 20,
            registries: Registries::default(),
            image_pulls_max: 4,
            image_gc: ImageGc::default(),
            tools: Tools::Off,
            pod_cidr: Some(Cidr::DEFAULT),
            gateways: true,
            tunnel: None,
            port: None,
            node_ip: IpAddr::from([127, 0, 0, 1]),
            pods_max: 10_000,
            labels: BTreeMap::new(),
            memory_default_bytes: 1 << 30,
            memory_reserved_bytes: 128 << 20,
            eviction_memory_bytes: 100 << 20,
            eviction_memory_soft: None,
            eviction_disk_bytes: 1 << 30,
            eviction_grace_max: Duration::from_secs(30),
            static_pods_dir: None,
            static_pods_every: Duration::from_secs(2),
            log_file_bytes_max: 10 << 20,
            log_files_max: 5,
            status_writes_max: 256,
            lease_renew_every: Duration::from_secs(10),
            load_balancer: None,
            drain_timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
            metrics: prometheus::Registry::new(),
        }
    }
}
