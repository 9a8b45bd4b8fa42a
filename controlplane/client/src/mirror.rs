//! [`MirrorStore`]: a [`Mirror`] fed by hand, for the remote client and for tests.
//!
//! Invariants: subscribers see every change once and in the order in which it was made here; what `get` and `list`
//! show is never behind what a subscriber has received; the revision never goes back. It does not talk to anybody.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use podium_api::{Object, ObjectKey, Revision};
use tokio::sync::mpsc;

use crate::{Delta, Mirror};

/// A map of objects with subscribers.
#[derive(Default)]
pub struct MirrorStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<dyn Object>>,
    revision: Revision,
    subscribers: Vec<mpsc::UnboundedSender<Delta>>,
}

impl MirrorStore {
    /// An empty mirror at revision zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// An object appeared or changed. One that is not newer than what is held (by `resourceVersion`, same uid) is
    /// ignored, so that a repeated event does no harm.
    pub fn put(&self, object: Arc<dyn Object>) {
        let mut state = self.state.lock();
        let revision = object.revision();
        state.put(object);
        state.advance(revision);
    }

    /// An object went away at `revision`. Unknown keys only advance the revision.
    pub fn delete(&self, key: &ObjectKey, revision: Revision) {
        let mut state = self.state.lock();
        state.delete(key, revision);
        state.advance(revision);
    }

    /// Everything up to `revision` has been told (a bookmark).
    pub fn advance(&self, revision: Revision) {
        self.state.lock().advance(revision);
    }

    /// The whole state at `revision` (a new list): subscribers get the differences.
    pub fn replace(&self, objects: Vec<Arc<dyn Object>>, revision: Revision) {
        let mut state = self.state.lock();
        let new: BTreeMap<_, _> = objects.into_iter().map(|o| (o.key(), o)).collect();
        let gone: Vec<_> = state.objects.keys().filter(|k| !new.contains_key(*k)).cloned().collect();
        for key in gone {
            state.delete(&key, revision);
        }
        for object in new.into_values() {
            state.put(object);
        }
        state.advance(revision);
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.state.lock().objects.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn put(&mut self, new: Arc<dyn Object>) {
        let key = new.key();
        let old = self.objects.get(&key).cloned();
        if old.as_ref().is_some_and(|old| not_newer(&**old, &*new)) {
            return;
        }
        self.objects.insert(key, Arc::clone(&new));
        self.tell(&Delta::Put { old, new });
    }

    fn delete(&mut self, key: &ObjectKey, revision: Revision) {
        if let Some(old) = self.objects.remove(key) {
            self.tell(&Delta::Delete { old, revision });
        }
    }

    fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn tell(&mut self, delta: &Delta) {
        self.subscribers.retain(|s| s.send(delta.clone()).is_ok());
    }
}

fn not_newer(old: &dyn Object, new: &dyn Object) -> bool {
    old.uid() == new.uid() && new.revision() != Revision(0) && new.revision() <= old.revision()
}

impl Mirror for MirrorStore {
    fn get(&self, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.state.lock().objects.get(key).cloned()
    }

    fn list(&self, namespace: Option<&str>) -> Vec<Arc<dyn Object>> {
        let state = self.state.lock();
        match namespace {
            None => state.objects.values().cloned().collect(),
            Some(namespace) => {
                let from = ObjectKey::new(namespace, "");
                let range = state.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
                range.map(|(_, object)| Arc::clone(object)).collect()
            }
        }
    }

    fn revision(&self) -> Revision {
        self.state.lock().revision
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        for new in state.objects.values() {
            // The receiver is alive: it is returned below.
            let _ = sender.send(Delta::Put { old: None, new: Arc::clone(new) });
        }
        state.subscribers.push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use podium_api::k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn map(namespace: &str, name: &str, revision: u64) -> Arc<dyn Object> {
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            resource_version: Some(revision.to_string()),
            uid: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        Arc::new(ConfigMap { metadata, ..ConfigMap::default() })
    }

    fn drain(deltas: &mut mpsc::UnboundedReceiver<Delta>) -> String {
        let mut told = Vec::new();
        while let Ok(delta) = deltas.try_recv() {
            told.push(match delta {
                Delta::Put { old: None, new } => format!("+{}@{}", new.key(), new.revision()),
                Delta::Put { old: Some(_), new } => format!("~{}@{}", new.key(), new.revision()),
                Delta::Delete { old, revision } => format!("-{}@{revision}", old.key()),
            });
        }
        told.join(" ")
    }

    #[test]
    fn subscribers_get_the_state_and_then_each_change_in_order() {
        let mirror = MirrorStore::new();
        mirror.put(map("a", "x", 1));
        let mut deltas = mirror.subscribe();
        mirror.put(map("a", "x", 2));
        mirror.put(map("a", "x", 2));
        mirror.put(map("b", "y", 3));
        mirror.delete(&ObjectKey::new("a", "x"), Revision(4));
        mirror.delete(&ObjectKey::new("a", "x"), Revision(5));
        assert_eq!(drain(&mut deltas), "+a/x@1 ~a/x@2 +b/y@3 -a/x@4");
        assert_eq!(mirror.revision(), Revision(5));
    }

    #[test]
    fn a_new_list_tells_only_the_differences() {
        let mirror = MirrorStore::new();
        mirror.replace(vec![map("a", "x", 1), map("a", "y", 2), map("b", "z", 3)], Revision(3));
        let mut deltas = mirror.subscribe();
        drain(&mut deltas);
        mirror.replace(vec![map("a", "y", 2), map("b", "z", 7), map("c", "w", 6)], Revision(9));
        assert_eq!(drain(&mut deltas), "-a/x@9 ~b/z@7 +c/w@6");
        assert_eq!(mirror.revision(), Revision(9));
        assert_eq!(mirror.list(Some("b")).len(), 1);
        assert_eq!(mirror.list(None).len(), 3);
    }

    #[test]
    fn an_object_created_anew_replaces_the_one_before() {
        let mirror = MirrorStore::new();
        mirror.put(map("a", "x", 5));
        let mut anew = map("a", "x", 4).boxed_clone();
        anew.meta_mut().uid = Some("other".to_owned());
        mirror.put(Arc::from(anew));
        assert_eq!(mirror.get(&ObjectKey::new("a", "x")).unwrap().uid(), "other");
    }
}
