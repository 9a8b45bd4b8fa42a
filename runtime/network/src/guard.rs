//! What the network is told of policies, and what follows for all that is open.
//!
//! A change takes effect for what is opened from then on at once, and for what is open within [`AUDIT_AFTER`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use crate::{
    Dialer, Network,
    egress_policy::EgressPolicy,
    leash::Watch,
    policy::{Labels, NetworkPolicy, Opened, PodFacts, Source},
    table::{Name, Protocol},
};

/// Changes that come one after the other are looked at together.
const AUDIT_AFTER: Duration = Duration::from_millis(100);

impl Network {
    /// Adds or replaces a NetworkPolicy.
    pub fn put_policy(&self, policy: NetworkPolicy) {
        let changed = self.inner().policies.put_policy(policy);
        self.audit_if(changed);
    }

    /// Removes a NetworkPolicy.
    pub fn remove_policy(&self, name: &Name) {
        let changed = self.inner().policies.remove_policy(name);
        self.audit_if(changed);
    }

    /// Adds or replaces a policy of ways out.
    pub fn put_egress_policy(&self, policy: EgressPolicy) {
        let changed = self.inner().egress_policies.put(policy);
        self.audit_if(changed);
    }

    /// Removes a policy of ways out.
    pub fn remove_egress_policy(&self, name: &Name) {
        let policies = &self.inner().egress_policies;
        let changed = policies.remove(name);
        if changed && !policies.has_any_in(&name.namespace) {
            self.metrics().forget_egress(&name.namespace);
        }
        self.audit_if(changed);
    }

    /// Says which labels a namespace has.
    pub fn put_namespace_labels(&self, name: &str, labels: Labels) {
        let changed = self.inner().policies.put_namespace(name, labels);
        self.audit_if(changed);
    }

    /// Forgets a namespace's labels.
    pub fn remove_namespace_labels(&self, name: &str) {
        let changed = self.inner().policies.remove_namespace(name);
        self.audit_if(changed);
    }

    /// Says what policies need to know of a pod, of whatever node.
    pub fn put_pod(&self, pod: PodFacts) {
        let changed = self.inner().policies.put_pod(pod);
        self.audit_if(changed || self.inner().egress_policies.any());
    }

    /// Forgets a pod.
    pub fn remove_pod(&self, name: &Name) {
        let changed = self.inner().policies.remove_pod(name);
        self.audit_if(changed);
    }

    /// Who comes from an address outside: the node's own programs are the node.
    pub(crate) fn visitor(&self, ip: IpAddr) -> Source {
        let ip = ip.to_canonical();
        match self.inner().outside.is_host(ip) {
            true => Source::Node,
            false => Source::Ip(ip),
        }
    }

    /// What a request to a pod is noted as when it has to wait; those of the node are not.
    pub(crate) fn watch(&self, from: Source, to: SocketAddr) -> Option<Watch> {
        let opened = || Opened::Within { from, to, protocol: Protocol::Tcp };
        (from != Source::Node).then(|| Watch::new(self, opened()))
    }

    /// Whether something open would be opened now.
    pub(crate) fn still_allows(&self, opened: &Opened) -> bool {
        match opened {
            Opened::Within { from, to, protocol } => self.inner().policies.allows(*from, *to, *protocol),
            Opened::Outside(flow) => {
                flow.own.upgrade().is_none_or(|own| Dialer::again(self.clone(), own).still_allows(flow))
            }
        }
    }

    pub(crate) fn audit_if(&self, changed: bool) {
        let policies = &self.inner().policies;
        if !changed || policies.flows.is_empty() || policies.auditing.swap(true, Ordering::AcqRel) {
            return;
        }
        let network = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(AUDIT_AFTER).await;
                network.audit();
            })),
            Err(_) => network.audit(),
        }
    }

    /// Cuts what is open and would not be opened now.
    fn audit(&self) {
        let policies = &self.inner().policies;
        // First, so that a change from now on leads to another look.
        policies.auditing.store(false, Ordering::Release);
        let mut cut = 0;
        for (id, opened) in policies.flows.all() {
            cut += u64::from(!self.still_allows(&opened) && policies.flows.cut(id));
        }
        if cut > 0 {
            policies.cut.inc_by(cut);
            tracing::info!(cut, "open connections were cut: policies allow them no more");
        }
    }
}
