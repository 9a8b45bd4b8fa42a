//! Header blocks of SPDY/3: names and values behind one zlib stream for each direction, which begins with a dictionary.
//!
//! Bounds: [`BLOCK_BYTES_MAX`] of a block, whatever it is compressed to.
//!
//! # Source
//! SPDY Protocol, draft 3.1, section 2.6.10 (`dictionary.bin` is the dictionary given there).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::Broken;

/// Bytes of one block.
const BLOCK_BYTES_MAX: usize = 16 * 1024;
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// Names in small letters, with their values.
pub(crate) type Headers = Vec<(String, String)>;

/// Reads the blocks of one direction, in their order.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// # Errors
    /// When the block is broken or too large; nothing that follows can be read then.
    pub(crate) fn block(&mut self, compressed: &[u8]) -> Result<Headers, Broken> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, compressed: &[u8]) -> Result<Vec<u8>, Broken> {
        let start = self.0.total_in();
        let mut plain = Vec::with_capacity(1024);
        loop {
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = compressed.get(used..).unwrap_or_default();
            let before = plain.len();
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| Broken("another header dictionary"))?;
                    continue;
                }
                Err(_) => return Err(Broken("headers that are no zlib")),
            }
            let used_now = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            if plain.len() < plain.capacity() && (used_now >= compressed.len() || used_now == used) {
                let whole = used_now >= compressed.len() || plain.len() > before;
                return if whole { Ok(plain) } else { Err(Broken("headers behind the end of zlib")) };
            }
            if plain.len() >= BLOCK_BYTES_MAX {
                return Err(Broken("headers are too large"));
            }
            plain.reserve(plain.len().max(1024));
        }
    }
}

/// Writes the blocks of one direction, in their order.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).expect("invariant: nothing is compressed yet");
        Self(compress)
    }

    pub(crate) fn block(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut plain = Vec::new();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        plain.extend_from_slice(&number(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&number(text.len()));
            plain.extend_from_slice(text.as_bytes());
        }
        let start = self.0.total_in();
        let mut out = Vec::with_capacity(plain.len() + 256);
        loop {
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = plain.get(used..).unwrap_or_default();
            // Memory to write to is all that it can lack.
            let _status = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            if out.len() < out.capacity() {
                return out;
            }
            out.reserve(256);
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Broken> {
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        let value = text(&mut block)?;
        headers.push((name.to_ascii_lowercase(), value));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> Result<usize, Broken> {
    let (four, rest) = block.split_first_chunk::<4>().ok_or(Broken("headers end early"))?;
    *block = rest;
    Ok(usize::try_from(u32::from_be_bytes(*four)).unwrap_or(usize::MAX))
}

fn text(block: &mut &[u8]) -> Result<String, Broken> {
    let length = number(block)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Broken("headers end early"))?;
    *block = rest;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_as_written() {
        let (mut out, mut back) = (Deflater::new(), Inflater::new());
        for round in 0..50_usize {
            let headers: Headers = vec![
                ("streamtype".into(), "data".into()),
                ("port".into(), round.to_string()),
                ("x".into(), "y".repeat(round * 100)),
            ];
            assert_eq!(back.block(&out.block(&headers)), Ok(headers));
        }
        assert_eq!(back.block(&out.block(&[])), Ok(vec![]));
    }

    #[test]
    fn what_is_broken_or_large_is_refused() {
        let large = [("x".to_owned(), "y".repeat(BLOCK_BYTES_MAX * 20))];
        assert_eq!(Inflater::new().block(&Deflater::new().block(&large)), Err(Broken("headers are too large")));
        assert_eq!(Inflater::new().block(b"hello"), Err(Broken("headers that are no zlib")));
        for (plain, wanted) in [
            (&[0, 0, 0, 1][..], "headers end early"),
            (&[0, 0, 0, 1, 0, 0, 0, 9, b'a'], "headers end early"),
            (&[255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0], "headers end early"),
            (&[0], "headers end early"),
        ] {
            assert_eq!(parse(plain), Err(Broken(wanted)), "{plain:?}");
        }
    }
}
