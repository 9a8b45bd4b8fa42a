//! Forgets history that nobody will ask for any more.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{Revision, Store};

/// How much history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Revisions younger than this stay readable.
    pub keep: Duration,
    /// How often to look. A compaction keeps between `keep` and `keep + every`.
    pub every: Duration,
}

impl Default for CompactionPolicy {
    /// Kubernetes compacts every five minutes.
    fn default() -> Self {
        Self { keep: Duration::from_secs(300), every: Duration::from_secs(60) }
    }
}

/// Compacts until the store fails or closes, or the task is aborted.
pub fn spawn_compactor(store: Arc<dyn Store>, policy: CompactionPolicy) -> JoinHandle<()> {
    let periods = (policy.keep.as_secs_f64() / policy.every.as_secs_f64().max(0.001)).ceil() as usize;
    tokio::spawn(async move {
        let mut seen: VecDeque<Revision> = VecDeque::new();
        let mut every = tokio::time::interval(policy.every);
        loop {
            every.tick().await;
            seen.push_back(store.revision());
            if seen.len() <= periods {
                continue;
            }
            let Some(target) = seen.pop_front() else { continue };
            // Nothing has happened since: nothing to forget.
            if seen.back() == Some(&target) {
                continue;
            }
            if let Err(error) = store.compact(target).await {
                tracing::warn!(%error, "history could not be compacted");
                if store.failure().is_some() {
                    return;
                }
            }
        }
    })
}
