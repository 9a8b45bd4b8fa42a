//! How the API server reaches pods, of this process and of other nodes: webhooks, and what `proxy` subresources name.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use podium_apiserver::{ByteStream, ServiceBody, ServiceDialer};
use podium_network::{CallError, Caller, Dialer, Network};

/// The pod network as the API server wants it.
pub(crate) struct Pods {
    network: Network,
    dialer: Dialer,
}

impl Pods {
    pub(crate) fn new(network: Network) -> Self {
        let caller = Caller {
            namespace: "kube-system".to_owned(),
            pod: "kube-apiserver".to_owned(),
            service_account: String::new(),
            ip: None,
        };
        Self { dialer: network.dialer(caller), network }
    }
}

impl ServiceDialer for Pods {
    fn serves(&self, address: SocketAddr) -> bool {
        self.network.is_attached(address.ip(), address.port()) || self.network.is_elsewhere(address.ip())
    }

    fn send(
        &self,
        address: SocketAddr,
        mut request: Request<ServiceBody>,
    ) -> BoxFuture<'_, Result<Response<ServiceBody>, String>> {
        Box::pin(async move {
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let uri: Uri = format!("http://{address}{path}").parse().map_err(|error| format!("parse: {error}"))?;
            *request.uri_mut() = uri;
            self.dialer.send(request).await.map_err(|error| words(address, &error))
        })
    }

    fn listens(&self, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.network.listens_anywhere(address.ip(), address.port()).await })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move {
            let stream = self.network.connect_pod(address.ip(), address.port()).await;
            stream.map(|stream| Box::new(stream) as Box<dyn ByteStream>).map_err(|error| words(address, &error))
        })
    }
}

/// Why there is no answer: in the words of Go's library where it has any.
fn words(address: SocketAddr, error: &CallError) -> String {
    match error {
        CallError::Refused(_) => format!("dial tcp {address}: connect: connection refused"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use http_body_util::{BodyExt as _, Full};
    use podium_network::{Body, HttpHandler, NetworkConfig};

    use super::*;

    /// Answers with what it was asked.
    struct Echo;

    #[async_trait]
    impl HttpHandler for Echo {
        async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| CallError::Failed(e.to_string()))?.to_bytes();
            let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or_default();
            let said = format!("{} {host} {} {}", parts.method, parts.uri.path(), String::from_utf8_lossy(&body));
            Ok(Response::new(Full::from(said).map_err(|never| match never {}).boxed_unsync()))
        }
    }

    #[tokio::test]
    async fn a_pod_of_this_process_is_asked_without_a_socket() {
        let network = Network::new(NetworkConfig::default());
        let address: SocketAddr = "10.128.0.7:8080".parse().unwrap();
        let pods = Pods::new(network.clone());
        assert!(!pods.serves(address));
        let attachment = network.attach(address.ip(), address.port(), Arc::new(Echo));
        assert!(pods.serves(address));
        let body = Full::from("review").map_err(|never| match never {}).boxed_unsync();
        let request = Request::post("/judge?timeout=1s").header("host", "judge.default.svc:443").body(body).unwrap();
        let answer = pods.send(address, request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "POST judge.default.svc:443 /judge review");
        drop(attachment);
        assert!(!pods.serves(address));
    }
}
