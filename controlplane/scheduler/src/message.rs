//! Why no node fits, in the words that users of kubectl know.
//!
//! # Source
//! Kubernetes `pkg/scheduler/framework/types.go`, `FitError.Error`.

use crate::{plugin::Unmet, pod::PodInfo};

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` `refused`: a reason for all nodes.
pub(crate) fn fit_error(
    nodes: usize,
    refused: &Option<(String, bool)>,
    tally: &[(Unmet, usize)],
    pod: &PodInfo,
) -> String {
    if let Some((reason, _)) = refused {
        return format!("0/{nodes} nodes are available: {reason}.");
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (unmet, count) in tally {
        for reason in sentences(*unmet, pod) {
            match counts.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, sum)) => *sum += count,
                None => counts.push((reason, *count)),
            }
        }
    }
    let mut counted: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort();
    if counted.is_empty() {
        return format!("0/{nodes} nodes are available:");
    }
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}

fn sentences(unmet: Unmet, pod: &PodInfo) -> Vec<String> {
    match unmet {
        Unmet::Text(text) => vec![text.to_owned()],
        Unmet::Resources(bits) => (0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit| shortage(bit, pod)).collect(),
    }
}

fn shortage(bit: usize, pod: &PodInfo) -> String {
    match pod.resource_name(bit) {
        "pods" => "Too many pods".to_owned(),
        name => format!("Insufficient {name}"),
    }
}
