//! [`schedule`]: one pod, one snapshot, one decision.
//!
//! The nodes that fit are found in one pass, which ends when there are enough and takes the nodes in another order for
//! each `tie`; then they are scored. What is allocated does not grow with plugins times nodes. The snapshot is changed
//! meanwhile (counts that are asked for the first time, pods thought away) but says the same afterwards.

use std::sync::Arc;

use crate::{
    change::Changes,
    filters::unbound_claims,
    message,
    node::NodeInfo,
    plugin::{Prepared, PreparedFilter, Unmet, Verdict},
    pod::PodInfo,
    preempt::{self, Preemption},
    profile::Profile,
    snapshot::Snapshot,
    subject::Subject,
    volumes::VolumePlan,
};

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind it there.
    Bind {
        /// The node's name.
        node: Arc<str>,
        /// What to write for its claims before; mostly nothing.
        volumes: VolumePlan,
    },
    /// No node takes it.
    Unschedulable(Refusal),
}

/// Why no node takes a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In Kubernetes' words, for the event `FailedScheduling` and the condition `PodScheduled`.
    pub message: String,
    /// The changes after which it is worth trying again.
    pub unblocked_by: Changes,
    /// The plugins that refused.
    pub plugins: Vec<&'static str>,
    /// Pods to end so that it fits; the pod is then nominated to their node.
    pub preemption: Option<Preemption>,
    /// The pod has no use for the node that it was nominated to.
    pub clear_nomination: bool,
}

/// Decides where a pod goes. `tie` (any number, different for each call) breaks ties and spreads where the search starts.
pub fn schedule(pod: &PodInfo, snapshot: &mut Snapshot, profile: &Profile, tie: u64) -> Decision {
    if snapshot.order().is_empty() {
        return Decision::Unschedulable(Refusal {
            message: "no nodes available to schedule pods".to_owned(),
            unblocked_by: Changes::NODE_ADDED,
            plugins: Vec::new(),
            preemption: None,
            clear_nomination: false,
        });
    }
    let subject = Subject::new(pod, snapshot, profile);
    let mut random = Random(tie);
    let mut search = Search::new(&subject, snapshot, profile);
    search.run(&subject, snapshot, profile, &mut random);
    let decision = match choose(&search.feasible, &subject, snapshot, profile, &mut random) {
        Some(slot) => bind(pod, snapshot, slot),
        None => Decision::Unschedulable(refuse(search, &subject, snapshot, profile, &mut random)),
    };
    subject.done(snapshot);
    decision
}

fn bind(pod: &PodInfo, snapshot: &Snapshot, slot: u32) -> Decision {
    let node = snapshot.at(slot);
    let volumes = match pod.claims.as_slice() {
        [] => VolumePlan::default(),
        _ => snapshot.volumes.plan(&unbound_claims(pod, snapshot), node).unwrap_or_default(),
    };
    Decision::Bind { node: node.name.clone(), volumes }
}

fn refuse(
    mut search: Search<'_>,
    subject: &Subject<'_>,
    snapshot: &mut Snapshot,
    profile: &Profile,
    random: &mut Random,
) -> Refusal {
    let nodes = snapshot.order().len();
    let mut message = message::fit_error(nodes, &search.refused, &search.tally, subject.pod);
    let attempt = profile.preemption.map(|limits| preempt::attempt(&mut search, subject, snapshot, limits, random));
    let (mut preemption, mut clear_nomination) = (None, false);
    match attempt {
        Some(Ok(found)) => preemption = Some(found),
        Some(Err(failed)) => {
            message = format!("{message} preemption: {}", failed.message);
            clear_nomination = failed.clear_nomination && !subject.pod.nominated_node.is_empty();
        }
        None => {}
    }
    let (unblocked_by, plugins) = (search.unblocked_by, search.plugins);
    Refusal { message, unblocked_by, plugins, preemption, clear_nomination }
}

/// A filter that asks something of this pod's nodes.
struct Active<'p> {
    name: &'static str,
    unblocked_by: Changes,
    filter: Box<dyn PreparedFilter + 'p>,
}

/// Why one node was refused, and by which of the active filters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) reason: Unmet,
    pub(crate) preemption_helps: bool,
    by: usize,
}

/// The search for nodes that fit.
pub(crate) struct Search<'p> {
    filters: Vec<Active<'p>>,
    /// Only these need to be looked at, and the plugins that say so.
    only: Option<(Vec<u32>, Vec<&'static str>)>,
    /// No node will do: the reason, and whether preemption may help.
    pub(crate) refused: Option<(String, bool)>,
    feasible: Vec<u32>,
    /// Reasons, and on how many nodes.
    pub(crate) tally: Vec<(Unmet, usize)>,
    /// Nodes that might fit without pods of lower priority.
    pub(crate) hopeful: Vec<u32>,
    unblocked_by: Changes,
    plugins: Vec<&'static str>,
}

impl<'p> Search<'p> {
    fn new(subject: &Subject<'p>, snapshot: &Snapshot, profile: &Profile) -> Self {
        let mut search = Self {
            filters: Vec::new(),
            only: None,
            refused: None,
            feasible: Vec::new(),
            tally: Vec::new(),
            hopeful: Vec::new(),
            unblocked_by: Changes::NONE,
            plugins: Vec::new(),
        };
        for filter in &profile.filters {
            let (name, unblocked_by) = (filter.name(), filter.unblocked_by());
            match filter.prepare(subject, snapshot) {
                Prepared::Skip => {}
                Prepared::Check(filter) => search.filters.push(Active { name, unblocked_by, filter }),
                Prepared::Only(names, filter) => {
                    let slots = names.into_iter().filter_map(|name| snapshot.slot(name)).collect();
                    search.narrow(slots, name);
                    search.filters.push(Active { name, unblocked_by, filter });
                }
                Prepared::Refuse { reason, preemption_helps } => {
                    search.refused = Some((reason, preemption_helps));
                    search.blame(name, unblocked_by);
                    return search;
                }
            }
        }
        search
    }

    fn narrow(&mut self, slots: Vec<u32>, by: &'static str) {
        match &mut self.only {
            Some((known, plugins)) => {
                known.retain(|slot| slots.contains(slot));
                plugins.push(by);
            }
            None => self.only = Some((slots, vec![by])),
        }
    }

    fn blame(&mut self, plugin: &'static str, unblocked_by: Changes) {
        self.unblocked_by |= unblocked_by;
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }

    /// Finds nodes that fit. One that the pod was nominated to is taken when it does.
    fn run(&mut self, subject: &Subject<'p>, snapshot: &mut Snapshot, profile: &Profile, random: &mut Random) {
        if self.refused.is_some() {
            return;
        }
        let nominated = match subject.pod.nominated_node.as_str() {
            "" => snapshot.nominations.of(&subject.pod.uid),
            name => Some(name),
        };
        if let Some(slot) = nominated.and_then(|name| snapshot.slot(name))
            && self.only.as_ref().is_none_or(|(only, _)| only.contains(&slot))
            && self.check(subject.pod, snapshot, slot).is_ok()
        {
            self.feasible.push(slot);
            return;
        }
        if let Some((only, plugins)) = &self.only {
            let (slots, plugins) = (only.clone(), plugins.clone());
            let elsewhere = snapshot.order().len() - slots.len();
            slots.into_iter().for_each(|slot| self.visit(subject.pod, snapshot, slot));
            self.rule_out(elsewhere, &plugins);
            return;
        }
        let nodes = snapshot.order().len();
        let enough = profile.enough_nodes(nodes);
        let (mut at, stride) = random.walk(nodes);
        for _ in 0..nodes {
            let slot = snapshot.order()[at];
            self.visit(subject.pod, snapshot, slot);
            if self.feasible.len() >= enough {
                return;
            }
            at = (at + stride) % nodes;
        }
    }

    /// Nodes that need not be looked at.
    fn rule_out(&mut self, nodes: usize, plugins: &[&'static str]) {
        if nodes == 0 {
            return;
        }
        let why = match plugins {
            ["NodeAffinity"] => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            _ => "node(s) didn't satisfy plugin(s)",
        };
        self.tally.push((Unmet::Text(why), nodes));
        for active in 0..self.filters.len() {
            let Active { name, unblocked_by, .. } = self.filters[active];
            if plugins.contains(&name) {
                self.blame(name, unblocked_by);
            }
        }
    }

    fn visit(&mut self, pod: &PodInfo, snapshot: &mut Snapshot, slot: u32) {
        match self.check(pod, snapshot, slot) {
            Ok(()) => self.feasible.push(slot),
            Err(refused) => {
                let Active { name, unblocked_by, .. } = self.filters[refused.by];
                self.blame(name, unblocked_by);
                count(&mut self.tally, refused.reason);
                if refused.preemption_helps {
                    self.hopeful.push(slot);
                }
            }
        }
    }

    /// Asks the filters about one node, with and without the pods that are nominated to it.
    ///
    /// # Source
    /// Kubernetes `pkg/scheduler/framework/runtime/framework.go`, `RunFilterPluginsWithNominatedPods`.
    pub(crate) fn check(&mut self, pod: &PodInfo, snapshot: &mut Snapshot, slot: u32) -> Result<(), Refused> {
        if !snapshot.nominations.is_empty() {
            let there = snapshot.nominations.on(&snapshot.at(slot).name);
            let before: Vec<_> =
                there.iter().filter(|n| n.priority >= pod.priority && n.uid != pod.uid).cloned().collect();
            if !before.is_empty() {
                self.check_with(&before, snapshot, slot)?;
            }
        }
        self.ask(snapshot, slot, snapshot.at(slot))
    }

    fn check_with(&mut self, nominated: &[Arc<PodInfo>], snapshot: &mut Snapshot, slot: u32) -> Result<(), Refused> {
        let node = snapshot.at(slot).name.clone();
        nominated.iter().for_each(|pod| drop(snapshot.assume(pod, &node)));
        self.refresh(snapshot);
        let answer = self.ask(snapshot, slot, snapshot.at(slot));
        for pod in nominated {
            snapshot.forget(&pod.uid);
            snapshot.nominate(pod, &node);
        }
        self.refresh(snapshot);
        answer
    }

    /// Pods were thought away or added.
    pub(crate) fn refresh(&mut self, snapshot: &Snapshot) {
        self.filters.iter_mut().for_each(|active| active.filter.refresh(snapshot));
    }

    fn ask(&self, snapshot: &Snapshot, slot: u32, node: &NodeInfo) -> Result<(), Refused> {
        for (by, active) in self.filters.iter().enumerate() {
            if let Verdict::Unfit { reason, preemption_helps } = active.filter.check(snapshot, slot, node) {
                return Err(Refused { reason, preemption_helps, by });
            }
        }
        Ok(())
    }
}

pub(crate) fn count(tally: &mut Vec<(Unmet, usize)>, reason: Unmet) {
    match tally.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += 1,
        None => tally.push((reason, 1)),
    }
}

/// The best of the nodes that fit; of equals each has the same chance.
fn choose(
    feasible: &[u32],
    subject: &Subject<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    random: &mut Random,
) -> Option<u32> {
    if let [] | [_] = feasible {
        return feasible.first().copied();
    }
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for weighted in profile.scores.iter().filter(|w| w.weight != 0) {
        let Some(prepared) = weighted.score.prepare(subject, snapshot, feasible) else { continue };
        for (score, slot) in scores.iter_mut().zip(feasible) {
            *score = prepared.score(*slot, snapshot.at(*slot));
        }
        prepared.normalize(&mut scores);
        totals.iter_mut().zip(&scores).for_each(|(total, score)| *total += weighted.weight * score);
    }
    let best = totals.iter().copied().max()?;
    let equals = totals.iter().filter(|total| **total == best).count();
    let chosen = random.below(equals);
    totals.iter().zip(feasible).filter(|(total, _)| **total == best).nth(chosen).map(|(_, slot)| *slot)
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    /// A start and a stride that visits each of so many places once.
    fn walk(&mut self, places: usize) -> (usize, usize) {
        let start = self.below(places);
        let mut stride = 1 + self.below(places);
        while common_divisor(stride, places) != 1 {
            stride += 1;
        }
        (start, stride)
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
