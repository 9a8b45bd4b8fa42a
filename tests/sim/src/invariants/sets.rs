//! What must hold of StatefulSets and DaemonSets.
//!
//! - With `OrderedReady` a pod is made only when every pod before it has been ready a moment ago.
//! - A StatefulSet's pod is made only for an ordinal that was asked for a moment ago.
//! - A node has no more than one pod of a DaemonSet (two with surge) that neither ended nor is on its way out.
//! - What a roll-out has taken away and not brought back is never more than `maxUnavailable`.
//!
//! What others take away is not held against the roll-out: what the user kills, what a node evicts, and pods of nodes in
//! trouble.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use podium_api::k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, StatefulSet},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::time::Instant;

use super::{LATE_SECONDS, Wanted, trouble::Trouble, uid};
use crate::faults::Faults;

/// The sets, and what became of their pods.
pub(super) struct Sets {
    faults: Arc<Faults>,
    sets: BTreeMap<String, Set>,
    trouble: Trouble,
    killed: BTreeSet<String>,
}

/// One of them.
#[derive(Default)]
struct Set {
    daemon: bool,
    /// The user has deleted it: its pods go as they may.
    gone: bool,
    ordered: bool,
    wanted: Wanted,
    surge: i32,
    /// The most within the last minute.
    unavailable: Wanted,
    /// Pods by uid.
    pods: BTreeMap<String, Member>,
    /// When the pod of a place (an ordinal, a node) was ready last.
    ready_at: BTreeMap<String, Instant>,
    /// Places that a roll-out emptied and that have had no ready pod since.
    taken: BTreeSet<String>,
}

/// One pod.
#[derive(Debug, Clone)]
struct Member {
    place: String,
    ready: bool,
    /// Since when it is.
    since: Instant,
    /// Neither ended nor on its way out.
    active: bool,
}

impl Sets {
    pub(super) fn new(faults: Arc<Faults>) -> Self {
        Self { faults, sets: BTreeMap::new(), trouble: Trouble::default(), killed: BTreeSet::new() }
    }

    /// Hears what the user did.
    pub(super) fn heard(&mut self, what: &str) {
        self.killed.extend(what.strip_prefix("user kills ").map(str::to_owned));
    }

    pub(super) fn node(&mut self, node: &Node, gone: bool) {
        self.trouble.node(node, gone);
    }

    pub(super) fn stateful_set(&mut self, set: &StatefulSet, gone: bool) {
        let Some(spec) = &set.spec else { return };
        let known = self.sets.entry(uid(&set.metadata)).or_default();
        known.gone = gone || set.metadata.deletion_timestamp.is_some();
        known.ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
        known.wanted.now(spec.replicas.unwrap_or(1));
        let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        known.unavailable.now(number(rolling.and_then(|r| r.max_unavailable.as_ref()), 1).max(1));
    }

    pub(super) fn daemon_set(&mut self, set: &DaemonSet, gone: bool) {
        let Some(spec) = &set.spec else { return };
        let known = self.sets.entry(uid(&set.metadata)).or_default();
        known.gone = gone || set.metadata.deletion_timestamp.is_some();
        known.daemon = true;
        let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        known.surge = number(rolling.and_then(|r| r.max_surge.as_ref()), 0);
        known.unavailable.now(number(rolling.and_then(|r| r.max_unavailable.as_ref()), 1));
    }

    /// Whether a pod with this owner is one of theirs.
    pub(super) fn own(&self, owner: &str) -> bool {
        self.sets.contains_key(owner)
    }

    /// Checks a change of a pod; `true` when it is a new one.
    ///
    /// # Errors
    /// It breaks an invariant.
    pub(super) fn pod(&mut self, pod: &Pod, owner: &str, gone: bool) -> Result<bool, String> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let key = format!("{}/{name}", pod.metadata.namespace.as_deref().unwrap_or_default());
        let lost = i32::try_from(self.faults.lost_creates(owner)).unwrap_or(i32::MAX);
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let ended = pod.metadata.deletion_timestamp.is_none();
        let excused = ended || self.killed.contains(&key) || self.trouble.is_in(node);
        let Some(set) = self.sets.get_mut(owner) else { return Ok(false) };
        let id = uid(&pod.metadata);
        if gone {
            self.killed.remove(&key);
            set.pods.remove(&id);
            return Ok(false);
        }
        let mut member = member(pod, set.daemon);
        if let Some(before) = set.pods.get(&id).filter(|before| before.ready && member.ready) {
            member.since = before.since;
        }
        let before = set.pods.insert(id, member.clone());
        if member.ready && member.active {
            set.taken.remove(&member.place);
        }
        if member.ready || before.as_ref().is_some_and(|b| b.ready) {
            set.ready_at.insert(member.place.clone(), Instant::now());
        }
        match before {
            _ if set.gone => Ok(before.is_none()),
            None => set.made(&name, &member, lost).map(|()| true),
            // One that became ready only now may be thought not to be: such go at once.
            Some(before) if before.is_known_to_be_well() && !member.active && !excused => {
                // A DaemonSet does not miss a pod on a node that it may not start one on.
                set.taken.retain(|node| !self.trouble.is_in(node));
                set.took_away(&name, &member, lost).map(|()| false)
            }
            Some(_) => Ok(false),
        }
    }
}

impl Set {
    fn made(&mut self, name: &str, member: &Member, lost: i32) -> Result<(), String> {
        if self.daemon {
            let here = |m: &&Member| m.place == member.place && m.active;
            let there = i32::try_from(self.pods.values().filter(here).count()).unwrap_or(i32::MAX);
            let most = 1 + self.surge.min(1) + lost;
            let node = &member.place;
            return if there <= most {
                Ok(())
            } else {
                Err(format!("pod {name} is one too many: {node} has {there} of its DaemonSet, at most {most}"))
            };
        }
        let late = Duration::from_secs(LATE_SECONDS);
        let ordinal: i32 = member.place.parse().unwrap_or(0);
        let wanted = self.wanted.most();
        if ordinal >= wanted {
            return Err(format!("pod {name} is one too many: its StatefulSet wants {wanted}"));
        }
        let was_ready = |n: i32| self.ready_at.get(&n.to_string()).is_some_and(|at| at.elapsed() < late);
        // Which of those before it are ready now was ready a moment ago as well.
        let is_ready = |n: i32| self.pods.values().any(|m| m.place == n.to_string() && m.ready && m.active);
        match (0..ordinal).find(|n| self.ordered && !was_ready(*n) && !is_ready(*n)) {
            Some(missing) => Err(format!("pod {name} was made while that of ordinal {missing} is not ready")),
            None => Ok(()),
        }
    }

    /// A ready pod is on its way out, and neither the user nor its node is why.
    fn took_away(&mut self, name: &str, member: &Member, lost: i32) -> Result<(), String> {
        let replaced = |m: &Member| m.place == member.place && m.ready && m.active;
        let wanted = self.daemon || member.place.parse::<i32>().is_ok_and(|n| n < self.wanted.least());
        if !wanted || self.pods.values().any(replaced) {
            return Ok(());
        }
        self.taken.insert(member.place.clone());
        let most = self.unavailable.most() + if self.daemon { lost } else { 0 };
        // Nobody misses a pod of an ordinal that is not wanted any more.
        let least = self.wanted.least();
        let missed = |place: &&String| self.daemon || place.parse::<i32>().is_ok_and(|n| n < least);
        let missing: Vec<&String> = self.taken.iter().filter(missed).collect();
        let taken = i32::try_from(missing.len()).unwrap_or(i32::MAX);
        if taken > most {
            return Err(format!("pod {name} was taken away: {taken} are missing ({missing:?}), at most {most}"));
        }
        Ok(())
    }
}

impl Member {
    fn is_known_to_be_well(&self) -> bool {
        self.active && self.ready && self.since.elapsed() > Duration::from_secs(LATE_SECONDS)
    }
}

fn member(pod: &Pod, daemon: bool) -> Member {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let ordinal = || name.rsplit('-').next().unwrap_or_default().to_owned();
    Member {
        place: if daemon { target(pod).unwrap_or_default() } else { ordinal() },
        since: Instant::now(),
        ready: phase == "Running" && conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
        active: pod.metadata.deletion_timestamp.is_none() && !matches!(phase, "Failed" | "Succeeded"),
    }
}

/// The node that a DaemonSet's pod is made for.
fn target(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let field = required.node_selector_terms.first()?.match_fields.as_ref()?.first()?;
    field.values.as_ref()?.first().cloned()
}

fn number(value: Option<&IntOrString>, default: i32) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        _ => default,
    }
}
