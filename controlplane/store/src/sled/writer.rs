//! The writer thread: gathers writes, makes them durable with one flush, tells watchers, answers.

use std::{
    collections::HashMap,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use ::sled::Batch;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared, failed,
    layout::{self, Stored},
};
use crate::{Change, Event, Expect, Key, Record, Revision, StoreError, Write, Written};

/// Commands that may wait for the writer.
pub(crate) const COMMANDS_MAX: usize = 8192;
/// Writes taken into one batch.
const BATCH_WRITES_MAX: usize = 1024;
/// Bytes of values taken into one batch.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Revisions looked at in one step of a compaction, between which writes go on.
const COMPACT_STEP: u64 = 2048;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) enum Command {
    Write { write: Write, answer: Answer<Written> },
    Compact { upto: u64, answer: Answer<()> },
    Close { answer: Answer<()> },
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Command>,
    /// What sled writes to.
    file: File,
}

/// A batch in the making: what it will have written, seen by the writes behind.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    bytes: usize,
    newest: HashMap<Key, Option<Record>>,
    events: Vec<Event>,
    /// Also refusals: what they were decided on must be durable before anybody hears of it.
    answers: Vec<(Answer<Written>, Result<Written, StoreError>)>,
    revision: u64,
}

impl Writer {
    pub(crate) fn spawn(shared: Arc<Shared>, queue: mpsc::Receiver<Command>, file: File) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("podium-store".to_owned());
        thread.spawn(move || Self { shared, queue, file }.run()).map(drop)
    }

    fn run(mut self) {
        let mut compaction: Option<(u64, Answer<()>)> = None;
        loop {
            let next = match &compaction {
                // A compaction goes on whenever nobody wants to write.
                Some(_) => self.queue.try_recv().ok(),
                None => match self.queue.blocking_recv() {
                    Some(command) => Some(command),
                    None => break,
                },
            };
            match next {
                Some(Command::Write { write, answer }) => {
                    if let Some(Command::Close { answer }) = self.write_all(write, answer, &mut compaction) {
                        return self.close(answer);
                    }
                }
                Some(Command::Compact { upto, answer }) => begin(&mut compaction, upto, answer),
                Some(Command::Close { answer }) => return self.close(answer),
                None => {}
            }
            if let Some((upto, answer)) = compaction.take() {
                match self.compact_step(upto) {
                    Ok(true) => drop(answer.send(Ok(()))),
                    Ok(false) => compaction = Some((upto, answer)),
                    Err(error) => drop(answer.send(Err(self.fail(&error)))),
                }
            }
        }
        // Nobody is left to write; what was answered has been flushed.
        self.shared.hub.lock().close();
    }

    fn close(mut self, answer: Answer<()>) {
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            match command {
                Command::Write { answer, .. } => drop(answer.send(Err(StoreError::Closed))),
                Command::Compact { answer, .. } | Command::Close { answer } => {
                    drop(answer.send(Err(StoreError::Closed)));
                }
            }
        }
        self.shared.hub.lock().close();
        let Self { shared, .. } = self;
        drop(shared);
        // Nobody waiting is as good.
        let _ = answer.send(Ok(()));
    }

    /// Writes this and whatever else is queued. A command that is no write and ends the writer is handed back.
    fn write_all(
        &mut self,
        write: Write,
        answer: Answer<Written>,
        compaction: &mut Option<(u64, Answer<()>)>,
    ) -> Option<Command> {
        let mut gathered = Gathered { revision: self.shared.revision(), ..Gathered::default() };
        self.gather(&mut gathered, write, answer);
        let mut last = None;
        while gathered.answers.len() < BATCH_WRITES_MAX && gathered.bytes < BATCH_BYTES_MAX {
            match self.queue.try_recv() {
                Ok(Command::Write { write, answer }) => self.gather(&mut gathered, write, answer),
                Ok(Command::Compact { upto, answer }) => begin(compaction, upto, answer),
                Ok(close @ Command::Close { .. }) => {
                    last = Some(close);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit(gathered);
        last
    }

    fn gather(&self, gathered: &mut Gathered, write: Write, answer: Answer<Written>) {
        if let Some(failure) = self.shared.failure.read().clone() {
            return drop(answer.send(Err(failure)));
        }
        let now = Revision(gathered.revision);
        let taken = self.take_in(gathered, write);
        gathered.answers.push((answer, taken.map(|w| w.unwrap_or(Written { revision: now, created: now }))));
    }

    /// Adds a write to the batch; `None` when there is nothing to do.
    fn take_in(&self, gathered: &mut Gathered, write: Write) -> Result<Option<Written>, StoreError> {
        let found = match gathered.newest.get(&write.key) {
            Some(newest) => newest.clone(),
            None => self.shared.get(&write.key)?,
        };
        write.expect.check(&write.key, found.as_ref())?;
        if matches!(write.change, Change::Delete) && found.is_none() {
            return match write.expect {
                Expect::Any => Ok(None),
                _ => Err(StoreError::Conflict { key: write.key, found: None }),
            };
        }
        let revision = gathered.revision + 1;
        let created = found.as_ref().map_or(revision, |r| r.created.0);
        let previous = found.as_ref().map_or(0, |r| r.modified.0);
        let (value, attachment) = match write.change {
            Change::Put { value, attachment } => (Some(value), attachment),
            Change::Delete => (None, None),
        };
        gathered.bytes += value.as_ref().map_or(0, bytes::Bytes::len);
        let stored = Stored { key: write.key.clone(), created, previous, value };
        layout::put(&mut gathered.batch, revision, &stored);
        let record = stored.record(revision).map(|r| Record { attachment, ..r });
        gathered.newest.insert(write.key, record.clone());
        gathered.events.extend(match (record, found) {
            (Some(record), previous) => Some(Event::Put { record, previous }),
            (None, Some(previous)) => Some(Event::Delete { previous, revision: Revision(revision) }),
            (None, None) => None,
        });
        gathered.revision = revision;
        Ok(Some(Written { revision: Revision(revision), created: Revision(created) }))
    }

    /// Makes the batch durable, then known. Or fails for good.
    fn commit(&self, gathered: Gathered) {
        let Gathered { batch, events, answers, revision, .. } = gathered;
        if !events.is_empty() {
            if let Err(error) = self.durably(batch) {
                let failure = self.fail(&error);
                for (answer, _) in answers {
                    let _ = answer.send(Err(failure.clone()));
                }
                return;
            }
            let mut hub = self.shared.hub.lock();
            hub.publish(&Arc::from(events), Revision(revision));
            self.shared.revision.store(revision, Ordering::Release);
        }
        for (answer, outcome) in answers {
            // Whoever asked may have gone; it is written all the same.
            let _ = answer.send(outcome);
        }
    }

    fn durably(&self, batch: Batch) -> Result<(), StoreError> {
        // sled panics where it cannot go on, in the middle of a write for example.
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.shared.tree.apply_batch(batch).and_then(|()| self.shared.tree.flush())?;
            Ok::<_, ::sled::Error>(self.file.sync_data()?)
        }));
        let why = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database gave up in the middle of a write".to_owned(),
        };
        Err(failed(&format_args!("writing to {}: {why}", self.shared.path.display())))
    }

    fn fail(&self, error: &StoreError) -> StoreError {
        tracing::error!(%error, "the store takes no more writes");
        self.shared.failure.write().get_or_insert_with(|| error.clone()).clone()
    }

    /// One step towards a compaction; `true` when it is done.
    fn compact_step(&self, upto: u64) -> Result<bool, StoreError> {
        if let Some(failure) = self.shared.failure.read().clone() {
            return Err(failure);
        }
        let from = self.shared.compacted.load(Ordering::Acquire);
        if from >= upto {
            return Ok(true);
        }
        let step = upto.min(from + COMPACT_STEP);
        let mut batch = Batch::default();
        for stored in layout::history(&self.shared.tree, from + 1, step) {
            let (revision, stored) = stored.map_err(|e| failed(&e))?;
            if stored.previous != 0 {
                layout::forget(&mut batch, stored.previous);
            }
            if stored.value.is_none() {
                layout::forget(&mut batch, revision);
            }
        }
        layout::set_compacted(&mut batch, step);
        // First refused, then gone: nobody reads what is being forgotten.
        self.shared.compacted.store(step, Ordering::Release);
        self.durably(batch)?;
        Ok(step == upto)
    }
}

/// A compaction under way takes a later one's target over.
fn begin(compaction: &mut Option<(u64, Answer<()>)>, upto: u64, answer: Answer<()>) {
    match compaction {
        Some((target, _)) => {
            *target = upto.max(*target);
            let _ = answer.send(Ok(()));
        }
        None => *compaction = Some((upto, answer)),
    }
}
