//! Frames of SPDY/3.1, as far as Kubernetes' clients speak it.
//!
//! Bounds: [`CONTROL_BYTES_MAX`] of a control frame; data is handed on in pieces, however large its frame is.
//!
//! # Source
//! SPDY Protocol, draft 3.1, section 2.2; `moby/spdystream` for what its peers rely on.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    Broken,
    headers::{Deflater, Headers, Inflater},
};
use crate::streaming::pipes::CHUNK_BYTES_MAX;

/// Bytes of one control frame.
const CONTROL_BYTES_MAX: usize = 16 * 1024;
const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    ProtocolError = 1,
    InvalidStream = 2,
    Refused = 3,
    FlowControl = 7,
}

/// What a peer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A new stream. `fin`: the peer sends no data on it.
    Stream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    /// Some data of a stream; `fin`: the last.
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// More headers, which nobody here uses.
    Headers {
        id: u32,
        fin: bool,
    },
    Reset {
        id: u32,
    },
    Ping(u32),
    GoAway,
    /// Something that needs no answer.
    Nothing,
}

/// What is said to a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Say {
    Reply {
        id: u32,
    },
    Data {
        id: u32,
        bytes: Bytes,
    },
    Fin {
        id: u32,
    },
    Reset {
        id: u32,
        why: Reset,
    },
    Ping(u32),
    /// The last: the connection is closed behind it.
    GoAway {
        last: u32,
    },
}

/// Reads frames.
pub(crate) struct Reader<R> {
    io: R,
    inflater: Inflater,
    /// Of the frame whose data is being read: stream, whether it is the last, bytes left.
    data: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, inflater: Inflater::new(), data: None }
    }

    /// The next frame, or piece of one; `None` at the end. Not to be dropped on its way.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no SPDY/3.
    pub(crate) async fn next(&mut self) -> Result<Option<Said>, Broken> {
        if let Some((id, fin, left)) = self.data.take() {
            return self.piece(id, fin, left).await.map(Some);
        }
        let mut head = [0; 8];
        if self.io.read_exact(&mut head[..1]).await.is_err() {
            return Ok(None);
        }
        self.io.read_exact(&mut head[1..]).await.map_err(|_| Broken("the connection ended within a frame"))?;
        let [a, b, c, d, flags, x, y, z] = head;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if a & 0x80 == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            return self.piece(id, flags & FIN != 0, length).await.map(Some);
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(Broken("not SPDY/3"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(Broken("a control frame is too large"));
        }
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.map_err(|_| Broken("the connection ended within a frame"))?;
        self.control(u16::from_be_bytes([c, d]), flags, &payload).map(Some)
    }

    async fn piece(&mut self, id: u32, fin: bool, left: usize) -> Result<Said, Broken> {
        let n = left.min(CHUNK_BYTES_MAX);
        let mut bytes = BytesMut::zeroed(n);
        self.io.read_exact(&mut bytes).await.map_err(|_| Broken("the connection ended within a frame"))?;
        let rest = left - n;
        if rest > 0 {
            self.data = Some((id, fin, rest));
        }
        Ok(Said::Data { id, fin: fin && rest == 0, bytes: bytes.freeze() })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Said, Broken> {
        let fin = flags & FIN != 0;
        let number = |at: usize| {
            let four = payload.get(at..at + 4).and_then(|four| four.first_chunk::<4>());
            four.map(|four| u32::from_be_bytes(*four)).ok_or(Broken("a control frame is too short"))
        };
        let id = || number(0).map(|id| id & 0x7fff_ffff);
        match kind {
            SYN_STREAM => {
                let block = payload.get(10..).ok_or(Broken("a control frame is too short"))?;
                Ok(Said::Stream { id: id()?, fin, headers: self.inflater.block(block)? })
            }
            SYN_REPLY | HEADERS => {
                let block = payload.get(4..).ok_or(Broken("a control frame is too short"))?;
                // All blocks are one zlib stream: none may be left out.
                self.inflater.block(block)?;
                Ok(Said::Headers { id: id()?, fin })
            }
            RST_STREAM => Ok(Said::Reset { id: id()? }),
            PING => Ok(Said::Ping(number(0)?)),
            GOAWAY => Ok(Said::GoAway),
            SETTINGS | WINDOW_UPDATE => Ok(Said::Nothing),
            _ => Err(Broken("a frame of unknown type")),
        }
    }
}

/// Writes frames.
pub(crate) struct Writer<W> {
    io: W,
    deflater: Deflater,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(io: W) -> Self {
        Self { io, deflater: Deflater::new() }
    }

    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn write(&mut self, what: Say) -> std::io::Result<()> {
        match what {
            Say::Data { id, bytes } => {
                self.head(id.to_be_bytes(), 0, bytes.len()).await?;
                self.io.write_all(&bytes).await
            }
            Say::Fin { id } => self.head(id.to_be_bytes(), FIN, 0).await,
            Say::Reply { id } => {
                let mut payload = id.to_be_bytes().to_vec();
                payload.extend(self.deflater.block(&[]));
                self.control(SYN_REPLY, &payload).await
            }
            Say::Reset { id, why } => self.two(RST_STREAM, id, why as u32).await,
            Say::Ping(id) => self.control(PING, &id.to_be_bytes()).await,
            Say::GoAway { last } => self.two(GOAWAY, last, 0).await,
        }
    }

    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        self.io.flush().await
    }

    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn shutdown(&mut self) -> std::io::Result<()> {
        self.io.shutdown().await
    }

    async fn two(&mut self, kind: u16, a: u32, b: u32) -> std::io::Result<()> {
        let mut payload = a.to_be_bytes().to_vec();
        payload.extend(b.to_be_bytes());
        self.control(kind, &payload).await
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) -> std::io::Result<()> {
        let [a, b] = (VERSION | 0x8000).to_be_bytes();
        let [c, d] = kind.to_be_bytes();
        self.head([a, b, c, d], 0, payload.len()).await?;
        self.io.write_all(payload).await
    }

    async fn head(&mut self, first: [u8; 4], flags: u8, length: usize) -> std::io::Result<()> {
        let [_, x, y, z] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let mut head = [0; 8];
        head[..4].copy_from_slice(&first);
        head[4..].copy_from_slice(&[flags, x, y, z]);
        self.io.write_all(&head).await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Result<Said, Broken>> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        loop {
            match reader.next().await {
                Ok(None) => return all,
                Ok(Some(said)) => all.push(Ok(said)),
                Err(error) => {
                    all.push(Err(error));
                    return all;
                }
            }
        }
    }

    /// A new stream as a client says it.
    pub(crate) fn syn_stream(deflater: &mut Deflater, id: u32, fin: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let block = deflater.block(&headers);
        let mut frame = vec![0x80, 3, 0, 1, u8::from(fin)];
        frame.extend(&u32::try_from(block.len() + 10).unwrap().to_be_bytes()[1..]);
        frame.extend(id.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(block);
        frame
    }

    /// What `kubectl port-forward` (v1.32) sent for its first connection, as recorded.
    const RECORDED: &str = include_str!("recorded.txt");

    pub(crate) fn recorded() -> Vec<u8> {
        let hex: String = RECORDED.lines().filter(|l| !l.starts_with('#')).flat_map(str::chars).collect();
        let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
        hex.as_bytes().chunks(2).map(|two| digit(two[0]) * 16 + digit(two[1])).collect()
    }

    #[tokio::test]
    async fn frames_of_kubectl() {
        let said: Vec<_> = read(&recorded()).await.into_iter().map(Result::unwrap).collect();
        let headers = |kind: &str| -> Headers {
            let mut headers: Headers = vec![
                ("streamtype".into(), kind.into()),
                ("port".into(), "8080".into()),
                ("requestid".into(), "0".into()),
            ];
            headers.sort();
            headers
        };
        let sorted = said.into_iter().map(|said| match said {
            Said::Stream { id, fin, mut headers } => {
                headers.sort();
                Said::Stream { id, fin, headers }
            }
            other => other,
        });
        let found: Vec<_> = sorted.collect();
        assert_eq!(found[0], Said::Stream { id: 1, fin: false, headers: headers("error") });
        assert_eq!(found[1], Said::Data { id: 1, fin: true, bytes: Bytes::new() });
        assert_eq!(found[2], Said::Stream { id: 3, fin: false, headers: headers("data") });
        let Said::Data { id: 3, fin: false, bytes } = &found[3] else { panic!("{found:?}") };
        assert!(bytes.starts_with(b"GET / HTTP/1.1\r\n"), "{bytes:?}");
    }

    #[tokio::test]
    async fn frames_and_what_is_none() {
        let large = vec![5; CHUNK_BYTES_MAX + 1];
        let mut data = vec![0, 0, 0, 9, 1];
        data.extend(&u32::try_from(large.len()).unwrap().to_be_bytes()[1..]);
        data.extend(&large);
        for (bytes, wanted) in [
            (vec![], vec![]),
            (vec![0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7], vec![Ok(Said::Ping(7))]),
            (vec![0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 0], vec![Ok(Said::GoAway)]),
            (vec![0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 5], vec![Ok(Said::Reset { id: 7 })]),
            (vec![0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0], vec![Ok(Said::Nothing)]),
            (vec![0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0], vec![Ok(Said::Nothing)]),
            (vec![0, 0, 0, 3, 0, 0, 0, 1, b'x'], vec![Ok(Said::Data { id: 3, fin: false, bytes: "x".into() })]),
            (
                data,
                vec![
                    Ok(Said::Data { id: 9, fin: false, bytes: large[..CHUNK_BYTES_MAX].to_vec().into() }),
                    Ok(Said::Data { id: 9, fin: true, bytes: vec![5].into() }),
                ],
            ),
            (vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7], vec![Err(Broken("not SPDY/3"))]),
            (vec![0x80, 3, 0, 5, 0, 0, 0, 0], vec![Err(Broken("a frame of unknown type"))]),
            (vec![0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0], vec![Err(Broken("a control frame is too short"))]),
            (vec![0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0], vec![Err(Broken("a control frame is too short"))]),
            (vec![0x80, 3, 0, 1, 0, 255, 0, 0], vec![Err(Broken("a control frame is too large"))]),
            (vec![0x80, 3, 0], vec![Err(Broken("the connection ended within a frame"))]),
        ] {
            assert_eq!(read(&bytes).await, wanted, "{:?}", &bytes[..bytes.len().min(16)]);
        }
    }

    #[tokio::test]
    async fn what_is_written() {
        let mut writer = Writer::new(Vec::new());
        for say in [
            Say::Data { id: 3, bytes: "ab".into() },
            Say::Fin { id: 3 },
            Say::Reset { id: 5, why: Reset::Refused },
            Say::Ping(9),
            Say::GoAway { last: 3 },
        ] {
            writer.write(say).await.unwrap();
        }
        let wanted = [
            &[0, 0, 0, 3, 0, 0, 0, 2, b'a', b'b'][..],
            &[0, 0, 0, 3, 1, 0, 0, 0],
            &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 3],
            &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9],
            &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0],
        ];
        assert_eq!(writer.io, wanted.concat());
        let mut writer = Writer::new(Vec::new());
        writer.write(Say::Reply { id: 1 }).await.unwrap();
        assert_eq!(read(&writer.io).await, [Ok(Said::Headers { id: 1, fin: false })]);
    }
}
