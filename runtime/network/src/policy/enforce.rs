//! Decisions of the policies as the network asks for them: remembered, counted, logged.
//!
//! A decision costs one look-up in a map while nothing changes, and one read of a flag while there is no policy at all.
//! What is remembered is forgotten by address when a pod changes, and wholly when policies or namespaces do. Invariant:
//! decisions are made and remembered under the table's lock, so none outlives what it was made from.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::{
    Direction, Flows, Labels, NetworkPolicy, PodFacts, Source,
    table::{Decision, PolicyTable},
};
use crate::{
    Metrics, SocketError,
    limit::Limit,
    table::{Name, Protocol},
};

/// Decisions remembered; when there are more, all are made anew.
const REMEMBERED_MAX: usize = 65_536;

/// What is asked: who, where to (`None`: names of hosts outside), by what.
type Question = (Source, Option<SocketAddr>, Protocol);

pub(crate) struct Policies {
    /// Whether there is any policy.
    any: AtomicBool,
    table: RwLock<PolicyTable>,
    remembered: RwLock<HashMap<Question, Arc<Verdict>>>,
    decisions: IntCounterVec,
    pub(crate) cut: IntCounter,
    said: Limit,
    pub(crate) flows: Flows,
    pub(crate) auditing: AtomicBool,
}

struct Verdict {
    decision: Decision,
    counters: Vec<IntCounter>,
}

impl Policies {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            any: AtomicBool::new(false),
            table: RwLock::default(),
            remembered: RwLock::default(),
            decisions: metrics.decisions.clone(),
            cut: metrics.cut.clone(),
            said: Limit::of_refusals(),
            flows: Flows::default(),
            auditing: AtomicBool::new(false),
        }
    }
}

impl Policies {
    /// Whether anything is to be asked.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn put_policy(&self, policy: NetworkPolicy) -> bool {
        self.change(|table| table.put_policy(policy))
    }

    pub(crate) fn remove_policy(&self, name: &Name) -> bool {
        let removed = self.change(|table| table.remove_policy(name));
        if removed && !self.table.read().has_policies_in(&name.namespace) {
            self.forget_counters(&name.namespace);
        }
        removed
    }

    pub(crate) fn put_namespace(&self, name: &str, labels: Labels) -> bool {
        self.change(|table| table.put_namespace(name, labels))
    }

    /// Whether there is such a namespace.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.table.read().has_namespace(name)
    }

    pub(crate) fn remove_namespace(&self, name: &str) -> bool {
        self.change(|table| table.remove_namespace(name))
    }

    pub(crate) fn put_pod(&self, pod: PodFacts) -> bool {
        self.change_of(|table| table.put_pod(pod))
    }

    pub(crate) fn remove_pod(&self, name: &Name) -> bool {
        self.change_of(|table| table.remove_pod(name))
    }

    /// What is known of a pod's labels.
    pub(crate) fn labels(&self, pod: &Name) -> Labels {
        self.table.read().labels(pod).unwrap_or_default()
    }

    /// A change that concerns all decisions. Returns whether it may change one.
    fn change(&self, apply: impl FnOnce(&mut PolicyTable) -> bool) -> bool {
        let mut table = self.table.write();
        let had = table.has_policies();
        let changed = apply(&mut table);
        self.any.store(table.has_policies(), Ordering::Release);
        if changed {
            self.remembered.write().clear();
        }
        changed && (had || table.has_policies())
    }

    /// A change that concerns those addresses which it answers with.
    fn change_of(&self, apply: impl FnOnce(&mut PolicyTable) -> Vec<IpAddr>) -> bool {
        let mut table = self.table.write();
        let concerned = apply(&mut table);
        if concerned.is_empty() {
            return false;
        }
        let source_is = |from: &Source| matches!(from, Source::Ip(ip) if concerned.contains(ip));
        let target_is = |to: &Option<SocketAddr>| to.is_some_and(|to| concerned.contains(&to.ip()));
        self.remembered.write().retain(|(from, to, _), _| !source_is(from) && !target_is(to));
        table.has_policies()
    }

    /// Whether a connection, a request or a datagram may go; counts, and logs what may not.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn judge(&self, from: Source, to: SocketAddr, protocol: Protocol) -> Result<(), SocketError> {
        if !self.any() || from == Source::Node {
            return Ok(());
        }
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let verdict = self.verdict((from, Some(to), protocol), |table| table.decide(from, to, protocol));
        tracing::trace!(?from, %to, allowed = verdict.decision.allowed(), "NetworkPolicies were asked");
        verdict.answer(|direction| self.say(&verdict, from, direction, format_args!("{to} by {}", word(protocol))))
    }

    /// As [`Policies::judge`], only looking.
    pub(crate) fn allows(&self, from: Source, to: SocketAddr, protocol: Protocol) -> bool {
        if !self.any() || from == Source::Node {
            return true;
        }
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.verdict((from, Some(to), protocol), |table| table.decide(from, to, protocol)).decision.allowed()
    }

    /// Whether a pod may ask for names of hosts outside.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn judge_names(&self, from: Source, dns: Option<IpAddr>) -> Result<(), SocketError> {
        if !self.any() || from == Source::Node {
            return Ok(());
        }
        let verdict = self.verdict((from, None, Protocol::Udp), |table| table.decide_names(from, dns));
        verdict.answer(|direction| self.say(&verdict, from, direction, format_args!("names of hosts outside (DNS)")))
    }

    fn verdict(&self, question: Question, decide: impl FnOnce(&PolicyTable) -> Decision) -> Arc<Verdict> {
        let table = self.table.read();
        if let Some(known) = self.remembered.read().get(&question) {
            return known.clone();
        }
        let decision = decide(&table);
        let counters = decision.sides().map(|(direction, judged)| {
            let verdict = if judged.allowed { "allowed" } else { "denied" };
            self.decisions.with_label_values(&[judged.pod.namespace.as_str(), direction.word(), verdict])
        });
        let verdict = Arc::new(Verdict { counters: counters.collect(), decision });
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(question, verdict.clone());
        verdict
    }

    /// Logs a refusal, unless there were many; answers with what the one that is refused may know.
    fn say(&self, verdict: &Verdict, from: Source, refused: Direction, what: std::fmt::Arguments<'_>) -> SocketError {
        let decision = &verdict.decision;
        let judged = if refused == Direction::Egress { &decision.egress } else { &decision.ingress };
        let Some(judged) = judged else { return SocketError::Denied(what.to_string()) };
        if let Some(held_back) = self.said.take(Instant::now()) {
            let (pod, policies) = (&judged.pod, judged.policies.join(","));
            let (direction, caller) = (refused.word(), self.name(from));
            tracing::info!(%pod, direction, caller, %what, policies, held_back, "NetworkPolicies refused it");
        }
        SocketError::Denied(match refused {
            Direction::Egress => {
                format!("{what}: NetworkPolicy {} does not let this pod go there", judged.policies.join(", "))
            }
            Direction::Ingress => format!("{what}: a NetworkPolicy there does not let this one in"),
        })
    }

    /// Who it is, for the log: a pod by its name, others by their addresses.
    fn name(&self, from: Source) -> String {
        let Source::Ip(ip) = from else { return "the node".to_owned() };
        let table = self.table.read();
        table.pod_at(ip).map_or_else(|| ip.to_string(), |name| format!("{name} ({ip})"))
    }

    fn forget_counters(&self, namespace: &str) {
        for direction in [Direction::Egress, Direction::Ingress] {
            for verdict in ["allowed", "denied"] {
                // Absent is as good as removed.
                let _ = self.decisions.remove_label_values(&[namespace, direction.word(), verdict]);
            }
        }
    }
}

impl Verdict {
    /// Counts; `refused` makes the error of the first side that refuses.
    fn answer(&self, refused: impl FnOnce(Direction) -> SocketError) -> Result<(), SocketError> {
        self.counters.iter().for_each(IntCounter::inc);
        match self.decision.sides().find(|(_, judged)| !judged.allowed) {
            None => Ok(()),
            Some((direction, _)) => Err(refused(direction)),
        }
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
