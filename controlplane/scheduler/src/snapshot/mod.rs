//! [`Snapshot`]: the cluster as the scheduler sees it, kept current change by change, never rebuilt.
//!
//! Nodes and pods have numbers (slots) that stay while they live; what plugins ask for is counted by these. A pod counts
//! on its node from the moment it is assumed there until it is removed, forgotten or finished. Pods may be told of
//! before their node is, and outlive its absence.

mod nodes;
mod pods;
mod storage;

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use podium_api::ObjectKey;

pub(crate) use self::pods::Placed;
use crate::{
    budget::Budgets,
    change::Changes,
    filters::lacks,
    index::{Counted, Counting, Index},
    node::NodeInfo,
    nominated::Nominations,
    pod::PodInfo,
    resources::Resources,
    terms::{Labels, Scope},
    topology::Topologies,
    volumes::{Stored, Volumes},
};

/// All nodes, their pods, and what is counted of them.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    /// The slots of the nodes that are there.
    order: Vec<u32>,
    slots: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    placed: Vec<Placed>,
    placed_free: Vec<u32>,
    by_uid: HashMap<Arc<str>, u32>,
    /// Pods of nodes that are not there.
    strays: HashMap<Arc<str>, Vec<u32>>,
    image_nodes: HashMap<String, usize>,
    claims_used: HashMap<ObjectKey, u32>,
    pub(crate) census: Census,
    pub(crate) index: Index,
    pub(crate) topologies: Topologies,
    pub(crate) budgets: Budgets,
    pub(crate) volumes: Volumes,
    pub(crate) nominations: Nominations,
}

/// How many nodes have what few nodes have: filters about it are skipped when none has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) tainted: usize,
    pub(crate) soft_tainted: usize,
    pub(crate) cordoned: usize,
}

/// What happened to the cluster; hand it to [`crate::Queue::wake`].
#[derive(Debug, Clone, Default)]
pub struct Happened {
    /// The kinds of changes.
    pub changes: Changes,
    /// Where.
    slot: Option<u32>,
    /// The pod that came or left.
    pod: Option<Mover>,
    /// What of storage is different.
    stored: Option<Stored>,
}

/// A pod that came to a node or left it.
#[derive(Debug, Clone)]
struct Mover {
    group: u32,
    requests: Resources,
    holds: bool,
    ports: bool,
    claims: bool,
}

impl Mover {
    fn of(pod: &Placed) -> Self {
        Self {
            group: pod.group,
            requests: pod.requests.clone(),
            holds: !pod.holders.is_empty(),
            ports: !pod.ports.is_empty(),
            claims: !pod.claims.is_empty(),
        }
    }

    /// Whether it leaves a pod anything that it may have lacked on this node.
    fn makes_room(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let was_full = node.requested.pods + 1 >= node.allocatable.pods;
        was_full
            || pod.requests.shares(&self.requests)
            || (self.ports && !pod.ports.is_empty())
            || (self.claims && !pod.claims.is_empty())
    }
}

/// What a change does for a pod that fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// It may fit now.
    Now,
    /// It may fit when one of these happens as well: that node would take it but for what they are about.
    With(Changes),
    /// Nothing.
    Never,
}

impl From<bool> for Help {
    fn from(helps: bool) -> Self {
        if helps { Self::Now } else { Self::Never }
    }
}

impl Happened {
    fn only(changes: Changes) -> Self {
        Self { changes, ..Self::default() }
    }
}

impl Snapshot {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// All nodes, in no particular order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeInfo> {
        self.order.iter().map(|slot| &self.nodes[*slot as usize])
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.slots.get(name).map(|slot| self.at(*slot))
    }

    /// How many pods count on nodes.
    pub fn pods(&self) -> usize {
        self.by_uid.len()
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    pub(crate) fn at(&self, slot: u32) -> &NodeInfo {
        &self.nodes[slot as usize]
    }

    pub(crate) fn slot(&self, name: &str) -> Option<u32> {
        self.slots.get(name).copied()
    }

    /// The domain of a node by a label that is followed.
    pub(crate) fn domain(&self, counted: Counted, slot: u32) -> u32 {
        self.topologies.domain(counted.topology, slot)
    }

    /// How many pods that a target means share a node's domain.
    pub(crate) fn count_near(&self, counted: Counted, slot: u32) -> u32 {
        self.index.count(counted, self.domain(counted, slot))
    }

    /// Counts pods that all the scopes mean by the values of a label, from now on.
    pub(crate) fn follow(&mut self, scopes: &[Scope], key: &str) -> Counted {
        let topology = follow(&mut self.topologies, &self.nodes, &self.order, key);
        let placed = self.by_uid.values().filter_map(|at| {
            let pod = &self.placed[*at as usize];
            Some(counting(pod, pod.slot.filter(|_| pod.counted)?))
        });
        self.index.follow(scopes, topology, &self.topologies, placed)
    }

    /// A namespace appeared, changed its labels or (`None`) is gone.
    pub fn namespace(&mut self, name: &str, labels: Option<&Labels>) -> Happened {
        if !self.index.namespace(name, labels) {
            return Happened::default();
        }
        self.index.namespaces_changed();
        Happened::only(Changes::DOMAINS | Changes::POD_CAME | Changes::POD_LEFT)
    }

    /// A disruption budget appeared or changed.
    pub fn upsert_budget(&mut self, budget: &PodDisruptionBudget) {
        self.budgets.put(budget);
    }

    /// A disruption budget is gone.
    pub fn remove_budget(&mut self, key: &ObjectKey) {
        self.budgets.remove(key);
    }

    /// A pod waits for victims on a node to end: others of no higher priority leave it the room.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        if !self.by_uid.contains_key(pod.uid.as_str()) {
            self.nominations.put(pod, node);
        }
    }

    /// A pod waits for no node any more.
    pub fn withdraw_nomination(&mut self, uid: &str) -> Happened {
        match self.nominations.remove(uid) {
            Some(_) => Happened::only(Changes::POD_REMOVED),
            None => Happened::default(),
        }
    }

    /// Whether what happened may let a pod fit that was refused until one of `unblocked_by` happens.
    ///
    /// # Source
    /// The queueing hints of Kubernetes' plugins (`isSchedulableAfter…`).
    pub fn help(&self, happened: &Happened, pod: &PodInfo, unblocked_by: Changes) -> Help {
        let shared = happened.changes.intersection(unblocked_by);
        if let Some(stored) = &happened.stored {
            let mut claims = pod.claims.iter().map(|c| ObjectKey::new(&*pod.key.namespace, &*c.name));
            return (!shared.is_empty() && claims.any(|claim| self.volumes.concerns(stored, &claim))).into();
        }
        let Some(node) = happened.slot.map(|slot| self.at(slot)) else { return (!shared.is_empty()).into() };
        if shared.intersects(Changes::DOMAINS) {
            return Help::Now;
        }
        let makes_room = |mover: &Mover| shared.intersects(Changes::POD_REMOVED) && mover.makes_room(pod, node);
        let of_node = shared.intersects(Changes::OF_NODES) || happened.pod.as_ref().is_some_and(makes_room);
        let lacks = if of_node { lacks(pod, node) } else { None };
        if lacks == Some(Changes::NONE) {
            return Help::Now;
        }
        let means =
            |mover: &Mover| pod.terms.iter().flat_map(|t| t.all()).any(|t| self.index.means(&t.scope, mover.group));
        let moved = |mover: &Mover| {
            (shared.intersects(Changes::POD_LEFT) && (mover.holds || means(mover)))
                || (shared.intersects(Changes::POD_CAME) && means(mover))
        };
        match lacks {
            _ if happened.pod.as_ref().is_some_and(moved) => Help::Now,
            Some(lacks) => Help::With(lacks),
            None => Help::Never,
        }
    }

    /// Whether what happened may let a pod fit by itself.
    pub fn may_help(&self, happened: &Happened, pod: &PodInfo, unblocked_by: Changes) -> bool {
        self.help(happened, pod, unblocked_by) == Help::Now
    }
}

/// The number of a label whose domains are followed from now on.
fn follow(topologies: &mut Topologies, nodes: &[NodeInfo], order: &[u32], key: &str) -> u32 {
    topologies.follow(key, order.iter().map(|slot| (*slot, &nodes[*slot as usize].labels)))
}

fn counting(pod: &Placed, slot: u32) -> Counting<'_> {
    Counting { group: pod.group, holders: &pod.holders, terminating: pod.terminating, slot }
}
