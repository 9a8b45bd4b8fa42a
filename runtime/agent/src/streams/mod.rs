//! Streams into running containers: commands, attaching, and connections to ports, as an API server hands them on.
//!
//! Two steps, as of the kubelet: what is asked for is looked up, then the client's streams are handed in.

pub(crate) mod pipe;
pub(crate) mod terminal;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use podium_api::ObjectKey;
use podium_network::PodStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

/// The commands that every container has beside its own.
#[derive(Debug, Clone, Default)]
pub enum Tools {
    /// None: only what an image brings can be run.
    #[default]
    Off,
    /// This module, which finds out by the program's name what it is to be.
    Module(Bytes),
    /// The commands of an image.
    Image(String),
}

/// Which streams a client takes, and of which container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Which container.
    pub container: String,
    /// The client sends input.
    pub stdin: bool,
    /// The client's end is a terminal: both outputs are one.
    pub tty: bool,
}

/// How large a client's terminal is: characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A client's input.
pub type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// Where output goes to; fails when the client has gone.
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

/// A session that begins when the streams are handed in, and ends with an exit code or the reason why there is none.
/// Dropping its future ends what it started.
pub type Session = Box<dyn FnOnce(Streams) -> BoxFuture<'static, Result<i32, String>> + Send>;

/// Why there are no streams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The pod is not on this node.
    #[error("pod does not exist")]
    NoPod,
    /// It does not run, or not like this.
    #[error("{0}")]
    NotRunning(String),
}

/// The ports of one pod.
pub trait PodPorts: Send + Sync + 'static {
    /// Connects to one.
    ///
    /// # Errors
    /// Why nobody answers there.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<PodStream, String>>;
}

/// Streams into the containers of this node.
///
/// Its futures are boxed by hand: with `async_trait`, whose lifetimes have bounds, the compiler proves for each method anew that
/// all that an implementation holds may go between threads, which takes seconds for what holds a whole agent.
pub trait Streaming: Send + Sync + 'static {
    /// Prepares a command in a running container.
    ///
    /// # Errors
    /// When the pod is not here, or the container does not run.
    fn exec<'a>(
        &'a self,
        pod: &'a ObjectKey,
        options: AttachOptions,
        command: Vec<String>,
    ) -> BoxFuture<'a, Result<Session, StreamError>>;

    /// Prepares taking part in a running container.
    ///
    /// # Errors
    /// As [`Streaming::exec`].
    fn attach<'a>(&'a self, pod: &'a ObjectKey, options: AttachOptions) -> BoxFuture<'a, Result<Session, StreamError>>;

    /// Opens the way to a pod's ports.
    ///
    /// # Errors
    /// When the pod is not here, or has no address.
    fn port_forward<'a>(&'a self, pod: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<dyn PodPorts>, StreamError>>;
}
