//! [`Index`]: counts of pods by domain, kept current pod by pod, so that no decision looks at pods.
//!
//! Pods with the same namespace, labels and controller are one *group*; whether a term means a group is worked out once.
//! A *target* is what an incoming pod asks for: how many pods that it means are in each domain. A *holder* is what
//! pods that are placed ask for: how many pods with such a term are in each domain.
//!
//! Invariants: a target's counts are the sums over all placed pods that it means (without those that end, when it is
//! about the living); a holder lives as long as a placed pod has the term. Targets that nobody asked for in a while are
//! forgotten beyond [`TARGETS_MAX`], groups without pods beyond twice the others.

use std::collections::{HashMap, HashSet};

use crate::{
    pod::PodInfo,
    terms::{AffinityTerm, Labels, Scope},
    topology::{NOWHERE, Topologies},
};

/// So many targets are remembered.
pub(crate) const TARGETS_MAX: usize = 1024;
/// Groups without pods that may be there in any case.
const IDLE_GROUPS_MAX: usize = 1024;

/// What makes pods equal to all terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) owner: String,
}

#[derive(Debug, Default)]
struct Group {
    key: GroupKey,
    /// Placed pods.
    pods: u32,
    targets: Vec<u32>,
    holders: Vec<u32>,
}

/// Pods that an incoming pod asks for: those that all the scopes mean.
#[derive(Debug, Default)]
struct Target {
    scopes: Vec<Scope>,
    living: bool,
    /// Topology -> domain -> pods.
    counts: Vec<(u32, Vec<u32>)>,
    used: u64,
}

/// How a placed pod holds a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    /// Required anti-affinity.
    Anti,
    /// Required affinity.
    Affinity,
    /// Preferred affinity, or anti-affinity when negative.
    Preferred(i32),
}

#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) term: AffinityTerm,
    pub(crate) held: Held,
    pub(crate) topology: u32,
    pods: u32,
    counts: Vec<u32>,
}

/// A target's counts in one topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) target: u32,
    at: u32,
    pub(crate) topology: u32,
}

/// A placed pod, as the index counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counting<'a> {
    pub(crate) group: u32,
    pub(crate) holders: &'a [u32],
    pub(crate) terminating: bool,
    pub(crate) slot: u32,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: Vec<Group>,
    group_of: HashMap<GroupKey, u32>,
    groups_free: Vec<u32>,
    idle: usize,
    targets: Vec<Target>,
    target_of: HashMap<Vec<Scope>, u32>,
    targets_free: Vec<u32>,
    holders: Vec<Option<Holder>>,
    holder_of: HashMap<(AffinityTerm, Held), u32>,
    holders_free: Vec<u32>,
    namespaces: HashMap<String, Labels>,
    clock: u64,
}

impl Index {
    /// The group of a pod.
    pub(crate) fn group(&mut self, pod: &PodInfo) -> u32 {
        let key =
            GroupKey { namespace: pod.key.namespace.clone(), labels: pod.labels.clone(), owner: pod.owner.clone() };
        if let Some(known) = self.group_of.get(&key) {
            return *known;
        }
        if self.idle > IDLE_GROUPS_MAX + self.groups.len() / 2 {
            self.forget_idle_groups();
        }
        let means = |target: &Target| target.scopes.iter().all(|s| means(s, &key, &self.namespaces));
        let targets = live(&self.targets).filter(|(_, t)| means(t)).map(|(n, _)| n).collect();
        let holders = self.holders.iter().enumerate().filter_map(|(n, h)| Some((number(n), h.as_ref()?)));
        let holders = holders.filter(|(_, h)| self::means(&h.term.scope, &key, &self.namespaces));
        let group = Group { key: key.clone(), pods: 0, targets, holders: holders.map(|(n, _)| n).collect() };
        let at = put(&mut self.groups, &mut self.groups_free, group);
        self.group_of.insert(key, at);
        self.idle += 1;
        at
    }

    pub(crate) fn group_key(&self, group: u32) -> &GroupKey {
        &self.groups[group as usize].key
    }

    /// Terms of placed pods that mean a group.
    pub(crate) fn holders_of(&self, group: u32) -> impl Iterator<Item = (u32, &Holder)> {
        let holders = self.groups[group as usize].holders.iter();
        holders.filter_map(|n| Some((*n, self.holders[*n as usize].as_ref()?)))
    }

    /// How many pods that hold a term are in a domain.
    pub(crate) fn held_in(&self, holder: u32, domain: u32) -> u32 {
        let counts = self.holders.get(holder as usize).and_then(|h| h.as_ref()).map(|h| &h.counts);
        counts.and_then(|c| c.get(domain as usize)).copied().unwrap_or(0)
    }

    /// Whether a scope means a group.
    pub(crate) fn means(&self, scope: &Scope, group: u32) -> bool {
        means(scope, &self.groups[group as usize].key, &self.namespaces)
    }

    /// How many pods that a target means are in a domain.
    pub(crate) fn count(&self, counted: Counted, domain: u32) -> u32 {
        self.counts(counted).get(domain as usize).copied().unwrap_or(0)
    }

    /// The same by domain; shorter than the number of domains when there are none in the last.
    pub(crate) fn counts(&self, counted: Counted) -> &[u32] {
        &self.targets[counted.target as usize].counts[counted.at as usize].1
    }

    /// Whether any pod that a target means is in any domain.
    pub(crate) fn is_anywhere(&self, counted: Counted) -> bool {
        self.counts(counted).iter().any(|n| *n > 0)
    }

    /// Counts pods that all the scopes mean by a topology, from now on. `placed`: all that are placed.
    pub(crate) fn follow<'a>(
        &mut self,
        scopes: &[Scope],
        topology: u32,
        topologies: &Topologies,
        placed: impl Iterator<Item = Counting<'a>>,
    ) -> Counted {
        let target = match self.target_of.get(scopes) {
            Some(known) => *known,
            None => self.add_target(scopes),
        };
        self.targets[target as usize].used = self.clock;
        let known = self.targets[target as usize].counts.iter().position(|(t, _)| *t == topology);
        let at = known.unwrap_or_else(|| self.count_all(target, topology, topologies, placed));
        Counted { target, at: number(at), topology }
    }

    /// Another decision begins: what it asks for is not forgotten while it lasts.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
        if self.target_of.len() > TARGETS_MAX {
            self.forget_old_targets();
        }
    }

    fn add_target(&mut self, scopes: &[Scope]) -> u32 {
        let living = scopes.iter().any(|s| s.living);
        let target = Target { scopes: scopes.to_vec(), living, counts: Vec::new(), used: self.clock };
        let at = put(&mut self.targets, &mut self.targets_free, target);
        self.target_of.insert(scopes.to_vec(), at);
        for group in &mut self.groups {
            if scopes.iter().all(|s| means(s, &group.key, &self.namespaces)) {
                group.targets.push(at);
            }
        }
        at
    }

    fn count_all<'a>(
        &mut self,
        target: u32,
        topology: u32,
        topologies: &Topologies,
        placed: impl Iterator<Item = Counting<'a>>,
    ) -> usize {
        let mut counts = Vec::new();
        let living = self.targets[target as usize].living;
        let meant: Vec<bool> = self.groups.iter().map(|g| g.targets.contains(&target)).collect();
        for pod in placed.filter(|pod| meant[pod.group as usize] && !(living && pod.terminating)) {
            change(&mut counts, topologies.domain(topology, pod.slot), true);
        }
        let all = &mut self.targets[target as usize].counts;
        all.push((topology, counts));
        all.len() - 1
    }

    fn forget_old_targets(&mut self) {
        let mut used: Vec<u64> = self.target_of.values().map(|t| self.targets[*t as usize].used).collect();
        used.sort_unstable();
        let middle = used[used.len() / 2];
        let old: HashSet<u32> =
            self.target_of.values().copied().filter(|t| self.targets[*t as usize].used <= middle).collect();
        self.target_of.retain(|_, t| !old.contains(t));
        for target in &old {
            self.targets[*target as usize] = Target::default();
        }
        self.groups.iter_mut().for_each(|g| g.targets.retain(|t| !old.contains(t)));
        self.targets_free.extend(old);
    }

    fn forget_idle_groups(&mut self) {
        let groups = &mut self.groups;
        let free = &mut self.groups_free;
        self.group_of.retain(|_, at| {
            let idle = groups[*at as usize].pods == 0;
            if idle {
                groups[*at as usize] = Group::default();
                free.push(*at);
            }
            !idle
        });
        self.idle = 0;
    }

    /// The holders of a pod's terms, each one pod more. Give them back with [`Index::release`].
    pub(crate) fn hold(&mut self, pod: &PodInfo, mut follow: impl FnMut(&str) -> u32) -> Box<[u32]> {
        let Some(terms) = &pod.terms else { return Box::default() };
        let anti = terms.anti.iter().map(|t| (t, Held::Anti));
        let affinity = terms.affinity.iter().map(|t| (t, Held::Affinity));
        let preferred = terms.preferred.iter().map(|(weight, t)| (t, Held::Preferred(*weight)));
        let mut held = Vec::new();
        for (term, how) in anti.chain(affinity).chain(preferred) {
            let key = (term.clone(), how);
            let at = match self.holder_of.get(&key) {
                Some(known) => *known,
                None => self.add_holder(key, follow(&term.topology_key)),
            };
            if let Some(holder) = &mut self.holders[at as usize] {
                holder.pods += 1;
            }
            held.push(at);
        }
        held.into_boxed_slice()
    }

    fn add_holder(&mut self, key: (AffinityTerm, Held), topology: u32) -> u32 {
        let (term, held) = key.clone();
        let holder = Holder { term, held, topology, pods: 0, counts: Vec::new() };
        let at = put(&mut self.holders, &mut self.holders_free, Some(holder));
        for group in &mut self.groups {
            if means(&key.0.scope, &group.key, &self.namespaces) {
                group.holders.push(at);
            }
        }
        self.holder_of.insert(key, at);
        at
    }

    /// A pod that held these terms is gone.
    pub(crate) fn release(&mut self, holders: &[u32]) {
        for at in holders {
            let Some(holder) = &mut self.holders[*at as usize] else { continue };
            holder.pods -= 1;
            if holder.pods > 0 {
                continue;
            }
            if let Some(gone) = self.holders[*at as usize].take() {
                self.holder_of.remove(&(gone.term, gone.held));
            }
            self.groups.iter_mut().for_each(|g| g.holders.retain(|h| h != at));
            self.holders_free.push(*at);
        }
    }

    /// A pod belongs to a group from now on.
    pub(crate) fn join(&mut self, group: u32) {
        let group = &mut self.groups[group as usize];
        self.idle -= usize::from(group.pods == 0);
        group.pods += 1;
    }

    /// A pod no longer belongs to a group.
    pub(crate) fn leave(&mut self, group: u32) {
        let group = &mut self.groups[group as usize];
        group.pods -= 1;
        self.idle += usize::from(group.pods == 0);
    }

    /// A pod came to a node, or left it.
    pub(crate) fn count_pod(&mut self, pod: Counting<'_>, topologies: &Topologies, more: bool) {
        for target in &self.groups[pod.group as usize].targets {
            let target = &mut self.targets[*target as usize];
            if !(target.living && pod.terminating) {
                for (topology, counts) in &mut target.counts {
                    change(counts, topologies.domain(*topology, pod.slot), more);
                }
            }
        }
        for holder in pod.holders {
            if let Some(holder) = &mut self.holders[*holder as usize] {
                change(&mut holder.counts, topologies.domain(holder.topology, pod.slot), more);
            }
        }
    }

    /// All counts together.
    #[cfg(test)]
    pub(crate) fn sum(&self) -> u64 {
        let targets = self.targets.iter().flat_map(|t| &t.counts).flat_map(|(_, counts)| counts);
        let holders = self.holders.iter().flatten().flat_map(|h| &h.counts);
        targets.chain(holders).map(|n| u64::from(*n)).sum()
    }

    /// The labels of a namespace; says whether they are different.
    pub(crate) fn namespace(&mut self, name: &str, labels: Option<&Labels>) -> bool {
        let before = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        before.as_ref() != labels
    }

    /// Works out anew which pods are meant by terms that choose namespaces by labels: those of a namespace are different.
    pub(crate) fn namespaces_changed(&mut self) {
        let chosen: HashSet<u32> = live(&self.targets)
            .filter(|(_, t)| t.scopes.iter().any(|s| s.namespace_selector.is_some()))
            .map(|(n, _)| n)
            .collect();
        // Targets are counted anew when they are asked for; holders count by who holds them, not by whom they mean.
        self.target_of.retain(|_, t| !chosen.contains(t));
        for target in &chosen {
            self.targets[*target as usize] = Target::default();
        }
        self.targets_free.extend(&chosen);
        for group in &mut self.groups {
            group.targets.retain(|t| !chosen.contains(t));
            for (at, holder) in self.holders.iter().enumerate() {
                let Some(holder) = holder.as_ref().filter(|h| h.term.scope.namespace_selector.is_some()) else {
                    continue;
                };
                group.holders.retain(|h| *h != number(at));
                if means(&holder.term.scope, &group.key, &self.namespaces) {
                    group.holders.push(number(at));
                }
            }
        }
    }
}

fn live(targets: &[Target]) -> impl Iterator<Item = (u32, &Target)> {
    targets.iter().enumerate().filter(|(_, t)| !t.scopes.is_empty()).map(|(n, t)| (number(n), t))
}

fn means(scope: &Scope, group: &GroupKey, namespaces: &HashMap<String, Labels>) -> bool {
    let listed = scope.namespaces.contains(&group.namespace);
    let chosen =
        || scope.namespace_selector.as_ref().is_some_and(|s| s.matches_option(namespaces.get(&group.namespace)));
    (scope.owner.is_empty() || scope.owner == group.owner)
        && (listed || chosen())
        && scope.selector.matches(&group.labels)
}

fn change(counts: &mut Vec<u32>, domain: u32, more: bool) {
    if domain == NOWHERE {
        return;
    }
    let at = domain as usize;
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    counts[at] = if more { counts[at] + 1 } else { counts[at].saturating_sub(1) };
}

fn put<T>(all: &mut Vec<T>, free: &mut Vec<u32>, new: T) -> u32 {
    if let Some(at) = free.pop() {
        all[at as usize] = new;
        return at;
    }
    all.push(new);
    number(all.len() - 1)
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NOWHERE)
}
