//! [`Nominations`]: pods that wait for victims to end, and where.

use std::{collections::HashMap, sync::Arc};

use crate::pod::PodInfo;

/// See the module documentation. They are few.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    by_uid: HashMap<String, (Arc<PodInfo>, String)>,
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Nominations {
    pub(crate) fn put(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        self.by_uid.insert(pod.uid.clone(), (Arc::clone(pod), node.to_owned()));
        self.by_node.entry(node.to_owned()).or_default().push(Arc::clone(pod));
    }

    /// The pod is nominated no longer; says where it was.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<String> {
        if self.by_uid.is_empty() {
            return None;
        }
        let (_, node) = self.by_uid.remove(uid)?;
        if let Some(there) = self.by_node.get_mut(&node) {
            there.retain(|pod| pod.uid != uid);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(node)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    /// Where a pod is nominated.
    pub(crate) fn of(&self, uid: &str) -> Option<&str> {
        self.by_uid.get(uid).map(|(_, node)| node.as_str())
    }

    /// The pods nominated to a node.
    pub(crate) fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }
}
