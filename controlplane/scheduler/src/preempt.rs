//! Preemption: when a pod fits nowhere, which pods of lower priority should end so that it does.
//!
//! # Source
//! Kubernetes `pkg/scheduler/framework/preemption/preemption.go`, `plugins/defaultpreemption/default_preemption.go`.

use std::{cmp::Reverse, sync::Arc};

use podium_api::ObjectKey;

use crate::{
    decide::{Random, Search, count},
    message::fit_error,
    plugin::Unmet,
    pod::PodInfo,
    profile::PreemptionLimits,
    snapshot::{Placed, Snapshot},
    subject::Subject,
};

/// Pods to end, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The node that the preemptor is nominated to.
    pub node: Arc<str>,
    /// The pods to end that are not ending yet: names and uids.
    pub victims: Vec<(ObjectKey, String)>,
    /// Pods of lower priority that were nominated to the node: they look elsewhere.
    pub displaced: Vec<(ObjectKey, String)>,
}

/// Why nobody is preempted.
pub(crate) struct Failed {
    pub(crate) message: String,
    /// There is no node that the pod could wait for.
    pub(crate) clear_nomination: bool,
}

impl Failed {
    fn because(message: &str) -> Self {
        Self { message: message.to_owned(), clear_nomination: false }
    }
}

/// The victims on one node, the most important first.
struct Candidate {
    slot: u32,
    victims: Vec<u32>,
    /// How many of them break a disruption budget.
    violations: usize,
}

/// Looks for victims.
pub(crate) fn attempt(
    search: &mut Search<'_>,
    subject: &Subject<'_>,
    snapshot: &mut Snapshot,
    limits: PreemptionLimits,
    random: &mut Random,
) -> Result<Preemption, Failed> {
    let pod = subject.pod;
    if pod.never_preempts {
        return Err(Failed::because("not eligible due to preemptionPolicy=Never."));
    }
    if waits_for_victims(pod, search, snapshot) {
        return Err(Failed::because("not eligible due to a terminating pod on the nominated node."));
    }
    let mut hopeful = std::mem::take(&mut search.hopeful);
    if search.refused.as_ref().is_some_and(|(_, preemption_helps)| *preemption_helps) {
        hopeful = snapshot.order().to_vec();
    }
    let mut tally = Vec::new();
    let elsewhere = snapshot.order().len() - hopeful.len();
    if elsewhere > 0 {
        tally.push((Unmet::Text("Preemption is not helpful for scheduling"), elsewhere));
    }
    let candidates = find(hopeful, &mut tally, search, pod, snapshot, (limits, random));
    match candidates.iter().min_by_key(|c| cost(c, snapshot)) {
        Some(best) => Ok(plan(best, pod, snapshot)),
        None => {
            let message = fit_error(snapshot.order().len(), &None, &tally, pod);
            Err(Failed { message, clear_nomination: true })
        }
    }
}

/// Whether the pod has preempted already, and its victims are still ending.
fn waits_for_victims(pod: &PodInfo, search: &Search<'_>, snapshot: &Snapshot) -> bool {
    let nominated = match pod.nominated_node.as_str() {
        "" => snapshot.nominations.of(&pod.uid),
        name => Some(name),
    };
    let Some(slot) = nominated.and_then(|name| snapshot.slot(name)) else { return false };
    // The node will not do whoever ends there: it may preempt again.
    if !search.hopeful.contains(&slot) {
        return false;
    }
    let mut victims = snapshot.at(slot).pods.iter().map(|at| snapshot.placed(*at));
    victims.any(|victim| victim.priority < pod.priority && victim.preempted)
}

/// Tries nodes until there are enough candidates, one of which breaks no budget.
fn find(
    mut hopeful: Vec<u32>,
    tally: &mut Vec<(Unmet, usize)>,
    search: &mut Search<'_>,
    pod: &PodInfo,
    snapshot: &mut Snapshot,
    (limits, random): (PreemptionLimits, &mut Random),
) -> Vec<Candidate> {
    let enough = (hopeful.len() * limits.percent / 100).max(limits.nodes).min(hopeful.len());
    let offset = random.below(hopeful.len());
    hopeful.rotate_left(offset);
    let mut candidates = Vec::new();
    let mut harmless = false;
    for slot in hopeful {
        match victims_on(slot, search, pod, snapshot) {
            Ok(candidate) => {
                harmless |= candidate.violations == 0;
                candidates.push(candidate);
            }
            Err(reason) => count(tally, reason),
        }
        if harmless && candidates.len() >= enough {
            break;
        }
    }
    candidates
}

/// The fewest pods of lower priority on a node without which the pod fits.
fn victims_on(slot: u32, search: &mut Search<'_>, pod: &PodInfo, snapshot: &mut Snapshot) -> Result<Candidate, Unmet> {
    let below = |at: &&u32| snapshot.placed(**at).priority < pod.priority;
    let mut potential: Vec<u32> = snapshot.at(slot).pods.iter().filter(below).copied().collect();
    if potential.is_empty() {
        return Err(Unmet::Text("No preemption victims found for incoming pod"));
    }
    potential.iter().for_each(|at| snapshot.lift(*at));
    search.refresh(snapshot);
    let empty = search.check(pod, snapshot, slot);
    let mut found = Candidate { slot, victims: Vec::new(), violations: 0 };
    if empty.is_ok() {
        potential.sort_by_key(|at| importance(snapshot.placed(*at)));
        reprieve(&potential, &mut found, search, pod, snapshot);
        found.victims.sort_by_key(|at| importance(snapshot.placed(*at)));
    }
    potential.iter().for_each(|at| snapshot.settle(*at));
    search.refresh(snapshot);
    match empty {
        Ok(()) => Ok(found),
        Err(refused) => Err(refused.reason),
    }
}

/// Lets pods stay as long as the pod fits beside them: first those whose end breaks a budget, the most important first.
fn reprieve(potential: &[u32], found: &mut Candidate, search: &mut Search<'_>, pod: &PodInfo, snapshot: &mut Snapshot) {
    let mut spending = snapshot.budgets.open();
    let breaks = |at: &u32| {
        let victim = snapshot.placed(*at);
        spending.breaks(&victim.name, snapshot.index.group_key(victim.group))
    };
    let broken: Vec<bool> = potential.iter().map(breaks).collect();
    for violating in [true, false] {
        let turn = potential.iter().zip(&broken).filter(|(_, breaks)| **breaks == violating);
        for (at, _) in turn {
            snapshot.settle(*at);
            search.refresh(snapshot);
            if search.check(pod, snapshot, found.slot).is_err() {
                snapshot.lift(*at);
                search.refresh(snapshot);
                found.victims.push(*at);
                found.violations += usize::from(violating);
            }
        }
    }
}

/// Greater priority first, then the longer running.
fn importance(pod: &Placed) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority), pod.started)
}

/// The smaller the better: budgets broken, highest priority, sum of priorities, number, and a late start of the most
/// important.
fn cost(candidate: &Candidate, snapshot: &Snapshot) -> (usize, i32, i64, usize, Reverse<i64>) {
    let victims = || candidate.victims.iter().map(|at| snapshot.placed(*at));
    let highest = victims().map(|v| v.priority).max().unwrap_or(i32::MIN);
    // Shifted to be positive, so that fewer victims of a negative priority cost less than more of them.
    let sum = victims().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims().filter(|v| v.priority == highest).map(|v| v.started).min().unwrap_or(i64::MAX);
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}

fn plan(best: &Candidate, pod: &PodInfo, snapshot: &Snapshot) -> Preemption {
    let node = snapshot.at(best.slot).name.clone();
    let victims = best.victims.iter().map(|at| snapshot.placed(*at)).filter(|v| !v.terminating);
    let key = |v: &Placed| ObjectKey::new(&*snapshot.index.group_key(v.group).namespace, &*v.name);
    let displaced = snapshot.nominations.on(&node).iter().filter(|n| n.priority < pod.priority && n.uid != pod.uid);
    Preemption {
        victims: victims.map(|v| (key(v), v.uid.to_string())).collect(),
        displaced: displaced.map(|n| (n.key.clone(), n.uid.clone())).collect(),
        node,
    }
}
