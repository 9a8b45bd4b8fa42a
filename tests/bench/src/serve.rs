//! Requests per second through a Service's port, beside `wasmtime serve` of the same component in the same run: guests in
//! Rust for `wasi:http` 0.2 and 0.3, and in JavaScript and Python when `examples/build.sh js-hello python-hello` has made them.
//!
//! Both serve side by side and are loaded in turn, several times: what else happens on a machine then meets both alike.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use podium_e2e::{Cluster, cluster::repository};

use crate::{Args, figure::Figure, wrk::Turns};

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
    fn start(args: &Args, wasm: &Path, options: &[&str]) -> Result<Self> {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let child = Command::new(&args.wasmtime)
            .args(["serve", "-Scli", "--addr", &free.to_string()])
            .args(options)
            .arg(wasm)
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", args.wasmtime.display()))?;
        let peer = Self(child, format!("http://{free}/"));
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(free).is_err() {
            if Instant::now() > deadline {
                bail!("wasmtime serve does not listen");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(peer)
    }
}

/// A guest and what it is measured with.
struct Guest {
    name: &'static str,
    /// Below the repository.
    wasm: &'static str,
    runs: &'static [Run],
}

/// One measurement of a guest, ours and theirs.
struct Run {
    what: &'static str,
    /// Requests that one of our instances answers; `None`: as the interface means it.
    reuse: Option<u32>,
    options: &'static [&'static str],
    ratio_min: f64,
}

const PER_REQUEST: Run = Run { what: "an instance per request", reuse: Some(1), options: &[], ratio_min: 2.0 };
const REUSED: Run = Run {
    what: "instances reused",
    reuse: Some(1000),
    options: &["-Opooling-allocator", "--max-instance-reuse-count", "1000"],
    ratio_min: 1.0,
};
const SHARED: Run =
    Run { what: "as it comes", reuse: None, options: &["-Sp3", "-Wcomponent-model-async"], ratio_min: 1.0 };
const SHARED_LONG: Run = Run {
    options: &["-Sp3", "-Wcomponent-model-async", "-Opooling-allocator", "--max-instance-reuse-count", "1000"],
    ..REUSED
};

const GUESTS: [Guest; 4] = [
    Guest { name: "hello", wasm: "examples/hello/hello.wasm", runs: &[PER_REQUEST, REUSED] },
    Guest { name: "0.3", wasm: "runtime/sandbox/tests/guests/http-p3.wasm", runs: &[SHARED, SHARED_LONG] },
    Guest { name: "JavaScript", wasm: "target/examples/js-hello.wasm", runs: &[PER_REQUEST, REUSED] },
    Guest { name: "Python", wasm: "target/examples/python-hello.wasm", runs: &[PER_REQUEST, REUSED] },
];

/// Three replicas behind a node port.
fn manifest(reuse: Option<u32>) -> String {
    let reuse = reuse.map(|n| format!("podium.dev/instance-reuse: \"{n}\"")).unwrap_or_default();
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {{ name: guest }}
spec:
  replicas: 3
  selector: {{ matchLabels: {{ app: guest }} }}
  template:
    metadata:
      labels: {{ app: guest }}
      annotations: {{ {reuse} }}
    spec:
      containers:
        - name: guest
          image: file://guest.wasm
          ports: [{{ containerPort: 8080 }}]
          resources: {{ limits: {{ cpu: "4", memory: 1Gi }}, requests: {{ cpu: 50m }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: guest }}
spec:
  type: NodePort
  selector: {{ app: guest }}
  ports: [{{ port: 80, targetPort: 8080 }}]
"#
    )
}

fn service_url(cluster: &Cluster) -> Result<String> {
    let runtime = crate::api::runtime()?;
    runtime.block_on(async {
        let client = crate::api::connect(cluster).await?;
        let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::default_namespaced(client);
        let service = api.get("guest").await?;
        let port = service.spec.and_then(|s| s.ports?.first()?.node_port).context("the Service has a node port")?;
        Ok(format!("http://127.0.0.1:{port}/"))
    })
}

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for guest in &GUESTS {
        let wasm = repository().join(guest.wasm);
        if !wasm.exists() {
            eprintln!("{} is not there: build it with examples/build.sh", wasm.display());
            continue;
        }
        for run in guest.runs {
            figures.extend(measure_run(args, guest.name, &wasm, run)?);
        }
    }
    Ok(figures)
}

fn measure_run(args: &Args, name: &str, wasm: &Path, run: &Run) -> Result<Vec<Figure>> {
    let what = run.what;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("guest.yaml");
    std::fs::write(&file, manifest(run.reuse))?;
    // Images lie beside the manifest.
    std::fs::copy(wasm, folder.path().join("guest.wasm"))?;
    let cluster = Cluster::start(&[&file.to_string_lossy()])?;
    let url = service_url(&cluster)?;
    let peer = Peer::start(args, wasm, run.options)?;
    let turns = Turns::take(args, &[&url, &peer.1], CONNECTIONS)?;
    let mut figures = vec![
        Figure::new(format!("{name} through a Service, {what}"), turns.of(0, |l| l.rate), "1/s"),
        Figure::new(format!("{name} by wasmtime serve, {what}"), turns.of(1, |l| l.rate), "1/s"),
        Figure::new(format!("… ratio, {name}, {what}"), turns.ratio(0, 1), "x").at_least(run.ratio_min),
        Figure::new(format!("… p99 at {CONNECTIONS} connections, {name}, {what}"), turns.of(0, |l| l.p99_ms), "ms"),
        Figure::new("… wasmtime serve p99", turns.of(1, |l| l.p99_ms), "ms"),
    ];
    if name == "hello" {
        let alone = Turns::take(args, &[&url, &peer.1], 1)?;
        let (ours, theirs) = (alone.of(0, |l| l.p50_ms), alone.of(1, |l| l.p50_ms));
        figures.push(Figure::new("… p50 of one connection", ours, "ms"));
        figures.push(Figure::new("… p99 of one connection", alone.of(0, |l| l.p99_ms), "ms"));
        figures.push(Figure::new("… p50 added over wasmtime serve, one connection", ours - theirs, "ms"));
    }
    cluster.podium.stop()?;
    Ok(figures)
}
