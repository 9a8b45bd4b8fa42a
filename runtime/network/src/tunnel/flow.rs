//! Bodies and bytes of one stream of an HTTP/2 connection: what comes, and what goes.
//!
//! What comes is taken from the connection at once and kept, small pieces together, within the stream's window; the window
//! opens again when it is read. So a reader that waits costs its window and no more, however small the pieces were.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{FlowControl, Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
};

use super::wire;
use crate::{Body, BoxError};

/// Pieces smaller than this are put together.
const SMALL_BYTES: usize = 1024;
/// What is sent in one piece at most.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A task that ends with who holds this.
pub(crate) struct Task(AbortHandle);

impl Task {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What has come and is not read yet.
#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), h2::Error>>,
    reader: Option<Waker>,
}

impl Waiting {
    fn put(&mut self, piece: Bytes) {
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.gather();
        self.pieces.push_back(piece);
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        self.gather();
        self.pieces.pop_front()
    }
}

/// The receiving half of a stream.
pub(crate) struct Inbox {
    waiting: Arc<Mutex<Waiting>>,
    flow: FlowControl,
    _receiving: Option<Task>,
}

enum Came {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Inbox {
    pub(crate) fn new(mut stream: RecvStream) -> Self {
        let flow = stream.flow_control().clone();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        if stream.is_end_stream() {
            waiting.lock().end = Some(Ok(()));
            return Self { waiting, flow, _receiving: None };
        }
        let receiving = Task::spawn(receive(stream, waiting.clone()));
        Self { waiting, flow, _receiving: Some(receiving) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Came, h2::Error>> {
        let mut waiting = self.waiting.lock();
        if let Some(piece) = waiting.take() {
            drop(waiting);
            // Fails when the stream has ended: then nobody needs the window.
            let _ = self.flow.release_capacity(piece.len());
            return Poll::Ready(Ok(Came::Data(piece)));
        }
        if let Some(trailers) = waiting.trailers.take() {
            return Poll::Ready(Ok(Came::Trailers(trailers)));
        }
        match waiting.end.take() {
            Some(Ok(())) => {
                waiting.end = Some(Ok(()));
                Poll::Ready(Ok(Came::End))
            }
            Some(Err(error)) => {
                waiting.end = Some(Ok(()));
                Poll::Ready(Err(error))
            }
            None => {
                waiting.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end(&self) -> bool {
        let waiting = self.waiting.lock();
        let nothing = waiting.pieces.is_empty() && waiting.small.is_empty() && waiting.trailers.is_none();
        nothing && matches!(waiting.end, Some(Ok(())))
    }
}

async fn receive(mut stream: RecvStream, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let data = stream.data().await;
        let trailers = match &data {
            None => stream.trailers().await.map(Some),
            Some(_) => Ok(None),
        };
        let mut waiting = waiting.lock();
        match (data, trailers) {
            (Some(Ok(piece)), _) => waiting.put(piece),
            (Some(Err(error)), _) | (None, Err(error)) => waiting.end = Some(Err(error)),
            (None, Ok(trailers)) => {
                waiting.trailers = trailers.flatten();
                waiting.end = Some(Ok(()));
            }
        }
        let (ended, reader) = (waiting.end.is_some(), waiting.reader.take());
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        if ended {
            return;
        }
    }
}

/// A body that comes through a tunnel; `held` is held until it goes.
pub(crate) struct Received<H> {
    inbox: Inbox,
    _held: H,
}

impl<H: Send + Unpin + 'static> Received<H> {
    pub(crate) fn new(stream: RecvStream, held: H) -> Self {
        Self { inbox: Inbox::new(stream), _held: held }
    }

    pub(crate) fn body(stream: RecvStream, held: H) -> Body {
        Self::new(stream, held).map_err(|error| Box::new(error) as BoxError).boxed_unsync()
    }
}

impl<H: Unpin> http_body::Body for Received<H> {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Poll::Ready(match ready!(self.inbox.poll(cx)) {
            Ok(Came::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Came::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Came::End) => None,
            // Said by who has answered in full and does not want the rest of what it was asked.
            Err(error) if error.reason() == Some(Reason::NO_ERROR) && error.is_reset() => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inbox.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Sends a body, as fast as the other end reads. A body that breaks off resets the stream; so does who drops this, and so do
/// trailers that are too large.
pub(crate) async fn send(mut body: Body, mut stream: SendStream<Bytes>, trailer_bytes_max: u32) {
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            // Nobody wants it any more.
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let sent = match frame {
            None => stream.send_data(Bytes::new(), true).map(|()| true),
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    send_data(&mut stream, data, last).await.map(|()| last)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) if wire::is_too_large(&trailers, 0, trailer_bytes_max) => {
                        return stream.send_reset(Reason::INTERNAL_ERROR);
                    }
                    Ok(trailers) => stream.send_trailers(trailers).map(|()| true),
                    Err(_) => Ok(false),
                },
            },
        };
        // An error means that the stream has ended already.
        if sent.unwrap_or(true) {
            return;
        }
    }
}

/// No empty piece is sent but the last: receivers bound their number.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        let room = poll_fn(|cx| poll_room(stream, data.len(), cx)).await?;
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, last && data.is_empty())?;
        if data.is_empty() {
            return Ok(());
        }
    }
    if last { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

/// Waits until some bytes may be sent.
fn poll_room(stream: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, h2::Error>> {
    stream.reserve_capacity(wanted.min(PIECE_BYTES_MAX));
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            },
            room => return Poll::Ready(Ok(room)),
        }
    }
}

/// Bytes both ways over one stream. Dropping it says that nothing follows and that nothing is read any more.
pub(crate) struct Bytestream<H> {
    inbox: Inbox,
    rest: Bytes,
    out: SendStream<Bytes>,
    finished: bool,
    _held: H,
}

impl<H> Bytestream<H> {
    pub(crate) fn new(incoming: RecvStream, out: SendStream<Bytes>, held: H) -> Self {
        Self { inbox: Inbox::new(incoming), rest: Bytes::new(), out, finished: false, _held: held }
    }

    /// Breaks off: the other end finds it reset when it has read what came before, which HTTP/2's own reset would throw away.
    pub(crate) fn abort(mut self) {
        let reset = HeaderMap::from_iter([(wire::RESET, HeaderValue::from_static("true"))]);
        if !std::mem::replace(&mut self.finished, true) && self.out.send_trailers(reset).is_err() {
            self.out.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

impl<H> Drop for Bytestream<H> {
    fn drop(&mut self) {
        if !self.finished {
            // It has ended already when this fails.
            let _ = self.out.send_data(Bytes::new(), true);
        }
    }
}

impl<H: Unpin> AsyncRead for Bytestream<H> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        while self.rest.is_empty() {
            match ready!(self.inbox.poll(cx)) {
                Ok(Came::Data(data)) => self.rest = data,
                Ok(Came::Trailers(trailers)) if trailers.contains_key(wire::RESET) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Ok(Came::Trailers(_)) => {}
                Ok(Came::End) => return Poll::Ready(Ok(())),
                // Said by one that has closed both directions, the one that it writes to first.
                Err(error) if error.is_reset() && error.reason() == Some(Reason::CANCEL) => return Poll::Ready(Ok(())),
                Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        coop.made_progress();
        let count = out.remaining().min(self.rest.len());
        out.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<H: Unpin> AsyncWrite for Bytestream<H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let room = ready!(poll_room(&mut self.out, bytes.len(), cx)).map_err(|error| broken(&error))?;
        let count = room.min(bytes.len());
        let piece = Bytes::copy_from_slice(&bytes[..count]);
        self.out.send_data(piece, false).map_err(|error| broken(&error))?;
        coop.made_progress();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.finished, true) {
            self.out.send_data(Bytes::new(), true).map_err(|error| broken(&error))?;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: &h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::CANCEL | Reason::STREAM_CLOSED | Reason::NO_ERROR) | None => io::ErrorKind::BrokenPipe.into(),
        Some(_) => io::ErrorKind::ConnectionReset.into(),
    }
}
