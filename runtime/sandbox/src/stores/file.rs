//! A store in a folder: durable, safe against crashes, bounded in bytes.
//!
//! One file per key, replaced by renaming. A log or a database such as sled would list faster, but keeps pages, a log segment
//! and a thread per open store, and a node has a store for each claim; a folder costs nothing while nobody asks, and
//! one descriptor and a count once somebody has.
//!
//! Invariants: what `set` has answered is on disk, file and folder; no name and no link in the folder leads out of it,
//! whoever else may write there; one process at a time uses a folder.
//!
//! `k-KEY`: the key with all but lower-case letters, digits, `_`, `-` and `.` as `%xx`; where that is too long for a file name,
//! `h-HASH`, and the file begins with the key's length and the key.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use cap_std::{ambient_authority, fs::Dir};
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX, full};
use crate::{Store, StoreError, cache::hex};

/// Longest encoded key that is a file name.
const NAME_BYTES_MAX: usize = 200;
/// Each file takes a multiple of this.
const BLOCK_BYTES: u64 = 4096;
const LOCK: &str = "lock";
const NEW: &str = "new";

/// Keeps its content in a folder of the host.
#[derive(Debug)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    bytes_max: u64,
    /// Held while anything is written.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    dir: Arc<Dir>,
    /// Holds others off.
    _lock: std::fs::File,
    bytes: u64,
}

impl FileStore {
    /// Does nothing yet: the folder is made and opened when the store is first used.
    ///
    /// `bytes_max`: of disk space, in blocks of 4 KiB.
    pub fn new(dir: PathBuf, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(Inner { dir, bytes_max, opened: Mutex::default() }) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| StoreError::Other(error.to_string()))?
    }
}

impl Inner {
    fn failed(&self, error: io::Error) -> StoreError {
        tracing::warn!(dir = %self.dir.display(), %error, "a store cannot be used");
        StoreError::Other(format!("the store cannot be used: {}", error.kind()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Opened) -> io::Result<T>) -> Result<T, StoreError> {
        let mut opened = self.opened.lock();
        let opened = match &mut *opened {
            Some(opened) => opened,
            none => none.insert(self.open().map_err(|error| self.failed(error))?),
        };
        work(opened).map_err(|error| self.failed(error))
    }

    fn dir(&self) -> Result<Arc<Dir>, StoreError> {
        self.with(|opened| Ok(opened.dir.clone()))
    }

    fn open(&self) -> io::Result<Opened> {
        std::fs::create_dir_all(&self.dir)?;
        let dir = Dir::open_ambient_dir(&self.dir, ambient_authority())?;
        let lock = dir.create(LOCK)?.into_std();
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process uses this store"))?;
        match dir.remove_file(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut bytes = 0;
        for entry in dir.entries()? {
            let entry = entry?;
            if is_entry(&entry.file_name().to_string_lossy()) {
                bytes += blocks(entry.metadata()?.len());
            }
        }
        Ok(Opened { dir: Arc::new(dir), _lock: lock, bytes })
    }

    fn put(&self, opened: &mut Opened, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let failed = |error| self.failed(error);
        let (name, header) = name(key);
        let before = size(&opened.dir, &name).map_err(failed)?;
        let after = opened.bytes.saturating_sub(before) + blocks((header.len() + value.len()) as u64);
        if after > self.bytes_max {
            return Err(full(after, self.bytes_max));
        }
        write(&opened.dir, &name, &header, value).map_err(failed)?;
        opened.bytes = after;
        Ok(())
    }

    fn set(&self, key: &str, expected: Option<Option<&[u8]>>, value: &[u8]) -> Result<bool, StoreError> {
        self.dir()?;
        let mut opened = self.opened.lock();
        let Some(opened) = &mut *opened else { return Err(StoreError::Other("the store was closed".to_owned())) };
        if let Some(expected) = expected {
            let found = read(&opened.dir, key).map_err(|error| self.failed(error))?;
            if found.as_deref() != expected {
                return Ok(false);
            }
        }
        self.put(opened, key, value).map(|()| true)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.with(|opened| {
            let (name, _) = name(key);
            let bytes = size(&opened.dir, &name)?;
            match opened.dir.remove_file(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                done => done?,
            }
            opened.bytes = opened.bytes.saturating_sub(bytes);
            sync(&opened.dir)
        })
    }
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let key = key.to_owned();
        self.run(move |inner| read(&*inner.dir()?, &key).map_err(|error| inner.failed(error))).await
    }

    async fn set(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.run(move |inner| inner.set(&key, None, &value).map(drop)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.run(move |inner| inner.delete(&key)).await
    }

    async fn compare_and_set(&self, key: &str, expected: Option<&[u8]>, value: Bytes) -> Result<bool, StoreError> {
        let (key, expected) = (key.to_owned(), expected.map(<[u8]>::to_vec));
        self.run(move |inner| inner.set(&key, Some(expected.as_deref()), &value)).await
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let cursor = cursor.map(str::to_owned);
        self.run(move |inner| {
            let dir = inner.dir()?;
            keys(&dir, cursor.as_deref(), limit).map_err(|error| inner.failed(error))
        })
        .await
    }
}

/// The file of a key, and what it begins with.
fn name(key: &str) -> (String, Vec<u8>) {
    let mut name = "k-".to_owned();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.len() <= NAME_BYTES_MAX {
        return (name, Vec::new());
    }
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let header = [&length.to_be_bytes(), key.as_bytes()].concat();
    (format!("h-{}", hex(&Sha256::digest(key))), header)
}

/// The key of a file, if its name says it.
fn key(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.strip_prefix("k-")?.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn is_entry(name: &str) -> bool {
    name.starts_with("k-") || name.starts_with("h-")
}

fn blocks(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(BLOCK_BYTES)
}

fn size(dir: &Dir, name: &str) -> io::Result<u64> {
    match dir.symlink_metadata(name) {
        Ok(meta) => Ok(blocks(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The content of a file: never more than an entry can have, whatever lies there.
fn content(dir: &Dir, name: &str) -> io::Result<Option<Bytes>> {
    let file = match dir.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let limit = (4 + KEY_BYTES_MAX + VALUE_BYTES_MAX) as u64;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is larger than one can be"));
    }
    Ok(Some(bytes.into()))
}

/// Cuts the key off a file's content.
fn cut(mut bytes: Bytes) -> Option<(String, Bytes)> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    if length > bytes.len() {
        return None;
    }
    let key = bytes.split_to(length);
    Some((String::from_utf8(key.into()).ok()?, bytes))
}

fn read(dir: &Dir, key: &str) -> io::Result<Option<Bytes>> {
    let (name, header) = name(key);
    let Some(bytes) = content(dir, &name)? else { return Ok(None) };
    if header.is_empty() {
        return Ok(Some(bytes));
    }
    match cut(bytes) {
        Some((found, value)) if found == key => Ok(Some(value)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is damaged")),
    }
}

fn write(dir: &Dir, name: &str, header: &[u8], value: &[u8]) -> io::Result<()> {
    let mut file = dir.create(NEW)?;
    file.write_all(header)?;
    file.write_all(value)?;
    file.sync_all()?;
    dir.rename(NEW, dir, name)?;
    sync(dir)
}

fn sync(dir: &Dir) -> io::Result<()> {
    dir.open(".")?.sync_all()
}

/// Keys in order after `cursor`: keeps no more than it answers.
fn keys(dir: &Dir, cursor: Option<&str>, limit: usize) -> io::Result<Vec<String>> {
    let mut keys = BTreeSet::new();
    for entry in dir.entries()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let found = match name.starts_with("h-") {
            true => content(dir, &name)?.and_then(cut).map(|(key, _)| key),
            false => key(&name),
        };
        let Some(found) = found.filter(|found| cursor.is_none_or(|cursor| found.as_str() > cursor)) else { continue };
        keys.insert(found);
        if keys.len() > limit {
            keys.pop_last();
        }
    }
    Ok(keys.into_iter().collect())
}
