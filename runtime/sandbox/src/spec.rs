//! What an embedder says about a container, and what it hears back: plain data, no wasmtime types.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::{Grants, Group, SocketLimits, Sockets, Stdin, Stores, Tls, grants};

/// A request's own bound, from call to the end of the response's body: put it into the request's extensions. Bounds more
/// tightly than [`Limits::request_timeout`], never less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTimeout(pub Duration);

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed HTTP body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How an image runs, read from what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// A component that exports `wasi:http/incoming-handler` 0.2: served per request.
    HttpHandler,
    /// A component that exports `wasi:http/handler` 0.3: served per request.
    HttpService,
    /// A component that exports `wasi:cli/run` 0.2.
    Command,
    /// A component that exports `wasi:cli/run` 0.3.
    AsyncCommand,
    /// A core module with `_start` over WASI preview 1.
    CoreCommand,
    /// A component with other functions: an embedder calls them, see [`crate::Plugin`].
    Library,
    /// A core module with functions but no `_start`: as a container it runs the one that its first argument names.
    CoreReactor,
}

impl ImageKind {
    /// Whether the image answers requests rather than running on its own.
    pub fn is_http(self) -> bool {
        matches!(self, Self::HttpHandler | Self::HttpService)
    }

    /// Whether it is a core module rather than a component.
    pub fn is_core(self) -> bool {
        matches!(self, Self::CoreCommand | Self::CoreReactor)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpHandler => "wasi:http 0.2 handler",
            Self::HttpService => "wasi:http 0.3 service",
            Self::Command => "wasi:cli 0.2 command",
            Self::AsyncCommand => "wasi:cli 0.3 command",
            Self::Library => "component that is neither an HTTP handler nor a command",
            Self::CoreCommand => "preview 1 command",
            Self::CoreReactor => "core module without _start",
        }
    }
}

/// CPU of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLimit {
    /// Thousandths of a core that the container may use in each period; `None`: no quota.
    pub quota_millicores: Option<u32>,
    /// Share when the node is busy: thousandths of a core requested. At least 2.
    pub weight_millicores: u32,
}

/// Bounds of one container. Every field has a default that a stranger's code can be run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// All memory of all instances: linear memories, tables, host-side buffers.
    pub memory_bytes_max: u64,
    /// CPU.
    pub cpu: CpuLimit,
    /// Requests under way at once; more wait.
    pub concurrency_max: u32,
    /// Requests that may wait; more get 503.
    pub queue_max: u32,
    /// One request, from call to the end of the response's body.
    pub request_timeout: Duration,
    /// Whether an instance answers more than one request.
    pub reuse: Instances,
    /// Sockets and name lookups.
    pub sockets: SocketLimits,
}

/// Which instance answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instances {
    /// As the interface means it: a `wasi:http` 0.3 service answers several requests at once in one instance
    /// ([`Reuse::shared`]), a 0.2 handler gets a fresh instance for each.
    #[default]
    ByKind,
    /// A fresh instance for each request: nothing that one request leaves behind is seen by another.
    PerRequest,
    /// Instances are used again, within bounds. Faster, and their memory is then shared by requests that may come from
    /// different clients: only for guests that are written for it.
    Reused(Reuse),
}

/// Bounds of an instance that answers several requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Requests that one instance answers at most.
    pub requests_max: u32,
    /// Requests in one instance at once. Holds for 0.3 services; a 0.2 handler answers one after the other.
    pub concurrency_max: u32,
    /// How old an instance may be when it takes another request.
    pub age_max: Duration,
    /// How long an instance waits for another request before it goes.
    pub idle: Duration,
    /// Instances that may wait at once; more go as soon as they have nothing to do.
    pub idle_instances_max: u32,
}

impl Reuse {
    /// What a 0.3 service runs with unless told otherwise: a second after its last request it owns nothing.
    pub const fn shared() -> Self {
        Self {
            requests_max: 1000,
            concurrency_max: 16,
            age_max: Duration::from_secs(600),
            idle: Duration::from_secs(1),
            idle_instances_max: 64,
        }
    }

    /// Up to so many requests by one instance, which waits for half a minute between them.
    pub const fn requests(requests_max: u32) -> Self {
        Self { requests_max, idle: Duration::from_secs(30), ..Self::shared() }
    }
}

/// Asks for core dumps of instances that trap: WebAssembly core dumps with memories, globals and frames, as `wasm-tools`
/// and debuggers read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreDumps {
    /// Where they go: `TIME-N.coredump`. Made when it is not there.
    pub dir: PathBuf,
    /// Larger ones are not written.
    pub bytes_max: u64,
    /// Files kept; the oldest goes first.
    pub count_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 128 << 20,
            cpu: CpuLimit { quota_millicores: None, weight_millicores: 100 },
            concurrency_max: 256,
            queue_max: 1024,
            request_timeout: Duration::from_secs(300),
            reuse: Instances::ByKind,
            sockets: SocketLimits::default(),
        }
    }
}

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a container's output goes. Called from the guest's task: must not block for long.
pub trait LogSink: Send + Sync + 'static {
    /// Takes bytes as the guest wrote them; lines are the sink's business.
    fn write(&self, stream: Stream, bytes: &[u8]);

    /// Bytes that it takes now without loss; 0: the guest waits for [`LogSink::ready`] before it writes.
    fn room_bytes(&self, _stream: Stream) -> usize {
        usize::MAX
    }

    /// Bytes of the container that it keeps now, on their way out: they count towards the container's memory. Asked after each
    /// write and while the guest computes: must be cheap.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Ends when there is room.
    fn ready(&self, _stream: Stream) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Makes a guest's outgoing HTTP calls: the pod's network. The sandbox itself opens no socket.
#[async_trait]
pub trait Outgoing: Send + Sync + 'static {
    /// Sends one request (absolute URI) and answers with the response, its body streaming.
    ///
    /// # Errors
    /// What went wrong, in the words of `wasi:http`'s `error-code`.
    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Body>, OutgoingError>;
}

/// How long an outgoing call may take, as the guest says it: among the extensions of a request that is given to
/// [`Outgoing::send`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutgoingTimeouts {
    /// Until there is a connection.
    pub connect: Option<Duration>,
    /// From there to the head of the response.
    pub first_byte: Option<Duration>,
    /// Between two pieces of its body.
    pub between_bytes: Option<Duration>,
}

/// Why an outgoing call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// The pod may not call this.
    #[error("not allowed: {0}")]
    Denied(String),
    /// The name means nothing here.
    #[error("name not found: {0}")]
    NameNotFound(String),
    /// There is nobody to answer.
    #[error("connection refused: {0}")]
    Refused(String),
    /// It took too long.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A folder of the host that a container sees. No path and no symbolic link leads out of it.
#[derive(Clone)]
pub struct Mount {
    /// Absolute path as the guest sees it.
    pub guest_path: String,
    /// Where it lies on the host.
    pub source: Arc<dyn MountSource>,
    /// A path below the source, of which no link leads out of it, to be shown in its stead. A folder is made there when nothing is.
    pub sub_path: Option<PathBuf>,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Where a mount lies on the host. A plain [`PathBuf`] is one.
pub trait MountSource: Send + Sync + 'static {
    /// The folder, or a single file. Asked by each instance that looks at its files, when it first does: a source may make
    /// its content only then, so that containers that never look cost nothing. Must not block for long.
    ///
    /// # Errors
    /// When it is not there and cannot be made.
    fn path(&self) -> std::io::Result<&Path>;

    /// Asked when the container starts: looks, without making anything.
    ///
    /// # Errors
    /// When it is known already that there will be nothing. The message says where.
    fn check(&self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MountSource for PathBuf {
    fn path(&self) -> std::io::Result<&Path> {
        Ok(self)
    }

    fn check(&self) -> std::io::Result<()> {
        let named = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", self.display()));
        std::fs::metadata(self).map(drop).map_err(named)
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { guest_path, read_only, .. } = self;
        f.debug_struct("Mount").field("guest_path", guest_path).field("read_only", read_only).finish_non_exhaustive()
    }
}

/// Told of what happens to single instances of a container. Called from the guest's task: must not block.
pub trait Observer: Send + Sync + 'static {
    /// An instance trapped; the container goes on. `backtrace`: readable frames, innermost first.
    fn trapped(&self, message: &str, backtrace: &[String]);

    /// The guest used an interface that it was not granted, and was refused. Called each time.
    fn refused(&self, _group: &'static str) {}
}

/// A container to run. [`ContainerSpec::new`] grants nothing; every field adds something.
#[derive(Clone)]
pub struct ContainerSpec {
    /// For spans and messages, for example `default/web-1/app`.
    pub name: String,
    /// `argv`, the program's name first.
    pub args: Vec<String>,
    /// Environment, in order; nothing else is visible to the guest.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in, as the guest sees it.
    pub working_dir: Option<String>,
    /// Bounds.
    pub limits: Limits,
    /// What it shares bounds with: its pod.
    pub group: Option<Arc<Group>>,
    /// Which interfaces its image may import.
    pub grants: Arc<Grants>,
    /// Where its output goes.
    pub logs: Arc<dyn LogSink>,
    /// Where its input comes from; `None`: an empty one.
    pub stdin: Option<Stdin>,
    /// Whether its streams say that they are a terminal.
    pub tty: bool,
    /// What it sees of the host's file system.
    pub mounts: Vec<Mount>,
    /// Its way out by `wasi:http`; `None` refuses every call.
    pub outgoing: Option<Arc<dyn Outgoing>>,
    /// Its way to TCP, UDP and names; `None` refuses every call.
    pub sockets: Option<Arc<dyn Sockets>>,
    /// Where a core module is given listening sockets, as descriptors from 3 on, in this order: preview 1 has no other way to
    /// them. `LISTEN_FDS` tells their number. Mounts come after them.
    pub listen: Vec<SocketAddr>,
    /// What `wasi:config` answers with.
    pub config: Arc<[(String, String)]>,
    /// What `wasi:keyvalue` opens; `None`: there is no store.
    pub stores: Option<Arc<dyn Stores>>,
    /// What `wasi:tls` connects with; `None` refuses every connection.
    pub tls: Option<Tls>,
    /// Told of traps.
    pub observer: Option<Arc<dyn Observer>>,
    /// Whether a trap leaves a core dump.
    pub core_dumps: Option<CoreDumps>,
}

impl ContainerSpec {
    /// A container with the default bounds that sees nothing and whose output is thrown away.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            limits: Limits::default(),
            group: None,
            grants: grants::all(),
            logs: Arc::new(NoLogs),
            stdin: None,
            tty: false,
            mounts: Vec::new(),
            outgoing: None,
            sockets: None,
            listen: Vec::new(),
            config: Arc::default(),
            stores: None,
            tls: None,
            observer: None,
            core_dumps: None,
        }
    }
}

/// Throws output away.
struct NoLogs;

impl LogSink for NoLogs {
    fn write(&self, _: Stream, _: &[u8]) {}
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest returned or exited.
    Finished {
        /// Exit code.
        code: i32,
    },
    /// The guest trapped.
    Trapped {
        /// One line.
        message: String,
        /// Readable frames, innermost first.
        backtrace: Vec<String>,
    },
    /// The guest went past its memory limit.
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// A deadline passed.
    TimedOut,
    /// The embedder stopped it.
    Killed,
}

/// What a container has used since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// Time spent waiting because the quota was used up: once, however many instances waited at the same time.
    pub throttled: Duration,
    /// Quota periods in which it ran or wanted to, as `nr_periods` of a cgroup's `cpu.stat`; 0 without a quota.
    pub periods: u64,
    /// Those of them in which it had to wait, as `nr_throttled`.
    pub periods_throttled: u64,
    /// Memory now.
    pub memory_bytes: u64,
    /// Most memory at any time.
    pub memory_bytes_peak: u64,
    /// Live instances.
    pub instances: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes that came in: bodies, TCP and UDP.
    pub received_bytes: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
}
