//! When the node runs short of memory or disk, and which pod has to go then. Pure: observations in, one decision out.
//!
//! # Source
//! Kubernetes `pkg/kubelet/eviction/eviction_manager.go` and `helpers.go`.

use std::cmp::Reverse;

use jiff::Timestamp;
use podium_api::quantity::{Format, Quantity};

use super::backoff::after;

/// How long a condition is shown after it was last so.
const TRANSITION_SECONDS: i64 = 300;
/// The grace of a pod that has to go at once.
const AT_ONCE_SECONDS: i64 = 1;

/// From when on the node is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Less memory than this available: a pod goes at once.
    pub(crate) memory_hard_bytes: u64,
    /// Less than this for so many seconds: a pod goes within its grace.
    pub(crate) memory_soft: Option<(u64, i64)>,
    /// Less disk than this available: a pod goes at once.
    pub(crate) disk_hard_bytes: u64,
    /// The most grace that a pod gets past a soft threshold.
    pub(crate) grace_seconds_max: i64,
}

/// What of a resource is left now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// What one pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodUse<K> {
    pub(crate) key: K,
    pub(crate) critical: bool,
    pub(crate) priority: i32,
    pub(crate) memory: Share,
    pub(crate) disk: Share,
    pub(crate) containers: Vec<ContainerUse>,
}

/// What is used of what was requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) used_bytes: u64,
    pub(crate) requested_bytes: u64,
}

/// One container of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerUse {
    pub(crate) name: String,
    pub(crate) memory: Share,
    pub(crate) disk: Share,
}

/// Which conditions the node shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
}

/// A pod that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction<K> {
    pub(crate) key: K,
    pub(crate) grace_seconds: i64,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Memory,
    Disk,
}

impl Signal {
    fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }
}

/// What has been observed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watcher {
    memory_seen: Option<Timestamp>,
    disk_seen: Option<Timestamp>,
    soft_since: Option<Timestamp>,
}

/// A threshold that is passed: what it is about, the amount, and whether it is a hard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    signal: Signal,
    threshold_bytes: u64,
    available_bytes: u64,
    hard: bool,
}

impl Short {
    /// The resource as events name it.
    pub(crate) fn resource(&self) -> &'static str {
        self.signal.resource()
    }
}

impl Watcher {
    /// Takes an observation; answers what a pod has to be evicted for, if for anything. Memory comes first.
    pub(crate) fn observe(&mut self, thresholds: &Thresholds, seen: Observation, now: Timestamp) -> Option<Short> {
        let below = |available: u64, threshold: u64| (available < threshold).then_some(threshold);
        let memory = below(seen.memory_bytes, thresholds.memory_hard_bytes);
        let disk = below(seen.disk_bytes, thresholds.disk_hard_bytes);
        let soft = thresholds.memory_soft.filter(|(bytes, _)| seen.memory_bytes < *bytes);
        self.soft_since = soft.map(|_| self.soft_since.unwrap_or(now));
        if memory.or(soft.map(|(bytes, _)| bytes)).is_some() {
            self.memory_seen = Some(now);
        }
        if disk.is_some() {
            self.disk_seen = Some(now);
        }
        let due = soft.zip(self.soft_since).filter(|((_, seconds), since)| after(*since, *seconds) <= now);
        let short =
            |signal, threshold_bytes, available_bytes, hard| Short { signal, threshold_bytes, available_bytes, hard };
        let hard = memory.map(|bytes| short(Signal::Memory, bytes, seen.memory_bytes, true));
        hard.or_else(|| due.map(|((bytes, _), _)| short(Signal::Memory, bytes, seen.memory_bytes, false)))
            .or_else(|| disk.map(|bytes| short(Signal::Disk, bytes, seen.disk_bytes, true)))
    }

    /// The conditions that the node shows now.
    pub(crate) fn pressure(&self, now: Timestamp) -> Pressure {
        let recent = |seen: Option<Timestamp>| seen.is_some_and(|at| now < after(at, TRANSITION_SECONDS));
        Pressure { memory: recent(self.memory_seen), disk: recent(self.disk_seen) }
    }
}

/// Which pod goes: those that use more than they requested first, of these the one of the lowest priority, of these the one
/// that is furthest above its request. `None`: there is none that may go.
pub(crate) fn victim<K: Clone>(short: &Short, limits: &Thresholds, pods: &[PodUse<K>]) -> Option<Eviction<K>> {
    let share = |pod: &PodUse<K>| match short.signal {
        Signal::Memory => pod.memory,
        Signal::Disk => pod.disk,
    };
    let rank = |pod: &&PodUse<K>| {
        let Share { used_bytes, requested_bytes } = share(pod);
        let above = i128::from(used_bytes) - i128::from(requested_bytes);
        (used_bytes <= requested_bytes, pod.priority, Reverse(above))
    };
    let first = pods.iter().filter(|pod| !pod.critical).min_by_key(rank)?;
    Some(Eviction {
        key: first.key.clone(),
        grace_seconds: if short.hard { AT_ONCE_SECONDS } else { limits.grace_seconds_max },
        message: message(short, first),
    })
}

fn message<K>(short: &Short, pod: &PodUse<K>) -> String {
    let resource = short.resource();
    let shown =
        |bytes: u64| Quantity::from_value(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi).to_string();
    let (threshold, available) = (shown(short.threshold_bytes), shown(short.available_bytes));
    let mut text =
        format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. ");
    for container in &pod.containers {
        let Share { used_bytes, requested_bytes } = match short.signal {
            Signal::Memory => container.memory,
            Signal::Disk => container.disk,
        };
        if used_bytes > requested_bytes {
            let (name, used, requested) = (&container.name, shown(used_bytes), shown(requested_bytes));
            text.push_str(&format!(
                "Container {name} was using {used}, request is {requested}, has larger consumption of {resource}. "
            ));
        }
    }
    text
}

/// What one pod keeps on disk, beside what it may; its `emptyDir`s with limits of their own are looked at by `volumes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Everything together, and the limit over its containers.
    pub(crate) total_bytes: u64,
    pub(crate) limit_bytes: Option<u64>,
    /// Name, bytes of logs and the limit of each container that has one.
    pub(crate) containers: Vec<(String, u64, Quantity)>,
}

/// Why a pod that keeps so much has to go, if it has to.
pub(crate) fn too_much(stored: &Stored) -> Option<String> {
    let past = |(_, used, limit): &&(String, u64, Quantity)| !limit.is_zero() && *used > limit.bytes();
    if let Some(limit) = stored.limit_bytes.filter(|limit| stored.total_bytes > *limit) {
        let limit = Quantity::from_value(i64::try_from(limit).unwrap_or(i64::MAX), Format::BinarySi);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    let (name, _, limit) = stored.containers.iter().find(past)?;
    let limit = limit.to_string();
    Some(format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Thresholds = Thresholds {
        memory_hard_bytes: 100 * MIB,
        memory_soft: Some((200 * MIB, 30)),
        disk_hard_bytes: 500 * MIB,
        grace_seconds_max: 20,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Feeds `second:memory:disk` (MiB) and tells what is short and what the node shows.
    #[test]
    fn thresholds_and_conditions() {
        for (script, expected) in [
            ("0:300:600", "- --"),
            ("0:99:600", "memory! M-"),
            ("0:150:600", "- M-"),
            ("0:150:600 29:150:600", "- M-"),
            ("0:150:600 30:150:600", "memory M-"),
            ("0:150:600 20:300:600 30:150:600", "- M-"),
            ("0:150:600 10:99:600", "memory! M-"),
            ("0:300:499", "ephemeral-storage! -D"),
            ("0:99:499", "memory! MD"),
            ("0:99:600 299:300:600", "- M-"),
            ("0:99:600 300:300:600", "- --"),
        ] {
            let mut watcher = Watcher::default();
            let mut told = String::new();
            for step in script.split(' ') {
                let numbers: Vec<u64> = step.split(':').map(|n| n.parse().unwrap()).collect();
                let now = at(numbers[0].try_into().unwrap());
                let seen = Observation { memory_bytes: numbers[1] * MIB, disk_bytes: numbers[2] * MIB };
                let short = watcher.observe(&LIMITS, seen, now);
                let pressure = watcher.pressure(now);
                let short =
                    short.map_or("-".to_owned(), |s| format!("{}{}", s.resource(), if s.hard { "!" } else { "" }));
                let (memory, disk) = (if pressure.memory { 'M' } else { '-' }, if pressure.disk { 'D' } else { '-' });
                told = format!("{short} {memory}{disk}");
            }
            assert_eq!(told, expected, "{script}");
        }
    }

    fn pod(key: &'static str, used: u64, requested: u64, priority: i32) -> PodUse<&'static str> {
        let share = Share { used_bytes: used * MIB, requested_bytes: requested * MIB };
        let container = ContainerUse { name: "app".to_owned(), memory: share, disk: share };
        PodUse { key, critical: key == "critical", priority, memory: share, disk: share, containers: vec![container] }
    }

    #[test]
    fn who_goes_first() {
        for (pods, expected) in [
            (vec![], None),
            (vec![pod("critical", 50, 0, 0)], None),
            (vec![pod("small", 10, 0, 0), pod("large", 20, 0, 0)], Some("large")),
            (vec![pod("within", 90, 100, 0), pod("above", 2, 1, 0)], Some("above")),
            (vec![pod("within", 90, 100, -5), pod("above", 2, 1, 9)], Some("above")),
            (vec![pod("high", 90, 0, 9), pod("low", 2, 0, 0)], Some("low")),
            (vec![pod("near", 90, 80, 0), pod("far", 50, 10, 0)], Some("far")),
            (vec![pod("critical", 90, 0, 0), pod("within", 1, 2, 0)], Some("within")),
        ] {
            let mut watcher = Watcher::default();
            let seen = Observation { memory_bytes: 50 * MIB, disk_bytes: u64::MAX };
            let short = watcher.observe(&LIMITS, seen, at(0)).unwrap();
            assert_eq!(victim(&short, &LIMITS, &pods).map(|e| e.key), expected, "{pods:?}");
        }
    }

    #[test]
    fn words() {
        let mut watcher = Watcher::default();
        let mut tell = |memory: u64, disk: u64, second: i64| {
            let seen = Observation { memory_bytes: memory * MIB, disk_bytes: disk * MIB };
            let short = watcher.observe(&LIMITS, seen, at(second)).unwrap();
            let eviction = victim(&short, &LIMITS, &[pod("a", 60, 0, 0)]).unwrap();
            format!("{} {}", eviction.grace_seconds, eviction.message)
        };
        assert_eq!(
            tell(50, 900, 0),
            "1 The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container app was using 60Mi, request is 0, has larger consumption of memory. "
        );
        assert!(tell(150, 900, 40).starts_with("20 The node was low on resource: memory. Threshold quantity: 200Mi"));
        assert!(
            tell(900, 1, 50)
                .starts_with("1 The node was low on resource: ephemeral-storage. Threshold quantity: 500Mi")
        );
    }

    #[test]
    fn what_pods_keep_on_disk() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        let logs = |used: u64| vec![("app".to_owned(), used * MIB, quantity("10Mi"))];
        for (stored, expected) in [
            (Stored { containers: logs(10), total_bytes: 10 * MIB, ..Stored::default() }, None),
            (
                Stored { total_bytes: 21 * MIB, limit_bytes: Some(20 * MIB), ..Stored::default() },
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "),
            ),
            (
                Stored { containers: logs(11), ..Stored::default() },
                Some("Container app exceeded its local ephemeral storage limit \"10Mi\". "),
            ),
        ] {
            assert_eq!(too_much(&stored).as_deref(), expected, "{stored:?}");
        }
    }
}
