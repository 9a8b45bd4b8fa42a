//! What several containers share: the accounts of a pod.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use crate::{CpuLimit, Usage, container::Accounts, memory::Held, sandbox::Node};

/// More files than any machine holds: a figure past it was not counted to the end.
const FILES_BYTES_MAX: u64 = 1 << 50;

/// Bounds over several containers together, on top of each one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// All memory of all containers.
    pub memory_bytes_max: u64,
    /// CPU of all containers.
    pub cpu: CpuLimit,
}

/// Several containers with bounds in common. Made by [`crate::Sandbox::group`].
#[derive(Debug)]
pub struct Group {
    pub(crate) accounts: Accounts,
    files: Mutex<Held>,
    over: AtomicBool,
}

impl Group {
    pub(crate) fn new(node: &Node, limits: GroupLimits) -> Arc<Self> {
        let accounts = Accounts::new(node, limits.memory_bytes_max, limits.cpu, None);
        let files = Mutex::new(Held::new(accounts.memory.clone()));
        Arc::new(Self { accounts, files, over: AtomicBool::new(false) })
    }

    /// Changes the bounds while containers run.
    pub fn resize(&self, limits: GroupLimits) {
        Accounts::resize(&self.accounts.cpu, &self.accounts.memory, limits.memory_bytes_max, limits.cpu);
    }

    /// Says how many bytes files in memory take up that the containers have made: they count towards the group's memory, as
    /// those of a tmpfs do towards a cgroup's. While that is more than the group may have, a container that computes ends as out of
    /// memory; what waits is left alone. `u64::MAX`: nobody can tell how many, and it is more than the group may have.
    pub fn bill_files(&self, bytes: u64) {
        let mut files = self.files.lock();
        let counted = bytes <= FILES_BYTES_MAX;
        if counted {
            // Else what others may have of the node would be gone for a figure that is none.
            files.force(bytes);
        }
        let memory = &self.accounts.memory;
        // Without files nobody can have taken more than there is.
        let over = !counted || bytes > 0 && memory.used_bytes() > memory.limit_bytes();
        self.over.store(over, Ordering::Release);
    }

    /// Whether files in memory have taken it past its memory.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// What all containers of the group have used together, those that are gone included. Instances and requests are
    /// counted by container only.
    pub fn usage(&self) -> Usage {
        Accounts::usage(&self.accounts.cpu, &self.accounts.memory)
    }
}
