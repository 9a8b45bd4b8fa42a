//! [`Profile`]: which plugins decide, and with which weights.

use crate::{
    filters::{NodeAffinity, NodeName, NodeResourcesFit, NodeUnschedulable, TaintToleration},
    plugin::{Filter, Score},
    scores::{BalancedAllocation, ImageLocality, LeastAllocated, PreferredTaints},
};

/// A score and how much it counts.
pub struct Weighted {
    /// The score.
    pub score: Box<dyn Score>,
    /// Its weight, as in Kubernetes' default profile.
    pub weight: u32,
}

/// The plugins of one scheduler name.
pub struct Profile {
    /// Pods whose `spec.schedulerName` is this are scheduled with the profile.
    pub scheduler_name: String,
    /// In the order in which nodes are asked: cheap and often refusing first.
    pub filters: Vec<Box<dyn Filter>>,
    /// All are asked for every node that fits.
    pub scores: Vec<Weighted>,
    /// Percentage of the nodes that is enough to choose from; `None` adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: Option<u32>,
}

impl Default for Profile {
    fn default() -> Self {
        let weighted = |weight, score| Weighted { score, weight };
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            filters: vec![
                Box::new(NodeUnschedulable),
                Box::new(NodeName),
                Box::new(TaintToleration),
                Box::new(NodeAffinity),
                Box::new(NodeResourcesFit),
            ],
            scores: vec![
                weighted(1, Box::new(LeastAllocated)),
                weighted(1, Box::new(BalancedAllocation)),
                weighted(1, Box::new(ImageLocality)),
                weighted(3, Box::new(PreferredTaints)),
            ],
            percentage_of_nodes_to_score: None,
        }
    }
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
