//! [`NodeGateway`]: how the API server reaches what runs on nodes. The agent in this process implements it.
//!
//! Whatever takes a client's streams has two steps: what is asked for is looked up, and refused by an [`ApiError`] while the
//! request can still be answered; then the streams are handed in, and what goes wrong is said on them. A node far away does
//! the same over the protocols of [`crate::streaming`].

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use podium_api::ApiError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

/// Which of a container's streams a log is read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogStreams {
    /// Both, in the order written.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

use crate::ServiceBody;

/// What to read of a log, as in Kubernetes' `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which container. The API server fills it in when the pod has only one.
    pub container: String,
    /// Goes on until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Puts the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Which streams.
    pub streams: LogStreams,
}

/// The bytes of a log as they come; an error ends the stream.
pub type LogStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// A core dump that a container has left on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreDump {
    /// Its name, as the event of the trap says it. A file's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Which streams a client takes, and of which container: Kubernetes' `PodAttachOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Which container. The API server fills it in when the pod has only one.
    pub container: String,
    /// The client sends input.
    pub stdin: bool,
    /// The client takes standard output.
    pub stdout: bool,
    /// The client takes standard error. Never with `tty`.
    pub stderr: bool,
    /// Both outputs are one, and say that they are a terminal.
    pub tty: bool,
}

/// A command to run in a container: Kubernetes' `PodExecOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Where, and with which streams.
    pub attach: AttachOptions,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
}

/// How large a client's terminal is: characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A client's input. Its end is the end of the input.
pub type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// Where output goes to. Takes it at the client's pace; fails when the client has gone.
pub type Output = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A client's ends. Those that it did not ask for are not there.
pub struct Streams {
    /// Input.
    pub stdin: Option<Input>,
    /// Standard output.
    pub stdout: Option<Output>,
    /// Standard error.
    pub stderr: Option<Output>,
    /// The terminal's size, once the client has said it.
    pub size: watch::Receiver<Option<TerminalSize>>,
}

/// How a session ended: the command's exit code, or why there is none.
pub type SessionEnd = Result<i32, String>;
/// A session that begins when the streams are handed in. Dropping its future ends what it started.
pub type Session = Box<dyn FnOnce(Streams) -> BoxFuture<'static, SessionEnd> + Send>;

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// The ports of one pod.
pub trait PodPorts: Send + Sync + 'static {
    /// Connects to one, as a container of the pod would at `localhost`.
    ///
    /// # Errors
    /// Why nobody answers there, in the words that a client reads.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>>;
}

/// What runs on nodes, as the API server sees it.
///
/// Its futures are boxed by hand: with `async_trait`, whose lifetimes have bounds, the compiler proves for each method anew that
/// all that an implementation holds may go between threads, which takes seconds for what holds a whole agent.
pub trait NodeGateway: Send + Sync + 'static {
    /// Streams the log of one container of a pod.
    ///
    /// # Errors
    /// 400 when the container has no log to show (yet), 404 when the node does not know the pod, 500 when the log
    /// cannot be read.
    fn logs<'a>(&'a self, pod: &'a Pod, options: LogOptions) -> BoxFuture<'a, Result<LogStream, ApiError>>;

    /// The core dumps that a container of a pod has left, the newest first.
    ///
    /// # Errors
    /// 404 when the node does not know the pod, 500 when they cannot be read.
    fn core_dumps<'a>(&'a self, _pod: &'a Pod, _container: &'a str) -> BoxFuture<'a, Result<Vec<CoreDump>, ApiError>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    /// The bytes of one of them.
    ///
    /// # Errors
    /// As [`NodeGateway::core_dumps`]; 404 when it is not there any more.
    fn core_dump<'a>(
        &'a self,
        _pod: &'a Pod,
        _container: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<LogStream, ApiError>> {
        Box::pin(async move {
            Err(ApiError::new(podium_api::Reason::NotFound, format!("the node has no core dump {name:?}")))
        })
    }

    /// What nodes and their pods use now: a kubelet's `/stats/summary` for each node.
    ///
    /// # Errors
    /// 503 when no node can be asked.
    fn summaries(&self) -> BoxFuture<'_, Result<Vec<serde_json::Value>, ApiError>> {
        Box::pin(async move {
            Err(ApiError::new(podium_api::Reason::ServiceUnavailable, "this node does not say what it uses"))
        })
    }

    /// Passes a request on to a node's own endpoints, those that a kubelet has at its port. `node`: the node's name; the
    /// request's URI is a path. Whoever asks has been allowed to.
    ///
    /// # Errors
    /// 503 when the node cannot be reached.
    fn node<'a>(
        &'a self,
        node: &'a str,
        _request: Request<ServiceBody>,
    ) -> BoxFuture<'a, Result<Response<ServiceBody>, ApiError>> {
        Box::pin(async move {
            let why = format!("error trying to reach service: node {node:?} has no endpoints here");
            Err(ApiError::new(podium_api::Reason::ServiceUnavailable, why))
        })
    }

    /// Prepares a command in a running container.
    ///
    /// # Errors
    /// 404 when the node does not know the pod, 500 when the container does not run.
    fn exec<'a>(&'a self, pod: &'a Pod, options: ExecOptions) -> BoxFuture<'a, Result<Session, ApiError>>;

    /// Prepares taking part in a running container: its input, and its output from now on.
    ///
    /// # Errors
    /// As [`NodeGateway::exec`].
    fn attach<'a>(&'a self, pod: &'a Pod, options: AttachOptions) -> BoxFuture<'a, Result<Session, ApiError>>;

    /// Opens the way to a pod's ports.
    ///
    /// # Errors
    /// 404 when the node does not know the pod, 500 when it does not run.
    fn port_forward<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<std::sync::Arc<dyn PodPorts>, ApiError>>;
}

/// Serves what lies below `/v2/`: an image registry. Requests have been authenticated and allowed, as paths that are no
/// resources (`nonResourceURLs` of a ClusterRole).
#[async_trait]
pub trait ImageRegistry: Send + Sync + 'static {
    /// Answers a request, its body streaming.
    async fn serve(&self, request: Request<ServiceBody>) -> Response<ServiceBody>;
}
