//! [`Invariants`]: what must hold after every change, whatever fails.
//!
//! - The ReplicaSets of a Deployment together never want more than its replicas plus `maxSurge`.
//! - A ReplicaSet never has more pods made than it wants.
//! - A pod is bound at most once, and to a node that exists.
//! - What [`availability`] says of roll-outs and evictions.
//! - What [`placement`] says of room, of taints and of preemption.
//! - What [`recreate`] says of Deployments that are not rolled out but recreated.
//! - What [`sets`] says of StatefulSets and DaemonSets.
//!
//! Controllers decide on what they have seen, which may be late: "wants" is the most that was asked for within the last
//! [`LATE_SECONDS`]. Pods whose creation was not answered are not held against anybody.

mod availability;
mod placement;
mod recreate;
mod sets;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use podium_api::{
    Object,
    k8s_openapi::{
        api::{
            apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
            core::v1::{Node, Pod},
            policy::v1::PodDisruptionBudget,
        },
        apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    },
    kind_of,
};
use podium_client::{Delta, ModelApi};
use tokio::time::Instant;

use crate::{changes::Changes, faults::Faults, jobs::job_of};

/// How old the knowledge of a controller may be.
const LATE_SECONDS: u64 = 60;
/// How much of the past a failure shows.
const HISTORY: usize = 60;

/// Checks every change in order.
pub struct Invariants {
    changes: Changes,
    faults: Arc<Faults>,
    started: Instant,
    wanted: BTreeMap<String, Wanted>,
    sets: BTreeMap<String, (String, i32)>,
    pods: BTreeMap<String, String>,
    nodes: BTreeSet<String>,
    numbered: sets::Sets,
    placement: placement::Placement,
    availability: availability::Availability,
    recreated: recreate::Recreated,
    history: VecDeque<String>,
    digest: DefaultHasher,
    pods_made: u64,
    /// More are never made.
    pods_max: u64,
}

/// What was wanted of one object, newest last.
struct Wanted {
    values: VecDeque<(Instant, i32)>,
    late: Duration,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::within(LATE_SECONDS)
    }
}

impl Wanted {
    /// What was wanted within the last so many seconds.
    fn within(seconds: u64) -> Self {
        Self { values: VecDeque::new(), late: Duration::from_secs(seconds) }
    }

    fn now(&mut self, wanted: i32) {
        self.values.push_back((Instant::now(), wanted));
        // The value before the first recent change was still asked for then.
        while self.values.get(1).is_some_and(|(since, _)| since.elapsed() > self.late) {
            self.values.pop_front();
        }
    }

    fn most(&mut self) -> i32 {
        if let Some((_, last)) = self.values.back().copied() {
            self.now(last);
        }
        self.values.iter().map(|(_, wanted)| *wanted).max().unwrap_or(0)
    }

    fn least(&mut self) -> i32 {
        self.most();
        self.values.iter().map(|(_, wanted)| *wanted).min().unwrap_or(0)
    }
}

impl Invariants {
    /// Watches a model. More pods than `pods_max` are one too many.
    pub async fn open(model: &ModelApi, faults: Arc<Faults>, pods_max: u64) -> Self {
        let sets = [kind_of::<Deployment>(), kind_of::<ReplicaSet>(), kind_of::<StatefulSet>(), kind_of::<DaemonSet>()];
        let kinds = sets.into_iter().chain([kind_of::<Node>(), kind_of::<PodDisruptionBudget>(), kind_of::<Pod>()]);
        Self {
            changes: Changes::open(model, kinds).await,
            numbered: sets::Sets::new(Arc::clone(&faults)),
            faults,
            started: Instant::now(),
            wanted: BTreeMap::new(),
            sets: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeSet::new(),
            placement: placement::Placement::default(),
            availability: availability::Availability::default(),
            recreated: recreate::Recreated::default(),
            history: VecDeque::new(),
            digest: DefaultHasher::new(),
            pods_made: 0,
            pods_max,
        }
    }

    /// Puts something in the history.
    pub fn note(&mut self, what: String) {
        what.hash(&mut self.digest);
        self.numbered.heard(&what);
        self.availability.heard(&what);
        let millis = self.started.elapsed().as_millis();
        self.history.push_back(format!("{:4}.{:03} {what}", millis / 1000, millis % 1000));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// The last things that happened.
    pub fn history(&self) -> Vec<String> {
        self.history.iter().cloned().collect()
    }

    /// How many pods were made.
    pub fn pods_made(&self) -> u64 {
        self.pods_made
    }

    /// A digest of everything that happened, in order.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Checks every change since the last time, in the order in which they were made.
    ///
    /// # Errors
    /// The first that breaks an invariant.
    pub fn check(&mut self) -> Result<(), String> {
        for delta in self.changes.take() {
            self.change(&delta)?;
            if self.pods_made > self.pods_max {
                return Err(format!("{} pods were made, at most {}", self.pods_made, self.pods_max));
            }
        }
        Ok(())
    }

    fn change(&mut self, delta: &Delta) -> Result<(), String> {
        let object = delta.object();
        let gone = matches!(delta, Delta::Delete { .. });
        self.note(describe(&**object, gone));
        if let Some(node) = object.downcast_ref::<Node>() {
            self.nodes.insert(node.metadata.name.clone().unwrap_or_default());
            self.numbered.node(node, gone);
            self.availability.node(node, gone);
            self.placement.node(node, gone);
        } else if let Some(set) = object.downcast_ref::<StatefulSet>() {
            self.numbered.stateful_set(set, gone);
        } else if let Some(set) = object.downcast_ref::<DaemonSet>() {
            self.numbered.daemon_set(set, gone);
        } else if let Some(deployment) = object.downcast_ref::<Deployment>() {
            self.deployment(deployment);
            self.recreated.deployment(deployment);
            self.availability.deployment(deployment, gone);
        } else if let Some(budget) = object.downcast_ref::<PodDisruptionBudget>() {
            self.availability.budget(budget, gone);
        } else if let Some(set) = object.downcast_ref::<ReplicaSet>() {
            self.recreated.set(set, gone);
            return self.set(set, gone);
        } else if let Some(pod) = object.downcast_ref::<Pod>() {
            let old = match delta {
                Delta::Put { old, .. } => old.as_ref().and_then(|o| o.downcast_ref::<Pod>()),
                Delta::Delete { .. } => None,
            };
            return self.pod(pod, old, gone);
        }
        Ok(())
    }

    fn deployment(&mut self, deployment: &Deployment) {
        let Some(spec) = &deployment.spec else { return };
        let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = match rolling.and_then(|r| r.max_surge.as_ref()) {
            Some(IntOrString::Int(surge)) => *surge,
            _ => 0,
        };
        self.wanted.entry(uid(&deployment.metadata)).or_default().now(spec.replicas.unwrap_or(1) + surge);
    }

    fn set(&mut self, set: &ReplicaSet, gone: bool) -> Result<(), String> {
        let (set_uid, owner) = (uid(&set.metadata), owner(&set.metadata));
        let wants = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        if gone {
            self.sets.remove(&set_uid);
            return Ok(());
        }
        self.wanted.entry(set_uid.clone()).or_default().now(wants);
        let before = self.sets.insert(set_uid, (owner.clone(), wants)).map_or(0, |(_, before)| before);
        let together: i32 = self.sets.values().filter(|(o, _)| *o == owner).map(|(_, wants)| wants).sum();
        let most = self.wanted.entry(owner).or_default().most();
        if wants > before && together > most {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "{name} was raised: its Deployment's ReplicaSets want {together} pods, at most {most}"
            ));
        }
        Ok(())
    }

    fn pod(&mut self, pod: &Pod, old: Option<&Pod>, gone: bool) -> Result<(), String> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        let (now_on, was_on) = (node(pod), old.and_then(node));
        if let (Some(was), now) = (&was_on, &now_on)
            && now.as_ref() != Some(was)
        {
            return Err(format!("pod {name} was on {was} and is now on {now:?}"));
        }
        if let Some(node) = now_on.filter(|n| !self.nodes.contains(n)) {
            return Err(format!("pod {name} is on {node}, which does not exist"));
        }
        self.placement.pod(pod, old, gone)?;
        self.availability.pod(pod, gone)?;
        self.recreated.pod(pod, gone)?;
        if job_of(&pod.metadata).is_some() {
            return Ok(());
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let (pod_uid, owner) = (uid(&pod.metadata), owner(&pod.metadata));
        if self.numbered.own(&owner) {
            self.pods_made += u64::from(self.numbered.pod(pod, &owner, gone)?);
            return Ok(());
        }
        if gone || pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            self.pods.remove(&pod_uid);
            return Ok(());
        }
        if self.pods.insert(pod_uid, owner.clone()).is_some() {
            return Ok(());
        }
        self.pods_made += 1;
        let there = self.pods.values().filter(|o| **o == owner).count();
        let most = self.wanted.entry(owner.clone()).or_default().most();
        let most = usize::try_from(most).unwrap_or(0) + self.faults.lost_creates(&owner) as usize;
        if there > most {
            return Err(format!("pod {name} is one too many: its ReplicaSet has {there}, at most {most}"));
        }
        Ok(())
    }
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn owner(meta: &ObjectMeta) -> String {
    meta.owner_references.iter().flatten().next().map(|o| o.uid.clone()).unwrap_or_default()
}

/// One line for the history.
fn describe(object: &dyn Object, gone: bool) -> String {
    let (kind, key, revision) = (object.names().kind, object.key(), object.revision());
    if gone {
        return format!("{kind} {key} is gone");
    }
    let more = if let Some(pod) = object.downcast_ref::<Pod>() {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("-");
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("-");
        format!("on {node}: {phase}")
    } else if let Some(set) = object.downcast_ref::<ReplicaSet>() {
        let wants = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        format!("wants {wants}, has {}", set.status.as_ref().map_or(0, |s| s.replicas))
    } else if let Some(deployment) = object.downcast_ref::<Deployment>() {
        format!("wants {}", deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
    } else {
        String::new()
    };
    let ending = if object.meta().deletion_timestamp.is_some() { ", terminating" } else { "" };
    format!("{kind} {key} @{revision} {more}{ending}")
}
