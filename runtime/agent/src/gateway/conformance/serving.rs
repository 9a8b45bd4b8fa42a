//! A cluster's Gateways, listening, with a pod behind each port of each Service that tells what it was asked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use podium_network::{
    Attachment, Body, CallError, HttpHandler, Network, NetworkConfig,
    table::{Endpoint, Name, Place, Protocol, Service, ServicePort, Slice, Traffic},
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::{
    compile::compile,
    seen::Backend,
    tests::{HERE, seen},
};
use crate::driver::http::client_config;

/// Headers of requests that pods answer with: `reply-x: 1` becomes `x: 1`.
const REPLY: &str = "reply-";

/// Tells who it is and what it was asked.
struct Echo(String);

#[async_trait]
impl HttpHandler for Echo {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let text = format!("{} {} {}{}", self.0, request.method(), request.uri(), shown(request.headers(), ""));
        let mut answer = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
        for (name, value) in request.headers() {
            if let Some(name) = name.as_str().strip_prefix(REPLY) {
                answer.headers_mut().append(HeaderName::try_from(name).unwrap(), value.clone());
            }
        }
        Ok(answer)
    }
}

/// Headers as words, each once.
fn shown(headers: &HeaderMap, prefix: &str) -> String {
    let of = |name: &HeaderName| {
        let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        format!(" {prefix}{name}={}", values.join(","))
    };
    headers.keys().map(of).collect()
}

/// What listens.
pub(super) struct Serving {
    _network: Network,
    _pods: Vec<Attachment>,
    /// By Gateway and port.
    at: BTreeMap<(String, u16), SocketAddr>,
}

/// Asks each line of a cluster.
pub(super) async fn requests(cluster: &str, lines: &str) {
    let serving = Serving::start(cluster).await;
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        serving.ask(line).await;
    }
}

impl Serving {
    pub(super) async fn start(cluster: &str) -> Self {
        let (seen, network) = (seen(cluster), Network::new(NetworkConfig::default()));
        let mut pods = Vec::new();
        for (place, (name, backend)) in (1..).zip(&seen.services) {
            if let Backend::Ports(ports) = backend {
                let ports: Vec<u16> = ports.iter().copied().collect();
                pods.extend(serve(&network, name, place, &ports));
            }
        }
        let mut plan = compile(&seen, HERE);
        let mut ports = std::mem::take(&mut plan.ports);
        let asked: Vec<SocketAddr> = ports.iter().map(|port| port.address).collect();
        for (place, port) in (1..).zip(&mut ports) {
            port.address = SocketAddr::new(IpAddr::from([127, 0, 77, place]), 0);
        }
        let opened = network.set_gateways(ports).await;
        let bound: BTreeMap<SocketAddr, SocketAddr> =
            asked.into_iter().zip(opened).map(|(asked, opened)| (asked, opened.bound.unwrap())).collect();
        let mut at = BTreeMap::new();
        for site in &plan.sites {
            for port in site.points.iter().map(|point| point.listener.port) {
                if let Some(bound) = bound.get(&SocketAddr::new(site.addresses[0], port)) {
                    at.insert((site.name.name.clone(), port), *bound);
                }
            }
        }
        Self { _network: network, _pods: pods, at }
    }

    /// Asks `[@GATEWAY:PORT] [tls=NAME] METHOD HOST/PATH [HEADER=VALUE].. -> WORD..`; every word has to be said (`PORT` is
    /// the one asked), those after `!` must not begin one: the Service and what it heard, or the status; headers of the
    /// answer after `<`.
    pub(super) async fn ask(&self, line: &str) {
        let (asked, expected) = line.split_once(" -> ").unwrap();
        let mut words = asked.split_whitespace().peekable();
        let at = words.next_if(|word| word.starts_with('@')).map(|word| {
            let (gateway, port) = word[1..].split_once(':').unwrap();
            self.at[&(gateway.to_owned(), port.parse().unwrap())]
        });
        let at = at.unwrap_or_else(|| *self.at.values().next().unwrap());
        let name = words.next_if(|word| word.starts_with("tls=")).map(|word| word[4..].to_owned());
        let method = words.next().unwrap();
        let (host, path) = words.next().map(|target| target.split_at(target.find('/').unwrap())).unwrap();
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
            request = request.header(name, HeaderValue::from_str(value).unwrap());
        }
        let said = answer(at, name, request.body(Empty::new()).unwrap()).await;
        let said: Vec<&str> = said.split_whitespace().collect();
        for word in expected.split_whitespace() {
            let word = word.replace("PORT", &at.port().to_string());
            match word.strip_prefix('!') {
                Some(absent) => assert!(!said.iter().any(|said| said.starts_with(absent)), "{line}: {said:?}"),
                None => assert!(said.contains(&word.as_str()), "{line}: {said:?}"),
            }
        }
    }
}

/// A Service with one pod.
fn serve(network: &Network, name: &Name, place: u8, ports: &[u16]) -> Vec<Attachment> {
    let ip = IpAddr::from([10, 244, 0, place]);
    let port =
        |port: &u16| ServicePort { name: port.to_string(), protocol: Protocol::Tcp, port: *port, node_port: None };
    network.put_service(Service {
        name: name.clone(),
        cluster_ip: Some(IpAddr::from([10, 96, 0, place])),
        ports: ports.iter().map(port).collect(),
        external_name: None,
        traffic: Traffic::default(),
    });
    let (ready, serving, terminating) = (true, true, false);
    network.put_slice(Slice {
        name: Name::new(name.namespace.clone(), format!("{}-1", name.name)),
        service: name.name.clone(),
        ports: ports.iter().map(|port| (port.to_string(), *port)).collect(),
        endpoints: vec![Endpoint { ip, hostname: None, ready, serving, terminating, place: Place::default() }],
    });
    ports.iter().map(|port| network.attach(ip, *port, Arc::new(Echo(name.name.clone())))).collect()
}

/// What is said: of an answer that is no 200, its status in place of its body.
async fn answer(at: SocketAddr, name: Option<String>, request: Request<Empty<Bytes>>) -> String {
    let stream = TcpStream::connect(at).await.unwrap();
    let answer = match name {
        None => send(stream, request).await,
        Some(name) => {
            // Whose certificate is shown has tests of its own.
            let connector = TlsConnector::from(client_config().unwrap());
            send(connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap(), request).await
        }
    };
    let headers = shown(answer.headers(), "<");
    match answer.status().as_u16() {
        200 => format!("{}{headers}", answer.body()),
        status => format!("{status}{headers}"),
    }
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Response<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}
