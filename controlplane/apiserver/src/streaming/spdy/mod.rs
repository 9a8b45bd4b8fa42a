//! The server's end of a SPDY/3.1 connection: streams that the client opens, each of them bytes both ways.
//!
//! Bounds: [`STREAMS_MAX`] streams at once; of each, a queue of chunks that wait for their reader. Kubernetes' clients
//! have no flow control, so a stream that is not read holds up the others of its connection, for [`STALL_MAX`] at most;
//! then it is reset. An idle connection is closed.

mod frame;
mod headers;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, BufWriter},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::frame::{Reader, Reset, Said, Say, Writer};
use super::{
    activity::Activity,
    pipes::{self, Inbox, Outbox, Piece},
};

/// Streams open at once on one connection.
const STREAMS_MAX: usize = 512;
/// How long one stream may hold up the others.
const STALL_MAX: Duration = Duration::from_secs(300);
/// Frames that wait to be written.
const FRAMES_MAX: usize = 32;
/// How long a client may take to close the connection after it has been told to.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 32 * 1024;

/// What a peer sent that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(&'static str);

/// A stream that the client has opened and that waits to be accepted.
pub(crate) struct Offered {
    pub(crate) id: u32,
    headers: headers::Headers,
    stream: Stream,
    frames: mpsc::Sender<Say>,
}

/// An open stream.
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// What the client sends.
    pub(crate) input: Inbox,
    /// What it reads. Shutting it down is the end of it.
    pub(crate) output: Outbox<Say>,
    /// The client has thrown the stream away.
    pub(crate) reset: CancellationToken,
}

impl Offered {
    /// The value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) async fn accept(self) -> Stream {
        // An error means that the connection is gone, which the stream will tell.
        let _sent = self.frames.send(Say::Reply { id: self.id }).await;
        self.stream
    }

    pub(crate) async fn refuse(self) {
        let _sent = self.frames.send(Say::Reset { id: self.id, why: Reset::Refused }).await;
    }
}

/// The handle on a connection.
pub(crate) struct Connection {
    offers: mpsc::Receiver<Offered>,
    frames: mpsc::Sender<Say>,
}

impl Connection {
    /// The next stream that the client opens; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Offered> {
        self.offers.recv().await
    }

    /// Says the end of a stream behind all that was written to it.
    pub(crate) async fn finish(&self, id: u32) {
        let _sent = self.frames.send(Say::Fin { id }).await;
    }

    /// Closes the connection behind all that was written.
    pub(crate) async fn close(self) {
        let _sent = self.frames.send(Say::GoAway { last: 0 }).await;
    }
}

/// Speaks SPDY: the handle, and the work behind it, which ends with the connection.
pub(crate) fn serve<IO>(io: IO, activity: Arc<Activity>) -> (Connection, impl Future<Output = ()> + Send)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (offer, offers) = mpsc::channel(1);
    let (frames, queue) = mpsc::channel(FRAMES_MAX);
    let incoming = Incoming {
        offer,
        frames: frames.clone(),
        open: HashMap::new(),
        newest: 0,
        room: Arc::new(Semaphore::new(STREAMS_MAX)),
        activity: activity.clone(),
    };
    let work = async move {
        let reading = incoming.run(Reader::new(BufReader::with_capacity(BUFFER_BYTES, read)));
        let writing = write_all(Writer::new(BufWriter::with_capacity(BUFFER_BYTES, write)), queue, &activity);
        tokio::pin!(reading);
        tokio::select! {
            result = &mut reading => if let Err(error) = result {
                tracing::debug!(%error, "a SPDY connection is given up");
            },
            result = writing => match result {
                // Reading on lets the client read what was written before it sees the end.
                Ok(()) => drop(timeout(GOODBYE_MAX, reading).await),
                Err(error) => tracing::debug!(%error, "a SPDY connection ended early"),
            },
        }
    };
    (Connection { offers, frames }, work)
}

async fn write_all<W: AsyncWrite + Unpin>(
    mut writer: Writer<W>,
    mut queue: mpsc::Receiver<Say>,
    activity: &Activity,
) -> std::io::Result<()> {
    while let Some(say) = queue.recv().await {
        let mut next = Some(say);
        while let Some(say) = next {
            let last = matches!(say, Say::GoAway { .. });
            writer.write(say).await?;
            if last {
                writer.flush().await?;
                return writer.shutdown().await;
            }
            next = queue.try_recv().ok();
        }
        writer.flush().await?;
        activity.touch();
    }
    Ok(())
}

/// What a client has open.
struct Incoming {
    offer: mpsc::Sender<Offered>,
    frames: mpsc::Sender<Say>,
    open: HashMap<u32, Open>,
    newest: u32,
    room: Arc<Semaphore>,
    activity: Arc<Activity>,
}

struct Open {
    /// Until the client has said the end.
    chunks: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    held: Weak<OwnedSemaphorePermit>,
}

impl Open {
    /// Whether anybody here still has an end of it.
    fn is_held(&self) -> bool {
        self.held.strong_count() > 0 || self.chunks.as_ref().is_some_and(|chunks| !chunks.is_closed())
    }
}

impl Incoming {
    async fn run<R: AsyncRead + Unpin>(mut self, mut reader: Reader<R>) -> Result<(), Broken> {
        while let Some(said) = reader.next().await? {
            self.activity.touch();
            match said {
                Said::Stream { id, fin, headers } => self.offer(id, fin, headers).await,
                Said::Data { id, fin, bytes } => self.data(id, fin, bytes).await,
                Said::Headers { id, fin: true } => self.finish(id),
                Said::Reset { id } => self.forget(id),
                // Even numbers would be answers to pings of ours; there are none.
                Said::Ping(id) if id % 2 == 1 => self.say(Say::Ping(id)).await,
                Said::GoAway => return Ok(()),
                Said::Ping(_) | Said::Headers { .. } | Said::Nothing => {}
            }
        }
        Ok(())
    }

    async fn say(&self, say: Say) {
        let _sent = self.frames.send(say).await;
    }

    /// The client sends no more on a stream.
    fn finish(&mut self, id: u32) {
        if let Some(open) = self.open.get_mut(&id) {
            open.chunks = None;
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(open) = self.open.remove(&id) {
            open.reset.cancel();
        }
    }

    async fn offer(&mut self, id: u32, fin: bool, headers: headers::Headers) {
        if id.is_multiple_of(2) || id <= self.newest {
            return self.say(Say::Reset { id, why: Reset::ProtocolError }).await;
        }
        self.newest = id;
        self.open.retain(|_, open| open.is_held());
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return self.say(Say::Reset { id, why: Reset::Refused }).await;
        };
        let (chunks, input) = Inbox::new();
        let (reset, permit) = (CancellationToken::new(), Arc::new(permit));
        let open = Open { chunks: (!fin).then_some(chunks), reset: reset.clone(), held: Arc::downgrade(&permit) };
        self.open.insert(id, open);
        let output = Outbox::new(self.frames.clone(), move |piece| {
            let _held = &permit;
            Some(match piece {
                Piece::Data(bytes) => Say::Data { id, bytes },
                Piece::End => Say::Fin { id },
            })
        });
        let stream = Stream { id, input, output, reset };
        let offered = Offered { id, headers, stream, frames: self.frames.clone() };
        if let Err(offered) = self.offer.send(offered).await {
            offered.0.refuse().await;
        }
    }

    async fn data(&mut self, id: u32, fin: bool, bytes: Bytes) {
        if id == 0 || id > self.newest {
            return self.say(Say::Reset { id, why: Reset::InvalidStream }).await;
        }
        let Some(chunks) = self.open.get(&id).and_then(|open| open.chunks.as_ref()) else { return };
        // An error means that nobody reads it any more, which is no news to the client.
        match timeout(STALL_MAX, pipes::put(chunks, bytes)).await {
            Ok(_) if fin => self.finish(id),
            Ok(_) => {}
            Err(_) => {
                self.forget(id);
                self.say(Say::Reset { id, why: Reset::FlowControl }).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{
        frame::tests::{recorded, syn_stream},
        headers::Deflater,
        *,
    };

    /// A client's end, and what serves it.
    fn start() -> (tokio::io::DuplexStream, Connection, tokio::task::JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (connection, talking) = serve(server, Arc::new(Activity::new()));
        (client, connection, tokio::spawn(talking))
    }

    /// The types of frames that the server has written, data as its text.
    async fn heard(mut client: impl AsyncRead + Unpin) -> Vec<String> {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        let (mut all, mut rest) = (Vec::new(), bytes.as_slice());
        while let [a, b, c, d, flags, x, y, z, behind @ ..] = rest {
            let (payload, next) = behind.split_at(u32::from_be_bytes([0, *x, *y, *z]) as usize);
            all.push(match (a & 0x80 != 0, d) {
                (false, _) => {
                    let text = String::from_utf8_lossy(payload);
                    format!("{}:{text}{}", u32::from_be_bytes([*a, *b, *c, *d]), if *flags == 1 { "|" } else { "" })
                }
                (true, 2) => format!("reply {}", payload[3]),
                (true, 3) => format!("reset {} {}", payload[3], payload[7]),
                (true, 7) => "goaway".to_owned(),
                (true, kind) => format!("type {kind}"),
            });
            rest = next;
        }
        all
    }

    #[tokio::test]
    async fn a_connection_of_kubectl() {
        let (mut client, mut connection, talking) = start();
        client.write_all(&recorded()).await.unwrap();
        client.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.unwrap();
        let error = connection.next().await.unwrap();
        assert_eq!((error.header("streamtype"), error.header("port"), error.header("none")), ("error", "8080", ""));
        let mut error = error.accept().await;
        assert_eq!(error.input.read(&mut [0]).await.unwrap(), 0);
        let mut data = connection.next().await.unwrap().accept().await;
        let mut request = [0; 4];
        data.input.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"GET ");
        data.output.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        data.output.shutdown().await.unwrap();
        error.output.shutdown().await.unwrap();
        connection.close().await;
        let (read, _write) = tokio::io::split(client);
        let mut found = heard(read).await;
        // An answer to a ping waits for no stream, and no stream for it.
        found[..3].sort();
        assert_eq!(found, ["reply 1", "reply 3", "type 6", "3:HTTP/1.1 200 OK", "3:|", "1:|", "goaway"]);
        drop(_write);
        talking.abort();
    }

    #[tokio::test]
    async fn bad_streams_are_reset_and_resets_are_heard() {
        let (mut client, mut connection, _talking) = start();
        let mut deflater = Deflater::new();
        for id in [2, 5, 3] {
            client.write_all(&syn_stream(&mut deflater, id, false, &[("a", "b")])).await.unwrap();
        }
        client.write_all(&[0, 0, 0, 9, 0, 0, 0, 1, b'x']).await.unwrap();
        let stream = connection.next().await.unwrap().accept().await;
        // Data's end first, as kubectl does it.
        client.write_all(&[0, 0, 0, 5, 1, 0, 0, 0]).await.unwrap();
        client.write_all(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 5]).await.unwrap();
        stream.reset.cancelled().await;
        drop(stream);
        connection.close().await;
        let (read, _write) = tokio::io::split(client);
        let found = heard(read).await;
        for wanted in ["reset 2 1", "reset 3 1", "reset 9 2", "reply 5", "goaway"] {
            assert!(found.iter().any(|frame| frame == wanted), "{wanted}: {found:?}");
        }
    }

    #[tokio::test]
    async fn streams_are_bounded() {
        let (mut client, mut connection, _talking) = start();
        let mut deflater = Deflater::new();
        let mut held = Vec::new();
        for n in 0..=STREAMS_MAX {
            let id = u32::try_from(n).unwrap() * 2 + 1;
            client.write_all(&syn_stream(&mut deflater, id, true, &[("a", "b")])).await.unwrap();
            if n < STREAMS_MAX {
                held.push(connection.next().await.unwrap());
            }
        }
        let mut head = [0; 16];
        client.read_exact(&mut head).await.unwrap();
        let newest = u32::try_from(STREAMS_MAX).unwrap() * 2 + 1;
        assert_eq!((head[3], &head[8..12], head[15]), (3, &newest.to_be_bytes()[..], 3));
    }
}
