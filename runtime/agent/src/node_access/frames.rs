//! Frames of a session: channel (one byte), length (four, big endian), bytes. Channels are those of Kubernetes' WebSockets:
//! 0 input, 1 output, 2 errors, 3 the end, 4 the terminal's size; 255 says that a channel (its byte) has ended.
//!
//! Invariants: a frame is bounded; whoever drops its end of the stream ends the session at the other; one side that does not
//! read holds up its own session and nothing else.

use std::io;

use podium_network::PodStream;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    sync::{Mutex, watch},
};

use crate::streams::{Input, Output, Session, Streams, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const END: u8 = 3;
const SIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of one frame.
const FRAME_BYTES_MAX: usize = 32 << 10;
/// Bytes of input that wait for a guest.
const INPUT_BYTES: usize = 64 << 10;

/// How a session ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum End {
    Code(i32),
    Error(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Size {
    width: u16,
    height: u16,
}

async fn write(out: &mut (impl AsyncWrite + Unpin), channel: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(channel);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    out.write_all(&frame).await?;
    out.flush().await
}

/// The next frame; `None` at the end of the stream.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let channel = match from.read_u8().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        channel => channel?,
    };
    let length = from.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame has {length} bytes, more than {FRAME_BYTES_MAX}")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some((channel, bytes)))
}

/// The client's side: carries its streams until the session has ended.
pub(super) async fn ask(stream: PodStream, streams: Streams) -> Result<i32, String> {
    let Streams { stdin, stdout, stderr, size } = streams;
    let (mut incoming, outgoing) = tokio::io::split(stream);
    let lost = |error: io::Error| format!("the connection to the node is gone: {error}");
    let mut taken = std::pin::pin!(take(&mut incoming, stdout, stderr));
    tokio::select! {
        end = &mut taken => end.map_err(lost)?,
        // It says why nothing can be sent any more, or goes on for ever. What the node said before it went counts.
        Err(error) = send(outgoing, stdin, size) => taken.await.unwrap_or_else(|_| Err(lost(error))),
    }
}

/// Hands on what comes of the session.
async fn take(
    incoming: &mut ReadHalf<PodStream>,
    mut stdout: Option<Output>,
    mut stderr: Option<Output>,
) -> io::Result<Result<i32, String>> {
    while let Some((channel, bytes)) = read(incoming).await? {
        let output = match channel {
            STDOUT => &mut stdout,
            STDERR => &mut stderr,
            END => return Ok(end_of(&bytes)),
            _ => continue,
        };
        if let Some(output) = output {
            output.write_all(&bytes).await?;
            output.flush().await?;
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn end_of(bytes: &[u8]) -> Result<i32, String> {
    match serde_json::from_slice(bytes) {
        Ok(End::Code(code)) => Ok(code),
        Ok(End::Error(why)) => Err(why),
        Err(error) => Err(format!("the node said an end that cannot be read: {error}")),
    }
}

/// Sends input and sizes, until the stream is gone.
async fn send(
    mut out: WriteHalf<PodStream>,
    mut stdin: Option<Input>,
    mut size: watch::Receiver<Option<TerminalSize>>,
) -> io::Result<()> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut sizes = true;
    size.mark_changed();
    loop {
        tokio::select! {
            changed = size.changed(), if sizes => {
                let now = *size.borrow_and_update();
                sizes = changed.is_ok();
                if let Some(TerminalSize { width, height }) = now.filter(|_| sizes) {
                    write(&mut out, SIZE, &serde_json::to_vec(&Size { width, height })?).await?;
                }
            }
            read = next(&mut stdin, &mut buffer) => match read {
                Ok(length @ 1..) => write(&mut out, STDIN, &buffer[..length]).await?,
                // The client's end, or that of its connection, which others notice too.
                _ => {
                    stdin = None;
                    write(&mut out, CLOSE, &[STDIN]).await?;
                }
            },
        }
    }
}

async fn next(stdin: &mut Option<Input>, buffer: &mut [u8]) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read(buffer).await,
        None => std::future::pending().await,
    }
}

/// Which streams a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// The node's side: runs a session for whoever is at the other end.
pub(super) async fn serve(stream: PodStream, wanted: Wanted, session: Session) {
    let (incoming, outgoing) = tokio::io::split(stream);
    let outgoing = std::sync::Arc::new(Mutex::new(outgoing));
    let (to_guest, stdin) = tokio::io::duplex(INPUT_BYTES);
    let (said, size) = watch::channel(None);
    let (stdout, from_stdout) = tokio::io::duplex(FRAME_BYTES_MAX);
    let (stderr, from_stderr) = tokio::io::duplex(FRAME_BYTES_MAX);
    let streams = Streams {
        stdin: wanted.stdin.then(|| Box::new(stdin) as Input),
        stdout: wanted.stdout.then(|| Box::new(stdout) as Output),
        stderr: wanted.stderr.then(|| Box::new(stderr) as Output),
        size,
    };
    let work = async {
        // What it has written is sent before its end is said.
        let (end, out, err) = tokio::join!(
            session(streams),
            forward(from_stdout, STDOUT, &outgoing),
            forward(from_stderr, STDERR, &outgoing)
        );
        out.and(err)?;
        let end = end.map_or_else(End::Error, End::Code);
        let mut out = outgoing.lock().await;
        write(&mut *out, END, &serde_json::to_vec(&end)?).await?;
        out.shutdown().await
    };
    let ended = tokio::select! {
        ended = work => ended,
        ended = receive(incoming, to_guest, said) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a session ended with its connection");
    }
}

/// Sends what a session writes until it has closed its end.
async fn forward(mut from: impl AsyncRead + Unpin, channel: u8, out: &Mutex<WriteHalf<PodStream>>) -> io::Result<()> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        write(&mut *out.lock().await, channel, &buffer[..length]).await?;
    }
}

/// Takes input and sizes in; ends when the client has gone.
async fn receive(
    mut incoming: ReadHalf<PodStream>,
    to_guest: tokio::io::DuplexStream,
    said: watch::Sender<Option<TerminalSize>>,
) -> io::Result<()> {
    let mut to_guest = Some(to_guest);
    while let Some((channel, bytes)) = read(&mut incoming).await? {
        match channel {
            STDIN => {
                // A guest that has closed its input takes no more of it.
                if let Some(guest) = &mut to_guest
                    && guest.write_all(&bytes).await.is_err()
                {
                    to_guest = None;
                }
            }
            CLOSE if bytes == [STDIN] => to_guest = None,
            SIZE => {
                let Size { width, height } = serde_json::from_slice(&bytes)?;
                said.send_replace(Some(TerminalSize { width, height }));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true };

    fn session<F: Future<Output = Result<i32, String>> + Send + 'static>(
        run: impl FnOnce(Streams) -> F + Send + 'static,
    ) -> Session {
        Box::new(move |streams| run(streams).boxed())
    }

    /// A client's ends, and where its output arrives.
    fn client(input: &[u8]) -> (Streams, tokio::io::DuplexStream, watch::Sender<Option<TerminalSize>>) {
        let (stdout, arrives) = tokio::io::duplex(1 << 20);
        let (said, size) = watch::channel(Some(TerminalSize { width: 80, height: 24 }));
        let stdin: Input = Box::new(io::Cursor::new(input.to_vec()));
        (Streams { stdin: Some(stdin), stdout: Some(Box::new(stdout)), stderr: None, size }, arrives, said)
    }

    #[tokio::test]
    async fn a_session_reads_writes_knows_the_size_and_ends() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let served = serve(
            Box::new(far),
            ALL,
            session(|mut streams| async move {
                let size = *streams.size.wait_for(Option::is_some).await.map_err(|e| e.to_string())?;
                let mut all = Vec::new();
                streams.stdin.unwrap().read_to_end(&mut all).await.map_err(|e| e.to_string())?;
                let mut stdout = streams.stdout.unwrap();
                stdout.write_all(&all).await.map_err(|e| e.to_string())?;
                drop(stdout);
                drop(streams.stderr);
                Ok(i32::from(size.map_or(0, |size| size.width)))
            }),
        );
        let input = vec![7; 3 * FRAME_BYTES_MAX + 1];
        let (streams, mut arrives, _size) = client(&input);
        let (_, end) = tokio::join!(served, ask(Box::new(near), streams));
        assert_eq!(end, Ok(80));
        let mut output = Vec::new();
        arrives.read_to_end(&mut output).await.unwrap();
        assert_eq!(output, input);
    }

    #[tokio::test]
    async fn failures_are_said_and_a_client_that_goes_ends_the_session() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let served = serve(Box::new(far), ALL, session(|_| async { Err("no such program".to_owned()) }));
        let (streams, _arrives, _size) = client(b"");
        let (_, end) = tokio::join!(served, ask(Box::new(near), streams));
        assert_eq!(end, Err("no such program".to_owned()));

        let (near, far) = tokio::io::duplex(1 << 10);
        let for_ever = session(|streams| async move {
            let _held = streams;
            std::future::pending().await
        });
        let served = tokio::spawn(serve(Box::new(far), ALL, for_ever));
        drop(near);
        served.await.unwrap();
    }

    #[tokio::test]
    async fn frames_have_bounds() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&[STDIN, 0xff, 0, 0, 0]).await.unwrap();
        assert!(read(&mut far).await.unwrap_err().to_string().contains("more than"));
    }
}
