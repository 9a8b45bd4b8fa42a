//! Images of registries on this machine's disk: modules by digest, and for each name what it means.
//!
//! ```text
//! blobs/HEX        a module; its SHA-256 is its name
//! names/HEX.json   what a name means; HEX is the SHA-256 of the name, the file's time is when it was last used
//! partial/HEX      what has been fetched of something so far
//! ```
//!
//! Invariants: a name stands there only when all its modules do; files are written elsewhere and renamed; what is read is
//! checked against its digest, and removed when it is something else. Everything here blocks.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Record, digest, unpack};

/// How exactly it is known when an image was used last.
const USED_EVERY: Duration = Duration::from_secs(60);

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The whole name.
    pub(crate) name: String,
    /// As pods name it, for the node's status.
    pub(crate) shown: String,
    pub(crate) record: Arc<Record>,
    /// Which credentials opened it, by their ids; empty: it is for everybody.
    pub(crate) opened_by: Vec<String>,
}

/// One name, and when it was used.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) entry: Arc<Entry>,
    pub(crate) used: SystemTime,
    /// When it came or was found at the start.
    pub(crate) since: SystemTime,
}

/// The folder.
pub(crate) struct Store {
    dir: PathBuf,
    names: Mutex<HashMap<String, Kept>>,
    /// Modules that pulls under way and containers count on, and how many do.
    pins: Mutex<HashMap<String, usize>>,
    serial: AtomicU64,
}

/// Keeps modules from being removed while a pull or a container counts on them.
pub(crate) struct Pins {
    store: Arc<Store>,
    digests: Vec<String>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = self.store.pins.lock();
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

impl Pins {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, digests: Vec::new() }
    }

    /// Keeps one more.
    pub(crate) fn add(&mut self, digest: &str) {
        *self.store.pins.lock().entry(digest.to_owned()).or_default() += 1;
        self.digests.push(digest.to_owned());
    }
}

impl Store {
    /// Opens the folder and reads what it has. What is damaged or belongs to nothing goes.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for name in ["blobs", "names", "partial"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let store =
            Self { dir: dir.to_owned(), names: Mutex::default(), pins: Mutex::default(), serial: AtomicU64::default() };
        for file in fs::read_dir(dir.join("names"))? {
            let path = file?.path();
            match store.read(&path) {
                Ok(kept) if store.is_whole(&kept.entry.record) => {
                    store.names.lock().insert(kept.entry.name.clone(), kept);
                }
                other => {
                    let why = other.err().map_or_else(|| "a module is missing".to_owned(), |error| error.to_string());
                    tracing::warn!(path = %path.display(), why, "an image on disk cannot be used and is forgotten");
                    fs::remove_file(&path)?;
                }
            }
        }
        store.sweep();
        Ok(store)
    }

    /// Removes modules that no name leads to and nobody counts on, and what was fetched in part; the bytes that became free. No pull may be under way.
    pub(crate) fn sweep(&self) -> u64 {
        let files = |dir: &str| fs::read_dir(self.dir.join(dir)).into_iter().flatten().flatten();
        let unnamed = files("blobs").filter(|f| !self.is_kept(&format!("sha256:{}", f.file_name().to_string_lossy())));
        let left: Vec<_> = unnamed.chain(files("partial")).collect();
        let size = |file: &fs::DirEntry| file.metadata().map_or(0, |meta| meta.len());
        left.iter()
            .filter_map(|file| {
                let bytes = size(file);
                fs::remove_file(file.path()).ok().map(|()| bytes)
            })
            .sum()
    }

    fn read(&self, path: &Path) -> io::Result<Kept> {
        let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
        if path != self.name_path(&entry.name) {
            return Err(io::Error::other("it stands in another name's place"));
        }
        let used = fs::metadata(path)?.modified()?;
        Ok(Kept { entry: Arc::new(entry), used, since: used })
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.dir.join("names").join(format!("{}.json", hex_of(&digest(name.as_bytes()))))
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(hex_of(digest))
    }

    /// Where something is fetched to. The same for the same digest, so that a fetch can be gone on with.
    pub(crate) fn partial(&self, digest: &str) -> PathBuf {
        self.dir.join("partial").join(hex_of(digest))
    }

    /// What a name means. Counts as use.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let mut names = self.names.lock();
        let kept = names.get_mut(name)?;
        let now = SystemTime::now();
        if now.duration_since(kept.used).is_ok_and(|age| age > USED_EVERY) {
            kept.used = now;
            let touched = File::options().append(true).open(self.name_path(name)).and_then(|f| f.set_modified(now));
            if let Err(error) = touched {
                tracing::debug!(name, %error, "cannot note that an image was used");
            }
        }
        Some(kept.entry.clone())
    }

    /// Another name of the same image.
    pub(crate) fn find_digest(&self, digest: &str) -> Option<Arc<Record>> {
        let record = self.names.lock().values().find(|k| k.entry.record.digest == digest)?.entry.record.clone();
        self.is_whole(&record).then_some(record)
    }

    /// All names.
    pub(crate) fn all(&self) -> Vec<Kept> {
        self.names.lock().values().cloned().collect()
    }

    /// Gives a name a meaning.
    pub(crate) fn put(&self, entry: Entry) -> io::Result<Arc<Entry>> {
        self.write(&self.name_path(&entry.name), &serde_json::to_vec(&entry)?)?;
        let (entry, now) = (Arc::new(entry), SystemTime::now());
        let kept = Kept { entry: entry.clone(), used: now, since: now };
        let before = self.names.lock().insert(entry.name.clone(), kept);
        if let Some(before) = before {
            self.drop_modules(&before.entry.record);
        }
        Ok(entry)
    }

    /// Forgets a name and the modules that only it has; the bytes that became free.
    pub(crate) fn remove(&self, name: &str) -> io::Result<u64> {
        let Some(kept) = self.names.lock().remove(name) else { return Ok(0) };
        fs::remove_file(self.name_path(name))?;
        Ok(self.drop_modules(&kept.entry.record))
    }

    fn drop_modules(&self, record: &Record) -> u64 {
        let mut freed = 0;
        for digest in record.modules.values() {
            // Both locks are held while it is removed, so that nobody begins to count on it meanwhile.
            let (names, pins) = (self.names.lock(), self.pins.lock());
            let used = names.values().any(|k| k.entry.record.modules.values().any(|d| d == digest));
            if used || pins.contains_key(digest) {
                continue;
            }
            let path = self.blob_path(digest);
            let size = fs::metadata(&path).map_or(0, |meta| meta.len());
            if fs::remove_file(&path).is_ok() {
                freed += size;
            }
        }
        freed
    }

    fn is_kept(&self, digest: &str) -> bool {
        // One lock at a time: others take both, in the other order.
        let named = self.names.lock().values().any(|k| k.entry.record.modules.values().any(|d| d == digest));
        named || self.pins.lock().contains_key(digest)
    }

    /// Whether all modules are there; what is in them is checked when they are read.
    pub(crate) fn is_whole(&self, record: &Record) -> bool {
        record.modules.values().all(|digest| self.has(digest))
    }

    /// Whether a module is there.
    pub(crate) fn has(&self, digest: &str) -> bool {
        self.blob_path(digest).is_file()
    }

    /// A module. `None`: it is not there, or was damaged and is not there any more.
    pub(crate) fn module(&self, wanted: &str) -> io::Result<Option<Bytes>> {
        let path = self.blob_path(wanted);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if digest(&bytes) == wanted {
            return Ok(Some(bytes.into()));
        }
        tracing::warn!(path = %path.display(), "a module on disk is damaged and is removed: it is pulled again when it is needed");
        fs::remove_file(&path)?;
        Ok(None)
    }

    /// Takes over a file whose digest was checked.
    pub(crate) fn adopt(&self, file: &Path, digest: &str) -> io::Result<()> {
        File::open(file)?.sync_all()?;
        fs::rename(file, self.blob_path(digest))?;
        File::open(self.dir.join("blobs"))?.sync_all()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = self.new_path();
        let written = File::create(&new).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        let done = written.and_then(|()| fs::rename(&new, path));
        if done.is_err() {
            let _ = fs::remove_file(&new);
        }
        done
    }

    fn new_path(&self) -> PathBuf {
        self.dir.join("partial").join(format!("new-{}", self.serial.fetch_add(1, Ordering::Relaxed)))
    }

    /// Bytes of the disk in use, and all that it has.
    pub(crate) fn disk(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        // What is reserved for root cannot be used: it counts as used, as `df` has it.
        let total = (stat.f_blocks - stat.f_bfree + stat.f_bavail).saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok((total.saturating_sub(free), total))
    }
}

impl unpack::Modules for Store {
    fn begin(&self) -> io::Result<(PathBuf, File)> {
        let path = self.new_path();
        let file = File::create(&path)?;
        Ok((path, file))
    }

    fn finish(&self, file: &Path, digest: &str) -> io::Result<()> {
        self.adopt(file, digest)
    }
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}
