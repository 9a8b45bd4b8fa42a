//! `exec` and `attach` over SPDY: each of the client's streams says by a header what it is for.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, IDLE_MAX},
    pipes::Inbox,
    session::{self, Ends, Prepared},
    spdy::{self, Connection, Stream},
};
use crate::gateway::{AttachOptions, Streams, TerminalSize};

/// How long a client may take to open all its streams.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of one message with a terminal's size.
const SIZE_BYTES_MAX: usize = 1024;

/// The protocols, the newest first.
pub(crate) const PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// What a client has opened.
#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Runs a session until it or its client ends.
pub(crate) async fn serve<IO>(io: IO, protocol: &'static str, prepared: Prepared, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let (connection, talking) = spdy::serve(io, activity.clone());
    tokio::pin!(talking);
    let work = run(connection, protocol, prepared);
    tokio::select! {
        () = work => {}
        () = &mut talking => return tracing::debug!("the client of a command is gone"),
        () = activity.idle(IDLE_MAX) => return tracing::debug!("a command's connection was idle for too long"),
        () = stop.cancelled() => return,
    }
    talking.await;
}

async fn run(mut connection: Connection, protocol: &str, prepared: Prepared) {
    let Prepared { session, options, command } = prepared;
    let resizes = matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let ends = if protocol == "v4.channel.k8s.io" { Ends::Status } else { Ends::Words };
    let opening = open(&mut connection, &options, resizes);
    let Ok(Some(opened)) = timeout(STREAMS_WITHIN, opening).await else {
        tracing::debug!("timed out waiting for client to create streams");
        return connection.close().await;
    };
    let (size, sizes) = watch::channel(None);
    // What is not used is held, so that it ends with the rest.
    let (mut error, mut held) = (opened.error.map(|stream| stream.output), Vec::new());
    let mut input = |stream: Option<Stream>| {
        stream.map(|stream| {
            held.push(stream.output);
            stream.input
        })
    };
    let (stdin, resize) = (input(opened.stdin), input(opened.resize));
    let outputs: Vec<u32> = opened.stdout.iter().chain(&opened.stderr).map(|stream| stream.id).collect();
    let streams = Streams {
        stdin: stdin.map(|input| Box::new(input) as _),
        stdout: opened.stdout.map(|stream| Box::new(stream.output) as _),
        stderr: opened.stderr.map(|stream| Box::new(stream.output) as _),
        size: sizes,
    };
    let end = {
        let running = session(streams);
        tokio::pin!(running);
        let sizing = follow_size(resize, size);
        tokio::pin!(sizing);
        tokio::select! {
            end = &mut running => end,
            () = &mut sizing => running.await,
        }
    };
    for id in outputs {
        connection.finish(id).await;
    }
    if let (Some(error), Some(said)) = (&mut error, session::said(&end, command.as_deref(), ends)) {
        // An error means that the client is gone.
        let _said = error.write_all(&said).await;
    }
    if let Some(error) = &mut error {
        let _ended = error.shutdown().await;
    }
    connection.close().await;
}

/// Takes the streams that the client was to open; `None` when it went instead.
async fn open(connection: &mut Connection, options: &AttachOptions, resizes: bool) -> Option<Opened> {
    let mut missing = 1
        + usize::from(options.stdin)
        + usize::from(options.stdout)
        + usize::from(options.stderr)
        + usize::from(options.tty && resizes);
    let mut opened = Opened::default();
    while missing > 0 {
        let offered = connection.next().await?;
        let place = match offered.header("streamtype") {
            "error" => &mut opened.error,
            "stdin" => &mut opened.stdin,
            "stdout" => &mut opened.stdout,
            "stderr" => &mut opened.stderr,
            "resize" => &mut opened.resize,
            _ => {
                offered.refuse().await;
                continue;
            }
        };
        if place.is_some() {
            offered.refuse().await;
            continue;
        }
        *place = Some(offered.accept().await);
        missing -= 1;
    }
    Some(opened)
}

/// Reads sizes, one JSON object after the other, each behind a line break.
async fn follow_size(resize: Option<Inbox>, size: watch::Sender<Option<TerminalSize>>) {
    let Some(mut resize) = resize else { return };
    let mut line = Vec::new();
    let mut bytes = [0; 256];
    while let Ok(n @ 1..) = resize.read(&mut bytes).await {
        for byte in &bytes[..n] {
            line.push(*byte);
            if *byte == b'}' {
                if let Some(read) = session::size(&line) {
                    size.send_replace(Some(read));
                }
                line.clear();
            }
        }
        if line.len() > SIZE_BYTES_MAX {
            return;
        }
    }
}
