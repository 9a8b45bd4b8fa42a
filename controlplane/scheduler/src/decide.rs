//! [`schedule`]: one pod, one snapshot, one decision.
//!
//! One pass over the nodes filters and scores together and keeps only the best: nothing is allocated per node. In a
//! large cluster the pass ends when enough nodes fit, and starts elsewhere for each `tie`.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    change::Changes,
    node::NodeInfo,
    plugin::{PreparedFilter, PreparedScore, Unmet, Verdict},
    pod::PodInfo,
    profile::Profile,
    snapshot::Snapshot,
};

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind it there.
    Bind {
        /// The node's name.
        node: Arc<str>,
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
}

/// Decides where a pod goes. `tie` (any number, different for each call) breaks ties and spreads where the search starts.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile, tie: u64) -> Decision {
    let mut search = Search::new(pod, snapshot, profile, tie);
    let nodes = snapshot.nodes();
    let enough = profile.enough_nodes(nodes.len());
    let (before, from) = nodes.split_at(search.start(nodes.len()));
    for node in from.iter().chain(before) {
        search.visit(node);
        if search.fitting >= enough {
            break;
        }
    }
    match search.best {
        Some((_, node)) => Decision::Bind { node: node.name.clone() },
        None => Decision::Unschedulable(search.refusal(pod, nodes.len())),
    }
}

struct Search<'a> {
    filters: Vec<(Changes, Box<dyn PreparedFilter + 'a>)>,
    scores: Vec<(u32, Box<dyn PreparedScore + 'a>)>,
    random: u64,
    fitting: usize,
    best: Option<(u32, &'a NodeInfo)>,
    equals: u64,
    unmet: Vec<(Unmet<'a>, usize)>,
    unblocked_by: Changes,
    preemption_helps: usize,
}

impl<'a> Search<'a> {
    fn new(pod: &'a PodInfo, snapshot: &'a Snapshot, profile: &'a Profile, tie: u64) -> Self {
        let filters = profile.filters.iter().filter_map(|f| Some((f.unblocked_by(), f.prepare(pod)?)));
        let scores = profile.scores.iter().filter_map(|w| Some((w.weight, w.score.prepare(pod, snapshot)?)));
        Self {
            filters: filters.collect(),
            scores: scores.collect(),
            random: tie,
            fitting: 0,
            best: None,
            equals: 0,
            unmet: Vec::new(),
            unblocked_by: Changes::NODE_ADDED,
            preemption_helps: 0,
        }
    }

    fn start(&mut self, nodes: usize) -> usize {
        let nodes = nodes.max(1) as u64;
        usize::try_from(self.next_random() % nodes).unwrap_or(0)
    }

    fn visit(&mut self, node: &'a NodeInfo) {
        for (unblocked_by, filter) in &self.filters {
            if let Verdict::Unfit { reason, preemption_helps } = filter.check(node) {
                self.unblocked_by |= *unblocked_by;
                self.preemption_helps += usize::from(preemption_helps);
                return self.note(reason);
            }
        }
        self.fitting += 1;
        let score = self.scores.iter().map(|(weight, score)| weight * score.score(node)).sum();
        self.offer(score, node);
    }

    fn note(&mut self, reason: Unmet<'a>) {
        match self.unmet.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.unmet.push((reason, 1)),
        }
    }

    /// Keeps the best; of equals each has the same chance.
    fn offer(&mut self, score: u32, node: &'a NodeInfo) {
        match self.best {
            Some((best, _)) if best > score => {}
            Some((best, _)) if best == score => {
                self.equals += 1;
                if self.next_random().is_multiple_of(self.equals) {
                    self.best = Some((score, node));
                }
            }
            _ => {
                self.equals = 1;
                self.best = Some((score, node));
            }
        }
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn refusal(&self, pod: &PodInfo, nodes: usize) -> Refusal {
        Refusal { message: self.message(pod, nodes), unblocked_by: self.unblocked_by }
    }

    /// # Source
    /// Kubernetes `pkg/scheduler/framework/types.go`, `FitError.Error`, and `preemption.go` for the second sentence.
    fn message(&self, pod: &PodInfo, nodes: usize) -> String {
        if nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counts: Vec<(String, usize)> = Vec::new();
        for (unmet, count) in &self.unmet {
            for reason in sentences(*unmet, pod) {
                match counts.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, sum)) => *sum += count,
                    None => counts.push((reason, *count)),
                }
            }
        }
        let mut message = fit_error(nodes, counts);
        let hopeless = nodes - self.preemption_helps;
        let preemption = if pod.never_preempts {
            "not eligible due to preemptionPolicy=Never.".to_owned()
        } else {
            let counts = [
                ("No preemption victims found for incoming pod".to_owned(), self.preemption_helps),
                ("Preemption is not helpful for scheduling".to_owned(), hopeless),
            ];
            fit_error(nodes, counts.into_iter().filter(|(_, count)| *count > 0).collect())
        };
        let _infallible = write!(message, " preemption: {preemption}");
        message
    }
}

fn fit_error(nodes: usize, counts: Vec<(String, usize)>) -> String {
    let mut counted: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}

fn sentences(unmet: Unmet<'_>, pod: &PodInfo) -> Vec<String> {
    match unmet {
        Unmet::Text(text) => vec![text.to_owned()],
        Unmet::Taint { key, value } => vec![format!("node(s) had untolerated taint {{{key}: {value}}}")],
        Unmet::Resources(bits) => (0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit| shortage(bit, pod)).collect(),
    }
}

fn shortage(bit: usize, pod: &PodInfo) -> String {
    match pod.resource_name(bit) {
        "pods" => "Too many pods".to_owned(),
        name => format!("Insufficient {name}"),
    }
}
