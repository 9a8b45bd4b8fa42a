//! What the network costs: a call from pod to pod through a Service, with a handler that does nothing.

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
    table::{Endpoint, Name, Protocol, Service, ServicePort, Slice},
};

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
};

struct Nothing;

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
        });
        let endpoint = |ip| Endpoint { ip, hostname: None, ready: true, serving: true, terminating: false };
        network.put_slice(Slice {
            name: Name::new("default", "web-1"),
            service: "web".to_owned(),
            ports: vec![(String::new(), 8080)],
            endpoints: ips.map(endpoint).collect(),
        });
        let dialer = network.dialer(Caller { namespace: "default".to_owned(), pod: "a".to_owned(), ip: None });
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
    let rate = times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
    let times = Times::new(times);
    Ok(vec![
        Figure::new("dial through a Service, handler excluded, p50", times.percentile_ms(50.0) * 1e3, "us")
            .at_most(30.0),
        Figure::new("dial through a Service, handler excluded, p99", times.percentile_ms(99.0) * 1e3, "us"),
        Figure::new("… calls by one caller", rate, "1/s"),
    ])
}
