//! A pod without sockets for the proxy's tests: some of its ports are called, some listen themselves.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use podium_apiserver::{BoxError, ByteStream, ServiceBody, ServiceDialer};
use serde_json::{Value, json};

use crate::harness::Cluster;

pub(crate) const IP: &str = "10.244.0.7";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";

/// What its ports say, as the `porter` of Kubernetes' conformance tests.
const SAID: [(u16, &str); 7] = [
    (1080, "<a href=\"/rewriteme\">test</a>"),
    (160, "foo"),
    // Listens itself, and speaks no TLS.
    (161, "plain"),
    (162, "bar"),
    (443, "<a href=\"/tlsrewriteme\">test</a>"),
    (460, "tls baz"),
    (462, "tls qux"),
];
/// Speaks WebSocket, within the process.
pub(crate) const SOCKET: u16 = 7;

pub(crate) struct Porter {
    tls: tokio_rustls::TlsAcceptor,
}

impl Porter {
    pub(crate) fn new() -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["somebody".to_owned()]).unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        Self { tls: tokio_rustls::TlsAcceptor::from(Arc::new(tls)) }
    }
}

impl ServiceDialer for Porter {
    fn serves(&self, address: SocketAddr) -> bool {
        let port = address.port();
        let known = port == 80 || port == SOCKET || SAID.iter().any(|(known, _)| *known == port);
        address.ip() == IP.parse::<IpAddr>().unwrap() && known
    }

    fn send(
        &self,
        address: SocketAddr,
        request: Request<ServiceBody>,
    ) -> BoxFuture<'_, Result<Response<ServiceBody>, String>> {
        Box::pin(async move { Ok(answer(address.port(), request).await) })
    }

    fn listens(&self, address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { matches!(address.port(), 161 | 443 | 460 | 462 | SOCKET) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (tls, port) = (self.tls.clone(), address.port());
            tokio::spawn(async move {
                if matches!(port, 443 | 460 | 462) {
                    let Ok(far) = tls.accept(far).await else { return };
                    serve(TokioIo::new(far), port).await;
                } else {
                    serve(TokioIo::new(far), port).await;
                }
            });
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}

async fn serve<S>(io: S, port: u16)
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| async move {
        if port == SOCKET && request.headers().get("upgrade").is_some_and(|u| u == "websocket") {
            let key = request.headers()["sec-websocket-key"].as_bytes().to_vec();
            tokio::spawn(echo(hyper::upgrade::on(&mut request), request.headers().clone()));
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(&key);
            let switching = Response::builder().status(101).header("upgrade", "websocket");
            let switching = switching.header("connection", "Upgrade").header("sec-websocket-accept", accept);
            return Ok::<_, Infallible>(
                switching.body(Full::default().map_err(|n| match n {}).boxed_unsync()).unwrap(),
            );
        }
        Ok(answer(port, request.map(|body| body.map_err(BoxError::from).boxed_unsync())).await)
    });
    let _ended = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
}

/// Says first what it sees of the client, then what the client says.
async fn echo(upgrade: hyper::upgrade::OnUpgrade, headers: HeaderMap) {
    let io = TokioIo::new(upgrade.await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(io, role, None).await;
    let seen: Value = shown(&headers);
    socket.send(seen.to_string().into()).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn shown(headers: &HeaderMap) -> Value {
    let one = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), Value::from(value.to_str().unwrap()))
    };
    headers.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

async fn answer(port: u16, request: Request<ServiceBody>) -> Response<ServiceBody> {
    if let Some((_, said)) = SAID.iter().find(|(known, _)| *known == port) {
        let kind = if said.starts_with('<') { "text/html" } else { "text/plain" };
        return full(Response::builder().header("content-type", kind), (*said).to_owned());
    }
    let (parts, body) = request.into_parts();
    match parts.uri.path() {
        "/redirect" => {
            let to = parts.uri.query().unwrap_or("/there");
            full(Response::builder().status(302).header("location", to), String::new())
        }
        "/headers" => {
            let answer = Response::builder().header("access-control-allow-origin", "*").header("x-own", "yes");
            let answer = answer.header("connection", "x-hop").header("x-hop", "gone").header("set-cookie", "a=b");
            full(answer, shown(&parts.headers).to_string())
        }
        "/length" => {
            let length = body.collect().await.unwrap().to_bytes().len();
            full(Response::builder(), length.to_string())
        }
        "/echo" => Response::new(body),
        "/broken" => {
            let frames = [Ok(http_body::Frame::data(Bytes::from("begun"))), Err(BoxError::from("the pod broke"))];
            Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
        }
        "/forbidden" => full(Response::builder().status(403), "no".to_owned()),
        path => {
            let said = json!({
                "Method": parts.method.as_str(), "Body": "foo", "Path": path, "Query": parts.uri.query(),
            });
            full(Response::builder().header("content-type", "application/json"), said.to_string())
        }
    }
}

fn full(builder: http::response::Builder, text: String) -> Response<ServiceBody> {
    builder.body(Full::from(text).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// A cluster with the pod `agnhost` and the Service `test-service`, which leads to it.
pub(crate) async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.server.connect_services(Arc::new(Porter::new()));
    pod(&cluster, "agnhost", json!([])).await;
    service(&cluster, "test-service", json!([{"port": 80, "targetPort": 80}])).await;
    endpoints(&cluster, "test-service", "agnhost", json!([{"name": "", "port": 80}])).await;
    cluster
}

pub(crate) async fn pod(cluster: &Cluster, name: &str, ports: Value) {
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "x", "ports": ports}]});
    cluster.post(PODS, json!({"metadata": {"name": name}, "spec": spec})).await.ok(201);
    let status = json!({"status": {"phase": "Running", "podIP": IP, "podIPs": [{"ip": IP}]}});
    cluster.patch(&format!("{PODS}/{name}/status"), "merge-patch", status).await.ok(200);
}

pub(crate) async fn service(cluster: &Cluster, name: &str, ports: Value) {
    let service = json!({"metadata": {"name": name}, "spec": {"ports": ports, "selector": {"none": "yet"}}});
    cluster.post(SERVICES, service).await.ok(201);
}

/// What a controller would write.
pub(crate) async fn endpoints(cluster: &Cluster, service: &str, pod: &str, ports: Value) {
    let target = json!({"kind": "Pod", "namespace": "default", "name": pod});
    let slice = json!({
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports,
        "endpoints": [{"addresses": [IP], "conditions": {"ready": true}, "targetRef": target}],
    });
    cluster.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.ok(201);
}
