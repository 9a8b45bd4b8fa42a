//! [`NodeInfo`]: what the plugins see of a node, kept current by the snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    change::Changes,
    pod::{HostPort, with_tag},
    resources::Resources,
};

/// One node and what runs on it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `NoSchedule` and `NoExecute` taints.
    pub taints: Vec<Taint>,
    /// `PreferNoSchedule` taints.
    pub soft_taints: Vec<Taint>,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
    /// What it offers to pods.
    pub allocatable: Resources,
    /// What its pods request, assumed pods included; `pods` counts them.
    pub requested: Resources,
    /// The same with Kubernetes' minimum for containers that request nothing: 100 m CPU, 200 MiB memory. Scores use it.
    pub nonzero: Resources,
    /// Ports of the node that its pods have.
    pub ports: Vec<HostPort>,
    /// Names of the images on it, with their tags.
    pub images: BTreeSet<String>,
    /// Its pods, by number.
    pub(crate) pods: Vec<u32>,
}

impl NodeInfo {
    /// Reads a Node. Requested sums are zero.
    pub(crate) fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        let (soft_taints, taints) = taints.into_iter().partition(|t| t.effect == "PreferNoSchedule");
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints,
            soft_taints,
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: allocatable.map(Resources::of).unwrap_or_default(),
            images: images
                .iter()
                .flat_map(|i| i.names.iter().flatten())
                .map(|name| with_tag(name).into_owned())
                .collect(),
            ..Self::default()
        }
    }

    /// What is different in a newer state of the same node.
    pub(crate) fn changes(&self, newer: &Self) -> Changes {
        let mut changes = Changes::NONE;
        let mut note = |differs: bool, change| {
            if differs {
                changes |= change;
            }
        };
        note(self.labels != newer.labels, Changes::NODE_LABELS | Changes::DOMAINS);
        note(self.taints != newer.taints, Changes::NODE_TAINTS | Changes::DOMAINS);
        note(self.unschedulable != newer.unschedulable, Changes::NODE_UNSCHEDULABLE);
        note(self.allocatable != newer.allocatable, Changes::NODE_ALLOCATABLE);
        changes
    }

    /// Takes over a newer state of the same node. What its pods use stays.
    pub(crate) fn refresh(&mut self, newer: Self) {
        let before = std::mem::take(self);
        let Self { requested, nonzero, ports, pods, .. } = before;
        *self = Self { requested, nonzero, ports, pods, ..newer };
    }
}
