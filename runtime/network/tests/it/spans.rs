//! Spans on their way to a collector on loopback.

use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use podium_network::TracesConfig;
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector; what comes is handed on once it has refused as often as it is to.
async fn collector(refusals: usize) -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (to, batches) = mpsc::unbounded_channel();
    let left = AtomicUsize::new(refusals);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<hyper::body::Incoming>| {
                let refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                let to = to.clone();
                async move {
                    assert_eq!(
                        (request.uri().path(), &request.headers()["content-type"]),
                        ("/v1/traces", &"application/json".parse::<http::HeaderValue>().unwrap())
                    );
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut answer = Response::new(Full::<Bytes>::from("{}"));
                    match refused {
                        true => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                        false => drop(to.send(serde_json::from_slice(&body).unwrap())),
                    }
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        }
    });
    (endpoint, batches)
}

/// Waits for so many spans.
async fn spans(batches: &mut mpsc::UnboundedReceiver<Value>, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = batches.recv().await.unwrap();
        let resource = &batch["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "n1");
        all.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().clone());
    }
    all
}

/// Answers with the trace that it was handed.
struct Echo;

#[async_trait]
impl HttpHandler for Echo {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let trace = request.headers()["traceparent"].as_bytes().to_vec();
        Ok(Response::new(Full::from(trace).map_err(|never| match never {}).boxed_unsync()))
    }
}

/// Sends a request to an Ingress by the client of the standard library: the trace that its pod was handed.
async fn ask(at: SocketAddr, parent: Option<&str>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let header = parent.map(|parent| format!("traceparent: {parent}\r\n")).unwrap_or_default();
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let request = format!("GET /app HTTP/1.1\r\nhost: a.test\r\n{header}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn traced(ratio: f64, refusals: usize) -> (Network, SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    // The network has it for as long as it lasts.
    std::mem::forget(network.attach(ip(1), 8080, Arc::new(Echo)));
    network.put_ingress(ingress(Some("a.test")));
    let (endpoint, batches) = collector(refusals).await;
    network.export_traces(TracesConfig { endpoint, ratio, node: Some("n1".into()) }).unwrap();
    let at = network.listen_ingress(at("127.0.0.1:0")).await.unwrap();
    (network, at, batches)
}

fn text<'a>(span: &'a Value, key: &str) -> &'a str {
    let found = span["attributes"].as_array().unwrap().iter().find(|a| a["key"] == key);
    let value = found.map(|a| &a["value"]);
    value.and_then(|value| value["stringValue"].as_str().or(value["intValue"].as_str())).unwrap_or_default()
}

#[tokio::test]
async fn a_request_is_a_span_and_its_call_another_below_it() {
    let (_network, at, mut batches) = traced(1.0, 0).await;
    let handed = ask(at, None).await;
    let mut all = spans(&mut batches, 2).await;
    all.sort_by_key(|span| span["kind"].as_u64());
    let [server, client] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&server["kind"], &server["parentSpanId"], &client["kind"]), (&2.into(), &Value::Null, &3.into()));
    assert_eq!((&client["parentSpanId"], &client["traceId"]), (&server["spanId"], &server["traceId"]));
    let [trace, span] = [&client["traceId"], &client["spanId"]].map(|id| id.as_str().unwrap());
    assert_eq!(handed, format!("00-{trace}-{span}-01"), "the pod goes on from there");
    assert_eq!((server["name"].as_str(), client["name"].as_str()), (Some("GET"), Some("GET default/web")));
    for (key, expected) in [
        ("http.request.method", "GET"),
        ("url.path", "/app"),
        ("server.address", "a.test"),
        ("http.response.status_code", "200"),
        ("podium.service", "default/web"),
    ] {
        assert_eq!(text(server, key), expected, "{key}");
    }
    let nanos = |key: &str| server[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"));
}

#[tokio::test]
async fn who_began_a_trace_has_decided() {
    let (network, at, mut batches) = traced(0.0, 0).await;
    assert!(ask(at, None).await.ends_with("-00"), "none of those begun here are recorded");
    let unrecorded = format!("00-{TRACE}-00f067aa0ba902b7-00");
    assert_eq!(ask(at, Some(&unrecorded)).await, unrecorded);
    let handed = ask(at, Some(&format!("00-{TRACE}-00f067aa0ba902b7-01"))).await;
    assert!(handed.starts_with(&format!("00-{TRACE}-")) && !handed.contains("00f067aa0ba902b7"), "{handed}");
    let all = spans(&mut batches, 2).await;
    let server = all.iter().find(|span| span["kind"] == 2).unwrap();
    assert_eq!((server["traceId"].as_str(), server["parentSpanId"].as_str()), (Some(TRACE), Some("00f067aa0ba902b7")));
    network.shutdown(Duration::from_secs(5)).await;
    assert!(batches.try_recv().is_err(), "and no other was sent");
}

#[tokio::test]
async fn what_a_collector_does_not_take_is_sent_once_more_and_what_is_left_goes_at_the_end() {
    let (network, at, mut batches) = traced(1.0, 1).await;
    ask(at, None).await;
    assert_eq!(spans(&mut batches, 2).await.len(), 2);
    ask(at, None).await;
    network.shutdown(Duration::from_secs(5)).await;
    assert_eq!(spans(&mut batches, 2).await.len(), 2);
    let bad = TracesConfig { endpoint: "nowhere".into(), ratio: 1.0, node: None };
    assert!(network.export_traces(bad).is_err());
}
