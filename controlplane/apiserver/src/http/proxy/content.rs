//! The body of an answer on its way back: as it is, or HTML with other links in it, compressed or not.
//!
//! Nothing is gathered: what comes goes on, in pieces that are bounded also when they are decompressed.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder},
};
use futures::StreamExt as _;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;

use super::{html::Rewriter, rewrite::Links};
use crate::{http::body::Body, outbound::ServiceBody};

/// Bytes that are taken at once: compressed ones may become a thousand times as many.
const PIECE_BYTES: usize = 4 * 1024;

/// The body as it is.
pub(super) fn plain(body: ServiceBody) -> Body {
    let stream = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    Body::Stream(stream.boxed())
}

/// How HTML comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    /// `None` when the answer is no HTML, or compressed in a way that is not known here: then it goes as it is.
    pub(super) fn of_html(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default();
        if !kind.trim().eq_ignore_ascii_case("text/html") {
            return None;
        }
        match text(header::CONTENT_ENCODING) {
            "" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// HTML whose links lead through the proxy.
pub(super) fn rewritten(body: ServiceBody, encoding: Encoding, links: Links) -> Body {
    let page = Page { coder: Coder::new(encoding), rewriter: Rewriter::new(move |link: &str| links.through(link)) };
    let pieces = body.into_data_stream().flat_map(|chunk| {
        let chunk = chunk.map_err(io::Error::other);
        futures::stream::iter(split(chunk))
    });
    let all = pieces.map(Some).chain(futures::stream::iter([None]));
    let stream = all.scan(Some(page), |state, piece| {
        let next = state.as_mut().map(|page| match piece {
            Some(piece) => piece.and_then(|piece| page.push(&piece)),
            None => page.finish(),
        });
        if next.as_ref().is_none_or(Result::is_err) {
            *state = None;
        }
        futures::future::ready(next)
    });
    let stream = stream.filter(|piece| futures::future::ready(piece.as_ref().map_or(true, |bytes| !bytes.is_empty())));
    Body::Stream(stream.boxed())
}

fn split(chunk: io::Result<Bytes>) -> Vec<io::Result<Bytes>> {
    match chunk {
        Err(error) => vec![Err(error)],
        Ok(mut rest) => {
            let mut pieces = Vec::new();
            while rest.len() > PIECE_BYTES {
                pieces.push(Ok(rest.split_to(PIECE_BYTES)));
            }
            pieces.push(Ok(rest));
            pieces
        }
    }
}

struct Page<F> {
    coder: Coder,
    rewriter: Rewriter<F>,
}

impl<F: Fn(&str) -> Option<String>> Page<F> {
    fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let html = self.coder.decode(piece)?;
        let html = self.rewriter.push(&html);
        self.coder.encode(&html)
    }

    fn finish(&mut self) -> io::Result<Bytes> {
        let html = self.coder.decode_end()?;
        let mut html = self.rewriter.push(&html);
        html.extend(self.rewriter.finish());
        self.coder.encode_end(&html)
    }
}

enum Coder {
    Identity,
    Gzip(GzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>, DeflateEncoder<Vec<u8>>),
}

impl Coder {
    fn new(encoding: Encoding) -> Self {
        let fast = Compression::fast();
        match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Gzip => Self::Gzip(GzDecoder::new(Vec::new()), GzEncoder::new(Vec::new(), fast)),
            Encoding::Deflate => Self::Deflate(DeflateDecoder::new(Vec::new()), DeflateEncoder::new(Vec::new(), fast)),
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let ready = match self {
            Self::Identity => return Ok(bytes.to_vec()),
            Self::Gzip(decoder, _) => {
                decoder.write_all(bytes)?;
                decoder.get_mut()
            }
            Self::Deflate(decoder, _) => {
                decoder.write_all(bytes)?;
                decoder.get_mut()
            }
        };
        Ok(std::mem::take(ready))
    }

    fn decode_end(&mut self) -> io::Result<Vec<u8>> {
        let ready = match self {
            Self::Identity => return Ok(Vec::new()),
            Self::Gzip(decoder, _) => {
                decoder.try_finish()?;
                decoder.get_mut()
            }
            Self::Deflate(decoder, _) => {
                decoder.try_finish()?;
                decoder.get_mut()
            }
        };
        Ok(std::mem::take(ready))
    }

    fn encode(&mut self, html: &[u8]) -> io::Result<Bytes> {
        let ready = match self {
            Self::Identity => return Ok(Bytes::copy_from_slice(html)),
            // Nobody waits in a compressor for what comes next.
            Self::Gzip(_, encoder) if !html.is_empty() => {
                encoder.write_all(html)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Deflate(_, encoder) if !html.is_empty() => {
                encoder.write_all(html)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            _ => return Ok(Bytes::new()),
        };
        Ok(std::mem::take(ready).into())
    }

    fn encode_end(&mut self, html: &[u8]) -> io::Result<Bytes> {
        let ready = match self {
            Self::Identity => return Ok(Bytes::copy_from_slice(html)),
            Self::Gzip(_, encoder) => {
                encoder.write_all(html)?;
                encoder.try_finish()?;
                encoder.get_mut()
            }
            Self::Deflate(_, encoder) => {
                encoder.write_all(html)?;
                encoder.try_finish()?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(ready).into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read;
    use http::HeaderValue;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    async fn through(bytes: Vec<u8>, encoding: Encoding) -> io::Result<Vec<u8>> {
        let links = Links { prefix: "/P".to_owned(), host: String::new(), asked: String::new() };
        let body = Full::from(bytes).map_err(|never| match never {}).boxed_unsync();
        rewritten(body, encoding, links).collect().await.map(|all| all.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn pages_are_rewritten_however_they_come() {
        let html = "<a href=\"/x\">".repeat(20_000);
        let wanted = html.replace("/x", "/P/x");
        assert_eq!(through(html.clone().into(), Encoding::Identity).await.unwrap(), wanted.as_bytes());
        let mut bytes = Vec::new();
        read::GzEncoder::new(html.as_bytes(), Compression::fast()).read_to_end(&mut bytes).unwrap();
        let mut text = String::new();
        let found = through(bytes.clone(), Encoding::Gzip).await.unwrap();
        read::GzDecoder::new(&found[..]).read_to_string(&mut text).unwrap();
        assert!(text == wanted);
        bytes.truncate(bytes.len() / 2);
        assert!(through(bytes, Encoding::Gzip).await.is_err(), "the end is missing");
        let mut bytes = Vec::new();
        read::DeflateEncoder::new(html.as_bytes(), Compression::fast()).read_to_end(&mut bytes).unwrap();
        let mut text = String::new();
        let found = through(bytes, Encoding::Deflate).await.unwrap();
        read::DeflateDecoder::new(&found[..]).read_to_string(&mut text).unwrap();
        assert!(text == wanted);
    }

    #[test]
    fn only_html_is_rewritten() {
        for (kind, encoding, wanted) in [
            ("text/html", "", Some(Encoding::Identity)),
            ("Text/HTML; charset=utf-8", "gzip", Some(Encoding::Gzip)),
            ("text/html", "deflate", Some(Encoding::Deflate)),
            ("text/html", "br", None),
            ("text/plain", "", None),
            ("", "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if !encoding.is_empty() {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            assert_eq!(Encoding::of_html(&headers), wanted, "{kind} {encoding}");
        }
    }
}
