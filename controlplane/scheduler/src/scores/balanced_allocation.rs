//! Prefers nodes where resources run out together.

use crate::{
    NodeInfo, PreparedScore, Resources, Score, Snapshot,
    scores::{WeightedResource, resources::cpu_and_memory},
    subject::Subject,
};

/// 100 less the standard deviation of the used shares, in percent.
///
/// # Source
/// Kubernetes `plugins/noderesources/balanced_allocation.go`.
pub struct BalancedAllocation {
    /// Which resources count. Their weights do not.
    pub resources: Vec<WeightedResource>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        Self { resources: cpu_and_memory() }
    }
}

struct Requests<'p> {
    requests: &'p Resources,
    names: Vec<String>,
    /// CPU and memory alone.
    usual: bool,
}

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        _snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        let requests = &subject.pod.requests;
        let asked = self.resources.iter().filter(|r| amount(&r.name, requests) > 0);
        // A pod that requests none of them leaves every balance as it is.
        asked.count().checked_sub(1)?;
        let names: Vec<String> = self.resources.iter().map(|r| r.name.clone()).collect();
        let usual = names == ["cpu", "memory"];
        Some(Box::new(Requests { requests, names, usual }))
    }
}

impl PreparedScore for Requests<'_> {
    fn score(&self, _slot: u32, node: &NodeInfo) -> i64 {
        let (used, all) = (&node.requested, &node.allocatable);
        if self.usual {
            let cpu = used_share(used.millicores + self.requests.millicores, all.millicores);
            let memory = used_share(used.memory_bytes + self.requests.memory_bytes, all.memory_bytes);
            return match (cpu, memory) {
                // The standard deviation of two values is half their distance.
                (Some(cpu), Some(memory)) => score_of((cpu - memory).abs() / 2.0),
                _ => score_of(0.0),
            };
        }
        let share = |name: &String| used_share(amount(name, used) + amount(name, self.requests), amount(name, all));
        let shares = || self.names.iter().filter_map(share);
        let count = shares().count().max(1) as f64;
        let mean = shares().sum::<f64>() / count;
        let variance = shares().map(|s| (s - mean) * (s - mean)).sum::<f64>() / count;
        score_of(variance.sqrt())
    }
}

fn score_of(deviation: f64) -> i64 {
    ((1.0 - deviation) * 100.0) as i64
}

fn used_share(used: i64, all: i64) -> Option<f64> {
    (all > 0).then(|| (used as f64 / all as f64).min(1.0))
}

fn amount(name: &str, of: &Resources) -> i64 {
    match name {
        "cpu" => of.millicores,
        "memory" => of.memory_bytes,
        "ephemeral-storage" => of.ephemeral_bytes,
        name => of.other(name),
    }
}
