//! The audit log's file: a bounded queue, one writer, rotation by size.
//!
//! Invariants: nobody who hands in a line ever waits; what finds no room is dropped and counted; there are never more than
//! `max_backups` old files, the newest of which ends in `.1`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::{mpsc, oneshot};

use super::AuditConfig;

/// How many lines may wait for the writer.
const LINES_MAX: usize = 10_000;
/// How many bytes may wait for the writer.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a stop waits for what is queued.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

enum Item {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// Where lines are handed in.
pub(super) struct Sink {
    queue: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
    written: IntCounter,
    dropped: IntCounter,
}

impl Sink {
    /// Opens the file and starts the writer, which ends with the sink.
    pub(super) fn open(config: &AuditConfig, written: IntCounter, errors: &IntCounterVec) -> io::Result<Self> {
        let (queue, items) = mpsc::channel(LINES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let log = Log::open(config)?;
        let (failed, waiting) = (errors.with_label_values(&["log"]), bytes.clone());
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || write(items, log, &waiting, &failed))?;
        Ok(Self { queue, bytes, written, dropped: errors.with_label_values(&["buffered"]) })
    }

    /// Hands in a line with its end; drops it when there is no room.
    pub(super) fn send(&self, line: Vec<u8>) {
        let size = line.len();
        let room = self.bytes.fetch_add(size, Ordering::Relaxed).saturating_add(size) <= BYTES_MAX;
        if room && self.queue.try_send(Item::Line(line)).is_ok() {
            self.written.inc();
        } else {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    /// Waits, within a bound, until everything handed in so far is in the file.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let all = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                // An error says that the writer is gone: nothing is left to wait for.
                let _gone = flushed.await;
            }
        };
        if tokio::time::timeout(FLUSH_WITHIN, all).await.is_err() {
            tracing::warn!("the audit log was not written in time");
        }
    }
}

fn write(mut items: mpsc::Receiver<Item>, mut log: Log, waiting: &AtomicUsize, failed: &IntCounter) {
    while let Some(item) = items.blocking_recv() {
        match item {
            Item::Line(line) => {
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
                if let Err(error) = log.write(&line) {
                    failed.inc();
                    tracing::error!(%error, path = %log.path.display(), "cannot write the audit log");
                }
            }
            // Nobody may wait any more.
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    max_backups: usize,
}

impl Log {
    fn open(config: &AuditConfig) -> io::Result<Self> {
        let file = append(&config.log_path)?;
        let bytes = file.metadata()?.len();
        let path = config.log_path.clone();
        Ok(Self { path, file, bytes, max_bytes: config.max_bytes, max_backups: config.max_backups })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let size = line.len() as u64;
        if self.bytes > 0 && self.bytes + size > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += size;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.max_backups).rev() {
            match std::fs::rename(old(number), old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.max_backups {
            0 => std::fs::remove_file(&self.path)?,
            _ => std::fs::rename(&self.path, old(1))?,
        }
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// Only the owner may read what was audited.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let config = AuditConfig { log_path: path.clone(), max_bytes: 10, max_backups: 2, policy: Default::default() };
        let mut log = Log::open(&config).unwrap();
        for i in 0..9 {
            log.write(format!("line{i}\n").as_bytes()).unwrap();
        }
        let read = |end: &str| std::fs::read_to_string(format!("{}{end}", path.display())).ok();
        assert_eq!(read("").as_deref(), Some("line8\n"));
        assert_eq!(read(".1").as_deref(), Some("line7\n"));
        assert_eq!(read(".2").as_deref(), Some("line6\n"));
        assert_eq!(read(".3"), None);
    }
}
