//! How the API server reaches the agent in this process: logs, commands, ports.

use std::{convert::Infallible, sync::Arc};

use async_trait::async_trait;
use http::{Request, Response};
use podium_agent::{
    CoreDumpReader, Endpoints, LogError, LogReader,
    streams::{self, StreamError, Streaming},
};
use podium_api::{ApiError, Kind, ObjectKey, Reason, k8s_openapi::api::core::v1::Pod};
use podium_apiserver::{
    AttachOptions, ByteStream, CoreDump, ExecOptions, LogOptions, LogStream, LogStreams, NodeGateway, PodPorts,
    ServiceBody, Session, Streams, TerminalSize,
};
use tokio::sync::watch;

/// The agent as the API server wants it.
pub(crate) struct AgentGateway {
    pub(crate) logs: Arc<dyn LogReader>,
    pub(crate) core_dumps: Arc<dyn CoreDumpReader>,
    pub(crate) streaming: Arc<dyn Streaming>,
    pub(crate) stats: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    pub(crate) endpoints: Endpoints,
}

#[async_trait]
impl NodeGateway for AgentGateway {
    async fn summaries(&self) -> Result<Vec<serde_json::Value>, ApiError> {
        Ok(vec![(self.stats)()])
    }

    async fn node(&self, node: &str, request: Request<ServiceBody>) -> Result<Response<ServiceBody>, ApiError> {
        if node != self.endpoints.node_name() {
            let why = format!("error trying to reach service: node {node:?} is not in this process");
            return Err(ApiError::new(Reason::ServiceUnavailable, why));
        }
        Ok(self.endpoints.serve(request).await)
    }

    async fn logs(&self, pod: &Pod, options: LogOptions) -> Result<LogStream, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let options = podium_agent::LogOptions {
            container: Some(options.container),
            follow: options.follow,
            previous: options.previous,
            since: options.since,
            timestamps: options.timestamps,
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
            streams: match options.streams {
                LogStreams::All => podium_agent::LogStreams::All,
                LogStreams::Stdout => podium_agent::LogStreams::Stdout,
                LogStreams::Stderr => podium_agent::LogStreams::Stderr,
            },
        };
        self.logs.logs(&key, options).await.map_err(|error| unreadable(&key, error))
    }

    async fn core_dumps(&self, pod: &Pod, container: &str) -> Result<Vec<CoreDump>, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let found = self.core_dumps.list(&key, container).await.map_err(|error| unreadable(&key, error))?;
        Ok(found.into_iter().map(|dump| CoreDump { name: dump.name, bytes: dump.bytes }).collect())
    }

    async fn core_dump(&self, pod: &Pod, container: &str, name: &str) -> Result<LogStream, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        self.core_dumps.read(&key, container, name).await.map_err(|error| unreadable(&key, error))
    }

    async fn exec(&self, pod: &Pod, options: ExecOptions) -> Result<Session, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let session = self.streaming.exec(&key, attach_options(options.attach), options.command).await;
        session.map(handed_on).map_err(|error| refused(&key, error))
    }

    async fn attach(&self, pod: &Pod, options: AttachOptions) -> Result<Session, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let session = self.streaming.attach(&key, attach_options(options)).await;
        session.map(handed_on).map_err(|error| refused(&key, error))
    }

    async fn port_forward(&self, pod: &Pod) -> Result<Arc<dyn PodPorts>, ApiError> {
        let key = ObjectKey::of(&pod.metadata);
        let ports = self.streaming.port_forward(&key).await.map_err(|error| refused(&key, error))?;
        Ok(Arc::new(Ports(ports)))
    }
}

struct Ports(Arc<dyn streams::PodPorts>);

#[async_trait]
impl PodPorts for Ports {
    async fn connect(&self, port: u16) -> Result<Box<dyn ByteStream>, String> {
        Ok(Box::new(self.0.connect(port).await?))
    }
}

fn unreadable(key: &ObjectKey, error: LogError) -> ApiError {
    match error {
        LogError::NoPod(_) => ApiError::not_found(&Pod::NAMES, &key.name),
        LogError::BadRequest(message) => ApiError::bad_request(message),
        LogError::Io(_) => ApiError::internal(error.to_string()),
    }
}

fn refused(key: &ObjectKey, error: StreamError) -> ApiError {
    match error {
        StreamError::NoPod => ApiError::not_found(&Pod::NAMES, &key.name),
        StreamError::NotRunning(message) => ApiError::internal(message),
    }
}

fn attach_options(options: AttachOptions) -> streams::AttachOptions {
    streams::AttachOptions { container: options.container, stdin: options.stdin, tty: options.tty }
}

/// The agent's session as the API server runs it.
fn handed_on(session: streams::Session) -> Session {
    Box::new(move |Streams { stdin, stdout, stderr, size }| {
        Box::pin(async move {
            let (said, sizes) = watch::channel(None);
            tokio::select! {
                end = session(streams::Streams { stdin, stdout, stderr, size: sizes }) => end,
                never = follow(size, said) => match never {},
            }
        })
    })
}

async fn follow(
    mut size: watch::Receiver<Option<TerminalSize>>,
    said: watch::Sender<Option<streams::TerminalSize>>,
) -> Infallible {
    loop {
        let now = *size.borrow_and_update();
        said.send_replace(now.map(|s| streams::TerminalSize { width: s.width, height: s.height }));
        if size.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
