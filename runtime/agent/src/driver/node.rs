//! The node itself: registration, heartbeats by Lease, status.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kubelet_node_status.go` (what it does on repeated failures of its heartbeat, too) and
//! `pkg/kubelet/nodestatus/setters.go`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
            NodeStatus, NodeSystemInfo,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    },
};
use podium_api::{ApiError, Object, ObjectKey, Reason};
use podium_client::{Api, ApiExt as _};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Shared, pressure};
use crate::{
    AgentConfig,
    decide::{eviction::Pressure, resources::NodeResources, status::time},
    ipam::Cidr,
};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const STATUS_EVERY: Duration = Duration::from_secs(300);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: usize = 5;
/// How often it is looked whether the cluster has given the node addresses.
const CIDR_EVERY: Duration = Duration::from_secs(1);
const CIDR_LOOKS: usize = 60;

/// What the machine has.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    cpu_millicores: u64,
    memory_bytes: u64,
    disk_bytes: u64,
    info: NodeSystemInfo,
}

impl Machine {
    /// Looks at the machine that this process runs on.
    ///
    /// `data_dir`: what is stored of pods is on its file system. A bound on this process' control group counts as the
    /// machine's memory.
    pub(crate) fn look(data_dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let os = read("/etc/os-release");
        let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let version = env!("CARGO_PKG_VERSION");
        let bound = pressure::Group::of_this_process().and_then(|group| group.memory_max());
        Self {
            cpu_millicores: cores * 1000,
            memory_bytes: memory_total(&read("/proc/meminfo")).unwrap_or(1 << 30).min(bound.unwrap_or(u64::MAX)),
            disk_bytes: pressure::disk(data_dir).0,
            info: NodeSystemInfo {
                architecture: "wasm32".to_owned(),
                boot_id: read("/proc/sys/kernel/random/boot_id"),
                container_runtime_version: "wasmtime://48.0.8".to_owned(),
                kernel_version: read("/proc/sys/kernel/osrelease"),
                kube_proxy_version: String::new(),
                kubelet_version: format!("v1.36.0+podium.{version}"),
                machine_id: read("/etc/machine-id"),
                operating_system: "linux".to_owned(),
                os_image: os.trim_matches('"').to_owned(),
                system_uuid: read("/etc/machine-id"),
                ..NodeSystemInfo::default()
            },
        }
    }

    /// What pods may use.
    pub(crate) fn allocatable(&self, config: &AgentConfig) -> NodeResources {
        let kept = config.memory_reserved_bytes.saturating_add(config.eviction_memory_bytes);
        NodeResources {
            cpu_millicores: self.cpu_millicores,
            // A machine that is smaller than what is kept back is a toy; it still runs pods that request nothing.
            memory_bytes: self.memory_bytes.saturating_sub(kept).max(1),
            ephemeral_bytes: self.disk_bytes - config.thresholds(self.disk_bytes).disk_hard_bytes,
            memory_default_bytes: config.memory_default_bytes,
        }
    }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Makes sure that the Node object exists, with its labels; answers with the addresses of its pods.
pub(crate) async fn register(config: &AgentConfig, api: &dyn Api, machine: &Machine) -> Result<Cidr, ApiError> {
    let now = config.clock.now();
    let mut node = Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: config.pod_cidr.map(|cidr| cidr.to_string()),
            pod_cidrs: config.pod_cidr.map(|cidr| vec![cidr.to_string()]),
            ..NodeSpec::default()
        }),
        status: None,
    };
    node.status = Some(status(config, machine, Seen::default(), None, now));
    let key = ObjectKey::cluster(&config.node_name);
    match limited(api.create(Box::new(node.clone()) as Box<dyn Object>)).await {
        Ok(_) => {}
        Err(error) if error.reason == Reason::AlreadyExists => relabel(config, api, &key).await?,
        Err(error) => return Err(error),
    }
    // Before it says that it is ready: whoever looks at the lease of one that was lost would say that it still is.
    renew(config, api).await?;
    write_status(config, api, machine, &Seen::default()).await?;
    pod_cidr(config, api, &key).await
}

/// The addresses of the node's pods: as the Node says, which somebody else may have to fill in yet.
async fn pod_cidr(config: &AgentConfig, api: &dyn Api, key: &ObjectKey) -> Result<Cidr, ApiError> {
    for _ in 0..CIDR_LOOKS {
        let node = limited(api.get_typed::<Node>(key)).await?;
        let given = node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()).and_then(|text| text.parse().ok());
        if let Some(cidr) = given.or(config.pod_cidr) {
            return Ok(cidr);
        }
        tokio::time::sleep(CIDR_EVERY).await;
    }
    Err(ApiError::internal("the cluster gives the node no addresses for pods (spec.podCIDR): name some"))
}

fn labels(config: &AgentConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        // Manifests in the wild select linux; guests see no operating system anyhow.
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "wasm32"),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

async fn relabel(config: &AgentConfig, api: &dyn Api, key: &ObjectKey) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let mut node = Node::clone(&*limited(api.get_typed::<Node>(key)).await?);
        let before = node.metadata.labels.clone();
        node.metadata.labels.get_or_insert_default().extend(labels(config));
        if node.metadata.labels == before {
            return Ok(());
        }
        match limited(api.update(Box::new(node) as Box<dyn Object>, None)).await {
            Err(error) if error.is_conflict() => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(ApiError::internal("the Node changed again and again"))
}

/// What changes about a node while it runs.
#[derive(Debug, Clone, Default)]
struct Seen {
    images: Vec<ContainerImage>,
    pressure: Pressure,
}

async fn write_status(config: &AgentConfig, api: &dyn Api, machine: &Machine, seen: &Seen) -> Result<(), ApiError> {
    let key = ObjectKey::cluster(&config.node_name);
    for _ in 0..TRIES {
        let mut node = Node::clone(&*limited(api.get_typed::<Node>(&key)).await?);
        node.status = Some(status(config, machine, seen.clone(), node.status.as_ref(), config.clock.now()));
        match limited(api.update(Box::new(node) as Box<dyn Object>, Some("status"))).await {
            Err(error) if error.is_conflict() => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(ApiError::internal("the Node changed again and again"))
}

fn status(
    config: &AgentConfig,
    machine: &Machine,
    seen: Seen,
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let allocatable = machine.allocatable(config);
    // What somebody else offers on this node (devices, licences): a capacity that is not the agent's stays, and can be had.
    let others = |own: &BTreeMap<String, Quantity>| {
        let capacity = before.and_then(|s| s.capacity.clone()).unwrap_or_default();
        capacity.into_iter().filter(|(name, _)| !own.contains_key(name)).collect::<Vec<_>>()
    };
    let resources = |cpu: u64, memory: u64, disk: u64| {
        let ki = |bytes: u64| format!("{}Ki", bytes / 1024);
        let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        let pods = config.pods_max.to_string();
        let amounts = [("cpu", cpu), ("memory", ki(memory)), ("ephemeral-storage", ki(disk)), ("pods", pods)];
        let mut all = BTreeMap::from(amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount))));
        all.extend(others(&all));
        all
    };
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let own = conditions(seen.pressure);
    let foreign = before.iter().flat_map(|s| s.conditions.iter().flatten());
    let foreign = foreign.filter(|c| !own.iter().any(|(type_, ..)| c.type_ == *type_)).cloned();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        allocatable: Some(resources(allocatable.cpu_millicores, allocatable.memory_bytes, allocatable.ephemeral_bytes)),
        capacity: Some(resources(machine.cpu_millicores, machine.memory_bytes, machine.disk_bytes)),
        conditions: Some(own.iter().map(|c| condition(c, before, now)).chain(foreign).collect()),
        daemon_endpoints: config
            .port
            .map(|port| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: port.into() }) }),
        images: Some(seen.images),
        node_info: Some(machine.info.clone()),
        ..before.cloned().unwrap_or_default()
    }
}

/// Type, status, reason, message.
type Said = (&'static str, &'static str, &'static str, &'static str);

fn conditions(pressure: Pressure) -> [Said; 4] {
    [
        match pressure.memory {
            true => {
                ("MemoryPressure", "True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            }
            false => {
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            }
        },
        match pressure.disk {
            true => ("DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure"),
            false => ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        },
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
}

fn condition((type_, status, reason, message): &Said, before: Option<&NodeStatus>, now: Timestamp) -> NodeCondition {
    let before = before.and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == *type_ && c.status == *status));
    NodeCondition {
        last_heartbeat_time: Some(time(now)),
        last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(time(now))),
        message: Some((*message).to_owned()),
        reason: Some((*reason).to_owned()),
        status: (*status).to_owned(),
        type_: (*type_).to_owned(),
    }
}

/// Renews the Lease for ever.
pub(crate) async fn heartbeat(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.lease_renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_silent = false;
    loop {
        ticks.tick().await;
        let renewed = renew(&shared.config, &*shared.api).await;
        let is_silent = renewed.as_ref().is_err_and(|error| error.reason == Reason::Timeout);
        // Connections that are silent may stay so when the server can be reached again, and with them the watches.
        if is_silent || was_silent && renewed.is_ok() {
            shared.api.give_up_connections();
        }
        was_silent = is_silent || was_silent && renewed.is_err();
        match renewed {
            // It may have counted as lost before.
            Ok(()) => shared.state.contradict(),
            Err(error) => {
                tracing::warn!(%error, node = shared.config.node_name, "the node's lease cannot be renewed; the node will count as lost");
            }
        }
    }
}

async fn renew(config: &AgentConfig, api: &dyn Api) -> Result<(), ApiError> {
    let key = ObjectKey::new(LEASE_NAMESPACE, &config.node_name);
    let seconds = i32::try_from((config.lease_renew_every * 4).as_secs()).unwrap_or(i32::MAX).max(1);
    for _ in 0..TRIES {
        let found = match limited(api.get_typed::<Lease>(&key)).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let spec = LeaseSpec {
            holder_identity: Some(config.node_name.clone()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(config.clock.now())),
            ..LeaseSpec::default()
        };
        let outcome = match found {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..Lease::clone(&lease) };
                limited(api.update(Box::new(lease) as Box<dyn Object>, None)).await
            }
            None => limited(api.create(Box::new(new_lease(config, api, spec).await?) as Box<dyn Object>)).await,
        };
        match outcome {
            Err(error) if error.is_conflict() || error.reason == Reason::AlreadyExists => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(ApiError::internal("the Lease changed again and again"))
}

async fn new_lease(config: &AgentConfig, api: &dyn Api, spec: LeaseSpec) -> Result<Lease, ApiError> {
    let name = &config.node_name;
    let node = limited(api.get_typed::<Node>(&ObjectKey::cluster(name))).await?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        namespace: Some(LEASE_NAMESPACE.to_owned()),
        name: Some(name.clone()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Ok(Lease { metadata, spec: Some(spec) })
}

/// Writes the node's status when its images or shortages change, and every few minutes.
pub(crate) async fn keep_status(shared: Arc<Shared>, machine: Machine) {
    loop {
        tokio::select! {
            () = shared.images.changed() => {}
            () = shared.state.changed() => {}
            () = tokio::time::sleep(STATUS_EVERY) => {}
        }
        let seen = Seen { images: shared.images.shown(), pressure: shared.state.pressure() };
        if let Err(error) = write_status(&shared.config, &*shared.api, &machine, &seen).await {
            tracing::warn!(%error, "the node's status cannot be written");
        }
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let seconds = WRITE_TIMEOUT.as_secs();
    let late = || ApiError::new(Reason::Timeout, format!("no answer from the API within {seconds} s"));
    timeout(WRITE_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}
