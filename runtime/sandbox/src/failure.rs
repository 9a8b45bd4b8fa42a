//! Turns what wasmtime says when a guest ends into what an embedder can act on.

use wasmtime::{PoolConcurrencyLimitError, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::{CallFailure, Ending, container::Container, dump, memory::OutOfMemory};

/// Frames told of a trap.
const FRAMES_MAX: usize = 32;

/// A linear memory is memory maps of the kernel: see `engine`.
const OUT_OF_MAPS: &str =
    "the kernel gives this process no more memory or memory maps: raise vm.max_map_count, or run fewer instances";

/// How a guest ended that did not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Exit(i32),
    OutOfMemory,
    NodeFull(String),
    Trap { message: String, backtrace: Vec<String> },
}

impl Failure {
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::Exit(exit.0);
        }
        if error.downcast_ref::<OutOfMemory>().is_some() {
            return Self::OutOfMemory;
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return Self::NodeFull(format!("{error:#}"));
        }
        if kernel_is_out_of_maps(error) {
            return Self::NodeFull(OUT_OF_MAPS.to_owned());
        }
        Self::Trap { message: message(error), backtrace: backtrace(error) }
    }

    /// How the container ends when this was its one guest.
    pub(crate) fn ending(self, container: &Container) -> Ending {
        match self {
            Self::Exit(code) => Ending::Finished { code },
            Self::OutOfMemory => Ending::OutOfMemory { limit_bytes: container.memory.limit_bytes() },
            Self::NodeFull(message) => Ending::Trapped { message, backtrace: Vec::new() },
            Self::Trap { message, backtrace } => Ending::Trapped { message, backtrace },
        }
    }

    /// What the caller of one request hears.
    pub(crate) fn of_call(self, container: &Container) -> CallFailure {
        match self {
            Self::Exit(code) => CallFailure::NoResponse { exit: Some(code) },
            Self::OutOfMemory => CallFailure::OutOfMemory { limit_bytes: container.memory.limit_bytes() },
            Self::NodeFull(reason) => CallFailure::NoInstance { reason },
            Self::Trap { message, backtrace } => CallFailure::Trapped { message, backtrace },
        }
    }
}

/// Whether the system refused to map memory. What a guest asks the system for comes back to the guest, never as this.
fn kernel_is_out_of_maps(error: &wasmtime::Error) -> bool {
    const ENOMEM: i32 = libc::ENOMEM;
    error.chain().any(|cause| {
        cause.downcast_ref::<rustix::io::Errno>().is_some_and(|errno| errno.raw_os_error() == ENOMEM)
            || cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) == Some(ENOMEM)
    })
}

/// What went wrong, and the name of its core dump if it has one.
fn message(error: &wasmtime::Error) -> String {
    let message = error.root_cause().to_string();
    match error.downcast_ref::<dump::Named>() {
        Some(dump) => format!("{message} ({dump})"),
        None => message,
    }
}

/// Frames as wasmtime prints them, one each, innermost first.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let printed = backtrace.to_string();
    printed.lines().skip(1).take(FRAMES_MAX).map(|line| line.trim().to_owned()).collect()
}
