//! What an embedder may set once per process.

use std::{path::PathBuf, time::Duration};

/// Settings of a [`crate::Sandbox`]. The defaults suit a machine that runs strangers' code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Where compiled code is kept between runs. Must be writable by this process' user alone: what lies there is
    /// mapped and run (after its checksum was verified). `None`: compile at each start.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes of compiled code kept in `cache_dir`; what was used longest ago goes first.
    pub cache_bytes_max: u64,
    /// Instances alive at once on this node. Each reserves about 4 GiB of address space (no memory). Halved until it
    /// fits where address space is short; refused below 16.
    pub instances_max: u32,
    /// Memory of all guests of this node together; a guest that grows past it ends as out of memory.
    pub guest_memory_bytes_max: u64,
    /// Images compiled at once (each compile uses all cores by itself).
    pub compiles_max: usize,
    /// Images of which compiled code stays in memory though no container uses them.
    pub images_kept_max: usize,
    /// Largest `.wasm` file taken.
    pub image_bytes_max: u64,
    /// Bytes of each new linear memory that stay resident in a freed slot and are wiped by hand: more makes
    /// instances faster to make, at this many bytes for each slot ever used at once.
    pub memory_keep_resident_bytes: usize,
    /// How long a guest may compute before others of equal weight get a turn. At least 1 ms.
    pub slice: Duration,
    /// CPU that a container may save up while idle: what its quota gives in this time. Plays the part of the kernel's
    /// CFS period, but is no grid: a container that has used all waits only until it has earned a millisecond.
    pub quota_period: Duration,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_bytes_max: 4 << 30,
            instances_max: 4096,
            guest_memory_bytes_max: u64::MAX,
            compiles_max: 1,
            images_kept_max: 64,
            image_bytes_max: 256 << 20,
            memory_keep_resident_bytes: 2 << 20,
            slice: Duration::from_millis(1),
            quota_period: Duration::from_millis(40),
        }
    }
}
