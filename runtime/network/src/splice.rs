//! Carrying bytes between a client outside and a pod that listens: what they speak is theirs.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Network, services::Port, stream::ByteStream};

/// Once the network is going down, a connection that is silent for so long is not waited for.
const SILENT: Duration = Duration::from_millis(250);

/// Connects a client to one of a Service's pods, and carries until both have said that nothing follows.
pub(crate) async fn splice(network: &Network, client: impl ByteStream, peer: SocketAddr, port: Arc<Port>) {
    // To a pod, `localhost` is its own containers: nobody else may look like them.
    let seen = if peer.ip().is_loopback() { network.node_side() } else { peer };
    let service = port.service.clone();
    let mut pod = match network.visit_service(port, network.visitor(peer.ip()), seen, ()).await {
        Ok(pod) => pod,
        Err(error) => return tracing::debug!(%service, %error, "a connection found no pod"),
    };
    if let Err(error) = carry(network, client, &mut pod).await {
        tracing::debug!(%service, %peer, %error, "a connection ended early");
    }
}

/// Carries until both have said that nothing follows; once the network is going down, until nothing moves.
pub(crate) async fn carry<C, P>(network: &Network, client: C, pod: &mut P) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Arc::new(AtomicU64::new(0));
    let mut client = Watched { stream: client, moved: moved.clone() };
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut client, pod) => carried.map(|_| ()),
        () = silence(network, &moved) => Ok(()),
    }
}

/// Ends when the network is going down and nothing moves any more.
async fn silence(network: &Network, moved: &AtomicU64) {
    network.inner().stopping.cancelled().await;
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(SILENT).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Counts what moves.
struct Watched<C> {
    stream: C,
    moved: Arc<AtomicU64>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
