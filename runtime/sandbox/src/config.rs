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
    /// Where private folders for single mounted files are made: on the filesystem of the volumes, best of all. `None`: where
    /// the system keeps temporary files. One process uses it: what an earlier one has left there is removed at the start.
    pub scratch_dir: Option<PathBuf>,
    /// Images compiled at once (each compile uses all cores by itself). One more is taken when it is small, so that small
    /// modules pass large ones.
    pub compiles_max: usize,
    /// Compiles in a process of its own, which is ended when it takes too long or too much. `None`: within this process,
    /// where a compile cannot be stopped and only the shape of a module is bounded before.
    pub compiler: Option<CompilerCommand>,
    /// Bounds of one compile.
    pub compile: CompileLimits,
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

/// A program that calls [`crate::compile_worker_main`] when it is started like this; arguments follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerCommand {
    /// The program, for example the embedder's own (`/proc/self/exe`).
    pub program: PathBuf,
    /// Its first arguments, for example a hidden subcommand.
    pub args: Vec<String>,
}

/// Bounds of one compile. Time and memory hold only with a [`CompilerCommand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// From start to end.
    pub time: Duration,
    /// CPU time over all threads of the compiler.
    pub cpu_time: Duration,
    /// Address space of the compiler.
    pub memory_bytes: u64,
    /// Size of the compiled code.
    pub artefact_bytes_max: u64,
    /// Priority: 0 is that of this process, 19 the lowest.
    pub nice: i32,
    /// Functions of one image.
    pub functions_max: u32,
    /// Bytes of one function's body.
    pub function_bytes_max: u32,
    /// Blocks within blocks, in one function.
    pub nesting_max: u32,
    /// Images that wait to be compiled; more are refused.
    pub queue_max: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            // On a busy machine a large image that is worth its CPU time waits long for it.
            time: Duration::from_secs(300),
            cpu_time: Duration::from_secs(120),
            memory_bytes: 3 << 30,
            artefact_bytes_max: 1 << 30,
            nice: 10,
            functions_max: 300_000,
            function_bytes_max: 4 << 20,
            nesting_max: 5_000,
            queue_max: 1_000,
        }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_bytes_max: 4 << 30,
            instances_max: 4096,
            guest_memory_bytes_max: u64::MAX,
            scratch_dir: None,
            compiles_max: 1,
            compiler: None,
            compile: CompileLimits::default(),
            images_kept_max: 64,
            image_bytes_max: 256 << 20,
            memory_keep_resident_bytes: 2 << 20,
            slice: Duration::from_millis(1),
            quota_period: Duration::from_millis(40),
        }
    }
}
