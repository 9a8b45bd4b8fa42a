//! Prefers nodes by what is left, or used, of their resources after the pod is there.
//!
//! # Source
//! Kubernetes `plugins/noderesources/{least_allocated,most_allocated,requested_to_capacity_ratio,resource_allocation}.go`.

use crate::{NodeInfo, PodInfo, PreparedScore, Score, Snapshot, subject::Subject};

/// A resource and how much it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedResource {
    /// Its name.
    pub name: String,
    /// Its weight, 1 to 100.
    pub weight: i64,
}

/// What is preferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// Nodes with much left: pods spread.
    Least,
    /// Nodes with little left: pods gather.
    Most,
    /// By a function of the used share: points (percent, score of 0 to 100), in order of the percents.
    Ratio(Vec<(i64, i64)>),
}

/// Scores by the allocation of resources.
#[derive(Debug, Clone)]
pub struct Allocated {
    /// What is preferred.
    pub strategy: Strategy,
    /// Which resources count.
    pub resources: Vec<WeightedResource>,
}

impl Default for Allocated {
    fn default() -> Self {
        Self { strategy: Strategy::Least, resources: cpu_and_memory() }
    }
}

/// What counts when nothing is configured.
pub(crate) fn cpu_and_memory() -> Vec<WeightedResource> {
    ["cpu", "memory"].map(|name| WeightedResource { name: name.to_owned(), weight: 1 }).into()
}

/// One resource, with what the pod requests of it.
enum Wanted<'p> {
    Cpu(i64),
    Memory(i64),
    Storage(i64),
    Other(&'p str, i64),
}

struct Requests<'p> {
    strategy: Strategy,
    wanted: Vec<(Wanted<'p>, i64)>,
}

impl Score for Allocated {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        _snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        let wanted = self.resources.iter().filter_map(|r| Some((wanted(&r.name, subject.pod)?, r.weight)));
        Some(Box::new(Requests { strategy: self.strategy.clone(), wanted: wanted.collect() }))
    }
}

/// Extended resources that the pod does not ask for do not count.
fn wanted<'p>(name: &str, pod: &'p PodInfo) -> Option<Wanted<'p>> {
    Some(match name {
        "cpu" => Wanted::Cpu(pod.nonzero.millicores),
        "memory" => Wanted::Memory(pod.nonzero.memory_bytes),
        "ephemeral-storage" => Wanted::Storage(pod.requests.ephemeral_bytes),
        _ => {
            let (name, amount) = pod.requests.other.iter().find(|(n, amount)| &**n == name && *amount > 0)?;
            Wanted::Other(name, *amount)
        }
    })
}

impl Wanted<'_> {
    /// What is used once the pod is there, and what there is.
    fn used_of(&self, node: &NodeInfo) -> (i64, i64) {
        let all = &node.allocatable;
        match self {
            Self::Cpu(wanted) => (node.nonzero.millicores + wanted, all.millicores),
            Self::Memory(wanted) => (node.nonzero.memory_bytes + wanted, all.memory_bytes),
            Self::Storage(wanted) => (node.requested.ephemeral_bytes + wanted, all.ephemeral_bytes),
            Self::Other(name, wanted) => (node.requested.other(name) + wanted, all.other(name)),
        }
    }
}

impl PreparedScore for Requests<'_> {
    fn score(&self, _slot: u32, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (wanted, weight) in &self.wanted {
            let (used, all) = wanted.used_of(node);
            if all <= 0 {
                continue;
            }
            let score = match &self.strategy {
                Strategy::Least => percent((all - used).max(0), all),
                Strategy::Most => percent(used.min(all), all),
                Strategy::Ratio(points) => along(points, if used > all { 100 } else { percent(used, all) }),
            };
            // A function of 0 says that the resource has no say, as in Kubernetes.
            if score > 0 || !matches!(self.strategy, Strategy::Ratio(_)) {
                sum += score * weight;
                weights += weight;
            }
        }
        match (weights, &self.strategy) {
            (0, _) => 0,
            (_, Strategy::Ratio(_)) => (sum * 2 + weights) / (weights * 2),
            _ => sum / weights,
        }
    }
}

fn percent(part: i64, all: i64) -> i64 {
    // Memory in bytes times a hundred fits for nodes of up to 80 PiB.
    part.saturating_mul(100) / all
}

/// A broken line through points.
fn along(points: &[(i64, i64)], at: i64) -> i64 {
    let Some(above) = points.iter().position(|(x, _)| at <= *x) else {
        return points.last().map_or(0, |(_, y)| *y);
    };
    let (x1, y1) = points[above];
    if above == 0 {
        return y1;
    }
    let (x0, y0) = points[above - 1];
    y0 + (y1 - y0) * (at - x0) / (x1 - x0).max(1)
}
