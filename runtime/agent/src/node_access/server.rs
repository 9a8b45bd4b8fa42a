//! [`NodeServer`]: what this node answers to API servers over the tunnel. The network lets nobody else in.
//!
//! Requests are those of [`Endpoints`]; streams are `/exec/NAMESPACE/POD/CONTAINER`, `/attach/…` and
//! `/portForward/NAMESPACE/POD`, with a kubelet's query.
//!
//! # Source
//! Kubernetes `pkg/kubelet/server/server.go`.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use podium_api::ObjectKey;
use podium_network::{Body, CallError, NodeHandler, PodStream, ServeStream, TunnelPeer};
use reqwest::Url;

use super::frames::{self, Wanted};
use crate::{
    Endpoints,
    streams::{AttachOptions, Session, StreamError, Streaming},
};

/// What the node answers with, once its agent runs: before that, 503.
#[derive(Default)]
pub(crate) struct NodeServer(OnceLock<Parts>);

struct Parts {
    endpoints: Endpoints,
    streaming: Arc<dyn Streaming>,
}

impl NodeServer {
    /// The agent runs.
    pub(crate) fn begin(&self, endpoints: Endpoints, streaming: Arc<dyn Streaming>) {
        // It begins once.
        let _ = self.0.set(Parts { endpoints, streaming });
    }
}

impl NodeHandler for NodeServer {
    fn call<'a>(
        &'a self,
        _peer: &'a TunnelPeer,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, CallError>> {
        Box::pin(async move {
            match self.0.get() {
                Some(parts) => Ok(parts.endpoints.serve(request).await),
                None => Ok(not_yet()),
            }
        })
    }

    fn connect<'a>(
        &'a self,
        _peer: &'a TunnelPeer,
        request: Request<()>,
    ) -> BoxFuture<'a, Result<ServeStream, Response<Body>>> {
        Box::pin(async move {
            let parts = self.0.get().ok_or_else(not_yet)?;
            let asked = Asked::read(&request).ok_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n"))?;
            parts.open(asked).await
        })
    }
}

impl Parts {
    async fn open(&self, asked: Asked) -> Result<ServeStream, Response<Body>> {
        let Asked { key, container, command, wanted, tty, port, verb } = asked;
        let options = AttachOptions { container, stdin: wanted.stdin, tty };
        match verb {
            Verb::Exec => {
                let session = self.streaming.exec(&key, options, command).await.map_err(refused)?;
                Ok(serving(wanted, session))
            }
            Verb::Attach => {
                let session = self.streaming.attach(&key, options).await.map_err(refused)?;
                Ok(serving(wanted, session))
            }
            Verb::PortForward => {
                let ports = self.streaming.port_forward(&key).await.map_err(refused)?;
                let pod = ports.connect(port).await.map_err(|why| text(StatusCode::BAD_GATEWAY, &why))?;
                Ok(Box::new(move |client| Box::pin(carry(client, pod))))
            }
        }
    }
}

fn serving(wanted: Wanted, session: Session) -> ServeStream {
    Box::new(move |stream| Box::pin(frames::serve(stream, wanted, session)))
}

async fn carry(mut client: PodStream, mut pod: PodStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut pod).await {
        tracing::debug!(%error, "a forwarded connection ended early");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Exec,
    Attach,
    PortForward,
}

/// A stream as it is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    verb: Verb,
    key: ObjectKey,
    container: String,
    command: Vec<String>,
    wanted: Wanted,
    tty: bool,
    port: u16,
}

impl Asked {
    fn read(request: &Request<()>) -> Option<Self> {
        let path = request.uri().path_and_query()?.as_str();
        let url = Url::parse("http://node").ok()?.join(path).ok()?;
        let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        let (verb, namespace, pod, container) = match parts.as_slice() {
            ["exec", namespace, pod, container] => (Verb::Exec, *namespace, *pod, *container),
            ["attach", namespace, pod, container] => (Verb::Attach, *namespace, *pod, *container),
            ["portForward", namespace, pod] => (Verb::PortForward, *namespace, *pod, ""),
            _ => return None,
        };
        let all =
            |name: &'static str| url.query_pairs().filter(move |(key, _)| key == name).map(|(_, v)| v.into_owned());
        let flag = |name| all(name).any(|value| value == "1" || value == "true");
        let port = all("port").next().and_then(|port| port.parse().ok());
        Some(Self {
            verb,
            key: ObjectKey::new(namespace, pod),
            container: container.to_owned(),
            command: all("command").collect(),
            wanted: Wanted { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") },
            tty: flag("tty"),
            port: if verb == Verb::PortForward { port? } else { 0 },
        })
    }
}

fn refused(error: StreamError) -> Response<Body> {
    let status = match error {
        StreamError::NoPod => StatusCode::NOT_FOUND,
        StreamError::NotRunning(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, &error.to_string())
}

fn not_yet() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the node agent is starting\n")
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(words.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_asked_for_by_a_kubelets_paths() {
        let read = |uri: &str| Asked::read(&Request::builder().uri(uri).body(()).unwrap());
        let exec = read("/exec/d/web/app?command=sh&command=-c&command=echo%20%26&input=1&output=1&tty=1").unwrap();
        assert_eq!((exec.verb, exec.key, exec.container), (Verb::Exec, ObjectKey::new("d", "web"), "app".to_owned()));
        assert_eq!(exec.command, ["sh", "-c", "echo &"]);
        assert_eq!((exec.wanted, exec.tty), (Wanted { stdin: true, stdout: true, stderr: false }, true));
        assert_eq!(read("/portForward/d/web?port=8080").map(|asked| asked.port), Some(8080));
        for wrong in ["/portForward/d/web", "/portForward/d/web?port=99999", "/exec/d/web", "/run/d/web/app", "/"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
