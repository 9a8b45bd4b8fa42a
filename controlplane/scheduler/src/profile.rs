//! [`Profile`]: which plugins decide, and with which weights.

use crate::{
    filters::{
        InterPodAffinity, NodeAffinity, NodeName, NodePorts, NodeResourcesFit, NodeUnschedulable, NodeVolumeLimits,
        PodTopologySpread, TaintToleration, VolumeBinding, VolumeRestrictions, VolumeZone,
    },
    plugin::{Filter, Score},
    pod::DEFAULT_SCHEDULER,
    scores::{
        Allocated, BalancedAllocation, EvenSpread, ImageLocality, PreferredNodes, PreferredPods, PreferredTaints,
    },
    terms::{AffinityTerm, Scope, SpreadConstraint},
};

/// A score and how much it counts.
pub struct Weighted {
    /// The score.
    pub score: Box<dyn Score>,
    /// Its weight, as in Kubernetes' default profile.
    pub weight: i64,
}

/// How many nodes preemption looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreemptionLimits {
    /// At least this share of the nodes where it may help, in percent,
    pub percent: usize,
    /// and at least this many.
    pub nodes: usize,
}

impl Default for PreemptionLimits {
    fn default() -> Self {
        Self { percent: 10, nodes: 100 }
    }
}

/// The plugins of one scheduler name.
pub struct Profile {
    /// Pods whose `spec.schedulerName` is this are scheduled with the profile.
    pub scheduler_name: String,
    /// In the order in which nodes are asked: cheap and often refusing first.
    pub filters: Vec<Box<dyn Filter>>,
    /// All are asked for every node that fits.
    pub scores: Vec<Weighted>,
    /// `None`: nobody is preempted.
    pub preemption: Option<PreemptionLimits>,
    /// For pods of a controller without constraints of their own. Scopes are filled in for each pod.
    pub default_spread: Vec<SpreadConstraint>,
    /// These are the built-in ones: nodes without the labels are scored, too.
    pub default_spread_is_systems: bool,
    /// Percentage of the nodes that is enough to choose from; `None` adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: Option<u32>,
}

impl Default for Profile {
    fn default() -> Self {
        let weighted = |weight, score| Weighted { score, weight };
        Self {
            scheduler_name: DEFAULT_SCHEDULER.to_owned(),
            filters: vec![
                Box::new(NodeUnschedulable),
                Box::new(NodeName),
                Box::new(TaintToleration),
                Box::<NodeAffinity>::default(),
                Box::new(NodePorts),
                Box::<NodeResourcesFit>::default(),
                Box::new(VolumeRestrictions),
                Box::new(NodeVolumeLimits),
                Box::new(VolumeBinding),
                Box::new(VolumeZone),
                Box::new(PodTopologySpread),
                Box::new(InterPodAffinity),
            ],
            scores: vec![
                weighted(3, Box::new(PreferredTaints)),
                weighted(2, Box::<PreferredNodes>::default()),
                weighted(1, Box::<Allocated>::default()),
                weighted(2, Box::new(EvenSpread)),
                weighted(2, Box::<PreferredPods>::default()),
                weighted(1, Box::<BalancedAllocation>::default()),
                weighted(1, Box::new(ImageLocality)),
            ],
            preemption: Some(PreemptionLimits::default()),
            default_spread: system_spread(),
            default_spread_is_systems: true,
            percentage_of_nodes_to_score: None,
        }
    }
}

/// What Kubernetes spreads by when nothing is configured.
///
/// # Source
/// Kubernetes `plugins/podtopologyspread/plugin.go`, `systemDefaultConstraints`.
pub(crate) fn system_spread() -> Vec<SpreadConstraint> {
    let soft = |key: &str, max_skew| SpreadConstraint {
        term: AffinityTerm { scope: Scope::default(), topology_key: key.to_owned() },
        max_skew,
        domains_min: 1,
        hard: false,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![soft("kubernetes.io/hostname", 3), soft("topology.kubernetes.io/zone", 5)]
}

/// Fewer nodes than this are always all looked at.
const FEASIBLE_NODES_MIN: usize = 100;

impl Profile {
    /// How many nodes that fit are enough, of `nodes`.
    ///
    /// # Source
    /// Kubernetes `pkg/scheduler/schedule_one.go`, `numFeasibleNodesToFind`.
    pub fn enough_nodes(&self, nodes: usize) -> usize {
        if nodes < FEASIBLE_NODES_MIN {
            return nodes;
        }
        let adaptive = 50_usize.saturating_sub(nodes / 125).max(5);
        let percent = self.percentage_of_nodes_to_score.map_or(adaptive, |p| p.clamp(1, 100) as usize);
        (nodes * percent / 100).max(FEASIBLE_NODES_MIN)
    }
}
