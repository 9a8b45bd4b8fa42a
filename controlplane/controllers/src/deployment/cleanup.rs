//! Old ReplicaSets beyond `revisionHistoryLimit` go, the oldest revisions first.

use super::{Work, set::Set};
use crate::owners::delete;

impl Work<'_> {
    /// Deletes what is not needed any more for a rollback.
    pub(super) fn cleanup(&mut self) {
        let Some(limit) = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit) else { return };
        let mut alive: Vec<&Set> = self.old.iter().filter(|s| s.seen.metadata.deletion_timestamp.is_none()).collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        alive.sort_by_key(|s| s.revision());
        let doomed = alive.into_iter().take(surplus).filter(|s| is_idle(s)).map(|s| delete(&*s.seen));
        self.plan.actions.extend(doomed.collect::<Vec<_>>());
    }
}

/// Whether it has no pods and its controller knows that it shall have none.
fn is_idle(set: &Set) -> bool {
    let observed = set.seen.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
    set.replicas == 0 && set.status_replicas() == 0 && set.seen.metadata.generation.unwrap_or(0) <= observed
}
