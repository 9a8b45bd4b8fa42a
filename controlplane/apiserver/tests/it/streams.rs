//! Watches over WebSocket, and protobuf.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn tls(cluster: &Cluster) -> TlsStream<TcpStream> {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let pem = cluster.server.ca_pem().as_bytes();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(cluster.server.addr()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
}

pub(crate) async fn socket(
    cluster: &Cluster,
    path: &str,
    protocol: Option<&'static str>,
) -> WebSocketStream<TlsStream<TcpStream>> {
    let url = format!("wss://{}{path}", cluster.server.addr());
    let mut request = url.into_client_request().unwrap();
    let token = format!("Bearer {}", cluster.server.admin_token());
    request.headers_mut().insert("authorization", token.parse().unwrap());
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    }
    let (socket, answer) = tokio_tungstenite::client_async(request, tls(cluster).await).await.unwrap();
    let chosen = answer.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap());
    assert_eq!((answer.status().as_u16(), chosen), (101, protocol));
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_websocket() {
    let cluster = Cluster::start().await;
    let first = cluster.post(MAPS, json!({"metadata": {"name": "a"}})).await.ok(201);
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    for protocol in [None, Some("base64.binary.k8s.io"), Some("binary.k8s.io")] {
        let path = format!("{MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=2");
        let mut socket = socket(&cluster, &path, protocol).await;
        if protocol.is_none() {
            socket.send(Message::Ping("are you there".into())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
            cluster.post(MAPS, json!({"metadata": {"name": "b"}})).await.ok(201);
            cluster.post(MAPS, json!({"metadata": {"name": "c"}})).await.ok(201);
        }
        for name in ["b", "c"] {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("not a text") };
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&"ADDED".into(), &name.into()));
        }
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_and_managed_fields() {
    let cluster = Cluster::start().await;
    cluster
        .post(&format!("{MAPS}?fieldManager=me"), json!({"metadata": {"name": "a"}, "data": {"k": "v"}}))
        .await
        .ok(201);
    for path in [format!("{MAPS}/a"), MAPS.to_owned()] {
        let answer = cluster.get_as(&path, "application/vnd.kubernetes.protobuf,application/json").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["content-type"]),
            (200, &HeaderValue::from_static(PROTOBUF))
        );
        assert!(answer.text.starts_with("k8s\0"), "{:?}", answer.text);
    }
    let watched = cluster.get_as(&format!("{MAPS}?watch=1&timeoutSeconds=1"), PROTOBUF).await;
    assert_eq!(watched.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    assert!(watched.text.contains("ADDED") && watched.text.contains("k8s\0"), "{:?}", watched.text);
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let object = cluster.get_as(&format!("{MAPS}/a"), partial).await.ok(200);
    assert_eq!(object["metadata"]["managedFields"][0]["operation"], "Update", "{object}");
    let bad = cluster.get(&format!("{MAPS}?labelSelector=a%20in")).await.refused(400);
    assert_eq!(bad, "unable to parse requirement: found '' expected: '('");
}
