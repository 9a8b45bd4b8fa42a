//! What containers use: read when somebody asks, as kubelet's summary, as Prometheus' series. An idle node measures nothing.
//!
//! Rates are over the time between two readings, at least [`WINDOW`] apart where there are such; a container that was never
//! read before is measured from its start.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go`, `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use podium_client::ClockRef;
use podium_sandbox::{CommandContainer, HttpContainer, Usage};
use serde_json::{Value, json};

use super::{PodId, guest::Guest};
use crate::decide::probe::{Outcome, ProbeKind};

/// Readings closer together than this are one.
const WINDOW: Duration = Duration::from_secs(10);

/// The containers of this node that run.
pub(crate) struct Meter {
    clock: ClockRef,
    node_name: String,
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodId, Vec<Metered>>,
    /// By container and kind, within a pod; as many as it has probes.
    probes: HashMap<PodId, Vec<ProbeCount>>,
    node: Option<Rate>,
}

/// How often a probe was made, by what came of it.
#[derive(Debug, Clone)]
pub(crate) struct ProbeCount {
    pub(crate) pod: PodId,
    pub(crate) container: String,
    pub(crate) kind: ProbeKind,
    counts: [u64; 3],
}

impl ProbeCount {
    /// Kubelet's words for what came of a probe, and how often. What never came is left out.
    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        ["successful", "failed", "unknown"].into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }
}

/// What the machine uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeUse {
    pub(crate) cpu: Duration,
    pub(crate) memory_used_bytes: u64,
    pub(crate) memory_total_bytes: u64,
}

struct Metered {
    container: String,
    started: Timestamp,
    guest: WeakGuest,
    rate: Rate,
}

/// Does not keep a container running that nobody wants.
enum WeakGuest {
    Http(Weak<HttpContainer>),
    Command(Weak<CommandContainer>),
}

/// CPU time at two moments.
#[derive(Debug, Clone, Copy)]
struct Rate {
    before: (Timestamp, Duration),
    last: (Timestamp, Duration),
}

impl Rate {
    fn since(at: Timestamp) -> Self {
        let zero = (at, Duration::ZERO);
        Self { before: zero, last: zero }
    }

    /// Takes a reading; answers with nanoseconds of CPU in a second, and over which time.
    fn read(&mut self, now: Timestamp, cpu: Duration) -> (u64, Duration) {
        if passed(self.last.0, now) >= WINDOW {
            self.before = self.last;
            self.last = (now, cpu);
        }
        // Just moved: the reading before is the one to compare with.
        let window = passed(self.before.0, now);
        let used = cpu.saturating_sub(self.before.1);
        let nanos = used.as_nanos() * 1_000_000_000 / window.as_nanos().max(1_000_000);
        (u64::try_from(nanos).unwrap_or(u64::MAX), window)
    }
}

fn passed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// What one container uses.
pub(crate) struct ContainerUse {
    pub(crate) name: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
    pub(crate) nano_cores: u64,
    pub(crate) window: Duration,
}

/// What one pod uses.
pub(crate) struct PodUse {
    pub(crate) id: PodId,
    pub(crate) containers: Vec<ContainerUse>,
}

impl Meter {
    pub(crate) fn new(clock: ClockRef, node_name: String) -> Arc<Self> {
        let started = clock.now();
        let cpu = machine_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let node = Some(Rate { before: (started, cpu), last: (started, cpu) });
        Arc::new(Self { started, clock, node_name, state: Mutex::new(State { node, ..State::default() }) })
    }

    /// A container runs from now on.
    pub(crate) fn begin(&self, pod: &PodId, container: &str, guest: &Guest) {
        let guest = match guest {
            Guest::Http(container) => WeakGuest::Http(Arc::downgrade(container)),
            Guest::Command(container) => WeakGuest::Command(Arc::downgrade(container)),
        };
        let started = self.clock.now();
        let metered = Metered { container: container.to_owned(), started, guest, rate: Rate::since(started) };
        let mut state = self.state.lock();
        let of_pod = state.pods.entry(pod.clone()).or_default();
        of_pod.retain(|other| other.container != container);
        of_pod.push(metered);
    }

    /// The pod has gone.
    pub(crate) fn forget(&self, pod: &PodId) {
        let mut state = self.state.lock();
        state.pods.remove(pod);
        state.probes.remove(pod);
    }

    /// A probe was made.
    pub(crate) fn probed(&self, pod: &PodId, container: &str, kind: ProbeKind, outcome: &Outcome) {
        let mut state = self.state.lock();
        // Of a pod that has gone there is nothing to count any more.
        if !state.pods.contains_key(pod) {
            return;
        }
        let of_pod = state.probes.entry(pod.clone()).or_default();
        let at = of_pod.iter().position(|count| count.kind == kind && count.container == container);
        let at = at.unwrap_or_else(|| {
            let (pod, container) = (pod.clone(), container.to_owned());
            of_pod.push(ProbeCount { pod, container, kind, counts: [0; 3] });
            of_pod.len() - 1
        });
        let place = match outcome {
            Outcome::Success => 0,
            Outcome::Failed(_) => 1,
            Outcome::Unknown(_) => 2,
        };
        of_pod[at].counts[place] += 1;
    }

    /// All probes that were made, of pods that are here.
    pub(crate) fn probes(&self) -> Vec<ProbeCount> {
        self.state.lock().probes.values().flatten().cloned().collect()
    }

    /// What the machine uses now.
    pub(crate) fn node_use(&self) -> NodeUse {
        let memory = memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
        NodeUse {
            cpu: machine_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            memory_used_bytes: memory.used_bytes,
            memory_total_bytes: memory.used_bytes + memory.available_bytes,
        }
    }

    /// What runs now.
    pub(crate) fn read(&self) -> Vec<PodUse> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let mut pods = Vec::with_capacity(state.pods.len());
        for (id, metered) in &mut state.pods {
            let containers: Vec<_> = metered.iter_mut().filter_map(|metered| metered.read(now)).collect();
            if !containers.is_empty() {
                pods.push(PodUse { id: id.clone(), containers });
            }
        }
        pods
    }

    /// The machine: CPU time since it started, nanoseconds of it in a second, over which time; bytes free and used.
    fn node(&self, now: Timestamp) -> (Duration, u64, Duration, Memory) {
        let cpu = machine_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let mut state = self.state.lock();
        let first = Rate { before: (self.started, cpu), last: (self.started, cpu) };
        let (nano_cores, window) = state.node.get_or_insert(first).read(now, cpu);
        (cpu, nano_cores, window, memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()))
    }

    /// kubelet's `/stats/summary`.
    pub(crate) fn summary(&self) -> Value {
        let now = self.clock.now();
        let (cpu, nano_cores, window, memory) = self.node(now);
        let pods: Vec<Value> = self.read().iter().map(|pod| pod.summary(now)).collect();
        json!({
            "node": {
                "nodeName": self.node_name,
                "startTime": self.started,
                "cpu": cpu_of(now, cpu, nano_cores, window),
                "memory": {
                    "time": now, "availableBytes": memory.available_bytes, "usageBytes": memory.used_bytes,
                    "workingSetBytes": memory.used_bytes,
                },
            },
            "pods": pods,
        })
    }
}

impl Metered {
    fn read(&mut self, now: Timestamp) -> Option<ContainerUse> {
        let usage = match &self.guest {
            WeakGuest::Http(container) => container.upgrade()?.usage(),
            WeakGuest::Command(container) => container.upgrade()?.usage(),
        };
        let (nano_cores, window) = self.rate.read(now, usage.cpu);
        Some(ContainerUse { name: self.container.clone(), started: self.started, usage, nano_cores, window })
    }
}

/// `windowSeconds` is Podium's own; kubelet's clients ignore it.
fn cpu_of(now: Timestamp, cpu: Duration, nano_cores: u64, window: Duration) -> Value {
    let nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
    json!({
        "time": now, "usageNanoCores": nano_cores, "usageCoreNanoSeconds": nanos,
        "windowSeconds": window.as_secs_f64(),
    })
}

fn memory_of(now: Timestamp, bytes: u64) -> Value {
    json!({ "time": now, "usageBytes": bytes, "workingSetBytes": bytes, "rssBytes": bytes })
}

impl PodUse {
    fn summary(&self, now: Timestamp) -> Value {
        let containers: Vec<Value> = self
            .containers
            .iter()
            .map(|container| {
                let Usage { cpu, memory_bytes, .. } = container.usage;
                json!({
                    "name": container.name,
                    "startTime": container.started,
                    "cpu": cpu_of(now, cpu, container.nano_cores, container.window),
                    "memory": memory_of(now, memory_bytes),
                    "swap": { "time": now, "swapUsageBytes": 0 },
                })
            })
            .collect();
        let cpu = self.containers.iter().map(|c| c.usage.cpu).sum();
        let nano_cores = self.containers.iter().map(|c| c.nano_cores).sum();
        let window = self.containers.iter().map(|c| c.window).max().unwrap_or_default();
        let memory = self.containers.iter().map(|c| c.usage.memory_bytes).sum();
        let received: u64 = self.containers.iter().map(|c| c.usage.received_bytes).sum();
        let sent: u64 = self.containers.iter().map(|c| c.usage.sent_bytes).sum();
        json!({
            "podRef": { "name": self.id.key.name, "namespace": self.id.key.namespace, "uid": self.id.uid },
            "startTime": self.containers.iter().map(|c| c.started).min(),
            "containers": containers,
            "cpu": cpu_of(now, cpu, nano_cores, window),
            "memory": memory_of(now, memory),
            "network": {
                "time": now, "name": "pod", "rxBytes": received, "txBytes": sent,
                "interfaces": [{ "name": "pod", "rxBytes": received, "txBytes": sent }],
            },
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Memory {
    available_bytes: u64,
    used_bytes: u64,
}

fn memory(meminfo: &str) -> Memory {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
    };
    let available = kib("MemAvailable") * 1024;
    Memory { available_bytes: available, used_bytes: (kib("MemTotal") * 1024).saturating_sub(available) }
}

/// CPU time that the machine was busy for since it started, of all cores: everything but `idle` and `iowait`.
fn machine_cpu(stat: &str) -> Duration {
    /// `USER_HZ`, which Linux promises to its users.
    const TICKS_PER_SECOND: u64 = 100;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // `guest` and `guest_nice`, the last two, are in `user` and `nice` already.
    let busy: u64 = fields.iter().take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, ticks)| ticks).sum();
    Duration::from_millis(busy * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn rates_are_over_the_time_between_readings() {
        let mut rate = Rate::since(at(0));
        let cores = |(nanos, window): (u64, Duration)| (nanos as f64 / 1e9, window.as_secs());
        assert_eq!(cores(rate.read(at(2), Duration::from_secs(1))), (0.5, 2));
        assert_eq!(cores(rate.read(at(10), Duration::from_secs(5))), (0.5, 10));
        // From the reading at 10 on: nothing more was used.
        assert_eq!(cores(rate.read(at(20), Duration::from_secs(5))), (0.0, 10));
        assert_eq!(cores(rate.read(at(25), Duration::from_secs(20))), (1.0, 15));
    }

    #[test]
    fn the_machine_is_read_as_linux_shows_it() {
        let stat = "cpu  100 20 30 5000 40 5 6 7 1000 1000\ncpu0 1 2 3 4\n";
        assert_eq!(machine_cpu(stat), Duration::from_millis(1680));
        let found = memory("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n");
        assert_eq!(found, Memory { available_bytes: 600 << 10, used_bytes: 400 << 10 });
    }
}
