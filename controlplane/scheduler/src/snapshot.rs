//! [`Snapshot`]: the cluster as the scheduler sees it, kept current change by change, never rebuilt.
//!
//! A pod counts on its node from the moment it is assumed there until it is removed, forgotten or finished. Pods may be
//! told of before their node is.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{change::Changes, node::NodeInfo, pod::PodInfo, resources::Resources};

/// All nodes, with the sums of what their pods request.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    positions: HashMap<Arc<str>, usize>,
    placed: HashMap<String, Placed>,
    image_nodes: HashMap<String, usize>,
}

/// A pod that counts on a node.
#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    requests: Resources,
    nonzero: Resources,
}

impl Snapshot {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// All nodes, in no particular order.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.positions.get(name).and_then(|&i| self.nodes.get(i))
    }

    /// How many pods count on nodes.
    pub fn pods(&self) -> usize {
        self.placed.len()
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// A node appeared or changed.
    pub fn upsert_node(&mut self, node: &Node) -> Changes {
        let info = NodeInfo::of(node);
        match self.positions.get(&info.name).copied() {
            Some(position) => {
                self.forget_images(position);
                let changes = self.nodes[position].refresh(info);
                self.count_images(position);
                changes
            }
            None => {
                self.insert(info);
                Changes::NODE_ADDED
            }
        }
    }

    /// A node went away. Its pods are remembered, in case it comes back.
    pub fn remove_node(&mut self, name: &str) -> Changes {
        let Some(position) = self.positions.remove(name) else { return Changes::NONE };
        self.forget_images(position);
        self.nodes.swap_remove(position);
        if let Some(moved) = self.nodes.get(position) {
            self.positions.insert(moved.name.clone(), position);
        }
        Changes::NONE
    }

    /// A pod appeared or changed. Counts when it has a node and has not finished; confirms what was assumed.
    pub fn add_pod(&mut self, pod: &Pod) -> Changes {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return self.remove_pod(uid);
        }
        if node.is_empty() || self.placed.get(uid).is_some_and(|p| &*p.node == node) {
            return Changes::NONE;
        }
        self.assume(&PodInfo::of(pod), node)
    }

    /// Counts a pod on a node before its binding is known to have succeeded. Wherever it counted before, it no longer does.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) -> Changes {
        let changes = self.remove_pod(&pod.uid);
        let name = self.positions.get_key_value(node).map_or_else(|| node.into(), |(name, _)| name.clone());
        let placed = Placed { node: name, requests: pod.requests.clone(), nonzero: pod.nonzero.clone() };
        if let Some(node) = self.node_mut(node) {
            node.requested.add(&placed.requests);
            node.nonzero.add(&placed.nonzero);
        }
        self.placed.insert(pod.uid.clone(), placed);
        changes
    }

    /// Takes an assumed pod off its node again: the binding failed.
    pub fn forget(&mut self, uid: &str) -> Changes {
        self.remove_pod(uid)
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: &str) -> Changes {
        let Some(placed) = self.placed.remove(uid) else { return Changes::NONE };
        if let Some(node) = self.node_mut(&placed.node) {
            node.requested.subtract(&placed.requests);
            node.nonzero.subtract(&placed.nonzero);
        }
        Changes::POD_REMOVED
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        self.positions.get(name).and_then(|&i| self.nodes.get_mut(i))
    }

    fn insert(&mut self, mut info: NodeInfo) {
        for placed in self.placed.values().filter(|p| p.node == info.name) {
            info.requested.add(&placed.requests);
            info.nonzero.add(&placed.nonzero);
        }
        self.positions.insert(info.name.clone(), self.nodes.len());
        self.nodes.push(info);
        self.count_images(self.nodes.len() - 1);
    }

    fn count_images(&mut self, position: usize) {
        for image in &self.nodes[position].images {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
    }

    fn forget_images(&mut self, position: usize) {
        for image in &self.nodes[position].images {
            if let Some(count) = self.image_nodes.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(image);
                }
            }
        }
    }
}
