//! Connections as a client has them that does not behave.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use podium_apiserver::ApiServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

/// Nothing here takes longer, or the test has failed.
pub(crate) const AT_MOST: Duration = Duration::from_secs(20);

/// Where a server is and who may use it; outlives the server.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) addr: SocketAddr,
    token: String,
    ca_pem: String,
}

impl Raw {
    pub(crate) fn of(server: &ApiServer) -> Self {
        Self { addr: server.addr(), token: server.admin_token().to_owned(), ca_pem: server.ca_pem().to_owned() }
    }

    pub(crate) async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        use rustls_pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.addr).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
    }

    /// The head of a request, with `more` lines.
    pub(crate) fn head(&self, method: &str, path: &str, more: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{more}\r\n", self.token)
    }

    /// A connection with a request on it, HTTP/1.1.
    pub(crate) async fn ask(&self, head: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect("http/1.1").await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// A client of HTTP/2 whose streams have windows of so many bytes, and its connection.
    pub(crate) async fn http2(&self, window: u32) -> (SendRequest<Full<bytes::Bytes>>, JoinHandle<()>) {
        let stream = TokioIo::new(self.connect("h2").await);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(10 * 1024 * 1024);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        // However it ends.
        let connection = tokio::spawn(async move { drop(connection.await) });
        (sender, connection)
    }

    pub(crate) fn get(&self, path: &str) -> Request<Full<bytes::Bytes>> {
        let request = Request::get(format!("https://{}{path}", self.addr));
        request.header("authorization", format!("Bearer {}", self.token)).body(Full::default()).unwrap()
    }
}

/// Reads to the end of the connection.
pub(crate) async fn rest(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    tokio::time::timeout(AT_MOST, stream.read_to_end(&mut bytes)).await.expect("the connection ends")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads until `end` has come.
pub(crate) async fn until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let read = tokio::time::timeout(AT_MOST, stream.read(&mut buffer)).await.expect("something comes").unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Tries until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut test: impl FnMut() -> F) {
    let trying = async {
        while !test().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(AT_MOST, trying).await.is_ok(), "{what}");
}
