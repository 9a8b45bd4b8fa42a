//! Pipes between guests and clients.
//!
//! Invariants: what a guest writes waits in at most [`PIPE_BYTES_MAX`], past which the guest waits; a client that has gone
//! holds up nobody.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use podium_sandbox::{LogSink, Stdin, Stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    sync::{Notify, mpsc},
    time::timeout,
};

use super::Output;

/// Output of a guest that waits for its client.
pub(crate) const PIPE_BYTES_MAX: usize = 256 << 10;
/// Input that waits for its guest: chunks of at most [`INPUT_CHUNK_BYTES`].
const INPUT_CHUNKS_MAX: usize = 8;
const INPUT_CHUNK_BYTES: usize = 32 << 10;
/// How long a client that only takes part may hold a container up; then it is cut off.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Output on its way to a client.
#[derive(Default)]
pub(crate) struct Pipe {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    ended: bool,
    /// Nobody reads any more.
    gone: bool,
}

impl Pipe {
    fn write(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if !state.gone && !state.ended {
            state.bytes.extend_from_slice(bytes);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    fn held(&self) -> usize {
        self.state.lock().bytes.len()
    }

    fn room(&self) -> usize {
        let state = self.state.lock();
        if state.gone { usize::MAX } else { PIPE_BYTES_MAX.saturating_sub(state.bytes.len()) }
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            changed.await;
        }
    }

    async fn ready(&self) {
        self.until(|state| (state.gone || state.bytes.len() < PIPE_BYTES_MAX).then_some(())).await;
    }

    /// Nothing more will be written.
    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_waiters();
    }

    /// Nobody reads any more.
    fn leave(&self) {
        let mut state = self.state.lock();
        (state.gone, state.bytes) = (true, BytesMut::new());
        drop(state);
        self.changed.notify_waiters();
    }

    /// Hands on what is written, until the end of it or the client's. `crlf`: for a terminal, which wants both.
    async fn pump(&self, output: Option<&mut Output>, crlf: bool) {
        let _leaving = Leaving(self);
        let Some(output) = output else { return };
        loop {
            let next = self.until(|state| match (state.bytes.is_empty(), state.ended) {
                (false, _) => Some(Some(state.bytes.split())),
                (true, true) => Some(None),
                (true, false) => None,
            });
            let Some(bytes) = next.await else { return };
            self.changed.notify_waiters();
            let written =
                if crlf { output.write_all(&with_returns(&bytes)).await } else { output.write_all(&bytes).await };
            if written.is_err() {
                return;
            }
        }
    }
}

struct Leaving<'a>(&'a Pipe);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// `\n` as a terminal wants it.
fn with_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line);
    }
    out
}

/// Both outputs of a guest on their way to one client.
#[derive(Default)]
pub(crate) struct Pipes {
    stdout: Pipe,
    stderr: Pipe,
    /// Both are one.
    tty: bool,
}

impl Pipes {
    pub(crate) fn new(tty: bool) -> Arc<Self> {
        Arc::new(Self { tty, ..Self::default() })
    }

    fn of(&self, stream: Stream) -> &Pipe {
        if stream == Stream::Stdout || self.tty { &self.stdout } else { &self.stderr }
    }

    /// Takes what a terminal shows of the client's own typing.
    pub(crate) fn echo(&self, bytes: &[u8]) {
        self.stdout.write(bytes);
    }

    /// Nothing more will be written.
    pub(crate) fn end(&self) {
        self.stdout.end();
        self.stderr.end();
    }

    /// Whether the client has gone.
    pub(crate) fn is_left(&self) -> bool {
        self.stdout.state.lock().gone && self.stderr.state.lock().gone
    }

    /// Hands both on, until both have ended or their clients have gone.
    pub(crate) async fn pump(&self, stdout: &mut Option<Output>, stderr: &mut Option<Output>) {
        tokio::join!(self.stdout.pump(stdout.as_mut(), self.tty), self.stderr.pump(stderr.as_mut(), self.tty));
    }

    /// Waits for room, but not for ever: a client that does not read is left behind.
    pub(crate) async fn ready_or_leave(&self, stream: Stream) {
        let pipe = self.of(stream);
        if timeout(STALL_MAX, pipe.ready()).await.is_err() {
            pipe.leave();
        }
    }
}

impl LogSink for Pipes {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.of(stream).write(bytes);
    }

    fn room_bytes(&self, stream: Stream) -> usize {
        self.of(stream).room()
    }

    fn held_bytes(&self) -> usize {
        self.stdout.held() + self.stderr.held()
    }

    fn ready(&self, stream: Stream) -> BoxFuture<'_, ()> {
        Box::pin(self.of(stream).ready())
    }
}

/// The writing end of a container's input, which clients come to and leave.
pub(crate) struct InputPipe {
    chunks: Mutex<Option<mpsc::Sender<Bytes>>>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// The end that the guest reads.
pub(crate) struct InputReader {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
    waiting_bytes: Arc<AtomicUsize>,
}

impl InputReader {
    /// As a guest reads it: what waits is billed to its container.
    pub(crate) fn stdin(self) -> Stdin {
        let waiting = self.waiting_bytes.clone();
        Stdin::counted(self, waiting)
    }
}

impl InputPipe {
    pub(crate) fn new() -> (Arc<Self>, InputReader) {
        let (sender, chunks) = mpsc::channel(INPUT_CHUNKS_MAX);
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let reader = InputReader { chunks, rest: Bytes::new(), waiting_bytes: waiting_bytes.clone() };
        (Arc::new(Self { chunks: Mutex::new(Some(sender)), waiting_bytes }), reader)
    }

    /// Hands bytes to the guest; `false` when it reads no more.
    pub(crate) async fn send(&self, bytes: Bytes) -> bool {
        let sender = self.chunks.lock().clone();
        let Some(sender) = sender else { return false };
        let Ok(place) = sender.reserve().await else { return false };
        self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        place.send(bytes);
        true
    }

    /// The end of the input.
    pub(crate) fn end(&self) {
        self.chunks.lock().take();
    }
}

impl AsyncRead for InputReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        self.waiting_bytes.fetch_sub(n, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// The next bytes of a client's input; `None` at its end.
pub(crate) async fn next_input(input: &mut super::Input) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(INPUT_CHUNK_BYTES);
    match input.read_buf(&mut bytes).await {
        Ok(1..) => Some(bytes.freeze()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_waits_for_its_client_and_a_slow_onlooker_is_left_behind() {
        let pipes = Pipes::new(false);
        pipes.write(Stream::Stdout, &[b'x'; PIPE_BYTES_MAX]);
        assert_eq!((pipes.room_bytes(Stream::Stdout), pipes.room_bytes(Stream::Stderr)), (0, PIPE_BYTES_MAX));
        assert!(timeout(STALL_MAX * 9, pipes.ready(Stream::Stdout)).await.is_err());
        pipes.ready_or_leave(Stream::Stdout).await;
        assert_eq!(pipes.room_bytes(Stream::Stdout), usize::MAX);
        assert!(!pipes.is_left());
    }

    #[tokio::test]
    async fn outputs_apart_or_as_one() {
        for (tty, out, err) in [(false, "a\nc", "b\n"), (true, "a\r\nb\r\nc", "")] {
            let pipes = Pipes::new(tty);
            for (stream, text) in [(Stream::Stdout, "a\n"), (Stream::Stderr, "b\n"), (Stream::Stdout, "c")] {
                pipes.write(stream, text.as_bytes());
            }
            pipes.end();
            pipes.write(Stream::Stdout, b"too late");
            let ((mut stdout, stdout_end), (mut stderr, stderr_end)) = (tokio::io::duplex(99), tokio::io::duplex(99));
            pipes.pump(&mut Some(Box::new(stdout_end) as _), &mut Some(Box::new(stderr_end) as _)).await;
            let (mut found_out, mut found_err) = (String::new(), String::new());
            stdout.read_to_string(&mut found_out).await.unwrap();
            stderr.read_to_string(&mut found_err).await.unwrap();
            assert_eq!((found_out.as_str(), found_err.as_str()), (out, err));
        }
    }

    #[tokio::test]
    async fn input_of_several_clients_is_one() {
        let (pipe, mut reader) = InputPipe::new();
        assert!(pipe.send("ab".into()).await);
        assert!(pipe.send("c".into()).await);
        assert_eq!(pipe.waiting_bytes.load(Ordering::Relaxed), 3);
        pipe.end();
        assert!(!pipe.send("d".into()).await);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abc");
        assert_eq!(pipe.waiting_bytes.load(Ordering::Relaxed), 0);
    }
}
