//! `wasi:tls`: client connections over streams that the guest brings, with the roots that its container was given.
//!
//! Streams may be any, so the bounds on sockets bound no connections: each is memory of the container from its first byte on, and what it
//! computes, in the guest's own polls (0.3) or in tasks beside it (0.2), is the container's time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client};
use wasmtime::component::Linker;
use wasmtime_wasi_tls::{
    Error, TlsProvider, TlsStream, TlsTransport, WasiTlsCtx, WasiTlsCtxBuilder, WasiTlsCtxView, WasiTlsView, p2, p3,
};

use super::{Capability, Guest};
use crate::{Tls, container::Container, memory::Charge, meter, sockets::Metered};

pub(super) const CAPABILITY: Capability = Capability {
    group: "wasi:tls",
    interfaces: &[("client", &["0.3.0-draft"]), ("types", &["0.2.0-draft", "0.3.0-draft"])],
    can_be_empty: true,
    link,
};

/// What a connection keeps: its keys, a message of a handshake as large as one may be, and what waits to be sent or read.
const CONNECTION_BYTES: u64 = 64 << 10;

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut options = p2::LinkOptions::default();
    options.tls(true);
    p2::add_to_linker(linker, &options)?;
    p3::add_to_linker(linker)
}

impl WasiTlsView for Guest {
    fn tls(&mut self) -> WasiTlsCtxView<'_> {
        self.called();
        let container = &self.own.container;
        let ctx = self.tls.get_or_insert_with(|| Box::new(context(container)));
        WasiTlsCtxView { ctx, table: &mut self.table }
    }
}

fn context(container: &Arc<Container>) -> WasiTlsCtx {
    let granted = container.is_granted(CAPABILITY.group);
    let provider = Provider { tls: container.spec.tls.clone().filter(|_| granted), container: container.clone() };
    WasiTlsCtxBuilder::new().provider(Box::new(provider)).build()
}

/// Makes connections, or refuses to.
struct Provider {
    tls: Option<Tls>,
    container: Arc<Container>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn TlsStream>, Error>> + Send>>;

impl TlsProvider for Provider {
    fn connect(&self, server_name: String, transport: Box<dyn TlsTransport>) -> Connecting {
        let (tls, container) = (self.tls.clone(), self.container.clone());
        let payer = container.clone();
        let connecting = async move {
            let tls = tls.ok_or_else(|| Error::msg("this container may not make TLS connections"))?;
            let name = ServerName::try_from(server_name).map_err(|_| Error::msg("invalid server name"))?;
            let charge = Charge::new(container.memory.clone(), CONNECTION_BYTES);
            let charge = charge.ok_or_else(|| Error::msg("this container has no memory left for a TLS connection"))?;
            let stream = TlsConnector::from(tls.config()).connect(name, transport).await.map_err(Error::msg)?;
            Ok(Box::new(Connected { stream, container, _charge: charge }) as Box<dyn TlsStream>)
        };
        Box::pin(Metered::new(payer, connecting))
    }
}

/// A connection whose handshake is done.
struct Connected {
    stream: client::TlsStream<Box<dyn TlsTransport>>,
    container: Arc<Container>,
    _charge: Charge,
}

impl TlsStream for Connected {}

impl Connected {
    fn poll<R>(&mut self, poll: impl FnOnce(Pin<&mut client::TlsStream<Box<dyn TlsTransport>>>) -> R) -> R {
        meter::beside(&self.container, || poll(Pin::new(&mut self.stream)))
    }
}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use crate::{ContainerSpec, Sandbox, SandboxConfig};

    use super::*;

    /// Streams that a guest has are cheap: it may begin as many handshakes as it likes, and end none.
    #[tokio::test]
    async fn connections_that_come_to_nothing_are_paid_for() {
        let sandbox = Sandbox::new(SandboxConfig { instances_max: 1, ..SandboxConfig::default() }).unwrap();
        let mut spec = ContainerSpec::new("tls");
        spec.limits.memory_bytes_max = 4 * CONNECTION_BYTES;
        spec.tls = Some(Tls::trusting([]).0);
        let container = Container::new(sandbox.node.clone(), spec).unwrap();
        let provider = Provider { tls: container.spec.tls.clone(), container: container.clone() };
        let mut ends = Vec::new();
        let mut connecting = Vec::new();
        for _ in 0..3 {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            connecting.push(tokio::spawn(provider.connect("db.test".to_owned(), Box::new(near))));
            // The first byte has been sent: it is under way.
            tokio::io::AsyncReadExt::read_u8(&mut far).await.unwrap();
            ends.push(far);
        }
        assert_eq!(container.memory.used_bytes(), 3 * CONNECTION_BYTES);
        assert!(!container.cpu.used().is_zero(), "keys take time to make");
        let (near, _far) = tokio::io::duplex(1 << 16);
        let refused = provider.connect("db.test".to_owned(), Box::new(near)).await.err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("this container has no memory left for a TLS connection"));
        drop(ends);
        for connecting in connecting {
            assert!(connecting.await.unwrap().is_err());
        }
        assert_eq!(container.memory.used_bytes(), 0);
        // Within a guest's poll it is the poll that is measured.
        let used = container.cpu.used();
        let (near, _far) = tokio::io::duplex(1 << 16);
        let mut connecting = provider.connect("db.test".to_owned(), Box::new(near));
        let measured = meter::Measured::begin();
        assert!(connecting.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        drop(measured);
        assert_eq!(container.cpu.used(), used);
    }
}
