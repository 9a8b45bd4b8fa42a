//! What the network costs: a call from pod to pod through a Service, with a handler that does nothing; a round trip over
//! a connection from pod to pod.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use podium_network::{
    Body, CallError, Caller, HttpHandler, Network, NetworkConfig,
    table::{Endpoint, Name, Place, Protocol, Service, ServicePort, Slice, Traffic},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
};

/// A handler that does nothing.
pub(crate) struct Nothing;

#[async_trait]
impl HttpHandler for Nothing {
    async fn call(&self, _request: Request<Body>) -> Result<Response<Body>, CallError> {
        let body = Full::new(Bytes::from_static(b"hello"));
        Ok(Response::new(body.map_err(|never| match never {}).boxed_unsync()))
    }
}

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    const CALLS: usize = 200_000;
    let times = runtime()?.block_on(async {
        let network = Network::new(NetworkConfig::default());
        let ips = (1..=10).map(|last| IpAddr::from([10, 244, 0, last]));
        let _attached: Vec<_> = ips.clone().map(|ip| network.attach(ip, 8080, Arc::new(Nothing))).collect();
        network.put_service(Service {
            name: Name::new("default", "web"),
            cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
            ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
            external_name: None,
            traffic: Traffic::default(),
        });
        let place = Place::default();
        let endpoint =
            |ip| Endpoint { ip, hostname: None, ready: true, serving: true, terminating: false, place: place.clone() };
        network.put_slice(Slice {
            name: Name::new("default", "web-1"),
            service: "web".to_owned(),
            ports: vec![(String::new(), 8080)],
            endpoints: ips.map(endpoint).collect(),
        });
        let dialer = network.dialer(Caller {
            namespace: "default".to_owned(),
            pod: "a".to_owned(),
            service_account: String::new(),
            ip: None,
        });
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = Request::get("http://web/").body(body)?;
            let since = Instant::now();
            dialer.send(request).await?.into_body().collect().await.map_err(|e| anyhow::anyhow!(e))?;
            times.push(since.elapsed());
        }
        Ok::<_, anyhow::Error>(times)
    })?;
    let (trips, connects) = runtime()?.block_on(round_trips())?;
    let rate = times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let times = Times::new(times);
    Ok(vec![
        Figure::new("dial through a Service, handler excluded, p50", times.percentile_ms(50.0) * 1e3, "us")
            .at_most(30.0),
        Figure::new("dial through a Service, handler excluded, p99", times.percentile_ms(99.0) * 1e3, "us"),
        Figure::new("… calls by one caller", rate, "1/s"),
        Figure::new("TCP round trip from pod to pod, 64 bytes, p50", trips.percentile_ms(50.0) * 1e3, "us"),
        Figure::new("TCP round trip from pod to pod, 64 bytes, p99", trips.percentile_ms(99.0) * 1e3, "us"),
        Figure::new("TCP connect and accept from pod to pod, p50", connects.percentile_ms(50.0) * 1e3, "us"),
    ])
}

/// A server and a client in tasks of their own, one connection; then connections one after the other.
async fn round_trips() -> Result<(Times, Times)> {
    const TRIPS: usize = 200_000;
    const CONNECTS: usize = 20_000;
    let network = Network::new(NetworkConfig::default());
    let dialer = |last| {
        let ip = Some(IpAddr::from([10, 244, 0, last]));
        network.dialer(Caller {
            namespace: "default".to_owned(),
            pod: format!("pod-{last}"),
            service_account: String::new(),
            ip,
        })
    };
    let (server, client) = (dialer(1), dialer(2));
    let listener = server.bind_tcp(([0, 0, 0, 0], 80).into())?.listen(0);
    let serving = tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            let mut buffer = [0; 64];
            while connection.stream.read_exact(&mut buffer).await.is_ok() {
                if connection.stream.write_all(&buffer).await.is_err() {
                    break;
                }
            }
        }
    });
    let to = ([10, 244, 0, 1], 80).into();
    let mut connection = client.connect(to).await?;
    let mut buffer = [7; 64];
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let since = Instant::now();
        connection.stream.write_all(&buffer).await?;
        connection.stream.read_exact(&mut buffer).await?;
        trips.push(since.elapsed());
    }
    drop(connection);
    let mut connects = Vec::with_capacity(CONNECTS);
    for _ in 0..CONNECTS {
        let since = Instant::now();
        drop(client.connect(to).await?);
        tokio::task::yield_now().await;
        connects.push(since.elapsed());
    }
    serving.abort();
    Ok((Times::new(trips), Times::new(connects)))
}
