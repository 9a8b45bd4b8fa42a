//! How the API server reaches nodes: logs, commands, ports, figures. The one in this process by function calls, others
//! through the tunnel.

use std::{convert::Infallible, sync::Arc};

use futures::{StreamExt as _, future::BoxFuture};
use http::{Request, Response};
use podium_agent::{
    Agent, Endpoints, LogError, NodeAccess, RemoteNode,
    streams::{self, StreamError},
};
use podium_api::{
    ApiError, Kind, ObjectKey, Reason,
    k8s_openapi::api::core::v1::{Node, Pod},
};
use podium_apiserver::{
    AttachOptions, ByteStream, CoreDump, ExecOptions, LogOptions, LogStream, LogStreams, NodeGateway, PodPorts,
    ServiceBody, Session, Streams, TerminalSize,
};
use podium_client::Mirror;
use podium_network::Network;
use serde_json::Value;
use tokio::sync::watch;

/// So many nodes are asked for their figures at once.
const NODES_AT_ONCE: usize = 64;

/// All nodes as the API server wants them.
pub(crate) struct Nodes {
    local: Option<Local>,
    network: Network,
    nodes: Arc<dyn Mirror>,
}

/// The node in this process.
struct Local {
    access: NodeAccess,
    stats: Box<dyn Fn() -> Value + Send + Sync>,
    endpoints: Endpoints,
}

impl Nodes {
    /// `agent`: the one in this process. `nodes`: all of them.
    pub(crate) fn new(agent: Option<&Agent>, network: Network, nodes: Arc<dyn Mirror>) -> Self {
        let local = |agent: &Agent| Local {
            access: agent.access(),
            stats: Box::new(agent.stats()),
            endpoints: agent.endpoints(),
        };
        Self { local: agent.map(local), network, nodes }
    }

    fn local(&self, node: &str) -> Option<&Local> {
        self.local.as_ref().filter(|local| local.endpoints.node_name() == node)
    }

    /// The containers of the node that a pod is on.
    fn of(&self, pod: &Pod) -> NodeAccess {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let elsewhere = || RemoteNode::new(self.network.clone(), node).access();
        self.local(node).map_or_else(elsewhere, |local| local.access.clone())
    }

    /// The nodes elsewhere that say that they are ready.
    fn others(&self) -> Vec<RemoteNode> {
        let nodes = self.nodes.list(None).into_iter();
        let ready = nodes.filter(|node| node.downcast_ref::<Node>().is_some_and(is_ready));
        let names = ready.filter_map(|node| node.meta().name.clone()).filter(|name| self.local(name).is_none());
        names.map(|name| RemoteNode::new(self.network.clone(), name)).collect()
    }
}

fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

impl NodeGateway for Nodes {
    fn summaries(&self) -> BoxFuture<'_, Result<Vec<Value>, ApiError>> {
        Box::pin(async move {
            let others = self.others();
            let asked = futures::stream::iter(others.iter().map(RemoteNode::stats)).buffer_unordered(NODES_AT_ONCE);
            let answers: Vec<_> = asked.collect().await;
            let mut summaries: Vec<Value> = self.local.iter().map(|local| (local.stats)()).collect();
            for answer in answers {
                match answer {
                    Ok(summary) => summaries.push(summary),
                    Err(why) => tracing::debug!(why, "a node does not say what it uses"),
                }
            }
            Ok(summaries)
        })
    }

    fn node<'a>(
        &'a self,
        node: &'a str,
        request: Request<ServiceBody>,
    ) -> BoxFuture<'a, Result<Response<ServiceBody>, ApiError>> {
        Box::pin(async move {
            if let Some(local) = self.local(node) {
                return Ok(local.endpoints.serve(request).await);
            }
            let answer = RemoteNode::new(self.network.clone(), node).send(request).await;
            answer.map_err(|why| {
                ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
            })
        })
    }

    fn logs<'a>(&'a self, pod: &'a Pod, options: LogOptions) -> BoxFuture<'a, Result<LogStream, ApiError>> {
        Box::pin(async move {
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
            self.of(pod).logs.logs(&key, options).await.map_err(|error| unreadable(&key, error))
        })
    }

    fn core_dumps<'a>(&'a self, pod: &'a Pod, container: &'a str) -> BoxFuture<'a, Result<Vec<CoreDump>, ApiError>> {
        Box::pin(async move {
            let key = ObjectKey::of(&pod.metadata);
            let found = self.of(pod).core_dumps.list(&key, container).await.map_err(|error| unreadable(&key, error))?;
            Ok(found.into_iter().map(|dump| CoreDump { name: dump.name, bytes: dump.bytes }).collect())
        })
    }

    fn core_dump<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<LogStream, ApiError>> {
        Box::pin(async move {
            let key = ObjectKey::of(&pod.metadata);
            self.of(pod).core_dumps.read(&key, container, name).await.map_err(|error| unreadable(&key, error))
        })
    }

    fn exec<'a>(&'a self, pod: &'a Pod, options: ExecOptions) -> BoxFuture<'a, Result<Session, ApiError>> {
        Box::pin(async move {
            let key = ObjectKey::of(&pod.metadata);
            let session = self.of(pod).streaming.exec(&key, attach_options(options.attach), options.command).await;
            session.map(handed_on).map_err(|error| refused(&key, error))
        })
    }

    fn attach<'a>(&'a self, pod: &'a Pod, options: AttachOptions) -> BoxFuture<'a, Result<Session, ApiError>> {
        Box::pin(async move {
            let key = ObjectKey::of(&pod.metadata);
            let session = self.of(pod).streaming.attach(&key, attach_options(options)).await;
            session.map(handed_on).map_err(|error| refused(&key, error))
        })
    }

    fn port_forward<'a>(&'a self, pod: &'a Pod) -> BoxFuture<'a, Result<Arc<dyn PodPorts>, ApiError>> {
        Box::pin(async move {
            let key = ObjectKey::of(&pod.metadata);
            let ports = self.of(pod).streaming.port_forward(&key).await.map_err(|error| refused(&key, error))?;
            Ok(Arc::new(Ports(ports)) as Arc<dyn PodPorts>)
        })
    }
}

struct Ports(Arc<dyn streams::PodPorts>);

impl PodPorts for Ports {
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move { Ok(Box::new(self.0.connect(port).await?) as Box<dyn ByteStream>) })
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
