//! Ingress beside nginx and HAProxy (`apt-get install nginx-light haproxy`), all as reverse proxies to the same backend, in one
//! run: to a server outside the cluster (nginx' static answer), and to a Wasm handler.
//!
//! To the handler the peers go by the Service's node port, as they would have to; Ingress calls it.

use std::{
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use podium_e2e::{Podium, cluster::repository};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Args, figure::Figure, wrk::Turns};

const CONNECTIONS: u32 = 64;
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
fn free(ip: IpAddr) -> Result<String> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?.to_string())
}

/// The host's own address: endpoints may not be loopback addresses.
fn host_ip() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: it asks for the route alone.
    socket.connect("192.0.2.1:9").context("this host has no route to anywhere")?;
    Ok(socket.local_addr()?.ip())
}

/// A Service of the address outside, one of the handler, and an Ingress with a host for each.
fn manifest(backend: &str) -> Result<String> {
    let (ip, port) = backend.rsplit_once(':').context("an address has a port")?;
    Ok(format!(
        r#"apiVersion: v1
kind: Service
metadata: {{ name: outside }}
spec: {{ ports: [{{ port: 80, targetPort: {port} }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: outside-1, labels: {{ kubernetes.io/service-name: outside }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["{ip}"], conditions: {{ ready: true }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: guest }}
spec: {{ type: NodePort, selector: {{ app: guest }}, ports: [{{ port: 80, targetPort: 8080, nodePort: 31780 }}] }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: guest }}
spec:
  replicas: 3
  selector: {{ matchLabels: {{ app: guest }} }}
  template:
    metadata: {{ labels: {{ app: guest }}, annotations: {{ podium.dev/instance-reuse: "1000" }} }}
    spec:
      containers:
        - {{ name: guest, image: "file://hello.wasm", ports: [{{ containerPort: 8080 }}] }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: both }}
spec:
  defaultBackend: {{ service: {{ name: outside, port: {{ number: 80 }} }} }}
  rules:
    - host: localhost
      http:
        paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: guest, port: {{ number: 80 }} }} }} }}]
"#
    ))
}

pub(crate) fn measure(args: &Args) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let backend = free(host_ip()?)?;
    let answer = format!("server {{ listen {backend}; location / {{ return 200 'hello'; }} }}");
    let _backend = Server::nginx(folder.path(), "backend", &backend, &answer)?;
    let file = folder.path().join("both.yaml");
    std::fs::write(&file, manifest(&backend)?)?;
    let (data, hello) = (folder.path().join("data"), repository().join("examples/hello"));
    let podium = Podium::start(&[
        "--data-dir",
        &data.to_string_lossy(),
        "--api",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--image-dir",
        &hello.to_string_lossy(),
        "--allow-host-network-targets",
        &backend,
        "-f",
        &file.to_string_lossy(),
    ])?;
    let by_name = podium.url.replace("127.0.0.1", "localhost");
    let mut figures = compare(args, folder.path(), ("a server outside", &backend, &podium.url))?;
    figures.extend(compare(args, folder.path(), ("a Wasm handler", "127.0.0.1:31780", &by_name))?);
    podium.stop()?;
    Ok(figures)
}

/// The Ingress, nginx and HAProxy in front of one backend.
fn compare(args: &Args, folder: &Path, (what, backend, ingress): (&str, &str, &str)) -> Result<Vec<Figure>> {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let (nginx, haproxy) = (free(loopback)?, free(loopback)?);
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
