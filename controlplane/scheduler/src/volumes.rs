//! [`Volumes`]: claims, volumes and classes, as far as they say where a pod can go.
//!
//! # Source
//! Kubernetes `plugins/volumebinding/binder.go`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{
    api::{
        core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm},
        storage::v1::{CSINode, CSINodeDriver, StorageClass},
    },
    apimachinery::pkg::{api::resource::Quantity as Wire, apis::meta::v1::ObjectMeta},
};
use podium_api::{ObjectKey, Selector, quantity::Quantity};

use crate::{
    filters::selector_matches,
    node::NodeInfo,
    terms::{Labels, selector},
};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What is known of storage.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    claims: HashMap<ObjectKey, Claim>,
    volumes: BTreeMap<String, Volume>,
    classes: HashMap<String, Class>,
    /// Volumes that are promised to claims of pods that are assumed.
    promised: HashMap<String, ObjectKey>,
    /// How many volumes of a driver a node can attach, by node and driver.
    limits: HashMap<String, BTreeMap<String, usize>>,
}

/// What appeared or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// A claim.
    Claim(ObjectKey),
    /// A volume.
    Volume(String),
    /// A storage class.
    Class(String),
    /// How many volumes a node can attach.
    Limits,
}

/// A volume as a CSI driver knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attached {
    pub(crate) driver: String,
    handle: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) uid: String,
    pub(crate) owner: String,
    /// Bound, or to be bound, to this volume; empty when to none.
    pub(crate) volume: String,
    pub(crate) bound: bool,
    pub(crate) lost: bool,
    pub(crate) deleting: bool,
    pub(crate) one_pod: bool,
    class: String,
    selected_node: String,
    bytes: u64,
    modes: Vec<String>,
    mode: String,
    selector: Option<Selector>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    pub(crate) affinity: Option<NodeSelector>,
    pub(crate) labels: Labels,
    claim: Option<ObjectKey>,
    attached: Option<Attached>,
    available: bool,
    class: String,
    bytes: u64,
    modes: Vec<String>,
    mode: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Class {
    waits: bool,
    provisions: bool,
    provisioner: String,
    topologies: Vec<TopologySelectorTerm>,
}

/// What has to be written before a pod with unbound claims can be bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumePlan {
    /// Volumes to give to claims.
    pub bind: Vec<(String, ObjectKey)>,
    /// Claims to have a volume made for, on the pod's node.
    pub provision: Vec<ObjectKey>,
}

impl VolumePlan {
    /// Whether there is nothing to write or to wait for.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }

    /// All claims in it.
    pub fn claims(&self) -> impl Iterator<Item = &ObjectKey> {
        self.bind.iter().map(|(_, claim)| claim).chain(&self.provision)
    }
}

impl Volumes {
    /// Whether anything relevant is different.
    pub(crate) fn put_claim(&mut self, claim: &PersistentVolumeClaim) -> bool {
        let spec = claim.spec.as_ref();
        let annotation = |name: &str| annotation(&claim.metadata, name);
        let text = |field: Option<&String>| field.cloned().unwrap_or_default();
        let modes = spec.and_then(|s| s.access_modes.clone()).unwrap_or_default();
        let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
        let owner = claim.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let read = Claim {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            owner: owner.map(|o| o.uid.clone()).unwrap_or_default(),
            volume: text(spec.and_then(|s| s.volume_name.as_ref())),
            bound: annotation(BIND_COMPLETED).is_some(),
            lost: claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost"),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            one_pod: modes.iter().any(|mode| mode == "ReadWriteOncePod"),
            class: text(spec.and_then(|s| s.storage_class_name.as_ref())),
            selected_node: annotation(SELECTED_NODE).unwrap_or_default().to_owned(),
            bytes: storage(requests),
            modes,
            mode: volume_mode(spec.and_then(|s| s.volume_mode.as_ref())),
            selector: spec.and_then(|s| s.selector.as_ref()).map(|s| selector(Some(s))),
        };
        let different = self.claims.get(&ObjectKey::of(&claim.metadata)) != Some(&read);
        self.claims.insert(ObjectKey::of(&claim.metadata), read);
        different
    }

    pub(crate) fn remove_claim(&mut self, key: &ObjectKey) {
        self.claims.remove(key);
    }

    /// Whether anything relevant is different.
    pub(crate) fn put_volume(&mut self, volume: &PersistentVolume) -> bool {
        let spec = volume.spec.as_ref();
        let claim = spec
            .and_then(|s| s.claim_ref.as_ref())
            .map(|c| ObjectKey::new(c.namespace.clone().unwrap_or_default(), c.name.clone().unwrap_or_default()));
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        let read = Volume {
            affinity: spec.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.clone()),
            labels: volume.metadata.labels.clone().unwrap_or_default(),
            claim,
            attached: spec
                .and_then(|s| s.csi.as_ref())
                .map(|csi| Attached { driver: csi.driver.clone(), handle: csi.volume_handle.clone() }),
            available: phase == Some("Available") && volume.metadata.deletion_timestamp.is_none(),
            class: spec.and_then(|s| s.storage_class_name.clone()).unwrap_or_default(),
            bytes: storage(spec.and_then(|s| s.capacity.as_ref())),
            modes: spec.and_then(|s| s.access_modes.clone()).unwrap_or_default(),
            mode: volume_mode(spec.and_then(|s| s.volume_mode.as_ref())),
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let different = self.volumes.get(&name) != Some(&read);
        self.volumes.insert(name, read);
        different
    }

    pub(crate) fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Whether anything relevant is different.
    pub(crate) fn put_class(&mut self, class: &StorageClass) -> bool {
        let read = Class {
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisions: class.provisioner != NO_PROVISIONER,
            provisioner: class.provisioner.clone(),
            topologies: class.allowed_topologies.clone().unwrap_or_default(),
        };
        let name = class.metadata.name.clone().unwrap_or_default();
        let different = self.classes.get(&name) != Some(&read);
        self.classes.insert(name, read);
        different
    }

    pub(crate) fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// What a node says of its drivers. Whether anything relevant is different.
    pub(crate) fn put_limits(&mut self, node: &CSINode) -> bool {
        let limit = |driver: &CSINodeDriver| {
            let count = usize::try_from(driver.allocatable.as_ref()?.count?).ok()?;
            Some((driver.name.clone(), count))
        };
        let limits: BTreeMap<_, _> = node.spec.drivers.iter().filter_map(limit).collect();
        let name = node.metadata.name.clone().unwrap_or_default();
        if limits.is_empty() {
            return self.limits.remove(&name).is_some();
        }
        let different = self.limits.get(&name) != Some(&limits);
        self.limits.insert(name, limits);
        different
    }

    pub(crate) fn remove_limits(&mut self, node: &str) {
        self.limits.remove(node);
    }

    /// Whether any node limits anything.
    pub(crate) fn limits_any(&self) -> bool {
        !self.limits.is_empty()
    }

    /// How many volumes of a driver a node can attach; `None`: any number.
    pub(crate) fn limit(&self, node: &str, driver: &str) -> Option<usize> {
        self.limits.get(node)?.get(driver).copied()
    }

    /// What a claim has attached where its pod runs. One without a volume will have one of its own.
    pub(crate) fn attached(&self, key: &ObjectKey) -> Option<Attached> {
        let claim = self.claims.get(key)?;
        if !claim.volume.is_empty() {
            return self.volumes.get(&claim.volume)?.attached.clone();
        }
        let class = self.classes.get(&claim.class).filter(|class| class.provisions)?;
        Some(Attached { driver: class.provisioner.clone(), handle: format!("{key} of {}", claim.class) })
    }

    pub(crate) fn claim(&self, key: &ObjectKey) -> Option<&Claim> {
        self.claims.get(key)
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(name)
    }

    /// Whether what changed may be what keeps a claim's pod from its node.
    pub(crate) fn concerns(&self, stored: &Stored, claim: &ObjectKey) -> bool {
        let known = self.claims.get(claim);
        match stored {
            Stored::Claim(key) => key == claim,
            Stored::Class(class) => known.is_some_and(|claim| claim.class == *class),
            Stored::Volume(name) => known.is_some_and(|claim| match claim.volume.as_str() {
                "" => self.volumes.get(name).is_some_and(|volume| volume.class == claim.class),
                its => its == name,
            }),
            Stored::Limits => true,
        }
    }

    /// Whether a claim is bound only once its pod has a node.
    pub(crate) fn waits(&self, claim: &Claim) -> bool {
        self.classes.get(&claim.class).is_some_and(|c| c.waits)
    }

    /// Whether all claims are bound.
    pub(crate) fn all_bound<'a>(&self, mut claims: impl Iterator<Item = &'a ObjectKey>) -> bool {
        claims.all(|key| self.claims.get(key).is_some_and(|c| c.bound && !c.volume.is_empty()))
    }

    /// What to write for these claims if their pod goes to a node; `None` when there is no volume for one of them and
    /// none can be made.
    pub(crate) fn plan(&self, claims: &[ObjectKey], node: &NodeInfo) -> Option<VolumePlan> {
        let mut plan = VolumePlan::default();
        for key in claims {
            let claim = self.claims.get(key)?;
            if !claim.selected_node.is_empty() && *claim.selected_node != *node.name {
                return None;
            }
            let chosen = self.find(key, claim, node, &plan).filter(|_| claim.selected_node.is_empty());
            if let Some(volume) = chosen {
                plan.bind.push((volume.to_owned(), key.clone()));
                continue;
            }
            let class = self.classes.get(&claim.class).filter(|c| c.provisions)?;
            if !class.topologies.is_empty() && !class.topologies.iter().any(|t| topology_matches(t, node)) {
                return None;
            }
            plan.provision.push(key.clone());
        }
        Some(plan)
    }

    /// The smallest volume that suits a claim and can be reached from a node.
    fn find(&self, key: &ObjectKey, claim: &Claim, node: &NodeInfo, plan: &VolumePlan) -> Option<&str> {
        let reachable = |v: &Volume| v.affinity.as_ref().is_none_or(|a| selector_matches(a, node));
        let free = |name: &str| {
            self.promised.get(name).is_none_or(|promised| promised == key) && !plan.bind.iter().any(|(n, _)| n == name)
        };
        let suits = self.volumes.iter().filter(|(name, v)| v.suits(key, claim) && reachable(v) && free(name));
        let best = suits.min_by_key(|(name, v)| (v.claim.is_none(), v.bytes, *name));
        best.map(|(name, _)| name.as_str())
    }

    /// The volumes of a plan are not given to others.
    pub(crate) fn promise(&mut self, plan: &VolumePlan) {
        self.promised.extend(plan.bind.iter().cloned());
    }

    /// Ends what was promised for a plan.
    pub(crate) fn withdraw(&mut self, plan: &VolumePlan) {
        for (volume, claim) in &plan.bind {
            if self.promised.get(volume) == Some(claim) {
                self.promised.remove(volume);
            }
        }
    }
}

impl Volume {
    fn suits(&self, key: &ObjectKey, claim: &Claim) -> bool {
        let its = self.claim.as_ref() == Some(key);
        (its || (self.claim.is_none() && self.available))
            && self.class == claim.class
            && self.mode == claim.mode
            && self.bytes >= claim.bytes
            && claim.modes.iter().all(|mode| self.modes.contains(mode))
            && claim.selector.as_ref().is_none_or(|s| s.matches(&self.labels))
    }
}

fn topology_matches(term: &TopologySelectorTerm, node: &NodeInfo) -> bool {
    let mut wanted = term.match_label_expressions.iter().flatten();
    wanted.all(|w| node.labels.get(&w.key).is_some_and(|value| w.values.contains(value)))
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn storage(list: Option<&BTreeMap<String, Wire>>) -> u64 {
    let found = list.and_then(|list| list.get("storage"));
    found.and_then(|wire| Quantity::try_from(wire).ok()).unwrap_or_default().bytes()
}

fn volume_mode(mode: Option<&String>) -> String {
    mode.cloned().unwrap_or_else(|| "Filesystem".to_owned())
}
