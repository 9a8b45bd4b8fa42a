//! Who listens where: the handlers of this node's pods by address, and their graceful going.
//!
//! Invariant: a request is counted before it is asked whether it may begin, so that a drain that sees no request
//! under way has seen the last one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::{Body, CallError, HttpHandler, Inner, Network, PodStream, SocketError, front, http_server, stream};

#[derive(Default)]
pub(crate) struct Attachments {
    by_address: RwLock<HashMap<SocketAddr, Arc<Attached>>>,
    changed: Arc<Notify>,
}

/// A handler at its address.
pub(crate) struct Attached {
    address: SocketAddr,
    handler: Arc<dyn HttpHandler>,
    open: AtomicBool,
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    count: AtomicUsize,
    idle: Notify,
}

/// Counts one request until its response's body has ended.
pub(crate) struct Ticket(Arc<UnderWay>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Attachments {
    pub(crate) fn get(&self, address: SocketAddr) -> Option<Arc<Attached>> {
        self.by_address.read().get(&address).cloned()
    }

    /// Wakes drains that wait for the last route to their pod to go.
    pub(crate) fn routes_changed(&self) {
        self.changed.notify_waiters();
    }
}

impl Attached {
    /// Begins a request, unless the pod takes none now.
    pub(crate) fn admit(&self) -> Option<Ticket> {
        self.under_way.count.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket(self.under_way.clone());
        (self.open.load(Ordering::Acquire) && self.handler.accepts()).then_some(ticket)
    }

    /// Passes an admitted request to the handler; the ticket lives as long as the response's body.
    pub(crate) async fn call(&self, request: Request<Body>, ticket: Ticket) -> Result<Response<Body>, CallError> {
        let response = self.handler.call(request).await?;
        Ok(response.map(|body| Counted { body, _ticket: ticket }.boxed_unsync()))
    }
}

pin_project_lite::pin_project! {
    /// A body that keeps its request counted.
    struct Counted {
        #[pin]
        body: Body,
        _ticket: Ticket,
    }
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = crate::BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Connects to whoever listens at a pod's port.
pub(crate) fn connect(network: &Network, address: SocketAddr) -> Result<PodStream, SocketError> {
    let refused = || SocketError::Refused(format!("nobody listens at {address}"));
    let attached = network.inner().attachments.get(address).ok_or_else(refused)?;
    let (client, server) = stream::pair();
    let serving = network.clone();
    network.inner().tasks.spawn(async move {
        let inner = serving.inner();
        let answer = |request| answer(attached.clone(), request);
        if let Err(error) = http_server::serve(&inner.config, server, &inner.stopping, answer).await {
            tracing::debug!(%address, error, "a connection to a handler ended early");
        }
    });
    Ok(Box::new(client))
}

async fn answer(attached: Arc<Attached>, request: Request<Body>) -> Response<Body> {
    let answer = match attached.admit() {
        Some(ticket) => attached.call(request, ticket).await,
        None => Err(CallError::NotAccepted(format!("{} takes no requests now", attached.address))),
    };
    answer.unwrap_or_else(|error| front::failure(&error))
}

pub(crate) fn attach(inner: &Arc<Inner>, address: SocketAddr, handler: Arc<dyn HttpHandler>) -> Attachment {
    let attached =
        Arc::new(Attached { address, handler, open: AtomicBool::new(true), under_way: Arc::new(UnderWay::default()) });
    inner.attachments.by_address.write().insert(address, attached.clone());
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
        self.attached.under_way.count.load(Ordering::Acquire)
    }

    /// Ends the port without losing a request: goes on answering until no Service sends to the pod as ready any more
    /// and nothing is under way, at most for `timeout`; then takes nothing new. `true` when nothing was cut off.
    pub async fn drain(&self, timeout: Duration) -> bool {
        let quiet = tokio::time::timeout(timeout, self.until_unrouted()).await.is_ok();
        self.attached.open.store(false, Ordering::Release);
        let rest = if quiet { timeout } else { Duration::ZERO };
        tokio::time::timeout(rest, self.until_idle()).await.is_ok() || self.under_way() == 0
    }

    async fn until_unrouted(&self) {
        let Some(network) = self.network.upgrade() else { return };
        let changed = network.attachments.changed.clone();
        loop {
            let next = changed.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            if !network.services.routes_to(self.attached.address.ip()) {
                return;
            }
            next.await;
        }
    }

    async fn until_idle(&self) {
        loop {
            let next = self.attached.under_way.idle.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            next.await;
        }
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.attached.address.ip()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.attached.open.store(false, Ordering::Release);
        let Some(network) = self.network.upgrade() else { return };
        let mut all = network.attachments.by_address.write();
        // A restarted container may have attached the same address anew.
        if all.get(&self.attached.address).is_some_and(|now| Arc::ptr_eq(now, &self.attached)) {
            all.remove(&self.attached.address);
        }
    }
}
