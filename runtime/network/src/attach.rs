//! Who listens where: the handlers and sockets of this node's pods by address, and their graceful going.
//!
//! Invariant: a request is counted before it is asked whether it may begin, so that a drain that sees no request
//! under way has seen the last one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

use crate::{
    Body, CallError, CallTimeouts, HttpHandler, Inner, Network,
    leash::{Rein, Watch, watched},
    pods::Pod,
    ports::{Ports, Scope, View},
    tcp::Arriving,
    udp::Queue,
};

/// Who has which port of this node's pods.
#[derive(Default)]
pub(crate) struct Attachments {
    pub(crate) tcp: Ports<Attached>,
    pub(crate) udp: Ports<Queue>,
    changed: Arc<Notify>,
}

/// Whoever has a TCP port.
pub(crate) struct Attached {
    /// The pod's own address, wherever of the pod it was bound.
    pub(crate) address: SocketAddr,
    pub(crate) side: Side,
    open: AtomicBool,
    under_way: Arc<UnderWay>,
}

/// What answers at a port.
pub(crate) enum Side {
    /// Function calls.
    Handler(Arc<dyn HttpHandler>),
    /// A socket that may listen.
    Socket(Socket),
}

/// A socket of a pod.
pub(crate) struct Socket {
    pub(crate) pod: Arc<Pod>,
    /// Set when it listens.
    pub(crate) backlog: OnceLock<mpsc::Sender<Arriving>>,
}

#[derive(Default)]
struct UnderWay {
    count: AtomicUsize,
    idle: Notify,
}

/// Counts one request until its response's body has ended, or one connection until it is closed.
pub(crate) struct Ticket(Arc<UnderWay>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Attachments {
    /// Whoever answers at a pod's address.
    pub(crate) fn get(&self, address: SocketAddr) -> Option<Arc<Attached>> {
        self.tcp.get(address, View::Own).filter(|attached| attached.answers())
    }

    /// Wakes drains that wait for the last route to their pod to go.
    pub(crate) fn routes_changed(&self) {
        self.changed.notify_waiters();
    }
}

impl Attached {
    pub(crate) fn new(address: SocketAddr, side: Side) -> Self {
        Self { address, side, open: AtomicBool::new(true), under_way: Arc::new(UnderWay::default()) }
    }

    /// Whether this is more than a port that somebody has taken.
    pub(crate) fn answers(&self) -> bool {
        match &self.side {
            Side::Handler(_) => true,
            Side::Socket(socket) => socket.backlog.get().is_some_and(|queue| !queue.is_closed()),
        }
    }

    pub(crate) fn is_socket(&self) -> bool {
        matches!(self.side, Side::Socket(_))
    }

    /// Begins a request or a connection, unless the pod takes none now.
    pub(crate) fn admit(&self) -> Option<Ticket> {
        self.under_way.count.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket(self.under_way.clone());
        let accepts = || match &self.side {
            Side::Handler(handler) => handler.accepts(),
            Side::Socket(_) => self.answers(),
        };
        (self.open.load(Ordering::Acquire) && accepts()).then_some(ticket)
    }

    /// Whether connections are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Takes no more from now on.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Passes an admitted request to the pod; the ticket lives as long as the response's body. With a watch it is cut when
    /// policies come to forbid it.
    pub(crate) async fn call(
        &self,
        network: &Network,
        request: Request<Body>,
        ticket: Ticket,
        (timeouts, watch): (CallTimeouts, Option<Watch>),
    ) -> Result<Response<Body>, CallError> {
        let called = async {
            match &self.side {
                Side::Handler(handler) => handler.call(request).await,
                // Boxed, so that a call of a handler is no larger for it.
                Side::Socket(_) => {
                    Box::pin(network.inner().pod_http.call(network, self.address, request, timeouts)).await
                }
            }
        };
        let (response, leash) = watched(watch.as_ref(), called).await;
        let rein = Rein::new(watch, leash);
        Ok(response?.map(|body| reined(body, rein, ticket)))
    }

    fn under_way(&self) -> usize {
        self.under_way.count.load(Ordering::Acquire)
    }

    /// See [`Attachment::drain`].
    pub(crate) async fn drain(&self, network: &Weak<Inner>, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let quiet = timeout_at(deadline, self.until_unrouted(network)).await.is_ok();
        self.close();
        let deadline = if quiet { deadline } else { Instant::now() };
        timeout_at(deadline, self.until_idle()).await.is_ok() || self.under_way() == 0
    }

    async fn until_unrouted(&self, network: &Weak<Inner>) {
        let Some(network) = network.upgrade() else { return };
        let changed = network.attachments.changed.clone();
        loop {
            let next = changed.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            if !network.services.routes_to(self.address.ip()) {
                return;
            }
            next.await;
        }
    }

    async fn until_idle(&self) {
        loop {
            let next = self.under_way.idle.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            next.await;
        }
    }
}

pin_project_lite::pin_project! {
    /// A body that keeps its request counted.
    struct Counted<H> {
        #[pin]
        body: Body,
        rein: Rein,
        _held: H,
    }
}

/// A body that can be cut; `held` is held until it goes.
pub(crate) fn reined<H: Send + 'static>(body: Body, rein: Rein, held: H) -> Body {
    Counted { body, rein, _held: held }.boxed_unsync()
}

impl<H> http_body::Body for Counted<H> {
    type Data = bytes::Bytes;
    type Error = crate::BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if let ready @ Poll::Ready(_) = this.body.poll_frame(cx) {
            return ready;
        }
        this.rein.poll_cut(cx).map(|cut| Some(Err(Box::new(cut) as crate::BoxError)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

pub(crate) fn attach(inner: &Arc<Inner>, address: SocketAddr, handler: Arc<dyn HttpHandler>) -> Attachment {
    let attached = Arc::new(Attached::new(address, Side::Handler(handler)));
    inner.attachments.tcp.replace(address, Scope::Whole, &attached);
    Attachment { attached, network: Arc::downgrade(inner) }
}

/// A pod's port in the network. Dropping it takes the port away; requests under way go on.
pub struct Attachment {
    attached: Arc<Attached>,
    network: Weak<Inner>,
}

impl Attachment {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.attached.address
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.attached.under_way()
    }

    /// Ends the port without losing a request: goes on answering until no Service sends to the pod as ready any more
    /// and nothing is under way, at most for `timeout`; then takes nothing new. `true` when nothing was cut off.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.attached.drain(&self.network, timeout).await
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.attached.address.ip()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.attached.close();
        if let Some(network) = self.network.upgrade() {
            // A restarted container may have attached the same address anew: only what this one has goes.
            network.attachments.tcp.give_back(self.attached.address, &self.attached);
        }
    }
}
