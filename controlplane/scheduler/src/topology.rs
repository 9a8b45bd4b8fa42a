//! [`Topologies`]: for each label that pods spread or gather by, which domain each node is in.
//!
//! Nodes are slots, domains are numbers: counting pods by domain is an index into an array. A label is followed from the
//! first time that a pod asks for it. The empty label means the node itself: its domain is its slot.

use std::collections::HashMap;

use crate::terms::Labels;

/// A node without the label is in no domain.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// Pods by node rather than by a label.
pub(crate) const EACH_NODE: &str = "";

/// All labels that are followed.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    known: HashMap<String, u32>,
    all: Vec<Topology>,
}

/// One label.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    pub(crate) key: String,
    /// Slot of the node -> domain, or [`NOWHERE`].
    of_node: Vec<u32>,
    values: HashMap<String, u32>,
    free: Vec<u32>,
    /// Domain -> how many nodes are in it.
    pub(crate) nodes: Vec<u32>,
    /// Nodes that are in no domain.
    pub(crate) outside: usize,
}

impl Topologies {
    /// The number of a label, if it is followed.
    pub(crate) fn find(&self, key: &str) -> Option<u32> {
        self.known.get(key).copied()
    }

    /// The number of a label; it is followed from now on.
    pub(crate) fn follow<'a>(&mut self, key: &str, nodes: impl Iterator<Item = (u32, &'a Labels)>) -> u32 {
        if let Some(known) = self.find(key) {
            return known;
        }
        let mut topology = Topology { key: key.to_owned(), ..Topology::default() };
        nodes.for_each(|(slot, labels)| topology.add(slot, labels));
        self.all.push(topology);
        let number = u32::try_from(self.all.len() - 1).unwrap_or(NOWHERE);
        self.known.insert(key.to_owned(), number);
        number
    }

    pub(crate) fn get(&self, number: u32) -> &Topology {
        &self.all[number as usize]
    }

    /// The domain of a node, or [`NOWHERE`].
    pub(crate) fn domain(&self, number: u32, slot: u32) -> u32 {
        self.all[number as usize].domain(slot)
    }

    pub(crate) fn node_added(&mut self, slot: u32, labels: &Labels) {
        self.all.iter_mut().for_each(|topology| topology.add(slot, labels));
    }

    pub(crate) fn node_removed(&mut self, slot: u32) {
        self.all.iter_mut().for_each(|topology| topology.remove(slot));
    }
}

impl Topology {
    /// The domain of a node, or [`NOWHERE`].
    pub(crate) fn domain(&self, slot: u32) -> u32 {
        self.of_node.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    fn add(&mut self, slot: u32, labels: &Labels) {
        let domain = if self.key == EACH_NODE {
            slot
        } else {
            match labels.get(&self.key) {
                Some(value) => self.domain_of(value),
                None => NOWHERE,
            }
        };
        let at = slot as usize;
        if self.of_node.len() <= at {
            self.of_node.resize(at + 1, NOWHERE);
        }
        self.of_node[at] = domain;
        if domain == NOWHERE {
            self.outside += 1;
            return;
        }
        if self.nodes.len() <= domain as usize {
            self.nodes.resize(domain as usize + 1, 0);
        }
        self.nodes[domain as usize] += 1;
    }

    fn domain_of(&mut self, value: &str) -> u32 {
        if let Some(known) = self.values.get(value) {
            return *known;
        }
        let fresh = u32::try_from(self.nodes.len()).unwrap_or(NOWHERE);
        let domain = self.free.pop().unwrap_or(fresh);
        self.values.insert(value.to_owned(), domain);
        domain
    }

    fn remove(&mut self, slot: u32) {
        let Some(domain) = self.of_node.get_mut(slot as usize) else { return };
        let domain = std::mem::replace(domain, NOWHERE);
        if domain == NOWHERE {
            self.outside = self.outside.saturating_sub(1);
            return;
        }
        let left = &mut self.nodes[domain as usize];
        *left -= 1;
        // Numbers are used again, so that nodes that come and go with names of their own do not fill memory.
        if *left == 0 && self.key != EACH_NODE {
            self.values.retain(|_, d| *d != domain);
            self.free.push(domain);
        }
    }
}
