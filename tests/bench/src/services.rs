//! 10,000 Services with 50,000 endpoints: memory, the time until a change is in the table, and what a dial costs beside one
//! in a network with a single Service.

use std::{net::IpAddr, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use podium_network::{
    Caller, Network, NetworkConfig,
    table::{Endpoint, Name, Place, Protocol, Service, ServicePort, Slice, Traffic},
};

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
    network::Nothing,
    process::resident_mib,
};

const SERVICES: u32 = 10_000;
/// Of each Service.
const ENDPOINTS: u32 = 5;
const CHANGES: u32 = 2_000;
const CALLS: u32 = 100_000;

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    let before = resident_mib(std::process::id())?;
    let network = Network::new(NetworkConfig::default());
    let since = Instant::now();
    for number in 0..SERVICES {
        network.put_service(service(number));
        network.put_slice(slice(number, ENDPOINTS));
    }
    let filled = since.elapsed();
    let memory = resident_mib(std::process::id())? - before;
    let mut changes = Vec::new();
    for turn in 0..CHANGES {
        // One endpoint less, and back: of Services all over the table.
        let (number, less) = (turn * 7_919 % SERVICES, turn % 2);
        let changed = slice(number, ENDPOINTS - less);
        let since = Instant::now();
        network.put_slice(changed);
        changes.push(since.elapsed());
    }
    let changes = Times::new(changes);
    let alone = Network::new(NetworkConfig::default());
    alone.put_service(service(0));
    alone.put_slice(slice(0, ENDPOINTS));
    let (many, one) = runtime()?.block_on(async { anyhow::Ok((dials(&network).await?, dials(&alone).await?)) })?;
    Ok(vec![
        Figure::new(
            format!("{SERVICES} Services, {} endpoints: filling the table", SERVICES * ENDPOINTS),
            filled.as_secs_f64(),
            "s",
        ),
        Figure::new("… memory", memory, "MiB"),
        Figure::new("… one change of a slice, p50", changes.percentile_ms(50.0) * 1e3, "us"),
        Figure::new("… one change of a slice, p99", changes.percentile_ms(99.0), "ms").at_most(10.0),
        Figure::new("… dial, p50", many.percentile_ms(50.0) * 1e3, "us").at_most(30.0),
        Figure::new("… dial with a single Service, p50", one.percentile_ms(50.0) * 1e3, "us"),
    ])
}

fn service(number: u32) -> Service {
    Service {
        name: Name::new("default", format!("web-{number}")),
        cluster_ip: Some(ip([10, 96], number)),
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        external_name: None,
        traffic: Traffic::default(),
    }
}

fn slice(number: u32, endpoints: u32) -> Slice {
    let endpoint = |of| Endpoint {
        ip: ip([10, 244], number * ENDPOINTS + of),
        hostname: None,
        ready: true,
        serving: true,
        terminating: false,
        place: Place::default(),
    };
    Slice {
        name: Name::new("default", format!("web-{number}-1")),
        service: format!("web-{number}"),
        ports: vec![(String::new(), 8080)],
        endpoints: (0..endpoints).map(endpoint).collect(),
    }
}

/// The address of a number, from the second on.
fn ip([a, b]: [u8; 2], number: u32) -> IpAddr {
    let [_, _, c, d] = (number + 1).to_be_bytes();
    IpAddr::from([a, b, c, d])
}

/// Calls of the first Service, whose pods are here.
async fn dials(network: &Network) -> Result<Times> {
    let pods = (0..ENDPOINTS).map(|of| network.attach(ip([10, 244], of), 8080, Arc::new(Nothing)));
    let _attached: Vec<_> = pods.collect();
    let dialer = network.dialer(Caller {
        namespace: "default".to_owned(),
        pod: "a".to_owned(),
        service_account: String::new(),
        ip: None,
    });
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get("http://web-0/").body(body)?;
        let since = Instant::now();
        let answer = dialer.send(request).await.context("the Service answers")?;
        answer.into_body().collect().await.map_err(|e| anyhow::anyhow!(e))?;
        times.push(since.elapsed());
    }
    Ok(Times::new(times))
}
