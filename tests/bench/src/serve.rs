//! Hello requests per second through a Service's port, beside `wasmtime serve` of the same component in the same run.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use podium_e2e::{Cluster, cluster::repository};

use crate::{Args, figure::Figure};

/// Connections of the load generator.
const CONNECTIONS: u32 = 64;

/// A peer that ends with this value.
struct Peer(Child, String);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    fn start(args: &Args, options: &[&str]) -> Result<Self> {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let wasm = repository().join("examples/hello/hello.wasm");
        let child = Command::new(&args.wasmtime)
            .args(["serve", "-Scli", "--addr", &free.to_string()])
            .args(options)
            .arg(&wasm)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", args.wasmtime.display()))?;
        let peer = Self(child, format!("http://{free}/"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(free).is_err() {
            if Instant::now() > deadline {
                bail!("wasmtime serve does not listen");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(peer)
    }
}

/// What wrk saw.
struct Load {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn load(args: &Args, url: &str, connections: u32) -> Result<Load> {
    let run = |seconds: u32| {
        Command::new(&args.wrk)
            .args([
                &format!("-t{}", connections.min(2)),
                &format!("-c{connections}"),
                &format!("-d{seconds}s"),
                "--latency",
                url,
            ])
            .output()
            .with_context(|| format!("start {}", args.wrk.display()))
    };
    run(1)?;
    let output = String::from_utf8_lossy(&run(args.seconds)?.stdout).into_owned();
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("{url} failed under load:\n{output}");
    }
    let after = |label: &str| {
        let line = output.lines().find(|l| l.trim_start().starts_with(label));
        line.and_then(|l| l.split_whitespace().last()).with_context(|| format!("wrk printed no {label}:\n{output}"))
    };
    Ok(Load {
        rate: after("Requests/sec")?.parse()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
        .with_context(|| format!("wrk printed the time {text}"))?;
    Ok(number.parse::<f64>()? * scale)
}

/// The example's Service with a node port, and with or without instance reuse.
fn manifest(reuse: bool) -> Result<String> {
    let hello = std::fs::read_to_string(repository().join("examples/hello/hello.yaml"))?;
    let hello = hello.replace("targetPort: http", "targetPort: http\n  type: NodePort");
    let hello = hello.replace("cpu: 500m", "cpu: \"4\"");
    Ok(if reuse { hello } else { hello.replace("podium.dev/instance-reuse", "podium.dev/no-reuse") })
}

fn service_url(cluster: &Cluster) -> Result<String> {
    let runtime = crate::api::runtime()?;
    runtime.block_on(async {
        let client = crate::api::connect(cluster).await?;
        let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::default_namespaced(client);
        let service = api.get("hello").await?;
        let port = service.spec.and_then(|s| s.ports?.first()?.node_port).context("the Service has a node port")?;
        Ok(format!("http://127.0.0.1:{port}/"))
    })
}

fn podium(args: &Args, reuse: bool) -> Result<(Load, Load)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("hello.yaml");
    std::fs::write(&file, manifest(reuse)?)?;
    let cluster = Cluster::start(&[&file.to_string_lossy()])?;
    let url = service_url(&cluster)?;
    let loads = (load(args, &url, CONNECTIONS)?, load(args, &url, 1)?);
    cluster.podium.stop()?;
    Ok(loads)
}

fn peer(args: &Args, options: &[&str]) -> Result<(Load, Load)> {
    let peer = Peer::start(args, options)?;
    Ok((load(args, &peer.1, CONNECTIONS)?, load(args, &peer.1, 1)?))
}

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let pairs: [(&str, bool, &[&str]); 2] = [
        ("an instance per request", false, &[]),
        ("instances reused", true, &["-Opooling-allocator", "--max-instance-reuse-count", "1000"]),
    ];
    for (what, reuse, options) in pairs {
        let (theirs, theirs_alone) = peer(args, options)?;
        let (ours, ours_alone) = podium(args, reuse)?;
        figures.push(Figure::new(format!("hello through a Service, {what}"), ours.rate, "1/s"));
        figures.push(Figure::new(format!("wasmtime serve, {what}"), theirs.rate, "1/s"));
        figures.push(Figure::new(format!("… ratio, {what}"), ours.rate / theirs.rate, "x").at_least(1.0));
        figures.push(Figure::new(format!("… p99 at {CONNECTIONS} connections, {what}"), ours.p99_ms, "ms"));
        figures.push(Figure::new("… wasmtime serve p99", theirs.p99_ms, "ms"));
        figures.push(Figure::new("… p50 of one connection", ours_alone.p50_ms, "ms"));
        figures.push(Figure::new("… p99 of one connection", ours_alone.p99_ms, "ms"));
        let added = ours_alone.p50_ms - theirs_alone.p50_ms;
        figures.push(Figure::new("… p50 added over wasmtime serve, one connection", added, "ms"));
    }
    Ok(figures)
}
