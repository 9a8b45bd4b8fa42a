//! Ports of Gateways over real sockets: routes, filters, TLS by name, connections carried as they are.

use http::{HeaderName, HeaderValue, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podium_network::{
    AccessLog, Certificate, GatewayListener, GatewayPort, Serves,
    routes::{
        Action, Destination, Filter, HeaderChanges, Host, Match, Mirror, PathChange, PathPattern, Redirect, Rewrite,
        Route, RouteTable, WeightedBackend,
    },
    table::IngressTls,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

use crate::*;

/// Tells what it was asked, with some of the headers; sends a copy of that to whoever wants to see.
struct Echo {
    name: &'static str,
    heard: Option<mpsc::UnboundedSender<String>>,
}

#[async_trait]
impl HttpHandler for Echo {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let (head, body) = request.into_parts();
        if head.uri.path() == "/never" {
            std::future::pending::<()>().await;
        }
        let body = body.collect().await.map_err(|error| CallError::Failed(error.to_string()))?.to_bytes();
        let mut said = format!("{} {} {}", self.name, head.method, head.uri);
        for name in ["host", "x-added", "x-gone", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"] {
            if let Some(value) = head.headers.get(name) {
                said += &format!(" {name}={}", value.to_str().unwrap());
            }
        }
        said += &format!(" {}", String::from_utf8_lossy(&body));
        if let Some(heard) = &self.heard {
            let _ = heard.send(said.clone());
        }
        Ok(Response::new(Full::from(said).map_err(|never| match never {}).boxed_unsync()))
    }
}

/// A Service with one pod that tells what it hears.
fn echo(
    network: &Network,
    name: &'static str,
    last: u8,
) -> (podium_network::Attachment, mpsc::UnboundedReceiver<String>) {
    let mut service = service(None);
    service.name = Name::new("default", name);
    service.cluster_ip = Some(IpAddr::from([10, 96, 1, last]));
    let mut slice = slice(&[last], &[]);
    (slice.name, slice.service) = (Name::new("default", format!("{name}-1")), name.to_owned());
    network.put_service(service);
    network.put_slice(slice);
    let (heard, hears) = mpsc::unbounded_channel();
    (network.attach(ip(last), 8080, Arc::new(Echo { name, heard: Some(heard) })), hears)
}

fn to(name: &str) -> Option<Destination> {
    Some(Destination { service: Name::new("default", name), port: BackendPort::Number(80) })
}

fn backend(weight: u32, to: Option<Destination>) -> WeightedBackend {
    WeightedBackend { weight, to, filters: Vec::new() }
}

fn action(name: &str) -> Action {
    Action { backends: vec![backend(1, to(name))], ..Action::default() }
}

fn route(host: Option<&str>, path: &str, action: Action) -> Route {
    let matched = Match { path: PathPattern::Prefix(path.to_owned()), ..Match::default() };
    let hosts = vec![Host::of_gateway(host)];
    Route { name: format!("HTTPRoute d{path}").into(), hosts, matches: vec![matched], action: Arc::new(action) }
}

fn listener(host: Option<&str>, serves: Serves) -> GatewayListener {
    GatewayListener { host: Host::of_gateway(host), serves }
}

/// Tells a port, which is opened when it is not yet.
async fn open(network: &Network, listeners: Vec<GatewayListener>) -> SocketAddr {
    let opened = network.set_gateways(vec![GatewayPort { address: at("127.0.0.1:0"), listeners }]).await;
    *opened[0].bound.as_ref().unwrap()
}

async fn open_http(network: &Network, routes: Vec<Route>) -> SocketAddr {
    open(network, vec![listener(None, Serves::Http(RouteTable::new(routes)))]).await
}

async fn sent(address: SocketAddr, request: http::request::Builder, body: &str) -> Response<String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap());
    let (head, body) = answer.await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[tokio::test]
async fn filters_change_what_goes_through() {
    let network = network();
    let _web = echo(&network, "web", 1);
    let filtered = |filters| Action { filters, ..action("web") };
    let changes = HeaderChanges {
        set: vec![pair("x-added", "yes")],
        add: Vec::new(),
        remove: vec![HeaderName::from_static("x-gone")],
    };
    let answers = HeaderChanges { set: vec![pair("x-answer", "1")], ..HeaderChanges::default() };
    let path = Some(PathChange::Prefix("/new".into()));
    let rewrite = Rewrite { host: Some("in.test".into()), path: path.clone() };
    let redirect =
        Redirect { scheme: None, host: Some("b.test".into()), port: None, path, status: StatusCode::SEE_OTHER };
    let mut of_backend = action("web");
    of_backend.backends[0].filters = vec![Filter::RequestHeaders(changes.clone())];
    let address = open_http(
        &network,
        vec![
            route(None, "/headers", filtered(vec![Filter::RequestHeaders(changes), Filter::ResponseHeaders(answers)])),
            route(None, "/backend", of_backend),
            route(None, "/old", filtered(vec![Filter::Rewrite(rewrite)])),
            route(None, "/away", filtered(vec![Filter::Redirect(redirect)])),
            route(None, "/nobody", Action { backends: vec![backend(1, None)], ..Action::default() }),
            route(None, "/nothing", Action::default()),
            route(None, "/late", Action { timeout: Some(Duration::from_millis(50)), ..action("web") }),
        ],
    )
    .await;
    let ask = |path: &str| sent(address, Request::get(path).header("host", "a.test").header("x-gone", "no"), "");
    let shown = "host=a.test x-added=yes x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=a.test ";
    let answer = ask("/headers?q").await;
    assert_eq!(answer.body(), &format!("web GET /headers?q {shown}"));
    assert_eq!(answer.headers()["x-answer"], "1");
    assert_eq!(ask("/backend").await.body(), &format!("web GET /backend {shown}"));
    assert!(ask("/old/x?q=1").await.body().starts_with("web GET /new/x?q=1 host=in.test "));
    let answer = ask("/away/x?q=1").await;
    let location = format!("http://b.test:{}/new/x?q=1", address.port());
    assert_eq!((answer.status(), answer.headers()["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, &*location));
    for (path, status) in [
        ("/nobody", StatusCode::INTERNAL_SERVER_ERROR),
        ("/nothing", StatusCode::INTERNAL_SERVER_ERROR),
        ("/elsewhere", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(ask(path).await.status(), status, "{path}");
    }
    // The handler would never answer.
    let never = Action { timeout: Some(Duration::from_millis(50)), ..action("web") };
    let tries = Action { try_timeout: Some(Duration::from_millis(50)), ..action("web") };
    for action in [never, tries] {
        open_http(&network, vec![route(None, "/never", action)]).await;
        assert_eq!(ask("/never").await.status(), StatusCode::GATEWAY_TIMEOUT);
    }
}

#[tokio::test]
async fn backends_get_their_share_and_mirrors_a_copy() {
    let network = network();
    let (_one, mut one) = echo(&network, "one", 1);
    let (_two, mut two) = echo(&network, "two", 2);
    let (_none, mut none) = echo(&network, "none", 3);
    let (_copy, mut copies) = echo(&network, "copy", 4);
    let shared = Action {
        backends: vec![backend(80, to("one")), backend(20, to("two")), backend(0, to("none"))],
        ..Action::default()
    };
    let mirror = |share| Filter::Mirror(Mirror { to: to("copy"), share });
    let mirrored = |share| Action { filters: vec![mirror(share)], ..action("one") };
    let address = open_http(
        &network,
        vec![
            route(None, "/shared", shared),
            route(None, "/mirrored", mirrored((1, 1))),
            route(None, "/unmirrored", mirrored((0, 1))),
        ],
    )
    .await;
    for _ in 0..200 {
        assert_eq!(sent(address, Request::get("/shared"), "").await.status(), StatusCode::OK);
    }
    let count = |hears: &mut mpsc::UnboundedReceiver<String>| std::iter::from_fn(|| hears.try_recv().ok()).count();
    let counts = [count(&mut one), count(&mut two), count(&mut none)];
    // Far outside what chance does: 160 and 40 are meant.
    assert!(counts[0] > 110 && (5..90).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
    for path in ["/unmirrored", "/mirrored"] {
        let answer = sent(address, Request::post(path).header("host", "a.test"), "what is said").await;
        assert!(answer.body().starts_with(&format!("one POST {path}")), "{answer:?}");
    }
    let copy = copies.recv().await.unwrap();
    assert!(copy.starts_with("copy POST /mirrored host=a.test ") && copy.ends_with(" what is said"), "{copy}");
}

/// A certificate for a name, and who believes in it.
fn certificate(name: &str) -> (Certificate, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (Certificate::from_pem(pem.as_bytes(), key.as_bytes()).unwrap(), TlsConnector::from(Arc::new(config)))
}

type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// An HTTP/2 connection within TLS, if the certificate is believed.
async fn secure(address: SocketAddr, connector: &TlsConnector, name: &'static str) -> Result<H2, std::io::Error> {
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(sender: &mut H2, uri: &str) -> (StatusCode, String) {
    let answer = sender.send_request(Request::get(uri).body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let (status, body) = (answer.status(), answer.into_body().collect().await.unwrap().to_bytes());
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn tls_by_name_and_new_certificates_without_a_new_port() {
    let network = network();
    let _pods = [echo(&network, "one", 1), echo(&network, "two", 2)];
    let ((cert_a, trusts_a), (cert_b, trusts_b)) = (certificate("a.test"), certificate("*.b.test"));
    let table = |name: &str| RouteTable::new([route(None, "/", action(name))]);
    let listeners = |first: &Certificate| {
        vec![
            listener(Some("a.test"), Serves::Https(vec![first.clone()], table("one"))),
            listener(Some("*.b.test"), Serves::Https(vec![cert_b.clone()], table("two"))),
        ]
    };
    let address = open(&network, listeners(&cert_a)).await;
    let mut to_a = secure(address, &trusts_a, "a.test").await.unwrap();
    let (status, said) = ask(&mut to_a, "https://a.test/x").await;
    assert!(status == StatusCode::OK && said.starts_with("one GET "), "{said}");
    assert!(said.contains("x-forwarded-proto=https x-forwarded-host=a.test"), "{said}");
    let mut to_b = secure(address, &trusts_b, "x.b.test").await.unwrap();
    assert!(ask(&mut to_b, "https://x.b.test/").await.1.starts_with("two GET "));
    // Another listener's host on a connection to this one; nobody's host.
    assert_eq!(ask(&mut to_b, "https://a.test/").await.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(&mut to_b, "https://c.test/").await.0, StatusCode::NOT_FOUND);
    assert!(secure(address, &trusts_a, "c.test").await.is_err(), "no listener has this name");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert_eq!(plain.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "TLS only");

    let (renewed, trusts_renewed) = certificate("a.test");
    assert_eq!(open(&network, listeners(&renewed)).await, address);
    assert!(secure(address, &trusts_a, "a.test").await.is_err());
    assert!(secure(address, &trusts_renewed, "a.test").await.is_ok());
    // Who was connected still is.
    assert_eq!(ask(&mut to_a, "https://a.test/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_ingress_shows_the_certificate_of_a_host() {
    let network = network();
    let (_web, _) = echo(&network, "web", 1);
    let address = network.listen_ingress_tls(at("127.0.0.1:0")).await.unwrap();
    let ((cert_a, trusts_a), (other, trusts_other)) = (certificate("a.test"), certificate("x.b.test"));
    let shown = |hosts: &[&str], certificate: &Certificate| IngressTls {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        certificate: certificate.clone(),
    };
    let with = |tls| Ingress { tls, ..ingress(None) };
    network.put_ingress(with(vec![shown(&["a.test"], &cert_a)]));
    let mut to_a = secure(address, &trusts_a, "a.test").await.unwrap();
    let (status, said) = ask(&mut to_a, "https://a.test/app").await;
    assert!(status == StatusCode::OK && said.contains("x-forwarded-proto=https"), "{said}");
    assert!(secure(address, &trusts_other, "x.b.test").await.is_err(), "there is no certificate for it");
    network.put_ingress(with(vec![shown(&["a.test"], &cert_a), shown(&[], &other)]));
    assert!(secure(address, &trusts_other, "x.b.test").await.is_ok(), "shown where there is no other");
    // Another one in its place is shown to whoever comes next.
    let (renewed, trusts_renewed) = certificate("a.test");
    network.put_ingress(with(vec![shown(&["*.test", "a.test"], &renewed)]));
    assert!(secure(address, &trusts_a, "a.test").await.is_err());
    assert!(secure(address, &trusts_renewed, "a.test").await.is_ok());
    assert_eq!(ask(&mut to_a, "https://a.test/app").await.0, StatusCode::OK, "who was connected still is");
}

#[tokio::test]
async fn tls_is_carried_as_it_is_to_a_pod_that_speaks_it() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let made = rcgen::generate_simple_self_signed(vec!["pod.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let accepts = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let pods = pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
    tokio::spawn(async move {
        while let Ok(connection) = pods.accept().await {
            if let Ok(mut stream) = accepts.accept(connection.stream).await {
                let _ = stream.write_all(b"said within").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let routes = RouteTable::new([route(Some("pod.test"), "/", action("web"))]);
    let address = open(&network, vec![listener(Some("*.test"), Serves::Passthrough(routes))]).await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let connect = |name: &'static str| {
        let client = client.clone();
        async move {
            let stream = TcpStream::connect(address).await.unwrap();
            client.connect(ServerName::try_from(name).unwrap(), stream).await
        }
    };
    let mut said = String::new();
    connect("pod.test").await.unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "said within");
    for nobodys in ["other.test", "pod.other"] {
        assert!(connect(nobodys).await.is_err(), "{nobodys}");
    }
}

#[tokio::test]
async fn another_protocol_goes_through_a_gateway() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    http_tcp::echoing_pod(&network);
    let address = open_http(&network, vec![route(None, "/", action("web"))]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"no HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "no HTTP");
}

#[tokio::test]
async fn ports_come_and_go() {
    let network = network();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let port = |address| GatewayPort { address, listeners: vec![listener(None, Serves::Http(RouteTable::default()))] };
    let opened = network.set_gateways(vec![port(at("127.0.0.1:0")), port(taken.1)]).await;
    let address = *opened[0].bound.as_ref().unwrap();
    let why = opened[1].bound.as_ref().unwrap_err().to_string();
    assert_eq!(why, format!("cannot listen on {}: the port is already in use", taken.1));
    assert_eq!(sent(address, Request::get("/"), "").await.status(), StatusCode::NOT_FOUND);
    assert!(network.set_gateways(Vec::new()).await.is_empty());
    // The task that listens hears of it when it does.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_comes_from_outside_is_bounded_and_written_down() {
    let dir = std::env::temp_dir().join(format!("podium-gateways-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("access.log");
    let config = NetworkConfig {
        request_body_bytes_max: 10,
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        access_log: Some(AccessLog::to_file(&file).unwrap()),
        ..NetworkConfig::default()
    };
    let network = Network::new(config);
    let _web = echo(&network, "web", 1);
    let address = open_http(&network, vec![route(None, "/", action("web"))]).await;
    let post = || Request::post("/p?secret").header("host", "a.test").header("x-forwarded-for", "9.9.9.9");
    let answer = sent(address, post(), "0123456789").await;
    assert!(answer.body().contains("x-forwarded-for=9.9.9.9, 127.0.0.1 "), "{answer:?}");
    assert_eq!(sent(address, post(), "0123456789a").await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // A body that does not say how long it is.
    let said = raw(
        address,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n8\r\nabcdefgh\r\n",
    )
    .await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    let said = raw(address, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    let lines = loop {
        let text = std::fs::read_to_string(&file).unwrap();
        if text.lines().count() >= 4 {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let shown = ["method", "host", "path", "route", "service"].map(|key| first[key].as_str().unwrap().to_owned());
    assert_eq!(shown, ["POST", "a.test", "/p", "HTTPRoute d/", "default/web"]);
    assert_eq!((first["status"].as_u64(), first["bytes"].as_u64().map(|b| b > 20)), (Some(200), Some(true)));
    assert!(!lines.contains("secret"));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Sends bytes, and reads the first that is said.
async fn raw(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
