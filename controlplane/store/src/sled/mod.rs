//! The sled backend: everything in one tree, written by one thread.
//!
//! A write changes two entries, the record under its revision and the key's newest revision, in one atomic batch. The
//! writer thread gathers what is queued, applies it as one batch, flushes once, tells watchers, then answers. So nothing is
//! answered or told that a crash could take back, and sixty writers cost one flush.
//!
//! When a batch cannot be applied or flushed (a full disk, a broken one), the store takes no more writes until it is
//! opened again: what reached the disk is not known, and sled will find out when it recovers. Until then reads that sled
//! can still do go on; others say `Failed`, since sled repairs its tree while reading and cannot write that down either.
//! The watch caches above go on answering from memory.

mod layout;
mod lock;
mod writer;

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ::sled::Tree;
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Event, Key, Range, RangeRequest, Record, Revision, Store, StoreError, Watch, Write, Written, check_size, hub::Hub,
};
use layout::{FORMAT, Stored};
use lock::FolderLock;
use writer::{COMMANDS_MAX, Command, Writer};

/// The file that says that a database was made here: from then on an empty one is damage.
const MADE: &str = "made";

/// How long sled's own lock is waited for, once the folder is ours.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// How a sled store is opened.
#[derive(Debug, Clone)]
pub struct SledConfig {
    /// Its folder; made when absent.
    pub path: PathBuf,
    /// Memory for pages read from disk.
    pub cache_bytes: u64,
}

impl SledConfig {
    /// The defaults for a folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache_bytes: 16 << 20 }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {} is in use by process {pid}: stop that first, or use another folder", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// Who holds it, `unknown` when it does not say.
        pid: String,
    },
    /// It was written by another version.
    #[error(
        "the store in {} has format {found}, this version reads format {FORMAT}: \
         use the version that wrote it, or another folder", path.display()
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The folder or its files cannot be used.
    #[error("the store in {} cannot be opened: {reason}: restore it from a copy, or use another folder", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// A store in a folder.
pub struct SledStore {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

pub(crate) struct Shared {
    tree: Tree,
    revision: AtomicU64,
    compacted: AtomicU64,
    hub: Mutex<Hub>,
    failure: RwLock<Option<StoreError>>,
    path: PathBuf,
    /// Held as long as anything of the store is.
    _lock: FolderLock,
}

impl SledStore {
    /// Opens or makes the store in a folder.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is changed then.
    pub fn open(config: SledConfig) -> Result<Self, OpenError> {
        let unreadable = |reason: String| OpenError::Unreadable { path: config.path.clone(), reason };
        std::fs::create_dir_all(&config.path).map_err(|e| unreadable(e.to_string()))?;
        let lock = FolderLock::take(&config.path)?;
        let made = config.path.join(MADE);
        let made_before = made.exists();
        let database = ::sled::Config::new()
            .path(config.path.join("db"))
            .cache_capacity(config.cache_bytes)
            .flush_every_ms(None)
            .print_profile_on_drop(false);
        let tree = open_database(&database).map_err(unreadable)?;
        // sled takes an emptied or overwritten file for a new one.
        if made_before && tree.is_empty() {
            return Err(unreadable("its files are damaged or gone".to_owned()));
        }
        check_format(&tree, &config.path)?;
        // sled asks only for `sync_file_range`, which leaves the disk's cache and the file's metadata as they are.
        let file = File::open(config.path.join("db/db")).map_err(|e| unreadable(e.to_string()))?;
        if !made_before {
            let durable = || file.sync_all().and_then(|()| File::create(&made)?.sync_all());
            durable().and_then(|()| File::open(&config.path)?.sync_all()).map_err(|e| unreadable(e.to_string()))?;
        }
        let compacted = layout::compacted(&tree).map_err(|e| unreadable(e.to_string()))?;
        let newest = layout::newest(&tree).map_err(|e| unreadable(e.to_string()))?;
        let shared = Arc::new(Shared {
            tree: (*tree).clone(),
            revision: AtomicU64::new(newest.max(compacted)),
            compacted: AtomicU64::new(compacted),
            hub: Mutex::new(Hub::default()),
            failure: RwLock::new(None),
            path: config.path.clone(),
            _lock: lock,
        });
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        Writer::spawn(shared.clone(), queue, file).map_err(|e| unreadable(e.to_string()))?;
        Ok(Self { shared, commands })
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Runs a read where it may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || read(&shared));
        task.await.unwrap_or_else(|e| Err(StoreError::Failed(format!("a read was not finished: {e}").into())))
    }
}

/// sled's part of opening.
///
/// Its file can still be locked for a moment although the folder is ours: by a thread of a database just closed in this
/// process, or by a process that this one has forked and that has not yet become another program.
fn open_database(config: &::sled::Config) -> Result<::sled::Db, String> {
    let begun = Instant::now();
    loop {
        // sled panics on some files that it cannot make sense of.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => {
                let error = error.to_string();
                if !error.contains("could not acquire lock") || begun.elapsed() > LOCK_WAIT {
                    return Err(error);
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Err(_) => return Err("its files are damaged".to_owned()),
        }
    }
}

fn check_format(tree: &Tree, path: &Path) -> Result<(), OpenError> {
    let unreadable = |e: ::sled::Error| OpenError::Unreadable { path: path.to_owned(), reason: e.to_string() };
    match layout::format(tree).map_err(unreadable)? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(OpenError::Format { path: path.to_owned(), found }),
        None if tree.is_empty() => layout::set_format(tree).and_then(|()| tree.flush()).map(drop).map_err(unreadable),
        None => Err(OpenError::Unreadable { path: path.to_owned(), reason: "it is no store of podium".to_owned() }),
    }
}

pub(crate) fn failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string().into())
}

impl Drop for Shared {
    /// After a failed write sled waits for ever when it is dropped, for a flush that cannot come. It is left as it is
    /// then; the process is about to end.
    fn drop(&mut self) {
        if self.failure.get_mut().is_some() {
            std::mem::forget(self.tree.clone());
        }
    }
}

impl Shared {
    fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn readable(&self, asked: u64) -> Result<(), StoreError> {
        let (newest, oldest) = (self.revision(), self.compacted.load(Ordering::Acquire));
        if asked > newest {
            return Err(StoreError::Future { asked: Revision(asked), newest: Revision(newest) });
        }
        if asked < oldest {
            return Err(StoreError::Compacted { asked: Revision(asked), oldest: Revision(oldest) });
        }
        Ok(())
    }

    fn stored(&self, revision: u64) -> Result<Option<Stored>, StoreError> {
        layout::stored(&self.tree, revision).map_err(|e| failed(&e))
    }

    /// The record of a revision that the index or another record points to.
    fn record(&self, revision: u64) -> Result<Option<Record>, StoreError> {
        Ok(self.stored(revision)?.and_then(|s| s.record(revision)))
    }

    /// The newest durable record: the index may be ahead, with what is still being flushed.
    fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        loop {
            let at = self.revision();
            let modified = match layout::index(&self.tree, key).map_err(|e| failed(&e))? {
                Some((modified, _)) if modified <= at => modified,
                _ => self.before_flush(key, at)?,
            };
            if modified == 0 {
                return Ok(None);
            }
            if let Some(record) = self.record(modified)? {
                return Ok(Some(record));
            }
            // It has been overwritten and compacted between the two reads: the index knows better now.
        }
    }

    /// The revision of a key before what changed it after `at`; 0 when it was not there, or has not changed.
    fn before_flush(&self, key: &str, at: u64) -> Result<u64, StoreError> {
        for stored in layout::history(&self.tree, at + 1, u64::MAX) {
            let (_, stored) = stored.map_err(|e| failed(&e))?;
            if &*stored.key == key {
                return Ok(stored.previous);
            }
        }
        Ok(0)
    }

    /// The changes in `after+1..=upto` under a prefix.
    fn events(&self, prefix: &str, after: u64, upto: u64) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        for stored in layout::history(&self.tree, after + 1, upto) {
            let (revision, stored) = stored.map_err(|e| failed(&e))?;
            if !stored.key.starts_with(prefix) {
                continue;
            }
            let previous = if stored.previous == 0 { None } else { self.record(stored.previous)? };
            match (stored.record(revision), previous) {
                (Some(record), previous) => events.push(Event::Put { record, previous }),
                (None, Some(previous)) => events.push(Event::Delete { previous, revision: Revision(revision) }),
                (None, None) => {}
            }
        }
        Ok(events)
    }

    fn range(&self, request: &RangeRequest) -> Result<Range, StoreError> {
        let at = request.at.map_or_else(|| self.revision(), |at| at.0);
        self.readable(at)?;
        let mut versions: BTreeMap<Key, u64> = BTreeMap::new();
        let wanted = |key: &str| request.after.as_ref().is_none_or(|after| key > &**after);
        for entry in layout::index_range(&self.tree, &request.prefix) {
            let (key, modified) = entry.map_err(|e| failed(&e))?;
            if wanted(&key) && modified <= at {
                versions.insert(key, modified);
            }
        }
        // Keys that changed since: what they held at that revision.
        for stored in layout::history(&self.tree, at + 1, u64::MAX) {
            let (_, stored) = stored.map_err(|e| failed(&e))?;
            let before = stored.previous;
            if before != 0 && before <= at && stored.key.starts_with(request.prefix.as_str()) && wanted(&stored.key) {
                versions.insert(stored.key, before);
            }
        }
        let limit = request.limit.unwrap_or(usize::MAX);
        let remaining = versions.len().saturating_sub(limit) as u64;
        let mut records = Vec::with_capacity(versions.len().min(limit));
        for modified in versions.into_values().take(limit) {
            records.extend(self.record(modified)?);
        }
        // A compaction meanwhile may have taken what was to be read.
        self.readable(at)?;
        Ok(Range { records, revision: Revision(at), remaining })
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError> {
        self.readable(after)?;
        // Most of the backlog without holding up the writer, the rest under the lock that it publishes with.
        let reached = self.revision();
        let mut backlog = self.events(prefix, after, reached)?;
        let mut hub = self.hub.lock();
        let revision = self.revision();
        backlog.extend(self.events(prefix, reached, revision)?);
        self.readable(after)?;
        Ok(hub.subscribe(prefix, backlog, Revision(revision)))
    }
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.read(move |shared| shared.get(&key)).await
    }

    async fn range(&self, request: RangeRequest) -> Result<Range, StoreError> {
        self.read(move |shared| shared.range(&request)).await
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        check_size(&write)?;
        self.command(|answer| Command::Write { write, answer }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |shared| shared.watch(&prefix, after.0)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.readable(revision.0)?;
        self.command(|answer| Command::Compact { upto: revision.0, answer }).await
    }

    fn oldest(&self) -> Revision {
        Revision(self.shared.compacted.load(Ordering::Acquire))
    }

    fn revision(&self) -> Revision {
        Revision(self.shared.revision())
    }

    fn failure(&self) -> Option<StoreError> {
        self.shared.failure.read().clone()
    }

    async fn close(&self) {
        // Closed already is as good.
        let _ = self.command(|answer| Command::Close { answer }).await;
    }
}
