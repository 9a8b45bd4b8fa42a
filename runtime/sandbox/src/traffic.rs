//! Bytes that come to a container and leave it: bodies of HTTP messages, both ways of both kinds of call, and what its TCP
//! connections and datagrams carry. Heads of messages are not counted.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::container::Container;

/// A container's counters.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Which way bytes go, as the container sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

impl Traffic {
    pub(crate) fn count(&self, way: Way, bytes: usize) {
        let counter = if way == Way::In { &self.received_bytes } else { &self.sent_bytes };
        counter.fetch_add(bytes as u64, Relaxed);
    }

    /// Received, sent.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.received_bytes.load(Relaxed), self.sent_bytes.load(Relaxed))
    }
}

/// A body whose bytes are counted, and whose errors are said in other words.
pub(crate) struct Counted<B, F> {
    body: B,
    container: Arc<Container>,
    way: Way,
    error: F,
}

impl<B, F> Counted<B, F> {
    pub(crate) fn new(body: B, container: Arc<Container>, way: Way, error: F) -> Self {
        Self { body, container, way, error }
    }
}

impl<B, F, E> Body for Counted<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: FnMut(B::Error) -> E + Unpin,
{
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let this = self.get_mut();
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                let frame = frame.map_err(&mut this.error)?;
                if let Some(data) = frame.data_ref() {
                    this.container.traffic.count(this.way, data.len());
                }
                Ok(frame)
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
