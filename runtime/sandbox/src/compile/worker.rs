//! The compiler's own process: takes limits upon itself, reads a module, writes compiled code.
//!
//! Started by `child`, which says in its arguments what and how: it reads no environment and no files but its standard
//! input (the module) and output (the artefact, a file). What a hostile module does to it ends with it.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use crate::{CompileLimits, ImageKind, LoadError, cache::compatibility, engine, image::Compiled};

/// The compiler, or its look at the module, said no; why is on standard error.
pub(super) const REFUSED: u8 = 2;
/// Past a bound on its shape.
pub(super) const TOO_COMPLEX: u8 = 3;
/// Past its memory, where the compiler noticed.
pub(super) const OUT_OF_MEMORY: u8 = 4;
/// This program compiles for another engine, or was called wrongly.
pub(super) const MISMATCH: u8 = 5;

/// What the worker is told, as arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) component: bool,
    pub(super) limits: CompileLimits,
}

impl Order {
    pub(super) fn to_args(self, engine: &str) -> Vec<String> {
        let CompileLimits { cpu_time, memory_bytes, artefact_bytes_max, nice, nesting_max, .. } = self.limits;
        vec![
            engine.to_owned(),
            if self.component { "component" } else { "module" }.to_owned(),
            cpu_time.as_secs().max(1).to_string(),
            memory_bytes.to_string(),
            artefact_bytes_max.to_string(),
            nice.to_string(),
            nesting_max.to_string(),
        ]
    }

    /// With the engine that it is for.
    fn from_args(args: &[String]) -> Option<(&str, Self)> {
        let [engine, kind, cpu, memory, artefact, nice, nesting] = args else { return None };
        let limits = CompileLimits {
            cpu_time: std::time::Duration::from_secs(cpu.parse().ok()?),
            memory_bytes: memory.parse().ok()?,
            artefact_bytes_max: artefact.parse().ok()?,
            nice: nice.parse().ok()?,
            nesting_max: nesting.parse().ok()?,
            ..CompileLimits::default()
        };
        Some((engine, Self { component: kind == "component", limits }))
    }
}

/// Compiles one module from standard input to standard output, which has to be a file. To be called at once by the program
/// that [`crate::CompilerCommand`] names, with the arguments that follow those named there.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     podium_sandbox::compile_worker_main(std::env::args().skip(1).collect())
/// }
/// ```
pub fn compile_worker_main(args: Vec<String>) -> ExitCode {
    let Some((engine, order)) = Order::from_args(&args) else {
        eprintln!("called wrongly: the sandbox calls this to compile a module");
        return ExitCode::from(MISMATCH);
    };
    let done = limit(&order.limits).map_err(|e| (MISMATCH, e.to_string())).and_then(|()| work(engine, order));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, reason)) => {
            eprintln!("{reason}");
            ExitCode::from(code)
        }
    }
}

type Failed = (u8, String);

fn work(wanted: &str, order: Order) -> Result<(), Failed> {
    let engine = engine::compiler().map_err(|e| (MISMATCH, format!("{e:#}")))?;
    let found = compatibility(&engine);
    if found != wanted {
        return Err((
            MISMATCH,
            format!("it compiles for the engine {found}, not {wanted}: restart with the new program"),
        ));
    }
    let mut wasm = Vec::new();
    io::stdin().read_to_end(&mut wasm).map_err(|e| (MISMATCH, format!("cannot read the module: {e}")))?;
    super::check_bodies(&wasm, order.limits.nesting_max).map_err(|error| match error {
        LoadError::TooComplex { what } => (TOO_COMPLEX, what),
        LoadError::Invalid { reason } => (REFUSED, format!("invalid WebAssembly: {reason}")),
        other => (REFUSED, other.to_string()),
    })?;
    let kind = if order.component { ImageKind::Command } else { ImageKind::CoreCommand };
    let artefact = Compiled::artefact(&engine, kind, &wasm).map_err(|error| {
        let reason = format!("{error:#}");
        let code = if reason.contains("os error 12") { OUT_OF_MEMORY } else { REFUSED };
        (code, reason)
    })?;
    let mut out = io::stdout().lock();
    let written = out.write_all(&artefact).and_then(|()| out.flush());
    written.map_err(|e| (MISMATCH, format!("cannot write {} bytes of compiled code: {e}", artefact.len())))
}

#[cfg(target_os = "linux")]
fn limit(limits: &CompileLimits) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setpriority_process, setrlimit};
    // Nothing is left of it when its parent is gone.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let both = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, both(limits.memory_bytes))?;
    setrlimit(Resource::Cpu, both(limits.cpu_time.as_secs().max(1)))?;
    setrlimit(Resource::Fsize, both(limits.artefact_bytes_max))?;
    setrlimit(Resource::Core, both(0))?;
    // One that runs with a lower priority already may not raise it, and need not.
    let _ = setpriority_process(None, limits.nice);
    Ok(())
}

/// Elsewhere only the time limit holds, which is the parent's.
#[cfg(not(target_os = "linux"))]
fn limit(_: &CompileLimits) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_through_arguments() {
        let limits = CompileLimits { memory_bytes: 7, nice: 3, nesting_max: 9, ..CompileLimits::default() };
        let order = Order { component: true, limits };
        let args = order.to_args("engine");
        assert_eq!(Order::from_args(&args), Some(("engine", order)));
        assert_eq!(Order::from_args(&args[1..]), None);
    }
}
