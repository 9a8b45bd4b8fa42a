//! What all instances of one container share: its spec, its accounts and how it ended.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    ContainerSpec, CpuLimit, Ending, StartError, Stdin, Stream, Usage,
    cpu::CpuAccount,
    dump::Dumps,
    memory::{Held, MemoryAccount, OutOfMemory},
    mounts::Files,
    sandbox::Node,
    sockets::SocketQuota,
    traffic::Traffic,
};

/// What a container, or a group of them, is billed with.
#[derive(Debug)]
pub(crate) struct Accounts {
    pub(crate) cpu: Arc<CpuAccount>,
    pub(crate) memory: Arc<MemoryAccount>,
}

impl Accounts {
    /// Within `parent`, if there is one, else within the node's.
    pub(crate) fn new(node: &Node, memory_bytes_max: u64, cpu: CpuLimit, parent: Option<&Self>) -> Self {
        let above = parent.map_or_else(|| node.memory.clone(), |parent| parent.memory.clone());
        let cpu_above = parent.map(|parent| parent.cpu.clone());
        Self {
            cpu: Arc::new(CpuAccount::new(cpu, node.config.quota_period, Instant::now(), cpu_above)),
            memory: Arc::new(MemoryAccount::new(memory_bytes_max, Some(above))),
        }
    }
}

impl Accounts {
    /// Changes the bounds while they are in force.
    pub(crate) fn resize(cpu: &CpuAccount, memory: &MemoryAccount, memory_bytes_max: u64, limit: CpuLimit) {
        memory.resize(memory_bytes_max);
        cpu.resize(limit, Instant::now());
    }

    pub(crate) fn usage(cpu: &CpuAccount, memory: &MemoryAccount) -> Usage {
        let throttling = cpu.throttling();
        Usage {
            cpu: cpu.used(),
            throttled: throttling.time,
            periods: throttling.periods,
            periods_throttled: throttling.periods_throttled,
            memory_bytes: memory.used_bytes(),
            memory_bytes_peak: memory.peak_bytes(),
            ..Usage::default()
        }
    }
}

/// One container.
pub(crate) struct Container {
    pub(crate) spec: ContainerSpec,
    pub(crate) node: Arc<Node>,
    pub(crate) cpu: Arc<CpuAccount>,
    pub(crate) memory: Arc<MemoryAccount>,
    pub(crate) files: Arc<Files>,
    pub(crate) sockets: Arc<SocketQuota>,
    /// Cancelled when the container ends: every instance goes at once.
    pub(crate) ended: CancellationToken,
    ending: OnceLock<Ending>,
    /// The container that it runs within, whose accounts it has: see [`Container::within`].
    within: Option<Arc<Self>>,
    /// What waits on its way in and out.
    streams: Mutex<Held>,
    /// Shared with the commands within it.
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) dumps: Dumps,
    instances: AtomicU64,
    requests: AtomicU64,
}

impl Container {
    /// # Errors
    /// When its mounts cannot be as they are said to be.
    pub(crate) fn new(node: Arc<Node>, spec: ContainerSpec) -> Result<Arc<Self>, StartError> {
        let group = spec.group.as_ref().map(|group| &group.accounts);
        let Accounts { cpu, memory } = Accounts::new(&node, spec.limits.memory_bytes_max, spec.limits.cpu, group);
        let files = Files::new(&spec.mounts, node.config.scratch_dir.clone())?;
        Ok(Arc::new(Self {
            cpu,
            streams: Mutex::new(Held::new(memory.clone())),
            memory,
            files,
            sockets: Arc::new(SocketQuota::new(&spec.limits.sockets)),
            ended: CancellationToken::new(),
            ending: OnceLock::new(),
            traffic: Arc::default(),
            dumps: Dumps::default(),
            instances: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            within: None,
            spec,
            node,
        }))
    }

    /// A command of its own within another: it has that one's accounts and files, an end of its own, and ends with it.
    pub(crate) fn within(other: &Arc<Self>, spec: ContainerSpec) -> Arc<Self> {
        Arc::new(Self {
            cpu: other.cpu.clone(),
            memory: other.memory.clone(),
            streams: Mutex::new(Held::new(other.memory.clone())),
            files: other.files.clone(),
            sockets: other.sockets.clone(),
            ended: other.ended.child_token(),
            ending: OnceLock::new(),
            traffic: other.traffic.clone(),
            dumps: Dumps::default(),
            instances: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            within: Some(other.clone()),
            spec,
            node: other.node.clone(),
        })
    }

    /// Changes its bounds while it runs.
    pub(crate) fn resize(&self, memory_bytes_max: u64, cpu: CpuLimit) {
        Accounts::resize(&self.cpu, &self.memory, memory_bytes_max, cpu);
    }

    /// Ends the container. The first reason stays. Memory is of one account with the commands within it: whichever takes
    /// too much, all end, as the processes of a container do.
    pub(crate) fn end(&self, ending: Ending) {
        let _ = self.ending.set(ending.clone());
        if let (Some(other), Ending::OutOfMemory { .. }) = (&self.within, &ending) {
            other.end(ending);
        }
        self.ended.cancel();
    }

    /// Whether a group of interfaces may be used; who may not is told of.
    pub(crate) fn is_granted(&self, group: &'static str) -> bool {
        let granted = self.spec.grants.has(group);
        if let Some(observer) = self.spec.observer.as_ref().filter(|_| !granted) {
            observer.refused(group);
        }
        granted
    }

    /// Writes to its output.
    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.spec.logs.write(stream, bytes);
        // What is too much is seen by the next tick, which ends the guest.
        let _ = self.bill_streams();
    }

    /// Brings up to date what it is billed for input and output that wait.
    ///
    /// # Errors
    /// When it is more than the container may have.
    pub(crate) fn bill_streams(&self) -> Result<(), OutOfMemory> {
        // Looked at under the lock: of two that look the later one is right.
        let mut streams = self.streams.lock();
        let waiting = self.spec.stdin.as_ref().map_or(0, Stdin::waiting_bytes) + self.spec.logs.held_bytes();
        streams.hide(waiting as u64)
    }

    /// Whether it, or its group, has taken more memory than it may have.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.memory.exceeded() || self.spec.group.as_ref().is_some_and(|group| group.is_over())
    }

    /// Ends the container when a guest asked for too much memory. Returns whether it did.
    pub(crate) fn end_if_out_of_memory(&self) -> bool {
        let exceeded = self.is_out_of_memory();
        if exceeded {
            self.end(Ending::OutOfMemory { limit_bytes: self.memory.limit_bytes() });
        }
        exceeded
    }

    /// How it ended, if it has.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get().cloned()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Ending {
        self.ended.cancelled().await;
        self.ending().unwrap_or(Ending::Killed)
    }

    pub(crate) fn answered(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        let (received_bytes, sent_bytes) = self.traffic.bytes();
        let _ = self.bill_streams();
        Usage {
            received_bytes,
            sent_bytes,
            instances: self.instances.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            ..Accounts::usage(&self.cpu, &self.memory)
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("name", &self.spec.name)
            .field("ending", &self.ending())
            .finish_non_exhaustive()
    }
}

/// Counts one instance while it lives.
#[derive(Debug)]
pub(crate) struct InstanceGuard(Arc<Container>);

impl InstanceGuard {
    pub(crate) fn new(container: &Arc<Container>) -> Self {
        let counted = container.within.as_ref().unwrap_or(container);
        counted.instances.fetch_add(1, Ordering::Relaxed);
        Self(counted.clone())
    }
}

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
