//! Several nodes in one process, each with its own network, that reach each other through tunnels over loopback.

mod breaking;
mod datagrams;
mod requests;
mod streams;
mod trust;

use parking_lot::Mutex;
use podium_network::{NodeHandler, RemoteNode, ServeStream, TunnelConfig, TunnelIdentity, TunnelLimits, TunnelPeer};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    RootCertStore,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use crate::*;

/// A cluster's authority.
struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, user: &str, group: &str, usage: ExtendedKeyUsagePurpose) -> Arc<CertifiedKey> {
        self.issue(user, group, (usage, None))
    }

    /// A client's that expires soon.
    fn sign_until(&self, user: &str, group: &str, from_now: Duration) -> Arc<CertifiedKey> {
        self.issue(user, group, (ExtendedKeyUsagePurpose::ClientAuth, Some(from_now)))
    }

    fn issue(
        &self,
        user: &str,
        group: &str,
        (usage, lasts): (ExtendedKeyUsagePurpose, Option<Duration>),
    ) -> Arc<CertifiedKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![usage];
        if let Some(lasts) = lasts {
            let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + lasts;
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate], any_supported_type(&key).unwrap()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

/// Certificates of one process.
struct Keys {
    server: Mutex<Arc<CertifiedKey>>,
    client: Mutex<Arc<CertifiedKey>>,
    api_server: Option<Arc<CertifiedKey>>,
}

impl Keys {
    fn of(ca: &Ca, node: &str) -> Self {
        let (server, client) = Self::pair(ca, node);
        Self { server: Mutex::new(server), client: Mutex::new(client), api_server: None }
    }

    fn pair(ca: &Ca, node: &str) -> (Arc<CertifiedKey>, Arc<CertifiedKey>) {
        let user = format!("system:node:{node}");
        let sign = |usage| ca.sign(&user, "system:nodes", usage);
        (sign(ExtendedKeyUsagePurpose::ServerAuth), sign(ExtendedKeyUsagePurpose::ClientAuth))
    }
}

impl TunnelIdentity for Keys {
    fn server(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.server.lock().clone())
    }

    fn client(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.client.lock().clone())
    }

    fn api_server(&self) -> Option<Arc<CertifiedKey>> {
        self.api_server.clone()
    }
}

/// Limits with which a node is missed soon, but not for a machine that is busy, and found again soon.
fn quick() -> TunnelLimits {
    TunnelLimits {
        keep_alive_interval: Duration::from_millis(100),
        keep_alive_timeout: Duration::from_secs(3),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        ..TunnelLimits::default()
    }
}

/// A node. Its pods have addresses `10.244.NUMBER.x`.
struct Node {
    number: u8,
    network: Network,
    keys: Arc<Keys>,
    remote: RemoteNode,
}

impl Node {
    async fn new(ca: &Ca, number: u8, limits: TunnelLimits) -> Self {
        let name = format!("node-{number}");
        Self::with(ca, number, Keys::of(ca, &name), (limits, None)).await
    }

    async fn with(
        ca: &Ca,
        number: u8,
        keys: Keys,
        (limits, node_requests): (TunnelLimits, Option<Arc<dyn NodeHandler>>),
    ) -> Self {
        let (name, keys) = (format!("node-{number}"), Arc::new(keys));
        let network = network();
        network.locate(&name, None);
        let own: podium_network::IpRange = format!("10.244.{number}.0/24").parse().unwrap();
        network.add_cluster_range(own);
        let config = TunnelConfig {
            node: name.clone(),
            identity: keys.clone(),
            roots: ca.roots(),
            limits,
            node_requests,
            workloads: None,
        };
        let address = network.listen_tunnel(config, at("127.0.0.1:0")).await.unwrap();
        Self { number, network, keys, remote: RemoteNode { name, address, pod_cidrs: vec![own] } }
    }

    fn ip(&self, last: u8) -> IpAddr {
        IpAddr::from([10, 244, self.number, last])
    }

    fn at(&self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(last), port)
    }

    /// A pod's side of the network.
    fn pod(&self, last: u8) -> Dialer {
        self.network.dialer(Caller {
            namespace: "default".into(),
            pod: format!("pod-{last}"),
            service_account: "robot".into(),
            ip: Some(self.ip(last)),
        })
    }
}

/// Tells all nodes of all.
fn acquaint(nodes: &[&Node]) {
    for node in nodes {
        node.network.set_nodes(nodes.iter().map(|node| node.remote.clone()).collect());
    }
}

/// Two nodes that know each other.
async fn two(limits: TunnelLimits) -> (Node, Node) {
    let ca = Ca::new();
    let (a, b) = (Node::new(&ca, 1, limits.clone()).await, Node::new(&ca, 2, limits).await);
    acquaint(&[&a, &b]);
    (a, b)
}

/// Service `web` with these endpoints.
fn spread(pods: &[SocketAddr]) -> Slice {
    let endpoint = |at: &SocketAddr| Endpoint {
        ip: at.ip(),
        hostname: None,
        ready: true,
        serving: true,
        terminating: false,
        place: Place::default(),
    };
    Slice { endpoints: pods.iter().map(endpoint).collect(), ..slice(&[], &[]) }
}

async fn ask(dialer: &Dialer, uri: &str) -> Result<String, CallError> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let response = dialer.send(Request::get(uri).body(body).unwrap()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.map_err(|e| CallError::Failed(e.to_string()))?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// What a metric of the tunnels says, over all labels that have these values.
fn count(network: &Network, metric: &str, wanted: &[&str]) -> f64 {
    let families = network.metrics().collectors().into_iter().flat_map(|c| c.collect());
    let all = families.filter(|f| f.name() == metric).flat_map(|f| f.get_metric().to_vec());
    let of = |m: &prometheus::proto::Metric| wanted.iter().all(|w| m.get_label().iter().any(|l| l.value() == *w));
    all.filter(of).map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
}

/// Waits until something holds: for the other end, and for no certain time.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Fine,
    /// Open, and nothing comes through.
    Silent,
    Cut,
}

/// A wire between two nodes that can be cut and mended.
struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    task: AbortHandle,
}

impl Proxy {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, seen) = watch::channel(Wire::Fine);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, seen.clone()));
            }
        });
        Self { address, wire, task: task.abort_handle() }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: tokio::net::TcpStream, target: SocketAddr, mut wire: watch::Receiver<Wire>) {
    if *wire.borrow() == Wire::Cut {
        return;
    }
    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        _ = wire.wait_for(|wire| *wire != Wire::Fine) => {}
    }
    // Silent ones stay open until they are cut; cut ones do not come back.
    let _ = wire.wait_for(|wire| *wire == Wire::Cut).await;
}
