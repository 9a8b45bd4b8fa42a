//! The bodies of answers: ready bytes, lists put together from ready bytes, and streams.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use http_body::{Frame, SizeHint};

/// How much of a list is copied into one frame.
const FRAME_BYTES: usize = 128 * 1024;

/// The body of an answer.
pub(crate) enum Body {
    /// All of it is there.
    Full(Bytes),
    /// Pieces that are written one after the other.
    Pieces(Pieces),
    /// What comes when it comes.
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

/// Pieces of known total length.
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    bytes: usize,
}

impl Body {
    /// A JSON list: head, items separated by commas, tail. Nothing is encoded here.
    pub(crate) fn list(head: Bytes, items: impl ExactSizeIterator<Item = Bytes>, tail: Bytes) -> Self {
        let mut left = VecDeque::with_capacity(2 * items.len() + 2);
        left.push_back(head);
        for (i, item) in items.enumerate() {
            if i > 0 {
                left.push_back(Bytes::from_static(b","));
            }
            left.push_back(item);
        }
        left.push_back(tail);
        let bytes = left.iter().map(Bytes::len).sum();
        Self::Pieces(Pieces { left, bytes })
    }
}

impl Body {
    /// The same, which holds something for as long as a stream lives.
    pub(crate) fn holding<T: Send + 'static>(self, held: T) -> Self {
        match self {
            Self::Stream(stream) => {
                let stream = stream.map(move |item| {
                    let _held = &held;
                    item
                });
                Self::Stream(stream.boxed())
            }
            other => other,
        }
    }

    /// All bytes, unless it is a stream or larger than `max`.
    pub(crate) fn whole(&self, max: usize) -> Option<Bytes> {
        match self {
            Self::Full(bytes) if bytes.len() <= max => Some(bytes.clone()),
            Self::Pieces(pieces) if pieces.bytes <= max => {
                let mut all = BytesMut::with_capacity(pieces.bytes);
                pieces.left.iter().for_each(|piece| all.put_slice(piece));
                Some(all.freeze())
            }
            _ => None,
        }
    }
}

impl Pieces {
    /// The next frame: small pieces are copied together, large ones go as they are.
    fn next(&mut self) -> Option<Bytes> {
        let first = self.left.pop_front()?;
        if first.len() >= FRAME_BYTES || self.left.is_empty() {
            self.bytes -= first.len();
            return Some(first);
        }
        let mut frame = BytesMut::with_capacity(FRAME_BYTES.min(self.bytes));
        frame.put(first);
        while let Some(piece) = self.left.front() {
            if frame.len() + piece.len() > FRAME_BYTES {
                break;
            }
            frame.put_slice(piece);
            self.left.pop_front();
        }
        self.bytes -= frame.len();
        Some(frame.freeze())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|item| item.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.left.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.bytes as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_put_together_without_loss() {
        for sizes in [vec![], vec![3], vec![10, FRAME_BYTES * 2, 5], vec![1000; 1000]] {
            let items: Vec<Bytes> = sizes.iter().map(|n| Bytes::from(vec![b'x'; *n])).collect();
            let joined = items.iter().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect::<Vec<_>>().join(",");
            let wanted = format!("[{joined}]");
            let body = Body::list(Bytes::from_static(b"["), items.into_iter(), Bytes::from_static(b"]"));
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(wanted.len() as u64));
            let Body::Pieces(mut pieces) = body else { panic!("a list is made of pieces") };
            let mut got = Vec::new();
            while let Some(frame) = pieces.next() {
                got.extend_from_slice(&frame);
            }
            assert_eq!(pieces.bytes, 0);
            assert!(got == wanted.as_bytes(), "{sizes:?}");
        }
    }
}
