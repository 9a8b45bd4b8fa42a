//! The first that a TLS client says: which host it wants. It is read and can be read again by whoever speaks TLS then.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{certificates::ServerTls, stream::ByteStream};

/// Bytes of a client's hello.
const HELLO_BYTES_MAX: usize = 32 << 10;

/// Reads a client's hello: the host it names, in small letters and empty when it names none, and the stream from its beginning.
///
/// # Errors
/// When it is no TLS, too long or too late.
pub(crate) async fn read<S: ByteStream>(mut stream: S, limit: Duration) -> io::Result<(String, Replayed<S>)> {
    let mut seen = BytesMut::with_capacity(1024);
    let name = tokio::time::timeout(limit, name(&mut stream, &mut seen)).await;
    let name = name.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client said nothing"))??;
    Ok((name, Replayed { first: seen.freeze(), stream }))
}

/// Speaks TLS with a client that names a host, as `tls` says for that.
///
/// # Errors
/// When there is nothing to be shown for the host, or the client does not speak TLS in time.
pub(crate) async fn accept<S: ByteStream>(
    stream: S,
    limit: Duration,
    tls: impl FnOnce(&str) -> Option<ServerTls>,
) -> io::Result<TlsStream<Replayed<S>>> {
    let (name, stream) = read(stream, limit).await?;
    let nothing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no certificate for {name:?}"));
    let tls = tls(&name).ok_or_else(nothing)?;
    let accepted = tokio::time::timeout(limit, TlsAcceptor::from(tls.config).accept(stream)).await;
    accepted.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS took too long"))?
}

async fn name<S: ByteStream>(stream: &mut S, seen: &mut BytesMut) -> io::Result<String> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut acceptor = Acceptor::default();
    loop {
        let before = seen.len();
        if before >= HELLO_BYTES_MAX {
            return Err(bad("the client's hello is too long".to_owned()));
        }
        if stream.read_buf(seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut new = &seen[before..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    return Ok(hello.server_name().unwrap_or_default().to_ascii_lowercase());
                }
                Err((error, _)) => return Err(bad(error.to_string())),
            }
        }
    }
}

/// A stream of which some was read already, and is read again first.
pub(crate) struct Replayed<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let count = self.first.len().min(out.remaining());
        out.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring, pki_types::ServerName};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_name_is_read_and_what_was_read_is_read_again() {
        for (name, expected) in [("A.Test", "a.test"), ("127.0.0.1", "")] {
            let (mut client, server) = tokio::io::duplex(16);
            let bytes = hello(name);
            let sent = bytes.clone();
            tokio::spawn(async move {
                client.write_all(&sent).await.unwrap();
                client.write_all(b"more").await.unwrap();
            });
            let (found, mut stream) = read(server, Duration::from_secs(60)).await.unwrap();
            assert_eq!(found, expected);
            let mut again = Vec::new();
            stream.read_to_end(&mut again).await.unwrap();
            assert_eq!(again, [bytes.as_slice(), b"more"].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_hello_is_refused() {
        for (text, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], io::ErrorKind::InvalidData),
            (&hello("a.test")[..20], io::ErrorKind::UnexpectedEof),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(text).await.unwrap();
            drop(client);
            assert_eq!(read(server, Duration::from_secs(1)).await.err().map(|e| e.kind()), Some(expected));
        }
        let (_silent, server) = tokio::io::duplex(1024);
        assert_eq!(read(server, Duration::from_secs(1)).await.err().map(|e| e.kind()), Some(io::ErrorKind::TimedOut));
    }
}
