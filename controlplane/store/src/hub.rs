//! Watches of a backend: each change is handed to every watcher whose prefix it is under; a slow one is cut off.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{Event, Revision, WATCH_BATCHES_MAX, WatchBatch};

/// A stream of changes in revision order, without gaps.
///
/// Ends when the store closes, or when this watcher fell more than [`WATCH_BATCHES_MAX`] batches behind.
pub struct Watch {
    backlog: VecDeque<WatchBatch>,
    live: mpsc::Receiver<WatchBatch>,
}

impl Watch {
    /// The next changes; `None` at the end.
    pub async fn recv(&mut self) -> Option<WatchBatch> {
        match self.backlog.pop_front() {
            Some(batch) => Some(batch),
            None => self.live.recv().await,
        }
    }

    /// The next changes, if there are some now.
    ///
    /// # Errors
    /// `Empty` or `Disconnected`.
    pub fn try_recv(&mut self) -> Result<WatchBatch, TryRecvError> {
        match self.backlog.pop_front() {
            Some(batch) => Ok(batch),
            None => self.live.try_recv(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Hub(Vec<Watcher>);

struct Watcher {
    prefix: String,
    live: mpsc::Sender<WatchBatch>,
}

impl Hub {
    /// A watch that first tells `backlog`, then what is published from now on.
    pub(crate) fn subscribe(&mut self, prefix: &str, backlog: Vec<Event>, revision: Revision) -> Watch {
        let (sender, live) = mpsc::channel(WATCH_BATCHES_MAX);
        self.0.push(Watcher { prefix: prefix.to_owned(), live: sender });
        let backlog = if backlog.is_empty() {
            VecDeque::new()
        } else {
            VecDeque::from([WatchBatch { events: backlog.into(), revision }])
        };
        Watch { backlog, live }
    }

    /// Hands changes out. Must be called in revision order, before the revision is made visible.
    pub(crate) fn publish(&mut self, events: &Arc<[Event]>, revision: Revision) {
        self.0.retain(|watcher| {
            let under = |e: &Event| e.key().starts_with(watcher.prefix.as_str());
            let events = if events.iter().all(under) {
                events.clone()
            } else {
                events.iter().filter(|e| under(e)).cloned().collect()
            };
            if events.is_empty() {
                return !watcher.live.is_closed();
            }
            watcher.live.try_send(WatchBatch { events, revision }).is_ok()
        });
    }

    pub(crate) fn close(&mut self) {
        self.0.clear();
    }
}
