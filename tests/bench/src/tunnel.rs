//! What another node costs: the same calls and connections as on one node, between two nodes of one process that reach each
//! other over loopback, with TLS both ways.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use futures::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use podium_network::{
    Body, Caller, Dialer, Network, NetworkConfig, RemoteNode, TunnelConfig, TunnelIdentity, TunnelLimits,
    table::{Endpoint, Name, Place, Protocol, Service, ServicePort, Slice, Traffic},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, crypto::ring::sign::any_supported_type, pki_types::PrivateKeyDer, sign::CertifiedKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
    network::Nothing,
};

const CALLERS: usize = 64;

struct Keys {
    server: Arc<CertifiedKey>,
    client: Arc<CertifiedKey>,
}

impl TunnelIdentity for Keys {
    fn server(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.server.clone())
    }

    fn client(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.client.clone())
    }
}

/// Two nodes that know each other, with pods `10.244.1.x` and `10.244.2.x`.
async fn two() -> Result<[Network; 2]> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let mut roots = RootCertStore::empty();
    roots.add(params.self_signed(&key)?.der().clone())?;
    let ca = Issuer::new(params, key);
    let (mut networks, mut nodes) = (Vec::new(), Vec::new());
    for number in [1, 2] {
        let name = format!("node-{number}");
        let sign = |usage| sign(&ca, &name, usage);
        let server = sign(ExtendedKeyUsagePurpose::ServerAuth)?;
        let identity = Arc::new(Keys { server, client: sign(ExtendedKeyUsagePurpose::ClientAuth)? });
        let limits = TunnelLimits::default();
        let config = TunnelConfig {
            node: name.clone(),
            identity,
            roots: roots.clone(),
            limits,
            node_requests: None,
            workloads: None,
        };
        let network = Network::new(NetworkConfig::default());
        let address = network.listen_tunnel(config, ([127, 0, 0, 1], 0).into()).await?;
        nodes.push(RemoteNode { name, address, pod_cidrs: vec![format!("10.244.{number}.0/24").parse()?] });
        networks.push(network);
    }
    networks.iter().for_each(|network| network.set_nodes(nodes.clone()));
    networks.try_into().map_err(|_| anyhow!("there are two nodes"))
}

fn sign(ca: &Issuer<'_, KeyPair>, node: &str, usage: ExtendedKeyUsagePurpose) -> Result<Arc<CertifiedKey>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| anyhow!(why))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate], any_supported_type(&key)?)))
}

fn pod(network: &Network, ip: [u8; 4]) -> Dialer {
    let (namespace, service_account) = ("default".to_owned(), "default".to_owned());
    network.dialer(Caller { namespace, pod: "pod".to_owned(), service_account, ip: Some(ip.into()) })
}

/// A Service on the first node, all of whose pods are on the second.
fn service(network: &Network) {
    network.put_service(Service {
        name: Name::new("default", "web"),
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        external_name: None,
        traffic: Traffic::default(),
    });
    let endpoint = |last| Endpoint {
        ip: IpAddr::from([10, 244, 2, last]),
        hostname: None,
        ready: true,
        serving: true,
        terminating: false,
        place: Place::default(),
    };
    network.put_slice(Slice {
        name: Name::new("default", "web-1"),
        service: "web".to_owned(),
        ports: vec![(String::new(), 8080)],
        endpoints: (1..=10).map(endpoint).collect(),
    });
}

async fn call(dialer: &Dialer) -> Result<Duration> {
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get("http://web/").body(body)?;
    let since = Instant::now();
    dialer.send(request).await?.into_body().collect().await.map_err(|e| anyhow!(e))?;
    Ok(since.elapsed())
}

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let seconds = Duration::from_secs(args.seconds.into());
    runtime()?.block_on(async {
        let [here, there] = two().await?;
        service(&here);
        let ips = (1..=10).map(|last| IpAddr::from([10, 244, 2, last]));
        let _attached: Vec<_> = ips.map(|ip| there.attach(ip, 8080, Arc::new(Nothing))).collect();
        let client = pod(&here, [10, 244, 1, 1]);
        let (mut times, since) = (Vec::new(), Instant::now());
        while since.elapsed() < seconds {
            times.push(call(&client).await?);
        }
        let times = Times::new(times);
        let rate = many(&client, seconds).await?;
        let (trips, bytes) = connections(&there, &client, seconds).await?;
        Ok(vec![
            Figure::new(
                "call through a Service to a handler on another node, p50",
                times.percentile_ms(50.0) * 1e3,
                "us",
            ),
            Figure::new(
                "call through a Service to a handler on another node, p99",
                times.percentile_ms(99.0) * 1e3,
                "us",
            ),
            Figure::new(format!("… calls by {CALLERS} callers over one connection"), rate, "1/s"),
            Figure::new(
                "TCP round trip to a pod on another node, 64 bytes, p50",
                trips.percentile_ms(50.0) * 1e3,
                "us",
            ),
            Figure::new("bytes to a pod on another node over one connection", bytes / 1e6, "MB/s"),
        ])
    })
}

/// Calls each second by several callers.
async fn many(client: &Dialer, seconds: Duration) -> Result<f64> {
    let since = Instant::now();
    let caller = |_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut calls = 0_u32;
            while since.elapsed() < seconds {
                call(&client).await?;
                calls += 1;
            }
            Ok::<_, anyhow::Error>(calls)
        })
    };
    let mut all = 0;
    for calls in try_join_all((0..CALLERS).map(caller)).await? {
        all += calls?;
    }
    Ok(f64::from(all) / since.elapsed().as_secs_f64())
}

/// Round trips of 64 bytes one after the other, and bytes each second one way.
async fn connections(there: &Network, client: &Dialer, seconds: Duration) -> Result<(Times, f64)> {
    let listener = pod(there, [10, 244, 2, 20]).bind_tcp(SocketAddr::from(([0, 0, 0, 0], 80)))?.listen(0);
    let serving = tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            let (mut read, mut write) = tokio::io::split(connection.stream);
            let _ended = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut connection = client.connect(([10, 244, 2, 20], 80).into()).await?;
    let (mut buffer, mut trips, since) = ([7; 64], Vec::new(), Instant::now());
    while since.elapsed() < seconds {
        let since = Instant::now();
        connection.stream.write_all(&buffer).await?;
        connection.stream.read_exact(&mut buffer).await?;
        trips.push(since.elapsed());
    }
    drop(connection);
    serving.abort();
    let listener = pod(there, [10, 244, 2, 21]).bind_tcp(SocketAddr::from(([0, 0, 0, 0], 80)))?.listen(0);
    let counting = tokio::spawn(async move {
        let mut connection = listener.accept().await?;
        Ok::<_, anyhow::Error>(tokio::io::copy(&mut connection.stream, &mut tokio::io::sink()).await?)
    });
    let mut connection = client.connect(([10, 244, 2, 21], 80).into()).await?;
    let (piece, since) = (vec![7; 64 << 10], Instant::now());
    while since.elapsed() < seconds {
        connection.stream.write_all(&piece).await?;
    }
    connection.stream.shutdown().await?;
    let bytes = counting.await?.context("the other end failed")?;
    Ok((Times::new(trips), bytes as f64 / since.elapsed().as_secs_f64()))
}
