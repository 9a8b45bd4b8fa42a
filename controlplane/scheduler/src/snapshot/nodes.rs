//! Nodes come, change and go.

use k8s_openapi::api::core::v1::Node;

use super::{Happened, Snapshot, counting};
use crate::{change::Changes, node::NodeInfo};

impl Snapshot {
    /// A node appeared or changed.
    pub fn upsert_node(&mut self, node: &Node) -> Happened {
        let info = NodeInfo::of(node);
        let (slot, changes) = match self.slots.get(&info.name).copied() {
            Some(slot) => (slot, self.refresh(slot, info)),
            None => (self.insert(info), Changes::NODE_ADDED | Changes::DOMAINS),
        };
        Happened { changes, slot: Some(slot), ..Happened::default() }
    }

    /// A node went away. Its pods are remembered, in case it comes back.
    pub fn remove_node(&mut self, name: &str) -> Happened {
        let Some((name, slot)) = self.slots.remove_entry(name) else { return Happened::default() };
        self.take_census(slot, false);
        self.count_pods_of(slot, false);
        let gone = std::mem::take(&mut self.nodes[slot as usize]);
        for pod in &gone.pods {
            let pod = &mut self.placed[*pod as usize];
            (pod.slot, pod.counted) = (None, false);
        }
        if !gone.pods.is_empty() {
            self.strays.insert(name, gone.pods);
        }
        self.topologies.node_removed(slot);
        self.order.retain(|at| *at != slot);
        self.free.push(slot);
        Happened::only(Changes::DOMAINS)
    }

    fn refresh(&mut self, slot: u32, info: NodeInfo) -> Changes {
        let changes = self.nodes[slot as usize].changes(&info);
        self.take_census(slot, false);
        let relabelled = changes.intersects(Changes::NODE_LABELS);
        if relabelled {
            self.count_pods_of(slot, false);
            self.topologies.node_removed(slot);
        }
        self.nodes[slot as usize].refresh(info);
        if relabelled {
            self.topologies.node_added(slot, &self.nodes[slot as usize].labels);
            self.count_pods_of(slot, true);
        }
        self.take_census(slot, true);
        changes
    }

    fn insert(&mut self, mut info: NodeInfo) -> u32 {
        let name = info.name.clone();
        let strays = self.strays.remove(&name).unwrap_or_default();
        info.pods.clone_from(&strays);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.nodes.push(NodeInfo::default());
                u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.topologies.node_added(slot, &info.labels);
        self.nodes[slot as usize] = info;
        self.order.push(slot);
        self.slots.insert(name, slot);
        self.take_census(slot, true);
        for pod in strays {
            self.placed[pod as usize].slot = Some(slot);
            self.count(pod, true);
        }
        slot
    }

    /// Counts the pods of a node by domain, or no longer, while its labels change. Its sums stay.
    fn count_pods_of(&mut self, slot: u32, more: bool) {
        for pod in &self.nodes[slot as usize].pods {
            let pod = &self.placed[*pod as usize];
            if pod.counted {
                self.index.count_pod(counting(pod, slot), &self.topologies, more);
            }
        }
    }

    fn take_census(&mut self, slot: u32, more: bool) {
        let node = &self.nodes[slot as usize];
        let count = |sum: &mut usize, has: bool| match (has, more) {
            (false, _) => {}
            (true, true) => *sum += 1,
            (true, false) => *sum = sum.saturating_sub(1),
        };
        count(&mut self.census.tainted, !node.taints.is_empty());
        count(&mut self.census.soft_tainted, !node.soft_taints.is_empty());
        count(&mut self.census.cordoned, node.unschedulable);
        for image in &node.images {
            let nodes = self.image_nodes.entry(image.clone()).or_default();
            count(nodes, true);
            if *nodes == 0 {
                self.image_nodes.remove(image);
            }
        }
    }
}
