//! `wasi:tls`: client connections over streams that the guest brings, with the roots that its container was given.

use std::{
    io,
    pin::Pin,
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
use crate::{Tls, container::Container};

pub(super) const CAPABILITY: Capability = Capability {
    group: "wasi:tls",
    interfaces: &[("client", &["0.3.0-draft"]), ("types", &["0.2.0-draft", "0.3.0-draft"])],
    can_be_empty: true,
    link,
};

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

fn context(container: &Container) -> WasiTlsCtx {
    let granted = container.is_granted(CAPABILITY.group);
    let provider = Provider(container.spec.tls.clone().filter(|_| granted));
    WasiTlsCtxBuilder::new().provider(Box::new(provider)).build()
}

/// Makes connections, or refuses to.
struct Provider(Option<Tls>);

type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn TlsStream>, Error>> + Send>>;

impl TlsProvider for Provider {
    fn connect(&self, server_name: String, transport: Box<dyn TlsTransport>) -> Connecting {
        let tls = self.0.clone();
        Box::pin(async move {
            let tls = tls.ok_or_else(|| Error::msg("this container may not make TLS connections"))?;
            let name = ServerName::try_from(server_name).map_err(|_| Error::msg("invalid server name"))?;
            let stream = TlsConnector::from(tls.config()).connect(name, transport).await;
            Ok(Box::new(Connected(stream.map_err(Error::msg)?)) as Box<dyn TlsStream>)
        })
    }
}

/// A connection whose handshake is done.
struct Connected(client::TlsStream<Box<dyn TlsTransport>>);

impl TlsStream for Connected {}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
