//! exec, attach and port-forward: over WebSockets as clients write them by hand, and with kubectl over WebSockets and SPDY.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use podium_api::{ApiError, k8s_openapi::api::core::v1::Pod};
use podium_apiserver::{
    AttachOptions, ByteStream, ExecOptions, LogOptions, LogStream, NodeGateway, PodPorts, ServiceBody, Session, Streams,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{harness::Cluster, kubectl, streams::socket};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A node whose containers know a few commands.
#[derive(Default)]
pub(crate) struct Node {
    /// Told when a command was ended by the going of its client.
    dropped: Arc<Notify>,
}

struct OnDrop(Option<Arc<Notify>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(notify) = self.0.take() {
            notify.notify_one();
        }
    }
}

async fn command(args: Vec<String>, mut streams: Streams, dropped: Arc<Notify>) -> Result<i32, String> {
    let mut on_drop = OnDrop(Some(dropped));
    let mut code = 0;
    match args[0].as_str() {
        "cat" => {
            let (mut input, mut output) = (streams.stdin.unwrap(), streams.stdout.unwrap());
            tokio::io::copy(&mut input, &mut output).await.unwrap();
        }
        "fail" => {
            streams.stderr.as_mut().unwrap().write_all(b"something is wrong\n").await.unwrap();
            code = args[1].parse().unwrap();
        }
        "size" => {
            let size = streams.size.wait_for(Option::is_some).await.unwrap().unwrap();
            let line = format!("{}x{}\n", size.width, size.height);
            streams.stdout.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        }
        "broken" => {
            on_drop.0.take();
            return Err("no such thing".to_owned());
        }
        _ => {
            streams.stdout.as_mut().unwrap().write_all(b"waiting\n").await.unwrap();
            std::future::pending::<()>().await;
        }
    }
    on_drop.0.take();
    Ok(code)
}

impl NodeGateway for Node {
    fn logs<'a>(&'a self, pod: &'a Pod, options: LogOptions) -> BoxFuture<'a, Result<LogStream, ApiError>> {
        Box::pin(async move {
            let name = pod.metadata.name.as_deref().unwrap();
            let line = format!("{name} {} {:?}\n", options.container, options.tail_lines);
            let log: LogStream = futures::stream::iter([Ok(line.into())]).boxed();
            Ok(log)
        })
    }

    /// Says what was asked.
    fn node<'a>(
        &'a self,
        node: &'a str,
        request: Request<ServiceBody>,
    ) -> BoxFuture<'a, Result<Response<ServiceBody>, ApiError>> {
        Box::pin(async move {
            let said = format!("{node} {}", request.uri());
            Ok(Response::new(Full::from(said).map_err(|never| match never {}).boxed_unsync()))
        })
    }

    fn exec<'a>(&'a self, _: &'a Pod, options: ExecOptions) -> BoxFuture<'a, Result<Session, ApiError>> {
        Box::pin(async move {
            if options.command[0] == "gone" {
                return Err(ApiError::internal(format!("container not found ({:?})", options.attach.container)));
            }
            let dropped = self.dropped.clone();
            let session: Session = Box::new(move |streams| Box::pin(command(options.command, streams, dropped)));
            Ok(session)
        })
    }

    fn attach<'a>(&'a self, _: &'a Pod, _: AttachOptions) -> BoxFuture<'a, Result<Session, ApiError>> {
        Box::pin(async move {
            let dropped = self.dropped.clone();
            let session: Session = Box::new(move |streams| Box::pin(command(vec!["cat".to_owned()], streams, dropped)));
            Ok(session)
        })
    }

    fn port_forward<'a>(&'a self, _: &'a Pod) -> BoxFuture<'a, Result<Arc<dyn PodPorts>, ApiError>> {
        Box::pin(async move { Ok(Arc::new(Ports) as Arc<dyn PodPorts>) })
    }
}

struct Ports;

impl PodPorts for Ports {
    /// Port 7 answers each client in capitals, once it has said all.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move {
            if port != 7 {
                return Err("connection refused".to_owned());
            }
            let (near, mut far) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                let mut text = String::new();
                far.read_to_string(&mut text).await.unwrap();
                far.write_all(text.to_uppercase().as_bytes()).await.unwrap();
            });
            Ok(Box::new(near) as Box<dyn ByteStream>)
        })
    }
}

async fn cluster() -> (Cluster, Arc<Notify>) {
    let cluster = Cluster::start().await;
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "x"}]});
    cluster.post(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await.ok(201);
    let status = json!({"status": {"phase": "Running"}});
    cluster.patch(&format!("{PODS}/p/status"), "merge-patch", status).await.ok(200);
    let node = Node::default();
    let dropped = node.dropped.clone();
    cluster.server.connect_node(Arc::new(node));
    (cluster, dropped)
}

/// What a server says on each channel, until it closes the connection.
async fn said<S>(socket: &mut S) -> Vec<(u8, String)>
where
    S: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut all: Vec<(u8, String)> = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => continue,
        };
        let text = String::from_utf8(bytes[1..].to_vec()).unwrap();
        match all.last_mut() {
            Some((channel, before)) if *channel == bytes[0] => before.push_str(&text),
            _ => all.push((bytes[0], text)),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_websockets() {
    let (cluster, _) = cluster().await;
    let exec = |query: &str| format!("{PODS}/p/exec?{query}");
    let success = r#"{"metadata":{},"status":"Success"}"#;

    let path = exec("command=cat&stdin=1&stdout=1");
    let mut all = socket(&cluster, &path, Some("v5.channel.k8s.io")).await;
    let large = "x".repeat(300_000);
    for part in [&b"\0ab"[..], format!("\0{large}").as_bytes(), b"\xff\0"] {
        all.send(Message::binary(part.to_vec())).await.unwrap();
    }
    assert_eq!(said(&mut all).await, [(1, format!("ab{large}")), (3, success.to_owned())]);

    let mut text = socket(&cluster, &exec("command=size&stdout=1&tty=1&stdin=1"), Some("base64.channel.k8s.io")).await;
    // {"Width":80,"Height":24}
    text.send(Message::text("4eyJXaWR0aCI6ODAsIkhlaWdodCI6MjR9")).await.unwrap();
    assert_eq!(said(&mut text).await, [(b'1', "ODB4MjQK".to_owned())]);

    let path = exec("command=fail&command=3&stderr=1&container=c");
    let found = said(&mut socket(&cluster, &path, Some("v4.channel.k8s.io")).await).await;
    assert_eq!(found[0], (2, "something is wrong\n".to_owned()));
    let end: Value = serde_json::from_str(&found[1].1).unwrap();
    assert_eq!((&end["status"], &end["reason"]), (&"Failure".into(), &"NonZeroExitCode".into()));
    assert_eq!(end["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));

    let found = said(&mut socket(&cluster, &exec("command=broken&stdout=1"), None).await).await;
    let words = "Internal error occurred: error executing command in container: no such thing";
    assert_eq!(found, [(1, String::new()), (3, words.to_owned())]);
}

/// kubectl before 1.33 throws away what comes before it has made its streams.
#[tokio::test(flavor = "multi_thread")]
async fn clients_have_a_moment_before_the_first_message() {
    let (cluster, _) = cluster().await;
    for query in ["exec?command=fail&command=0&stderr=1", "portforward?ports=8"] {
        for _ in 0..5 {
            let since = Instant::now();
            let mut session = socket(&cluster, &format!("{PODS}/p/{query}"), Some("v4.channel.k8s.io")).await;
            assert!(matches!(session.next().await, Some(Ok(Message::Binary(_)))));
            assert!(since.elapsed() >= Duration::from_millis(10), "{query}: {:?}", since.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_and_a_server_that_stops_end_commands() {
    let (cluster, dropped) = cluster().await;
    let path = format!("{PODS}/p/exec?command=wait&stdout=1");
    let wait = || async {
        let mut waiting = socket(&cluster, &path, Some("v5.channel.k8s.io")).await;
        assert_eq!(waiting.next().await.unwrap().unwrap(), Message::binary(vec![1]));
        assert_eq!(waiting.next().await.unwrap().unwrap(), Message::binary(b"\x01waiting\n".to_vec()));
        waiting
    };
    drop(wait().await);
    tokio::time::timeout(Duration::from_secs(20), dropped.notified()).await.expect("the command ends");
    let mut waiting = wait().await;
    let stopping = tokio::spawn(cluster.stop());
    tokio::time::timeout(Duration::from_secs(20), dropped.notified()).await.expect("the command ends");
    let Some(Ok(Message::Close(Some(frame)))) = waiting.next().await else { panic!("no goodbye") };
    assert_eq!(frame.reason.as_str(), "the server stops");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_over_channels() {
    let (cluster, _) = cluster().await;
    let path = format!("{PODS}/p/portforward?ports=8&ports=9");
    let found = said(&mut socket(&cluster, &path, Some("v4.channel.k8s.io")).await).await;
    let uid = cluster.get(&format!("{PODS}/p")).await.ok(200)["metadata"]["uid"].as_str().unwrap().to_owned();
    for (channel, port, wanted) in [(1, 8, "\u{8}\0"), (3, 9, "\t\0")] {
        let all: String = found.iter().filter(|(c, _)| *c == channel).map(|(_, text)| text.as_str()).collect();
        let words = format!("error forwarding port {port} to pod p, uid {uid}: connection refused");
        assert_eq!(all, format!("{wanted}{words}"));
        assert!(found.contains(&(channel - 1, wanted.to_owned())), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let (cluster, _) = cluster().await;
    let spec = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]});
    cluster.post(PODS, json!({"metadata": {"name": "two"}, "spec": spec})).await.ok(201);
    for (path, code, wanted) in [
        ("p/exec?command=cat&stdout=1", 400, "Upgrade request required"),
        ("p/exec?stdout=1", 400, "you must specify at least one command for the container"),
        ("p/exec?command=cat", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("p/attach?stdin=0", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("p/attach?stdin=1&container=x", 400, "container x is not valid for pod p"),
        ("two/exec?command=cat&stdout=1", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        ("two/portforward", 400, "pod two does not have a host assigned"),
        ("none/portforward", 404, "pods \"none\" not found"),
    ] {
        let answer = cluster.send(http::Method::POST, &format!("{PODS}/{path}"), &[], Vec::new()).await;
        assert_eq!(answer.refused(code), wanted, "{path}");
    }
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let path = format!("{PODS}/p/exec?command=gone&stdout=1");
    let gone = cluster.send(http::Method::POST, &path, &spdy, Vec::new()).await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (500, "container not found (\"c\")"));
    let path = format!("{PODS}/p/exec?command=cat&stdout=1");
    let none = cluster.send(http::Method::POST, &path, &spdy, Vec::new()).await.refused(400);
    assert!(none.starts_with("unable to upgrade: header X-Stream-Protocol-Version does not exist"), "{none}");
    let other = [spdy[0], spdy[1], ("x-stream-protocol-version", "v9.channel.k8s.io")];
    let other = cluster.send(http::Method::POST, &path, &other, Vec::new()).await;
    assert_eq!(other.status.as_u16(), 403);
    let accepted: Vec<_> = other.headers.get_all("x-accepted-stream-protocol-versions").iter().collect();
    assert_eq!(accepted.len(), 4, "{other:?}");
    let put = cluster.send(http::Method::PUT, &path, &[], Vec::new()).await;
    assert_eq!(put.status.as_u16(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_over_websockets_and_spdy() {
    if kubectl::version().is_none_or(|minor| minor < 31) {
        eprintln!("NOT RUN: there is no kubectl 1.31 or newer");
        return;
    }
    let (cluster, _) = cluster().await;
    for sockets in ["true", "false"] {
        let environment =
            [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", sockets), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", sockets)];
        let large = "0123456789\n".repeat(100_000);
        for (args, input, good, wanted) in [
            ("exec -i p -- cat", large.as_str(), true, large.as_str()),
            ("exec p -- fail 3", "", false, "something is wrong\ncommand terminated with exit code 3\n"),
            ("attach -q -i p", "hello", true, "hello"),
            ("exec p -- gone", "", false, "error: unable to upgrade connection: container not found (\"c\")\n"),
            (
                "exec p -- broken",
                "",
                false,
                "error: Internal error occurred: error executing command in container: no such thing\n",
            ),
        ] {
            let args: Vec<_> = args.split(' ').collect();
            let (ok, text) = kubectl::run_with(&cluster, &args, input, &environment).await;
            let shown = &text[..text.len().min(300)];
            assert!(ok == good && text.ends_with(wanted), "{args:?} (WebSockets: {sockets}): {shown}");
        }
        forward(&cluster, &environment).await;
    }
}

/// Three connections through one `kubectl port-forward`.
async fn forward(cluster: &Cluster, environment: &[(&str, &str)]) {
    let mut command = tokio::process::Command::new("kubectl");
    command.args(["port-forward", "pod/p", ":7"]).envs(environment.iter().copied()).kill_on_drop(true);
    command.env("KUBECONFIG", cluster.kubeconfig()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line).await.unwrap();
    let port =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}"));
    for size in [1, 50_000, 3] {
        let mut connection = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        connection.write_all("x".repeat(size).as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "X".repeat(size), "{environment:?}");
    }
}
