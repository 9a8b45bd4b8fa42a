//! Settings of the one engine: which features guests may use, and how address space and memory are laid out.
//!
//! Address space (not memory) per slot: 4 GiB for a linear memory with 32 MiB of guard on either side, so that loads
//! and stores need no bounds checks; 2 tables of 100,000 elements; 1 or 2 stacks of 2 MiB. 4,096 slots take about 17 TiB
//! of the 128 TiB that a process has, 10,000 about 41. Memory is taken only by pages that a guest has written.
//!
//! Linux also bounds how many maps a process may have (`vm.max_map_count`, 65,530 by default): a live instance with a
//! memory takes up to 4 (its zeroes, its image, its heap, the rest of its slot), each stack 2 (itself and its guard),
//! from the start. So 10,588 instances fit the default; more need `vm.max_map_count` at 6 each and 2,000 for the process.

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
/// Linear memories of one component: one for each module that was composed into it.
const MEMORIES_PER_COMPONENT_MAX: u32 = 16;
/// Core instances of one component: Python's has about forty, one for each native library.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 256;
/// Freed slots that keep their pages for the next instance of the same image.
const WARM_SLOTS_MAX: u32 = 64;
/// Fewer than this many slots are not worth running with.
const INSTANCES_MIN: u32 = 16;

/// Maps of one live instance with a linear memory.
const MAPS_PER_INSTANCE: u64 = 4;
/// Maps of one stack, in use or not.
const MAPS_PER_STACK: u64 = 2;
/// Maps for everything else: code, threads, heaps.
const MAPS_OF_PROCESS: u64 = 2000;

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

/// How many stacks to make: two for an instance (tasks of 0.3 guests have their own), fewer when maps are short, but one
/// for each in any case.
fn stacks(instances: u32, maps_max: Option<u64>) -> u32 {
    let wanted = instances.saturating_mul(2);
    let Some(maps_max) = maps_max else { return wanted };
    let left = maps_max.saturating_sub(MAPS_OF_PROCESS + u64::from(instances) * MAPS_PER_INSTANCE);
    let fit = u32::try_from(left / MAPS_PER_STACK).unwrap_or(u32::MAX);
    if fit < instances {
        let needed = u64::from(instances) * (MAPS_PER_INSTANCE + MAPS_PER_STACK) + MAPS_OF_PROCESS;
        tracing::warn!(
            instances,
            maps_max,
            "the kernel allows too few memory maps for so many instances alive at once: sysctl -w vm.max_map_count={needed}"
        );
    }
    wanted.min(fit.max(instances))
}

/// Most memory maps that the kernel gives a process; `None` where it does not say.
fn maps_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

fn settings(sandbox: &SandboxConfig, instances: u32) -> Config {
    let mut config = code_settings();
    // Costs a second walk over the stack of a guest that traps, and nothing before that.
    config.coredump_on_trap(true);
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
        // What guests could put into them the host keeps for as long as they like, and there is no bound on how much.
        .wasm_component_model_error_context(false)
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
        .total_stacks(stacks(instances, maps_max()))
        // Counters, not reservations: a component is made of several core instances.
        .total_component_instances(instances.saturating_mul(2))
        .total_core_instances(instances.saturating_mul(8))
        .max_tables_per_module(4)
        // One component of many empty memories must not take every slot of the node.
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(4 * MEMORIES_PER_COMPONENT_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_give_way_to_instances_when_maps_are_short() {
        let default = Some(65_530);
        let cases = [
            (4096, default, 8192),
            (10_000, default, 11_765),
            (10_588, default, 10_589),
            (20_000, default, 20_000),
            (20_000, Some(262_144), 40_000),
            (20_000, None, 40_000),
        ];
        for (instances, maps, wanted) in cases {
            assert_eq!(stacks(instances, maps), wanted, "{instances} {maps:?}");
        }
    }
}
