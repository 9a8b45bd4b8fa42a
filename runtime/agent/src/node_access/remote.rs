//! [`RemoteNode`]: the containers of a node that is elsewhere, over the tunnel. It answers what the node answers.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt as _, Empty};
use podium_api::ObjectKey;
use podium_network::{Body, CallError, Network, NodeStream, PodStream};
use reqwest::Url;
use serde_json::Value;

use super::{NodeAccess, frames};
use crate::{
    CoreDump, CoreDumpReader, LogError, LogOptions, LogReader, LogStream, LogStreams,
    streams::{AttachOptions, PodPorts, Session, StreamError, Streaming},
};

/// How long a node may take to answer what is not a stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that is gathered: figures of ten thousand pods.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A node elsewhere.
#[derive(Clone)]
pub struct RemoteNode {
    network: Network,
    name: String,
}

impl RemoteNode {
    /// The node of this name, as the network knows it.
    pub fn new(network: Network, name: impl Into<String>) -> Self {
        Self { network, name: name.into() }
    }

    /// Its containers.
    pub fn access(&self) -> NodeAccess {
        let own = Arc::new(self.clone());
        NodeAccess { logs: own.clone(), core_dumps: own.clone(), streaming: own }
    }

    /// Passes a request on to its endpoints.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, String> {
        self.network.send_to_node(&self.name, request).await.map_err(|error| self.unreached(&error))
    }

    /// What it and its pods use now: `/stats/summary`.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn stats(&self) -> Result<Value, String> {
        let (status, bytes) = self.gather("/stats/summary").await?;
        match status {
            StatusCode::OK => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            _ => Err(words(&bytes)),
        }
    }

    fn unreached(&self, error: &CallError) -> String {
        format!("the node {} cannot be reached: {error}", self.name)
    }

    async fn get(&self, path: &str) -> Result<Response<Body>, String> {
        let request = Request::get(path).body(Empty::new().map_err(|never| match never {}).boxed_unsync());
        let request = request.map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.send(request)).await;
        answer.unwrap_or_else(|_| Err(format!("the node {} did not answer in time", self.name)))
    }

    async fn gather(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        let answer = self.get(path).await?;
        Ok((answer.status(), whole(answer.into_body()).await?))
    }

    /// A body as it comes; an answer that is none of 200 as an error.
    async fn stream(&self, key: &ObjectKey, path: &str) -> Result<LogStream, LogError> {
        let answer = self.get(path).await.map_err(LogError::Io)?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(BodyDataStream::new(answer.into_body()).map_err(io::Error::other).boxed());
        }
        let said = whole(answer.into_body()).await.map_or_else(|why| why, |body| words(&body));
        Err(log_error(key, status, said))
    }

    async fn connect(&self, path: &str, query: &[(&str, &str)]) -> Result<PodStream, (StatusCode, String)> {
        let unreached = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
        let url = Url::parse_with_params(&format!("http://node{path}"), query);
        let url = url.map_err(|error| unreached(error.to_string()))?;
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let request = Request::builder().uri(target).body(()).map_err(|error| unreached(error.to_string()))?;
        let opened = tokio::time::timeout(ANSWER_WITHIN, self.network.connect_node(&self.name, request)).await;
        let opened = opened.map_err(|_| unreached(format!("the node {} did not answer in time", self.name)))?;
        match opened.map_err(|error| unreached(self.unreached(&error)))? {
            NodeStream::Open(stream) => Ok(stream),
            NodeStream::Answer(answer) => {
                let status = answer.status();
                Err((status, whole(answer.into_body()).await.map_or_else(|why| why, |body| words(&body))))
            }
        }
    }

    async fn session(&self, path: String, options: &AttachOptions, command: &[String]) -> Result<Session, StreamError> {
        let flag = |on: bool| if on { "1" } else { "0" };
        let mut query: Vec<(&str, &str)> = command.iter().map(|word| ("command", word.as_str())).collect();
        // With a terminal both outputs are one.
        let (input, tty, error) = (flag(options.stdin), flag(options.tty), flag(!options.tty));
        query.extend([("input", input), ("output", "1"), ("error", error), ("tty", tty)]);
        let stream = self.connect(&path, &query).await.map_err(stream_error)?;
        Ok(Box::new(move |streams| Box::pin(frames::ask(stream, streams))))
    }
}

/// All of an answer that is no stream.
async fn whole(mut body: Body) -> Result<Bytes, String> {
    let read = async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            if all.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(format!("the node's answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    let read = tokio::time::timeout(ANSWER_WITHIN, read).await;
    read.unwrap_or_else(|_| Err("the node did not answer in time".to_owned()))
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn log_error(key: &ObjectKey, status: StatusCode, said: String) -> LogError {
    match status {
        StatusCode::NOT_FOUND => LogError::NoPod(key.to_string()),
        StatusCode::BAD_REQUEST => LogError::BadRequest(said),
        _ => LogError::Io(said),
    }
}

fn stream_error((status, said): (StatusCode, String)) -> StreamError {
    if status == StatusCode::NOT_FOUND { StreamError::NoPod } else { StreamError::NotRunning(said) }
}

fn log_path(key: &ObjectKey, options: &LogOptions) -> String {
    let container = options.container.as_deref().unwrap_or_default();
    let mut query =
        vec![format!("follow={}&previous={}&timestamps={}", options.follow, options.previous, options.timestamps)];
    // A time has digits, letters, `-`, `.` and `:`: nothing that a query has to encode.
    query.extend(options.since.map(|since| format!("sinceTime={since}")));
    query.extend(options.tail_lines.map(|lines| format!("tailLines={lines}")));
    query.extend(options.limit_bytes.map(|bytes| format!("limitBytes={bytes}")));
    query.extend(match options.streams {
        LogStreams::All => None,
        LogStreams::Stdout => Some("stream=Stdout".to_owned()),
        LogStreams::Stderr => Some("stream=Stderr".to_owned()),
    });
    format!("/containerLogs/{}/{}/{container}?{}", key.namespace, key.name, query.join("&"))
}

impl LogReader for RemoteNode {
    fn logs<'a>(&'a self, pod: &'a ObjectKey, options: LogOptions) -> BoxFuture<'a, Result<LogStream, LogError>> {
        Box::pin(async move { self.stream(pod, &log_path(pod, &options)).await })
    }
}

impl CoreDumpReader for RemoteNode {
    fn list<'a>(&'a self, pod: &'a ObjectKey, container: &'a str) -> BoxFuture<'a, Result<Vec<CoreDump>, LogError>> {
        Box::pin(async move {
            let path = format!("/coreDumps/{}/{}/{container}", pod.namespace, pod.name);
            let (status, bytes) = self.gather(&path).await.map_err(LogError::Io)?;
            if status != StatusCode::OK {
                return Err(log_error(pod, status, words(&bytes)));
            }
            serde_json::from_slice(&bytes).map_err(|error| LogError::Io(error.to_string()))
        })
    }

    fn read<'a>(
        &'a self,
        pod: &'a ObjectKey,
        container: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<LogStream, LogError>> {
        Box::pin(async move {
            self.stream(pod, &format!("/coreDumps/{}/{}/{container}/{name}", pod.namespace, pod.name)).await
        })
    }
}

impl Streaming for RemoteNode {
    fn exec<'a>(
        &'a self,
        pod: &'a ObjectKey,
        options: AttachOptions,
        command: Vec<String>,
    ) -> BoxFuture<'a, Result<Session, StreamError>> {
        Box::pin(async move {
            let path = format!("/exec/{}/{}/{}", pod.namespace, pod.name, options.container);
            self.session(path, &options, &command).await
        })
    }

    fn attach<'a>(&'a self, pod: &'a ObjectKey, options: AttachOptions) -> BoxFuture<'a, Result<Session, StreamError>> {
        Box::pin(async move {
            let path = format!("/attach/{}/{}/{}", pod.namespace, pod.name, options.container);
            self.session(path, &options, &[]).await
        })
    }

    fn port_forward<'a>(&'a self, pod: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<dyn PodPorts>, StreamError>> {
        Box::pin(async move {
            let path = format!("/portForward/{}/{}", pod.namespace, pod.name);
            Ok(Arc::new(RemotePorts { node: self.clone(), path }) as Arc<dyn PodPorts>)
        })
    }
}

/// The ports of a pod elsewhere: each connection is a stream of the tunnel.
struct RemotePorts {
    node: RemoteNode,
    path: String,
}

impl PodPorts for RemotePorts {
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<PodStream, String>> {
        Box::pin(async move {
            let port = port.to_string();
            self.node.connect(&self.path, &[("port", &port)]).await.map_err(|(_, why)| why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_asked_for_as_of_a_kubelet() {
        let key = ObjectKey::new("d", "web");
        let container = Some("app".to_owned());
        let options = LogOptions { container: container.clone(), ..LogOptions::default() };
        assert_eq!(log_path(&key, &options), "/containerLogs/d/web/app?follow=false&previous=false&timestamps=false");
        let options = LogOptions {
            container,
            follow: true,
            since: Some("2026-01-01T00:00:00.5Z".parse().unwrap()),
            tail_lines: Some(3),
            limit_bytes: Some(9),
            streams: LogStreams::Stderr,
            ..LogOptions::default()
        };
        assert_eq!(
            log_path(&key, &options),
            "/containerLogs/d/web/app?follow=true&previous=false&timestamps=false&sinceTime=2026-01-01T00:00:00.5Z&\
             tailLines=3&limitBytes=9&stream=Stderr"
        );
    }
}
