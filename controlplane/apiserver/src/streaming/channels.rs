//! `exec` and `attach` over a WebSocket: each message begins with the number of its channel.
//!
//! Channels: 0 input, 1 output, 2 errors, 3 the end, 4 the terminal's size; with version 5 the client ends its input by
//! 255 and the channel's number. In `base64` protocols messages are text: a digit, then base64.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/{remotecommand,httpstream/wsstream}`.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, IDLE_MAX},
    pipes::{self, CHUNKS_MAX, Inbox, Outbox, Piece},
    session::{self, Ends, Prepared},
};
use crate::{
    gateway::{Output, SessionEnd, Streams, TerminalSize},
    http::websocket::{Message, Socket},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const END: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// How often a client is asked whether it is there, which also keeps proxies from closing the connection.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long the first message is held back. kubectl before 1.33 reads before it has made its streams, and drops what comes
/// until then: containers elsewhere never answer as soon.
const FIRST_AFTER: Duration = Duration::from_millis(10);
/// How long a client may take to close the connection.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// The subprotocols of `exec` and `attach`.
pub(crate) const PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// How messages are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    base64: bool,
    closes: bool,
    ends: Ends,
}

impl Wire {
    /// Of a subprotocol; a client that names none speaks the oldest.
    pub(crate) fn of(protocol: Option<&str>) -> Self {
        let protocol = protocol.unwrap_or_default();
        let ends = if protocol.starts_with('v') { Ends::Status } else { Ends::Words };
        Self { base64: protocol.contains("base64"), closes: protocol.starts_with("v5."), ends }
    }

    pub(crate) fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = char::from(b'0' + channel).to_string();
            BASE64_STANDARD.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut message = BytesMut::with_capacity(data.len() + 1);
        message.put_u8(channel);
        message.put_slice(data);
        Message::Binary(message.freeze())
    }

    /// The channel and what is said on it; `None` for what is no message of the protocol.
    pub(crate) fn read(self, message: Message) -> Option<(u8, Bytes)> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let first = *bytes.first()?;
        let data = bytes.split_off(1);
        if !self.base64 {
            return Some((first, data));
        }
        let channel = first.checked_sub(b'0').filter(|channel| *channel < 10)?;
        Some((channel, BASE64_STANDARD.decode(data).ok()?.into()))
    }
}

/// The client's side of a connection that has channels.
pub(crate) struct Outgoing {
    pub(crate) queue: mpsc::Sender<Message>,
    wire: Wire,
}

impl Outgoing {
    pub(crate) fn new(queue: mpsc::Sender<Message>, wire: Wire) -> Self {
        Self { queue, wire }
    }

    pub(crate) fn output(&self, channel: u8) -> Outbox<Message> {
        let wire = self.wire;
        Outbox::new(self.queue.clone(), move |piece| match piece {
            Piece::Data(bytes) => Some(wire.message(channel, &bytes)),
            Piece::End => None,
        })
    }

    pub(crate) async fn say(&self, channel: u8, data: &[u8]) {
        // An error means that the client is gone.
        let _sent = self.queue.send(self.wire.message(channel, data)).await;
    }
}

/// Runs a session until it or its client ends.
pub(crate) async fn serve(socket: Socket, wire: Wire, prepared: Prepared, stop: CancellationToken) {
    let Prepared { session, options, command } = prepared;
    let (sink, source) = socket.split();
    let (queue, messages) = mpsc::channel(CHUNKS_MAX);
    let outgoing = Outgoing::new(queue, wire);
    // The client knows by it that it is connected.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        END
    };
    outgoing.say(first, b"").await;
    let output = |wanted: bool, channel| wanted.then(|| Box::new(outgoing.output(channel)) as Output);
    let (input, inbox) = Inbox::new();
    let (size, sizes) = watch::channel(None);
    let streams = Streams {
        stdin: options.stdin.then(|| Box::new(inbox) as _),
        stdout: output(options.stdout, STDOUT),
        stderr: output(options.stderr, STDERR),
        size: sizes,
    };
    let activity = Arc::new(Activity::new());
    let incoming = Incoming { source, wire, stdin: options.stdin.then_some(input), size, activity: activity.clone() };
    let ended = async {
        let end: SessionEnd = session(streams).await;
        if let Some(said) = session::said(&end, command.as_deref(), wire.ends) {
            outgoing.say(END, &said).await;
        }
        drop(outgoing);
        std::future::pending::<()>().await;
    };
    pump(sink, messages, incoming.run(), ended, (&activity, &stop)).await;
}

/// Carries messages both ways: until all that is to be said has been said, the client goes, nothing moves for long, or the
/// server stops. `work` says everything; the connection is closed when its last sender is gone.
pub(crate) async fn pump(
    mut sink: SplitSink<Socket, Message>,
    messages: mpsc::Receiver<Message>,
    reading: impl Future<Output = ()>,
    work: impl Future<Output = ()>,
    (activity, stop): (&Activity, &CancellationToken),
) {
    tokio::pin!(reading);
    let goodbye = {
        tokio::pin!(work);
        tokio::select! {
            result = write_all(&mut sink, messages, activity) => match result {
                Ok(()) => CloseFrame { code: CloseCode::Normal, reason: "".into() },
                Err(error) => return tracing::debug!(%error, "a WebSocket ended early"),
            },
            () = &mut reading => return tracing::debug!("the client of a WebSocket is gone"),
            () = &mut work => return,
            () = activity.idle(IDLE_MAX) => CloseFrame { code: CloseCode::Away, reason: "idle for too long".into() },
            () = stop.cancelled() => CloseFrame { code: CloseCode::Away, reason: "the server stops".into() },
        }
    };
    let bye = async {
        // The client may be gone already, which is as good as a goodbye.
        let _sent = sink.send(Message::Close(Some(goodbye))).await;
        reading.await;
    };
    let _ended = timeout(GOODBYE_MAX, bye).await;
}

async fn write_all(
    sink: &mut SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<Message>,
    activity: &Activity,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    sleep(FIRST_AFTER).await;
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { return Ok(()) };
                sink.feed(message).await?;
                while let Ok(message) = messages.try_recv() {
                    sink.feed(message).await?;
                }
                sink.flush().await?;
                activity.touch();
            }
            _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await?,
        }
    }
}

/// What a client says.
struct Incoming {
    source: SplitStream<Socket>,
    wire: Wire,
    stdin: Option<mpsc::Sender<Bytes>>,
    size: watch::Sender<Option<TerminalSize>>,
    activity: Arc<Activity>,
}

impl Incoming {
    /// Ends when the client goes.
    async fn run(mut self) {
        while let Some(Ok(message)) = self.source.next().await {
            if matches!(message, Message::Ping(_) | Message::Pong(_)) {
                continue;
            }
            self.activity.touch();
            let Some((channel, data)) = self.wire.read(message) else { return };
            match channel {
                STDIN => self.input(data).await,
                RESIZE => {
                    if let Some(size) = session::size(&data) {
                        self.size.send_replace(Some(size));
                    }
                }
                CLOSE if self.wire.closes && data[..] == [STDIN] => self.stdin = None,
                _ => {}
            }
        }
    }

    async fn input(&mut self, data: Bytes) {
        if let Some(stdin) = &self.stdin
            && pipes::put(stdin, data).await.is_err()
        {
            // The command reads no more: what comes is thrown away.
            self.stdin = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_both_forms() {
        for (protocol, message, wanted) in [
            (Some("v5.channel.k8s.io"), Message::Binary(vec![0, b'a'].into()), Some((0, "a"))),
            (None, Message::Binary(vec![4].into()), Some((4, ""))),
            (Some("base64.channel.k8s.io"), Message::text("0YQ=="), Some((0, "a"))),
            (Some("v4.base64.channel.k8s.io"), Message::text("4"), Some((4, ""))),
            (Some("v4.base64.channel.k8s.io"), Message::text("0!"), None),
            (Some("v4.base64.channel.k8s.io"), Message::text("xYQ=="), None),
            (Some("v4.channel.k8s.io"), Message::Binary(Bytes::new()), None),
            (Some("v4.channel.k8s.io"), Message::Close(None), None),
        ] {
            let found = Wire::of(protocol).read(message.clone());
            assert_eq!(found, wanted.map(|(c, text)| (c, Bytes::from(text))), "{protocol:?} {message:?}");
        }
        for (protocol, wanted) in [
            (None, (false, false, Ends::Words)),
            (Some("channel.k8s.io"), (false, false, Ends::Words)),
            (Some("base64.channel.k8s.io"), (true, false, Ends::Words)),
            (Some("v4.base64.channel.k8s.io"), (true, false, Ends::Status)),
            (Some("v5.channel.k8s.io"), (false, true, Ends::Status)),
        ] {
            let wire = Wire::of(protocol);
            assert_eq!((wire.base64, wire.closes, wire.ends), wanted, "{protocol:?}");
        }
        assert_eq!(Wire::of(Some("base64.channel.k8s.io")).message(1, b"a"), Message::text("1YQ=="));
        assert_eq!(Wire::of(None).message(1, b"a"), Message::Binary(vec![1, b'a'].into()));
    }
}
