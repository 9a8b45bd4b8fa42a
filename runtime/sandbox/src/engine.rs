//! Settings of the one engine: which features guests may use, and how address space and memory are laid out.
//!
//! Address space (not memory) per slot: 4 GiB for a linear memory with 32 MiB of guard on either side, so that loads
//! and stores need no bounds checks; 2 tables of 100,000 elements; 2 stacks of 2 MiB. 4,096 slots take about 17 TiB of
//! the 128 TiB that a process has. Memory is taken only by pages that a guest has written.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::{SandboxConfig, SandboxError};

/// Address space of one linear memory.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Inaccessible bytes after each linear memory.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// Stack that wasm frames may use; the rest of a fiber's stack is for the host.
const WASM_STACK_BYTES: usize = 512 << 10;
/// A fiber's stack.
const FIBER_STACK_BYTES: usize = 2 << 20;
/// Elements of one table: enough for SpiderMonkey and CPython.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Freed slots that keep their pages for the next instance of the same image.
const WARM_SLOTS_MAX: u32 = 64;
/// Fewer than this many slots are not worth running with.
const INSTANCES_MIN: u32 = 16;

/// Makes the engine, with fewer slots where address space is short.
pub(crate) fn engine(config: &SandboxConfig) -> Result<Engine, SandboxError> {
    let mut instances = config.instances_max.max(INSTANCES_MIN);
    loop {
        match Engine::new(&settings(config, instances)) {
            Ok(engine) => {
                if instances < config.instances_max {
                    tracing::warn!(instances, wanted = config.instances_max, "address space is short: fewer instances");
                }
                return Ok(engine);
            }
            Err(_) if instances / 2 >= INSTANCES_MIN => instances /= 2,
            Err(error) => {
                return Err(SandboxError::AddressSpace {
                    instances,
                    bytes: u64::from(instances) * (MEMORY_RESERVATION_BYTES + 2 * MEMORY_GUARD_BYTES),
                    reason: format!("{error:#}"),
                });
            }
        }
    }
}

/// An engine that only compiles, for engines that [`engine`] makes.
pub(crate) fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&code_settings())
}

fn settings(sandbox: &SandboxConfig, instances: u32) -> Config {
    let mut config = code_settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots(sandbox, instances)));
    config
}

/// All that compiled code depends on: the same in every process.
fn code_settings() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .epoch_interruption(true)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        // Line numbers when the image carries DWARF: read from the image alone, never from the environment.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true);
    config
}

fn slots(sandbox: &SandboxConfig, instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .total_stacks(instances.saturating_mul(2))
        // Counters, not reservations: a component is made of several core instances.
        .total_component_instances(instances.saturating_mul(2))
        .total_core_instances(instances.saturating_mul(8))
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(usize::try_from(MEMORY_RESERVATION_BYTES).unwrap_or(usize::MAX))
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        // Resetting what was written by copying costs a fraction of giving pages back and faulting them in again;
        // Linux 6.7 and newer tells which pages were written, older ones have the whole range wiped.
        .linear_memory_keep_resident(sandbox.memory_keep_resident_bytes)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    pool
}
