//! Ingress beside nginx and HAProxy (`apt-get install nginx-light haproxy`), all as reverse proxies to the same backend, in one
//! run: to a server outside the cluster (nginx' static answer), and to a Wasm handler.
//!
//! To the handler the peers go by the Service's node port, as they would have to; Ingress calls it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use podium_e2e::{Cluster, cluster::repository};
use podium_network::{
    Network, NetworkConfig,
    table::{Backend, BackendPort, Endpoint, Ingress, Name, Place, Protocol, Service, ServicePort, Slice, Traffic},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Args, figure::Figure, wrk::Turns};

const CONNECTIONS: u32 = 64;
/// Any port of this machine itself.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Not SIGKILL: nginx' workers would outlive their master.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(command: &mut Command, at: &str) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self(child.with_context(|| format!("start {}", command.get_program().display()))?);
        let deadline = Instant::now() + START;
        while TcpStream::connect(at).is_err() {
            if Instant::now() > deadline || server.0.try_wait()?.is_some() {
                bail!("{} does not listen at {at}", command.get_program().display());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn nginx(folder: &Path, name: &str, at: &str, http: &str) -> Result<Self> {
        let file = folder.join(format!("{name}.conf"));
        let (dir, pid) = (folder.display(), folder.join(format!("{name}.pid")));
        let text = format!(
            "daemon off; worker_processes 2; pid {}; error_log /dev/null;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}; proxy_temp_path {dir};\n\
             fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};\n{http} }}\n",
            pid.display()
        );
        std::fs::write(&file, text)?;
        Self::start(Command::new("nginx").arg("-c").arg(&file), at)
    }

    fn haproxy(folder: &Path, name: &str, at: &str, backend: &str) -> Result<Self> {
        let file = folder.join(format!("{name}.cfg"));
        let text = format!(
            "global\n  maxconn 8192\n  nbthread 2\n\
             defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
             listen proxy\n  bind {at}\n  http-reuse always\n  option forwardfor\n  server backend {backend}\n"
        );
        std::fs::write(&file, text)?;
        Self::start(Command::new("haproxy").arg("-f").arg(&file), at)
    }
}

/// What nginx says to be a reverse proxy that keeps its connections.
fn proxy_to(at: &str, backend: &str) -> String {
    format!(
        "upstream b {{ server {backend}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen {at} reuseport; location / {{ proxy_pass http://b; proxy_http_version 1.1;\n\
         proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $remote_addr; }} }}"
    )
}

/// A free address. Somebody may take it before it is used; then the server does not start, and says so.
fn free() -> Result<String> {
    Ok(TcpListener::bind(LOOPBACK)?.local_addr()?.to_string())
}

/// A handler behind a node port and an Ingress.
const MANIFEST: &str = r#"apiVersion: v1
kind: Service
metadata: { name: guest }
spec: { type: NodePort, selector: { app: guest }, ports: [{ port: 80, targetPort: 8080, nodePort: 31780 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: guest }
spec:
  replicas: 3
  selector: { matchLabels: { app: guest } }
  template:
    metadata: { labels: { app: guest }, annotations: { podium.dev/instance-reuse: "1000" } }
    spec:
      containers:
        - { name: guest, image: "file://hello.wasm", ports: [{ containerPort: 8080 }] }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: guest }
spec: { defaultBackend: { service: { name: guest, port: { number: 80 } } } }
"#;

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let mut figures = to_a_server(args)?;
    figures.extend(to_a_handler(args)?);
    Ok(figures)
}

/// To nginx' static answer. The Ingress is that of a network in this process: endpoints of real ones may not be on loopback.
fn to_a_server(args: &Args) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let backend = free()?;
    let answer = format!("server {{ listen {backend}; location / {{ return 200 'hello'; }} }}");
    let _backend = Server::nginx(folder.path(), "backend", &backend, &answer)?;
    let runtime = crate::api::runtime()?;
    let host_targets = backend.parse().with_context(|| format!("grant {backend}"))?;
    let network = Network::new(NetworkConfig { host_targets, ..NetworkConfig::default() });
    let address: SocketAddr = backend.parse()?;
    let name = Name::new("default", "web");
    network.put_service(Service {
        name: name.clone(),
        cluster_ip: None,
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        external_name: None,
        traffic: Traffic::default(),
    });
    let (hostname, place) = (None, Place::default());
    let endpoint = Endpoint { ip: address.ip(), hostname, ready: true, serving: true, terminating: false, place };
    network.put_slice(Slice {
        name: name.clone(),
        service: "web".to_owned(),
        ports: vec![(String::new(), address.port())],
        endpoints: vec![endpoint],
    });
    let to = Backend { service: "web".to_owned(), port: BackendPort::Number(80) };
    network.put_ingress(Ingress { name, default_backend: Some(to), rules: Vec::new(), tls: Vec::new() });
    let ingress = runtime.block_on(network.listen_ingress(LOOPBACK))?;
    let figures = compare(args, folder.path(), ("a server outside", &backend, &format!("http://{ingress}/")))?;
    runtime.block_on(network.shutdown(Duration::from_secs(1)));
    Ok(figures)
}

/// To a Wasm handler, of a whole cluster.
fn to_a_handler(args: &Args) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("guest.yaml");
    std::fs::write(&file, MANIFEST)?;
    std::fs::copy(repository().join("examples/hello/hello.wasm"), folder.path().join("hello.wasm"))?;
    let cluster = Cluster::start(&[&file.to_string_lossy()])?;
    let figures = compare(args, folder.path(), ("a Wasm handler", "127.0.0.1:31780", &cluster.podium.url))?;
    cluster.podium.stop()?;
    Ok(figures)
}

/// The Ingress, nginx and HAProxy in front of one backend.
fn compare(args: &Args, folder: &Path, (what, backend, ingress): (&str, &str, &str)) -> Result<Vec<Figure>> {
    let (nginx, haproxy) = (free()?, free()?);
    let _nginx = Server::nginx(folder, "proxy", &nginx, &proxy_to(&nginx, backend))?;
    let _haproxy = Server::haproxy(folder, "proxy", &haproxy, backend)?;
    let urls = [ingress.to_owned(), format!("http://{nginx}/"), format!("http://{haproxy}/")];
    let urls = urls.each_ref().map(String::as_str);
    let turns = Turns::take(args, &urls, CONNECTIONS)?;
    let peer_p99 = turns.of(1, |l| l.p99_ms).min(turns.of(2, |l| l.p99_ms));
    Ok(vec![
        Figure::new(format!("Ingress to {what}"), turns.of(0, |l| l.rate), "1/s"),
        Figure::new("… nginx", turns.of(1, |l| l.rate), "1/s"),
        Figure::new("… HAProxy", turns.of(2, |l| l.rate), "1/s"),
        Figure::new("… ratio to nginx", turns.ratio(0, 1), "x").at_least(1.0),
        Figure::new("… ratio to HAProxy", turns.ratio(0, 2), "x").at_least(1.0),
        Figure::new(format!("… p99 at {CONNECTIONS} connections"), turns.of(0, |l| l.p99_ms), "ms").at_most(peer_p99),
        Figure::new("… nginx p99", turns.of(1, |l| l.p99_ms), "ms"),
        Figure::new("… HAProxy p99", turns.of(2, |l| l.p99_ms), "ms"),
    ])
}
