//! [`Changes`]: what happened to some kinds of the model, in the order in which it happened.

use podium_api::KindRef;
use podium_client::{Api, Delta, MirrorScope, ModelApi};
use tokio::sync::mpsc::UnboundedReceiver;

/// Hears of every change of its kinds.
pub(crate) struct Changes(Vec<UnboundedReceiver<Delta>>);

impl Changes {
    /// Watches a model.
    pub(crate) async fn open(model: &ModelApi, kinds: impl IntoIterator<Item = KindRef>) -> Self {
        let mut of_kinds = Vec::new();
        for kind in kinds {
            let mirror = model.mirror(&kind, MirrorScope::default()).await;
            of_kinds.push(mirror.expect("the model has every kind").subscribe());
        }
        Self(of_kinds)
    }

    /// All since the last time.
    pub(crate) fn take(&mut self) -> Vec<Delta> {
        let mut batch = Vec::new();
        for deltas in &mut self.0 {
            while let Ok(delta) = deltas.try_recv() {
                batch.push(delta);
            }
        }
        batch.sort_by_key(|delta| match delta {
            Delta::Put { new, .. } => new.revision(),
            Delta::Delete { revision, .. } => *revision,
        });
        batch
    }
}
