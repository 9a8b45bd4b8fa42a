//! [`Connector`]: opens connections to one address, over TLS.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a connection may take to be opened.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why no connection was opened: `dial tcp 10.0.0.1:443: connect: connection refused`, `tls: ...`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectError(pub(super) String);

/// Opens connections to one address.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    /// `name`: the one that the other side's certificate must have.
    ///
    /// # Errors
    /// When the name is none.
    pub(super) fn new(host: String, port: u16, name: &str, tls: ClientConfig) -> Result<Self, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("tls: {error}"))?;
        Ok(Self(Arc::new(Inner { host, port, name, tls: TlsConnector::from(Arc::new(tls)) })))
    }
}

impl Inner {
    async fn open(&self) -> Result<Stream, ConnectError> {
        let place = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let open = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
            let stream = stream.map_err(|error| format!("dial tcp {place}: {}", told(&error)))?;
            // Requests are small and wait for their answers.
            let _ = stream.set_nodelay(true);
            self.tls.connect(self.name.clone(), stream).await.map_err(|error| format!("tls: {error}"))
        };
        let opened = tokio::time::timeout(TIMEOUT, open).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("dial tcp {place}: i/o timeout")));
        opened.map(|stream| Stream(TokioIo::new(stream))).map_err(ConnectError)
    }
}

/// In the words of Go's library where they are well known.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.open().await })
    }
}

/// A connection.
pub(super) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.inner().get_ref();
        let connected = Connected::new();
        if session.alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
