//! Starts the compiler's process, waits for it, and says how it ended.

use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, process::Command};

use super::worker::{MISMATCH, OUT_OF_MEMORY, Order, REFUSED, TOO_COMPLEX};
use crate::{CompileLimits, CompilerCommand, LoadError};

/// What is read of the compiler's complaints.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// What to compile, for whom.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) compiler: &'a CompilerCommand,
    /// Names the engine that is to run it: see [`crate::cache::compatibility`].
    pub(crate) engine: &'a str,
    pub(crate) component: bool,
    pub(crate) limits: &'a CompileLimits,
    /// From start to end.
    pub(crate) time: Duration,
}

/// Compiles the module in a file, from its start, into another file.
///
/// # Errors
/// Which limit it passed, or what the compiler said.
pub(crate) async fn run(work: Work<'_>, module: File, artefact: File) -> Result<(), LoadError> {
    let Work { compiler, engine, component, limits, time } = work;
    let failed = |what: &'static str| move |e: io::Error| LoadError::CompilerFailed { reason: format!("{what}: {e}") };
    let mut child = Command::new(&compiler.program)
        .args(&compiler.args)
        .args(Order { component, limits: *limits }.to_args(engine))
        .env_clear()
        // Address space is limited: arenas of 64 MiB for each thread would eat it.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::from(module))
        .stdout(Stdio::from(artefact))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| LoadError::CompilerFailed {
            reason: format!("cannot start {}: {e}", compiler.program.display()),
        })?;
    let mut complaint = Vec::new();
    let errors = child.stderr.take();
    let ended = tokio::time::timeout(time, async {
        if let Some(errors) = errors {
            // What is not read any more breaks the pipe: a compiler that complains without end, ends.
            let _ = errors.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await;
        }
        child.wait().await
    });
    let status = match ended.await {
        Ok(status) => status.map_err(failed("cannot wait for it"))?,
        Err(_elapsed) => {
            child.kill().await.map_err(failed("cannot end it"))?;
            return Err(LoadError::CompileTimedOut { limit_millis: millis(time) });
        }
    };
    outcome(status, &String::from_utf8_lossy(&complaint), limits)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn outcome(status: ExitStatus, complaint: &str, limits: &CompileLimits) -> Result<(), LoadError> {
    let reason = complaint.trim().to_owned();
    let out_of_memory = LoadError::CompileOutOfMemory { limit_bytes: limits.memory_bytes };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(REFUSED) => Err(LoadError::Compile { reason }),
        (Some(code), _) if code == i32::from(TOO_COMPLEX) => Err(LoadError::TooComplex { what: reason }),
        (Some(code), _) if code == i32::from(OUT_OF_MEMORY) => Err(out_of_memory),
        (Some(code), _) if code == i32::from(MISMATCH) => Err(LoadError::CompilerFailed { reason }),
        (None, Some(libc::SIGXCPU)) => Err(LoadError::CompileTimedOut { limit_millis: millis(limits.cpu_time) }),
        // The kernel ends what takes the machine's memory, and what passes the hard limit on CPU time.
        (None, Some(libc::SIGKILL)) => Err(LoadError::CompilerFailed { reason: "it was killed".to_owned() }),
        (None, Some(libc::SIGXFSZ)) => Err(LoadError::TooComplex {
            what: format!("more than {} bytes of compiled code", limits.artefact_bytes_max),
        }),
        // The allocator, and threads that cannot be started.
        _ if [
            "memory allocation of",
            "Cannot allocate memory",
            "Resource temporarily unavailable",
            "capacity overflow",
        ]
        .iter()
        .any(|sign| complaint.contains(sign)) =>
        {
            Err(out_of_memory)
        }
        (None, Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS)) => Err(LoadError::CompilerFailed {
            reason: format!("it crashed ({status}): {}", reason.lines().last().unwrap_or_default()),
        }),
        _ => Err(LoadError::CompilerFailed { reason: format!("{status}: {reason}") }),
    }
}
