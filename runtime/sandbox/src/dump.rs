//! Core dumps of instances that trap, for containers that ask for them.
//!
//! wasmtime captures them for a whole engine or not at all. Capturing walks the stack once more when a guest traps and
//! copies nothing; writing one copies the guest's memories, so it happens only on request and within bounds: one at a time on
//! a node, one in [`EVERY`] of a container, no larger than asked for.

use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::Store;

use crate::container::Container;

/// How often a container may leave one: further traps in between leave none.
const EVERY: Duration = Duration::from_secs(10);

/// What a container's dumps are bounded by.
#[derive(Debug, Default)]
pub(crate) struct Dumps {
    last: Mutex<Option<std::time::Instant>>,
}

impl Dumps {
    /// Whether another one may be written now.
    fn take_turn(&self, now: std::time::Instant) -> bool {
        let mut last = self.last.lock();
        let due = last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Part of an error: the name of the dump that was made of it.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) String);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "core dump {}", self.0)
    }
}

/// Passes a guest's outcome on. When it trapped and the container asks for it, its dump is written and the error names it.
pub(crate) fn kept<T: 'static, R>(
    container: &Container,
    store: &mut Store<T>,
    outcome: wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    outcome.map_err(|error| keep(container, error, store))
}

/// As [`kept`], of an error.
pub(crate) fn keep<T: 'static>(container: &Container, error: wasmtime::Error, store: &mut Store<T>) -> wasmtime::Error {
    match writing::keep(container, &error, store) {
        Some(name) => error.context(Named(name)),
        None => error,
    }
}

mod writing {
    use std::{
        fs,
        io::{self, Write as _},
        panic::{AssertUnwindSafe, catch_unwind},
        path::{Path, PathBuf},
        sync::atomic::{AtomicU64, Ordering},
        time::{Instant, SystemTime, UNIX_EPOCH},
    };

    use tokio::sync::Semaphore;
    use wasmtime::{Store, WasmCoreDump};

    use crate::{CoreDumps, Stream, container::Container, failure::Failure};

    /// Told apart by this when they are of the same millisecond.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    /// A dump in memory is as large as its guest, twice: one at a time.
    static TURN: Semaphore = Semaphore::const_new(1);

    /// Writes the dump that a trap carries; answers with its name.
    pub(super) fn keep<T: 'static>(
        container: &Container,
        error: &wasmtime::Error,
        store: &mut Store<T>,
    ) -> Option<String> {
        let asked = container.spec.core_dumps.as_ref()?;
        let dump = error.downcast_ref::<WasmCoreDump>()?;
        // Not of one that ended by itself or for want of memory.
        if !matches!(Failure::of(error), Failure::Trap { .. }) || !container.dumps.take_turn(Instant::now()) {
            return None;
        }
        let Ok(turn) = TURN.try_acquire() else {
            say(container, "no core dump: another one is being written");
            return None;
        };
        let bytes = match serialized(asked, dump, store, &container.spec.name) {
            Ok(bytes) => bytes,
            Err(why) => {
                say(container, &format!("no core dump: {why}"));
                return None;
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("{now:013}-{}.coredump", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (asked, path, logs) = (asked.clone(), asked.dir.join(&name), container.spec.logs.clone());
        // Files are written where it is no guest's time.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            if let Err(error) = write(&asked, &path, &bytes) {
                tracing::warn!(path = %path.display(), %error, "cannot write a core dump");
                logs.write(Stream::Stderr, format!("the core dump cannot be written: {error}\n").as_bytes());
            }
        });
        Some(name)
    }

    fn say(container: &Container, words: &str) {
        container.spec.logs.write(Stream::Stderr, format!("{words}\n").as_bytes());
    }

    fn serialized<T: 'static>(
        asked: &CoreDumps,
        dump: &WasmCoreDump,
        store: &mut Store<T>,
        name: &str,
    ) -> Result<Vec<u8>, String> {
        let memory: u64 = dump.memories().iter().map(|memory| memory.data_size(&*store) as u64).sum();
        let too_large = |bytes: u64| format!("{bytes} bytes are more than the {} that one may have", asked.bytes_max);
        if memory > asked.bytes_max {
            return Err(too_large(memory));
        }
        // It is not made for every guest that there may be: where it gives up there is no dump, and nothing else happens.
        let bytes = catch_unwind(AssertUnwindSafe(|| dump.serialize(store, name)));
        let bytes = bytes.map_err(|_| "its state cannot be read".to_owned())?;
        if bytes.len() as u64 > asked.bytes_max { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
    }

    /// Makes room and writes the file, as a whole or not at all.
    fn write(asked: &CoreDumps, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&asked.dir)?;
        let is_dump = |path: &PathBuf| path.extension().is_some_and(|e| e == "coredump");
        let mut kept: Vec<_> =
            fs::read_dir(&asked.dir)?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_dump).collect();
        // Names begin with the time.
        kept.sort();
        let room = usize::try_from(asked.count_max.max(1)).unwrap_or(usize::MAX);
        for old in kept.iter().take((kept.len() + 1).saturating_sub(room)) {
            fs::remove_file(old)?;
        }
        let mut file = tempfile::NamedTempFile::new_in(&asked.dir)?;
        file.write_all(bytes)?;
        file.persist(path).map(drop).map_err(|e| e.error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn traps_in_a_row_leave_one() {
        let (dumps, start) = (Dumps::default(), Instant::now());
        let turns = [0, 1, 9, 10, 11, 30].map(|second| dumps.take_turn(start + Duration::from_secs(second)));
        assert_eq!(turns, [true, false, false, true, false, true]);
    }
}
