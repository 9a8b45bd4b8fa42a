//! What a pod may reach outside the cluster: annotations, namespaces, EgressPolicies and the operator are asked, and what
//! belongs to the host itself is kept from everybody.
//!
//! What EgressPolicies decide is counted by their namespace. Refusals are logged, but not each one of many; a pod that is
//! refused hears why.

use std::{fmt::Display, net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use crate::{
    Caller, Dialer, SocketError,
    egress::{Host, HostPatterns, Refusal, Way, decide},
    names::is_within,
    policy::OutsideFlow,
    table::{Name, Protocol},
};

/// Names with so many dots are taken as they are.
const NDOTS: usize = 5;

/// What was decided on one way out.
struct Decision {
    /// Whether some EgressPolicy selects the pod.
    by_policies: bool,
    refusal: Option<Refusal>,
}

impl Decision {
    fn allows(&self) -> bool {
        self.refusal.is_none()
    }

    /// What the EgressPolicies said; `None` when they were not asked, or something else refuses it.
    fn verdict(&self) -> Option<&'static str> {
        match (self.by_policies, self.refusal) {
            (true, None) => Some("allowed"),
            (true, Some(Refusal::AbovePolicies)) => Some("denied"),
            _ => None,
        }
    }
}

impl Dialer {
    /// Whether the pod may go to an address outside, by its number or by a name that led there.
    pub(crate) fn may_reach(&self, way: Way, to: SocketAddr) -> Result<(), SocketError> {
        let outside = &self.network().inner().outside;
        let names = self.own().seen.names(to.ip());
        self.judge(way, &to, |patterns| allowed_by(patterns, way, to, &names))?;
        outside.judge(way, to).map_err(|why| self.refused_host(why))?;
        self.network().inner().policies.judge(self.source(), to, protocol(way))
    }

    /// Whether the pod may go to a host outside by this name; its addresses are judged when they are known.
    pub(crate) fn may_reach_name(&self, way: Way, name: &str, port: u16) -> Result<(), SocketError> {
        self.judge(way, &format_args!("{name}:{port}"), |patterns| patterns.allow(way, Host::Name(name), port))?;
        self.may_ask_for(name)
    }

    pub(crate) fn may_look_up(&self, name: &str) -> Result<(), SocketError> {
        self.judge(Way::Tcp, &name, |patterns| patterns.name(name))?;
        self.may_ask_for(name)
    }

    /// Whether something that is open to a host outside would be granted now.
    pub(crate) fn still_allows(&self, flow: &OutsideFlow) -> bool {
        if !self.network().inner().policies.allows(self.source(), flow.to, protocol(flow.way)) {
            return false;
        }
        flow.open_to_all || self.decide(|patterns| allowed_by(patterns, flow.way, flow.to, &flow.names)).allows()
    }

    /// The name of a host outside in the first of the pod's search domains that has it and may be asked; else the name
    /// itself. Names with many dots are not searched for, as with `ndots:5`.
    pub(crate) async fn in_searched_domain(&self, name: String) -> String {
        if self.own().member.searches.is_empty() || name.bytes().filter(|b| *b == b'.').count() >= NDOTS {
            return name;
        }
        // Few pods have any.
        Box::pin(self.search(name)).await
    }

    async fn search(&self, name: String) -> String {
        let domain = self.network().inner().config.cluster_domain.as_str();
        for outside in self.own().member.searches.iter().filter(|search| !is_within(search, domain)) {
            let full = format!("{name}.{outside}");
            if self.decide(|patterns| patterns.name(&full)).allows() && self.lookup_outside(&full).await.is_ok() {
                return full;
            }
        }
        name
    }

    pub(crate) fn refused_host(&self, why: String) -> SocketError {
        self.network().metrics().refused("host");
        let Caller { namespace, pod, .. } = &self.own().caller;
        match self.network().inner().egress_policies.said.take(Instant::now()) {
            Some(held_back) => tracing::info!(namespace, pod, why, held_back, "a pod was refused a way to the host"),
            None => tracing::debug!(namespace, pod, why, "a pod was refused a way to the host"),
        }
        SocketError::Denied(why)
    }

    /// A name that is asked for outside is something that goes out.
    fn may_ask_for(&self, name: &str) -> Result<(), SocketError> {
        let inner = self.network().inner();
        inner.outside.judge_name(name).map_err(|why| self.refused_host(why))?;
        if !inner.policies.any() {
            return Ok(());
        }
        let dns = inner.services.addresses(&Name::new("kube-system", "kube-dns")).first().copied();
        inner.policies.judge_names(self.source(), dns)
    }

    /// Decides, counts and logs.
    fn judge(&self, way: Way, to: &dyn Display, holds: impl Fn(&HostPatterns) -> bool) -> Result<(), SocketError> {
        let decision = self.decide(holds);
        let Caller { namespace, pod, .. } = &self.own().caller;
        if let Some(verdict) = decision.verdict() {
            self.network().metrics().egress_decided(namespace, verdict);
            tracing::trace!(namespace, pod, %way, %to, verdict, "EgressPolicies were asked");
        }
        match decision.refusal {
            None => Ok(()),
            Some(refusal) => Err(self.refused(way, to, refusal)),
        }
    }

    fn decide(&self, holds: impl Fn(&HostPatterns) -> bool) -> Decision {
        let inner = self.network().inner();
        let Caller { namespace, pod, .. } = &self.own().caller;
        let limits = inner.namespaces.read().get(namespace).cloned();
        let labels = || inner.policies.labels(&Name::new(namespace.as_str(), pod.as_str()));
        let policies = inner.egress_policies.of(namespace, labels);
        let granted = decide(self.own().member.egress.as_ref(), limits.as_ref(), policies.as_deref(), &holds);
        let above_node = || inner.outside.max_hosts().filter(|max| !holds(max)).map(|_| Refusal::AboveNode);
        Decision { by_policies: policies.is_some(), refusal: granted.err().or_else(above_node) }
    }

    fn refused(&self, way: Way, to: &dyn Display, refusal: Refusal) -> SocketError {
        let reason = refusal.reason();
        self.network().metrics().refused(reason);
        let Caller { namespace, pod, .. } = &self.own().caller;
        match self.network().inner().egress_policies.said.take(Instant::now()) {
            Some(held_back) => {
                tracing::info!(namespace, pod, %way, %to, reason, held_back, "a pod was refused a way out");
            }
            None => tracing::debug!(namespace, pod, %way, %to, reason, "a pod was refused a way out"),
        }
        SocketError::Denied(format!("{to} is outside the cluster: {}", refusal.advice()))
    }
}

/// Whether patterns allow an address, by its number or by one of the names that led there.
fn allowed_by(patterns: &HostPatterns, way: Way, to: SocketAddr, names: &[Arc<str>]) -> bool {
    let by_name = |name: &Arc<str>| patterns.allow(way, Host::Name(name), to.port());
    patterns.allow(way, Host::Ip(to.ip()), to.port()) || names.iter().any(by_name)
}

fn protocol(way: Way) -> Protocol {
    if way == Way::Udp { Protocol::Udp } else { Protocol::Tcp }
}
