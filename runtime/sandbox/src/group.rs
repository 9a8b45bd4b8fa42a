//! What several containers share: the accounts of a pod.

use std::sync::Arc;

use crate::{CpuLimit, Usage, container::Accounts, sandbox::Node};

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
}

impl Group {
    pub(crate) fn new(node: &Node, limits: GroupLimits) -> Arc<Self> {
        Arc::new(Self { accounts: Accounts::new(node, limits.memory_bytes_max, limits.cpu, None) })
    }

    /// Changes the bounds while containers run.
    pub fn resize(&self, limits: GroupLimits) {
        Accounts::resize(&self.accounts.cpu, &self.accounts.memory, limits.memory_bytes_max, limits.cpu);
    }

    /// What all containers of the group have used together, those that are gone included. Instances and requests are
    /// counted by container only.
    pub fn usage(&self) -> Usage {
        Accounts::usage(&self.accounts.cpu, &self.accounts.memory)
    }
}
