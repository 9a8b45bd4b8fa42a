//! A connection's streams and a listener's, between the guest's memory and the network: nothing is kept between but what a
//! look for readiness has read ahead.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut as _, StoreContextMut,
    component::{Destination, Resource, Source, StreamConsumer, StreamProducer, StreamResult},
};
use wasmtime_wasi::p3::bindings::sockets::types::{ErrorCode, TcpSocket};

use crate::sockets::{
    Code, SocketsView,
    connection::{Receiver, Sender},
    handle, tcp,
};

/// Bytes of one chunk when the reader is the host.
const CHUNK_BYTES: usize = 8 << 10;

type Told = oneshot::Sender<Result<(), ErrorCode>>;

/// What is not there yet: given up when the guest asks for that.
fn not_yet(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    if finish { Poll::Ready(Ok(StreamResult::Cancelled)) } else { Poll::Pending }
}

/// Accepted connections.
pub(super) struct Accepted<T: 'static> {
    pub(super) listener: tcp::Listener,
    pub(super) getter: for<'a> fn(&'a mut T) -> SocketsView<'a>,
}

impl<T> StreamProducer<T> for Accepted<T> {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut into: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if into.remaining(&mut store) == Some(0) {
            return match self.listener.poll_ready(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => not_yet(finish),
            };
        }
        let accepted = match self.listener.poll_accept(cx) {
            Poll::Ready(Ok(accepted)) => accepted,
            // No memory for this one, which is closed: on to the next.
            Poll::Ready(Err(Code::OutOfMemory)) => {
                cx.waker().wake_by_ref();
                return not_yet(finish);
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending => return not_yet(finish),
        };
        let view = (self.getter)(store.data_mut());
        into.set_buffer(Some(handle(&view.table.push(accepted)?)));
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// What the peer sends. `None`: it has ended.
pub(super) struct Incoming(pub(super) Option<(Receiver, Told)>);

impl Incoming {
    fn end(&mut self, result: Result<(), Code>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some((_, told)) = self.0.take() {
            let _ = told.send(result.map_err(ErrorCode::from));
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = self.end(Ok(()));
    }
}

impl<T> StreamProducer<T> for Incoming {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        into: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some((receiver, _)) = self.0.as_mut() else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        if into.remaining(store.as_context_mut()) == Some(0) {
            return match receiver.poll_ready(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => not_yet(finish),
            };
        }
        let mut into = into.as_direct(store, CHUNK_BYTES);
        match receiver.poll_read(cx, into.remaining()) {
            Poll::Ready(Ok(0)) => self.end(Ok(())),
            Poll::Ready(Ok(read)) => {
                into.mark_written(read);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(code)) => self.end(Err(code)),
            Poll::Pending => not_yet(finish),
        }
    }
}

/// What goes to the peer. `None`: no more can.
pub(super) struct Outgoing(pub(super) Option<(Sender, Told)>);

impl Outgoing {
    fn end(&mut self, result: Result<(), Code>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some((sender, told)) = self.0.take() {
            drop(sender);
            let _ = told.send(result.map_err(ErrorCode::from));
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let _ = self.end(Ok(()));
    }
}

impl<T> StreamConsumer<T> for Outgoing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, T>,
        from: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some((sender, _)) = self.0.as_mut() else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        let mut from = from.as_direct(store);
        // Whether there is room is known only by writing.
        if from.remaining().is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match sender.poll_write(cx, from.remaining()) {
            Poll::Ready(Ok(written)) => {
                from.mark_read(written);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(code)) => self.end(Err(code)),
            Poll::Pending => not_yet(finish),
        }
    }
}
