//! [`Subject`]: the pod a decision is about, with what it asks of others looked up in the snapshot's index.

use std::borrow::Cow;

use crate::{
    filters::honors_all_taints,
    index::Counted,
    pod::PodInfo,
    profile::Profile,
    snapshot::Snapshot,
    terms::{AffinityTerm, PodTerms, Scope, SpreadConstraint},
    topology::EACH_NODE,
};

/// A pod and where to read what it asks for.
pub struct Subject<'p> {
    /// The pod.
    pub pod: &'p PodInfo,
    pub(crate) group: u32,
    /// For each required affinity term: pods that all of them mean.
    pub(crate) affinity: Vec<Counted>,
    /// It is among the pods that its own required affinity means.
    pub(crate) wants_itself: bool,
    pub(crate) anti: Vec<Counted>,
    pub(crate) preferred: Vec<(i64, Counted)>,
    pub(crate) spread: Vec<Spread<'p>>,
    /// The constraints are not the pod's own but the defaults: nodes without the labels are scored, too.
    pub(crate) spread_by_default: bool,
}

/// A spread constraint and where to read its counts.
#[derive(Debug, Clone)]
pub(crate) struct Spread<'p> {
    pub(crate) constraint: Cow<'p, SpreadConstraint>,
    pub(crate) counted: Counted,
    /// Counts by node, when not all nodes count: the sums by domain are made for this pod alone.
    pub(crate) by_node: Option<Counted>,
    /// The pod is among those that count.
    pub(crate) counts_itself: bool,
}

impl<'p> Subject<'p> {
    /// Looks a pod up. Give it back with [`Subject::done`].
    pub(crate) fn new(pod: &'p PodInfo, snapshot: &mut Snapshot, profile: &Profile) -> Self {
        snapshot.index.tick();
        let group = snapshot.index.group(pod);
        // Its group stays while the decision lasts.
        snapshot.index.join(group);
        let mut subject = Self {
            pod,
            group,
            affinity: Vec::new(),
            wants_itself: false,
            anti: Vec::new(),
            preferred: Vec::new(),
            spread: Vec::new(),
            spread_by_default: false,
        };
        if let Some(terms) = &pod.terms {
            subject.look_up(terms, snapshot);
        }
        if subject.spread.is_empty() && !profile.default_spread.is_empty() && !pod.owner.is_empty() {
            subject.spread_by_default(snapshot, profile);
        }
        subject
    }

    /// The decision is made.
    pub(crate) fn done(self, snapshot: &mut Snapshot) {
        snapshot.index.leave(self.group);
    }

    fn look_up(&mut self, terms: &'p PodTerms, snapshot: &mut Snapshot) {
        let scopes: Vec<Scope> = terms.affinity.iter().map(|t| t.scope.clone()).collect();
        self.affinity = terms.affinity.iter().map(|t| snapshot.follow(&scopes, &t.topology_key)).collect();
        self.wants_itself = scopes.iter().all(|scope| snapshot.index.means(scope, self.group));
        let mut one = |term: &AffinityTerm| snapshot.follow(std::slice::from_ref(&term.scope), &term.topology_key);
        self.anti = terms.anti.iter().map(&mut one).collect();
        self.preferred = terms.preferred.iter().map(|(weight, term)| (i64::from(*weight), one(term))).collect();
        let constraints = terms.spread.iter().map(Cow::Borrowed).collect();
        self.spread_over(constraints, snapshot);
    }

    /// Pods of one controller are spread over hosts and zones, as Kubernetes does for those of one ReplicaSet.
    fn spread_by_default(&mut self, snapshot: &mut Snapshot, profile: &Profile) {
        let scope = Scope {
            namespaces: [self.pod.key.namespace.clone()].into(),
            owner: self.pod.owner.clone(),
            living: true,
            ..Scope::default()
        };
        let with_scope = |c: &SpreadConstraint| {
            let term = AffinityTerm { scope: scope.clone(), topology_key: c.term.topology_key.clone() };
            Cow::Owned(SpreadConstraint { term, ..c.clone() })
        };
        let constraints = profile.default_spread.iter().map(with_scope).collect();
        self.spread_by_default = profile.default_spread_is_systems;
        self.spread_over(constraints, snapshot);
    }

    fn spread_over(&mut self, constraints: Vec<Cow<'p, SpreadConstraint>>, snapshot: &mut Snapshot) {
        let counted: Vec<_> = constraints
            .iter()
            .map(|c| snapshot.follow(std::slice::from_ref(&c.term.scope), &c.term.topology_key))
            .collect();
        let keys_everywhere =
            self.spread_by_default || counted.iter().all(|c| snapshot.topologies.get(c.topology).outside == 0);
        let picky = !self.pod.node_selector.is_empty() || self.pod.required_affinity.is_some();
        for (constraint, counted) in constraints.into_iter().zip(counted) {
            let minds_taints = constraint.honor_taints && snapshot.census.tainted > 0 && !honors_all_taints(self.pod);
            let some_nodes = !keys_everywhere || (constraint.honor_affinity && picky) || minds_taints;
            let scopes = std::slice::from_ref(&constraint.term.scope);
            let by_node = some_nodes.then(|| snapshot.follow(scopes, EACH_NODE));
            let counts_itself = snapshot.index.means(&constraint.term.scope, self.group);
            self.spread.push(Spread { constraint, counted, by_node, counts_itself });
        }
    }
}
