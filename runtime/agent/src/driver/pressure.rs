//! Watches what is left of the machine's memory and disk, and what pods keep on disk; has pods evicted before the kernel acts.
//!
//! Memory that is left is the least of three: what the machine has available, what the control group of this process may
//! still take, and what pods may take of the node's allocatable memory. Of the last, guests are billed at most with what
//! this process really has, since memory that a guest has asked for and never touched costs nothing.
//!
//! A look costs a few reads of `/proc`, once a second; folders are walked every ten seconds, and only where a limit is.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Node, ObjectReference},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use podium_api::{ObjectKey, quantity::Quantity};
use podium_client::{Mirror, Note};
use tokio::{
    sync::{Notify, oneshot},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{PodId, Report, Shared};
use crate::{
    AgentConfig,
    decide::{
        amounts,
        eviction::{Eviction, Observation, PodUse, Pressure, Short, Stored, Thresholds, Watcher, too_much, victim},
        local::Slot,
    },
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two walks of folders.
const WALK_EVERY: Duration = Duration::from_secs(10);
/// How long an evicted pod may take until the next one is.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const GONE_EVERY: Duration = Duration::from_millis(250);
/// The grace of a pod that keeps too much.
const TOO_MUCH_GRACE_SECONDS: i64 = 1;

/// What the rest of the agent asks of the node.
pub(crate) struct NodeState {
    nodes: Arc<dyn Mirror>,
    key: ObjectKey,
    memory: AtomicBool,
    disk: AtomicBool,
    changed: Notify,
}

impl NodeState {
    pub(crate) fn new(nodes: Arc<dyn Mirror>, name: &str) -> Self {
        let key = ObjectKey::cluster(name);
        Self { nodes, key, memory: AtomicBool::new(false), disk: AtomicBool::new(false), changed: Notify::new() }
    }

    /// The Node object.
    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.nodes.get(&self.key)?.downcast_arc()
    }

    /// Somebody has said that the node is not ready: its status is to be said again.
    pub(crate) fn contradict(&self) {
        if self.node().is_some_and(|node| counts_as_lost(&node)) {
            self.changed.notify_one();
        }
    }

    /// Somebody offers something else on this node than can be had: its status is to be said again.
    fn follow_offers(&self) {
        if self.node().is_some_and(|node| offers_something_else(&node)) {
            self.changed.notify_one();
        }
    }

    /// What the node is short of.
    pub(crate) fn pressure(&self) -> Pressure {
        Pressure { memory: self.memory.load(Ordering::Acquire), disk: self.disk.load(Ordering::Acquire) }
    }

    /// Resolves when that has changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn set(&self, pressure: Pressure) {
        let before =
            (self.memory.swap(pressure.memory, Ordering::AcqRel), self.disk.swap(pressure.disk, Ordering::AcqRel));
        if before != (pressure.memory, pressure.disk) {
            self.changed.notify_one();
        }
    }
}

/// Whether a node's status says of it what only others say: while its agent runs it is ready.
fn counts_as_lost(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status != "True")
}

/// Whether what others have put into a node's capacity (devices, licences) is not what is allocatable.
fn offers_something_else(node: &Node) -> bool {
    node.status.as_ref().is_some_and(|s| of_others(s.capacity.as_ref()).ne(of_others(s.allocatable.as_ref())))
}

fn of_others(list: Option<&BTreeMap<String, WireQuantity>>) -> impl Iterator<Item = (&String, &WireQuantity)> {
    const OWN: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];
    list.into_iter().flatten().filter(|(name, _)| !OWN.contains(&name.as_str()))
}

impl AgentConfig {
    pub(crate) fn thresholds(&self, disk_bytes: u64) -> Thresholds {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Thresholds {
            memory_hard_bytes: self.eviction_memory_bytes,
            memory_soft: self.eviction_memory_soft.map(|(bytes, time)| (bytes, seconds(time))),
            disk_hard_bytes: self.eviction_disk_bytes.min(disk_bytes / 10),
            grace_seconds_max: seconds(self.eviction_grace_max),
        }
    }
}

/// Watches until it is dropped. Folders, of which pods decide how long they take, are walked beside the rest: what the node is short
/// of does not wait for that.
pub(crate) async fn watch(shared: Arc<Shared>) {
    tokio::join!(look(&shared), bill(&shared), walk(&shared));
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Sees what the node is short of.
async fn look(shared: &Arc<Shared>) {
    let mut ticks = every(LOOK_EVERY);
    let mut watcher = Watcher::default();
    let group = Group::of_this_process();
    loop {
        ticks.tick().await;
        shared.state.follow_offers();
        let (disk_total, disk_bytes) = disk(&shared.config.data_dir);
        let thresholds = shared.config.thresholds(disk_total);
        let seen = Observation { memory_bytes: memory_left(shared, group.as_ref(), &thresholds), disk_bytes };
        let now = shared.clock.now();
        let short = watcher.observe(&thresholds, seen, now);
        shared.state.set(watcher.pressure(now));
        if let Some(short) = short {
            note_node(shared, &short);
            if let Some(eviction) = chosen(shared, &short, &thresholds).await {
                evict(shared, eviction).await;
            }
        }
    }
}

/// Files in memory are their pods' memory.
async fn bill(shared: &Arc<Shared>) {
    let mut ticks = every(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if shared.volumes.any_in_memory() {
            let volumes = shared.volumes.clone();
            // It ends early only when the process does.
            let _ = tokio::task::spawn_blocking(move || volumes.bill_memory()).await;
        }
    }
}

/// Sees which pods keep more than they may.
async fn walk(shared: &Arc<Shared>) {
    let mut ticks = every(WALK_EVERY);
    loop {
        ticks.tick().await;
        for eviction in keeping_too_much(shared).await {
            evict(shared, eviction).await;
        }
    }
}

fn memory_left(shared: &Shared, group: Option<&Group>, thresholds: &Thresholds) -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemAvailable:"));
    let own = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kib(&text, "RssAnon:"));
    let guests = shared.sandbox.guest_memory_bytes().0.min(own.unwrap_or(u64::MAX));
    // What is allocatable leaves the threshold out already.
    let of_pods = shared.node.memory_bytes.saturating_add(thresholds.memory_hard_bytes).saturating_sub(guests);
    let of_group = group.and_then(Group::memory_left).unwrap_or(u64::MAX);
    machine.unwrap_or(u64::MAX).min(of_pods).min(of_group)
}

/// `Name:   123 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

/// The control group (version 2) of this process.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn of_this_process() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let path = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        path.join("memory.max").exists().then_some(Self(path))
    }

    fn number(&self, file: &str) -> Option<u64> {
        std::fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok()
    }

    /// What the group may have; `None`: there is no bound.
    pub(crate) fn memory_max(&self) -> Option<u64> {
        self.number("memory.max")
    }

    /// What it may still take: files that nobody has used for long do not count.
    fn memory_left(&self) -> Option<u64> {
        let (max, now) = (self.memory_max()?, self.number("memory.current")?);
        let stat = std::fs::read_to_string(self.0.join("memory.stat")).ok()?;
        let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok()?;
        Some(max.saturating_sub(now.saturating_sub(inactive)))
    }
}

/// All and available bytes of the file system that a folder is on. One that cannot be asked is never short.
pub(crate) fn disk(dir: &Path) -> (u64, u64) {
    rustix::fs::statvfs(dir).map_or((u64::MAX, u64::MAX), |stat| {
        (stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize))
    })
}

fn note_node(shared: &Shared, short: &Short) {
    let name = &shared.config.node_name;
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.clone()),
        uid: Some(name.clone()),
        ..ObjectReference::default()
    };
    let message = format!("Attempting to reclaim {}", short.resource());
    shared.recorder.note(Note { regarding, warning: true, reason: "EvictionThresholdMet".to_owned(), message });
}

async fn uses(shared: &Shared) -> Vec<PodUse<PodId>> {
    let (answer, asked) = oneshot::channel();
    shared.report(Report::Uses(answer));
    asked.await.unwrap_or_default()
}

async fn chosen(shared: &Arc<Shared>, short: &Short, thresholds: &Thresholds) -> Option<Eviction<PodId>> {
    let mut pods = uses(shared).await;
    if short.resource() != "memory" {
        let of_task = shared.clone();
        let walked = tokio::task::spawn_blocking(move || {
            for pod in &mut pods {
                let stored = of_task.stored(&pod.key);
                pod.disk.used_bytes = stored.total_bytes;
                for container in &mut pod.containers {
                    container.disk.used_bytes = stored.containers.get(&container.name).copied().unwrap_or(0);
                }
            }
            pods
        });
        pods = walked.await.ok()?;
    }
    victim(short, thresholds, &pods)
}

/// Has a pod evicted and waits until it is gone: what it leaves is what the next look sees.
async fn evict(shared: &Shared, eviction: Eviction<PodId>) {
    let id = eviction.key.clone();
    shared.report(Report::Evict(eviction));
    let gone = async {
        while uses(shared).await.iter().any(|pod| pod.key == id) {
            tokio::time::sleep(GONE_EVERY).await;
        }
    };
    // One that takes longer does not keep the others.
    let _ = tokio::time::timeout(GONE_WITHIN, gone).await;
}

/// Pods that keep more than their limits let them.
async fn keeping_too_much(shared: &Arc<Shared>) -> Vec<Eviction<PodId>> {
    let of_task = shared.clone();
    let walked = tokio::task::spawn_blocking(move || {
        let mut found = of_task.volumes.over_limit();
        for object in of_task.pods.list(None) {
            let Some(pod) = object.downcast_arc::<k8s_openapi::api::core::v1::Pod>() else { continue };
            found.extend(of_task.past_limit(&pod).map(|message| (super::id_of(&pod), message)));
        }
        found
    });
    let evictions = walked.await.unwrap_or_default().into_iter();
    evictions.map(|(key, message)| Eviction { key, grace_seconds: TOO_MUCH_GRACE_SECONDS, message }).collect()
}

/// What a pod keeps on disk.
struct Kept {
    /// Logs and core dumps of each container.
    containers: HashMap<String, u64>,
    total_bytes: u64,
}

impl Kept {
    /// `own`: what containers have written. A volume may be too large to be counted (`u64::MAX`).
    fn of(own: impl Iterator<Item = (String, u64)>, volumes: &[(String, u64)]) -> Self {
        let mut containers = HashMap::<_, u64>::new();
        for (name, bytes) in own {
            let of_container = containers.entry(name).or_default();
            *of_container = of_container.saturating_add(bytes);
        }
        let all = containers.values().chain(volumes.iter().map(|(_, bytes)| bytes));
        let total_bytes = all.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        Self { containers, total_bytes }
    }
}

impl Shared {
    /// Blocks while folders are walked.
    fn stored(&self, id: &PodId) -> Kept {
        let own = self.log_index.sizes(id).into_iter().chain(self.core_dump_sizes(id));
        Kept::of(own, &self.volumes.usage(&id.uid).on_disk)
    }

    /// Why a pod has to go that keeps more than it may. Folders are walked only where there is a limit.
    fn past_limit(&self, pod: &k8s_openapi::api::core::v1::Pod) -> Option<String> {
        let spec = pod.spec.as_ref().filter(|_| !crate::decide::is_final(pod))?;
        let limits: Vec<(String, Quantity)> = (0..spec.containers.len())
            .filter_map(|i| {
                let container = Slot::Main(i).spec(pod)?;
                let limit = amounts::read(container.resources.as_ref()?.limits.as_ref(), "ephemeral-storage")?;
                Some((container.name.clone(), limit))
            })
            .collect();
        if limits.is_empty() {
            return None;
        }
        let kept = self.stored(&super::id_of(pod));
        let own = |name: &str| kept.containers.get(name).copied().unwrap_or(0);
        too_much(&Stored {
            total_bytes: kept.total_bytes,
            limit_bytes: amounts::limits(spec, &amounts::of_spec).ephemeral_bytes,
            containers: limits.into_iter().map(|(name, limit)| (name.clone(), own(&name), limit)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_counted_is_no_trouble_for_others() {
        let kept = |logs: &[(&str, u64)], volumes: &[u64]| {
            let named = |(name, bytes): &(&str, u64)| ((*name).to_owned(), *bytes);
            let volumes: Vec<_> = volumes.iter().map(|bytes| ("v".to_owned(), *bytes)).collect();
            let kept = Kept::of(logs.iter().map(named), &volumes);
            (kept.containers.get("a").copied(), kept.total_bytes)
        };
        assert_eq!(kept(&[("a", 1), ("b", 2), ("a", 3)], &[10, 20]), (Some(4), 36));
        assert_eq!(kept(&[("a", 1)], &[u64::MAX, u64::MAX]), (Some(1), u64::MAX));
    }

    #[test]
    fn a_node_that_is_said_to_be_lost_says_otherwise() {
        let node = |conditions: serde_json::Value| -> Node {
            serde_json::from_value(serde_json::json!({ "metadata": {}, "status": { "conditions": conditions } }))
                .unwrap()
        };
        for (conditions, lost) in [
            (serde_json::json!([{ "type": "Ready", "status": "Unknown" }]), true),
            (serde_json::json!([{ "type": "Ready", "status": "False" }]), true),
            (serde_json::json!([{ "type": "Other", "status": "False" }, { "type": "Ready", "status": "True" }]), false),
            (serde_json::json!([]), false),
        ] {
            assert_eq!(counts_as_lost(&node(conditions.clone())), lost, "{conditions}");
        }
    }

    #[test]
    fn what_the_system_says() {
        let text = "MemTotal:       16384 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(1 << 20));
        assert_eq!(kib(text, "SwapFree:"), None);
        let (all, free) = disk(Path::new("/"));
        assert!(all >= free && all < u64::MAX);
        assert_eq!(disk(Path::new("/no such folder")), (u64::MAX, u64::MAX));
    }
}
