//! Everything that can go wrong, named by the operation that failed. What a user sees says what to do.

use std::path::PathBuf;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine could not be made with any number of slots.
    #[error(
        "cannot reserve address space for {instances} instances ({bytes} bytes): {reason}; raise the limit on virtual memory (ulimit -v)"
    )]
    AddressSpace {
        /// Fewest instances tried.
        instances: u32,
        /// What they need.
        bytes: u64,
        /// What the system said.
        reason: String,
    },
    /// The host's interfaces could not be linked: a bug.
    #[error("cannot link the host's interfaces: {0}")]
    Link(String),
    /// The cache folder cannot be used.
    #[error("cannot use the code cache {path}: {reason}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The folder for single mounted files cannot be used.
    #[error("cannot use the scratch folder {path}: {reason}")]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// Why an image cannot be used. Known before any of its code runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file is no WebAssembly.
    #[error("not a WebAssembly file: it begins with {first_bytes}; expected a .wasm module or component")]
    NotWasm {
        /// The first bytes, readable.
        first_bytes: String,
    },
    /// WebAssembly, but broken.
    #[error("invalid WebAssembly: {reason}")]
    Invalid {
        /// What the parser said, with the offset.
        reason: String,
    },
    /// Larger than the limit.
    #[error("the image has {bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// WebAssembly that does not say how to run it.
    #[error("cannot run this WebAssembly: {what}")]
    Unsupported {
        /// What it is and what is expected.
        what: String,
    },
    /// Wants something that this host does not offer.
    #[error("imports {name}, which this host does not offer; {hint}")]
    MissingImport {
        /// The first import missing, for example `wasi:keyvalue/store@0.2.0`.
        name: String,
        /// What to do.
        hint: String,
    },
    /// The compiler refused it.
    #[error("cannot compile: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// Its shape is past a bound: it was not compiled.
    #[error("will not compile: {what}")]
    TooComplex {
        /// What there is too much of, and the bound.
        what: String,
    },
    /// The compiler took too long and was ended.
    #[error("compiling took longer than {limit_millis} ms")]
    CompileTimedOut {
        /// The limit.
        limit_millis: u64,
    },
    /// The compiler needed too much memory.
    #[error("compiling needs more than {limit_bytes} bytes of memory")]
    CompileOutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The compiler did not do its work: it could not be started, crashed, or is of another version.
    #[error("the compiler failed: {reason}")]
    CompilerFailed {
        /// How.
        reason: String,
    },
    /// Too many images wait to be compiled: try again later.
    #[error("{waiting} images wait to be compiled already")]
    CompileQueueFull {
        /// The limit.
        waiting: usize,
    },
    /// The image's own initialisation, which runs once when it is loaded, failed.
    #[error("the image's initialisation by {export} failed: {reason}")]
    Initialise {
        /// The export.
        export: String,
        /// Why.
        reason: String,
    },
    /// The process is ending.
    #[error("loading was interrupted: {reason}")]
    Interrupted {
        /// By what.
        reason: String,
    },
}

/// Why a container did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// An image that answers requests was started as a command, or the other way round.
    #[error("the image is a {kind}, not {wanted}")]
    WrongKind {
        /// What it is.
        kind: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A mount cannot be shown.
    #[error("cannot mount {guest_path}: {reason}")]
    Mount {
        /// Where the guest would see it.
        guest_path: String,
        /// What is wrong, and where on the host.
        reason: String,
    },
    /// The image imports what the container may not have.
    #[error("the image {image} imports {interface}: {why}")]
    Refused {
        /// The interface.
        interface: String,
        /// The image's digest.
        image: String,
        /// Which setting refuses it.
        why: String,
    },
    /// The image is a core module without `_start`, and the arguments do not say what to call.
    #[error("the image is a core module without _start: {reason}")]
    Call {
        /// What is wrong, with the functions that there are.
        reason: String,
    },
    /// The container to run it in has ended.
    #[error("the container has ended")]
    Ended,
    /// Not called from within a tokio runtime.
    #[error("no tokio runtime to run the container on")]
    NoRuntime,
}

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The container takes no new requests. The request was not begun: it may be sent elsewhere.
    #[error("the container takes no new requests")]
    Stopped,
    /// Too many requests wait. The request was not begun.
    #[error("{waiting} requests wait already")]
    QueueFull {
        /// The limit.
        waiting: u32,
    },
    /// No instance could be made: the node is full. The guest was not begun.
    #[error("cannot make an instance: {reason}")]
    NoInstance {
        /// What the engine said.
        reason: String,
    },
    /// The request cannot be handed to a guest.
    #[error("bad request: {reason}")]
    BadRequest {
        /// Why.
        reason: String,
    },
    /// The guest trapped before it answered.
    #[error("the guest trapped: {message}")]
    Trapped {
        /// One line.
        message: String,
        /// Readable frames, innermost first.
        backtrace: Vec<String>,
    },
    /// The guest answered with an error of `wasi:http`.
    #[error("the guest failed: {code}")]
    GuestError {
        /// The `error-code`.
        code: String,
    },
    /// The container went past its memory.
    #[error("out of memory: the container is limited to {limit_bytes} bytes")]
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The request took too long.
    #[error("no response in time")]
    TimedOut,
    /// The guest ended without an answer.
    #[error("the guest ended without setting a response{}", exit.map(|c| format!(" (exit code {c})")).unwrap_or_default())]
    NoResponse {
        /// Its exit code when it called `exit`.
        exit: Option<i32>,
    },
    /// The container was killed.
    #[error("the container was killed")]
    Killed,
}

impl CallFailure {
    /// Whether the guest never saw the request, so that it may safely be sent elsewhere.
    pub fn not_begun(&self) -> bool {
        matches!(self, Self::Stopped | Self::QueueFull { .. } | Self::NoInstance { .. })
    }
}
