//! What stands in the tree:
//!
//! | key | value |
//! | --- | --- |
//! | `f` | format of all this, `u32` |
//! | `c` | revision of the last compaction, `u64` |
//! | `k` key | newest revision of the key, revision that created it; none for a deleted key |
//! | `r` revision | flags, created, revision of the version before (0: none), length of the key, key, value |
//!
//! Numbers are big-endian, so that revisions are in order.

use ::sled::{Batch, Result, Tree};
use bytes::Bytes;

use crate::{Key, Record, Revision};

/// Format of the tree. A change that older code cannot read raises it.
pub(crate) const FORMAT: u32 = 1;

const DELETED: u8 = 1;
const HEADER: usize = 1 + 8 + 8 + 2;

/// A version of a key as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: Key,
    pub(crate) created: u64,
    pub(crate) previous: u64,
    /// `None`: the key was deleted.
    pub(crate) value: Option<Bytes>,
}

impl Stored {
    pub(crate) fn record(self, revision: u64) -> Option<Record> {
        let (created, modified) = (Revision(self.created), Revision(revision));
        Some(Record { key: self.key, value: self.value?, created, modified, attachment: None })
    }

    fn encode(&self) -> Vec<u8> {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(HEADER + self.key.len() + value.len());
        out.push(if self.value.is_none() { DELETED } else { 0 });
        out.extend(self.created.to_be_bytes());
        out.extend(self.previous.to_be_bytes());
        // Keys are bounded far below 64 KiB.
        out.extend((self.key.len() as u16).to_be_bytes());
        out.extend(self.key.as_bytes());
        out.extend(value);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let key_bytes = u16::from_be_bytes(header[17..19].try_into().ok()?);
        let (key, value) = rest.split_at_checked(usize::from(key_bytes))?;
        Some(Self {
            key: Key::from(std::str::from_utf8(key).ok()?),
            created: number(&header[1..9])?,
            previous: number(&header[9..17])?,
            value: (header[0] & DELETED == 0).then(|| Bytes::copy_from_slice(value)),
        })
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn corrupt<T>(what: &str) -> Result<T> {
    Err(::sled::Error::ReportableBug(format!("{what} cannot be read")))
}

fn record_key(revision: u64) -> [u8; 9] {
    let mut key = [b'r'; 9];
    key[1..].copy_from_slice(&revision.to_be_bytes());
    key
}

fn index_key(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes()].concat()
}

pub(crate) fn format(tree: &Tree) -> Result<Option<u32>> {
    match tree.get(b"f")? {
        None => Ok(None),
        Some(bytes) => match bytes.as_ref().try_into() {
            Ok(bytes) => Ok(Some(u32::from_be_bytes(bytes))),
            Err(_) => corrupt("the format"),
        },
    }
}

pub(crate) fn set_format(tree: &Tree) -> Result<()> {
    tree.insert(b"f", &FORMAT.to_be_bytes()).map(drop)
}

pub(crate) fn compacted(tree: &Tree) -> Result<u64> {
    match tree.get(b"c")? {
        None => Ok(0),
        Some(bytes) => number(&bytes).map_or_else(|| corrupt("the compaction's revision"), Ok),
    }
}

pub(crate) fn set_compacted(batch: &mut Batch, revision: u64) {
    batch.insert(b"c", &revision.to_be_bytes());
}

/// The newest revision in the history.
pub(crate) fn newest(tree: &Tree) -> Result<u64> {
    match tree.scan_prefix(b"r").next_back() {
        None => Ok(0),
        Some(entry) => number(&entry?.0[1..]).map_or_else(|| corrupt("the newest revision"), Ok),
    }
}

/// Newest and creating revision of a key.
pub(crate) fn index(tree: &Tree, key: &str) -> Result<Option<(u64, u64)>> {
    match tree.get(index_key(key))? {
        None => Ok(None),
        Some(bytes) => match bytes.split_at_checked(8).and_then(|(m, c)| Some((number(m)?, number(c)?))) {
            Some(found) => Ok(Some(found)),
            None => corrupt(key),
        },
    }
}

/// Keys under a prefix with their newest revisions, in key order.
pub(crate) fn index_range(tree: &Tree, prefix: &str) -> impl Iterator<Item = Result<(Key, u64)>> + use<> {
    tree.scan_prefix(index_key(prefix)).map(|entry| {
        let (key, value) = entry?;
        let key_text = std::str::from_utf8(&key[1..]).ok();
        match (key_text, value.get(..8).and_then(number)) {
            (Some(key), Some(modified)) => Ok((Key::from(key), modified)),
            _ => corrupt("an index entry"),
        }
    })
}

pub(crate) fn stored(tree: &Tree, revision: u64) -> Result<Option<Stored>> {
    match tree.get(record_key(revision))? {
        None => Ok(None),
        Some(bytes) => match Stored::decode(&bytes) {
            Some(stored) => Ok(Some(stored)),
            None => corrupt(&format!("revision {revision}")),
        },
    }
}

/// The versions written in a range of revisions, in order.
pub(crate) fn history(tree: &Tree, from: u64, upto: u64) -> impl Iterator<Item = Result<(u64, Stored)>> + use<> {
    let range = record_key(from)..=record_key(upto.max(from.saturating_sub(1)));
    let empty = from > upto;
    let entries = (!empty).then(|| tree.range(range)).into_iter().flatten();
    entries.map(|entry| {
        let (key, value) = entry?;
        match (number(&key[1..]), Stored::decode(&value)) {
            (Some(revision), Some(stored)) => Ok((revision, stored)),
            _ => corrupt("a revision"),
        }
    })
}

/// Adds a version to a batch: the record and the index.
pub(crate) fn put(batch: &mut Batch, revision: u64, stored: &Stored) {
    batch.insert(&record_key(revision), stored.encode());
    match stored.value {
        Some(_) => {
            let entry = [revision.to_be_bytes(), stored.created.to_be_bytes()].concat();
            batch.insert(index_key(&stored.key), entry);
        }
        None => batch.remove(index_key(&stored.key)),
    }
}

pub(crate) fn forget(batch: &mut Batch, revision: u64) {
    batch.remove(&record_key(revision));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"abc"))] {
            let stored = Stored { key: Key::from("/a/b"), created: 7, previous: 9, value };
            let read = Stored::decode(&stored.encode()).unwrap();
            assert_eq!((read.key, read.created, read.previous, read.value), ("/a/b".into(), 7, 9, stored.value));
        }
        assert!(Stored::decode(b"short").is_none());
    }
}
