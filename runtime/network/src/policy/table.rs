//! The policies of all namespaces and what they decide. Pure.
//!
//! A pod that some policy selects for a direction is isolated in it: only what one of those policies allows is allowed.
//! Policies add up, in whatever order. A connection needs both: that its source may open it, and that its target takes it.
//!
//! # Source
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>, and the tables of Kubernetes'
//! `test/e2e/network/netpol/network_policy.go`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};

use super::{
    Direction, Labels, NamedPort, NetworkPolicy, PodFacts, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Source,
};
use crate::table::{Name, Protocol};

/// The label that every namespace has with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// All that decisions are made from.
#[derive(Debug, Default)]
pub(crate) struct PolicyTable {
    namespaces: HashMap<String, Labels>,
    pods: HashMap<Name, Arc<PodFacts>>,
    by_ip: HashMap<IpAddr, Arc<PodFacts>>,
    policies: HashMap<String, BTreeMap<String, Arc<NetworkPolicy>>>,
}

/// What the policies say of a connection; `None` for a side that is not isolated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) egress: Option<Judged>,
    pub(crate) ingress: Option<Judged>,
}

/// What the policies of one side say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) allowed: bool,
    /// The isolated pod.
    pub(crate) pod: Name,
    /// The policy that allows it, or those that isolate the pod and do not.
    pub(crate) policies: Vec<String>,
}

/// The side that policies look at from the other.
#[derive(Clone, Copy)]
struct Peer<'a> {
    pod: Option<&'a PodFacts>,
    /// `None`: it has none that anybody knows.
    ip: Option<IpAddr>,
}

/// What is connected to.
#[derive(Clone, Copy)]
struct Door<'a> {
    pod: Option<&'a PodFacts>,
    port: u16,
    protocol: Protocol,
}

impl Decision {
    pub(crate) fn allowed(&self) -> bool {
        self.sides().all(|(_, judged)| judged.allowed)
    }

    /// Those sides that are isolated.
    pub(crate) fn sides(&self) -> impl Iterator<Item = (Direction, &Judged)> {
        let egress = self.egress.iter().map(|judged| (Direction::Egress, judged));
        egress.chain(self.ingress.iter().map(|judged| (Direction::Ingress, judged)))
    }
}

impl PolicyTable {
    /// Whether there is any policy.
    pub(crate) fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Whether a namespace has any policy.
    pub(crate) fn has_policies_in(&self, namespace: &str) -> bool {
        self.policies.contains_key(namespace)
    }

    /// Returns whether anything changed.
    pub(crate) fn put_namespace(&mut self, name: &str, labels: Labels) -> bool {
        let before = self.namespaces.insert(name.to_owned(), labels.clone());
        before.is_none_or(|before| before != labels)
    }

    /// Whether there is such a namespace.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    pub(crate) fn remove_namespace(&mut self, name: &str) -> bool {
        self.namespaces.remove(name).is_some()
    }

    pub(crate) fn put_policy(&mut self, policy: NetworkPolicy) -> bool {
        let (name, policy) = (policy.name.clone(), Arc::new(policy));
        let before = self.policies.entry(name.namespace).or_default().insert(name.name, policy.clone());
        before.is_none_or(|before| before != policy)
    }

    pub(crate) fn remove_policy(&mut self, name: &Name) -> bool {
        let Some(all) = self.policies.get_mut(&name.namespace) else { return false };
        let removed = all.remove(&name.name).is_some();
        if all.is_empty() {
            self.policies.remove(&name.namespace);
        }
        removed
    }

    /// Adds or replaces a pod; answers with the addresses of which something else is to be said now.
    /// One without addresses keeps those that are known of it.
    pub(crate) fn put_pod(&mut self, mut pod: PodFacts) -> Vec<IpAddr> {
        if let Some(before) = self.pods.get(&pod.name).filter(|_| pod.ips.is_empty()) {
            pod.ips.clone_from(&before.ips);
        }
        if self.pods.get(&pod.name).is_some_and(|before| **before == pod) {
            return Vec::new();
        }
        let mut concerned = self.remove_pod(&pod.name);
        let pod = Arc::new(pod);
        concerned.extend(&pod.ips);
        for ip in &pod.ips {
            self.by_ip.insert(*ip, pod.clone());
        }
        self.pods.insert(pod.name.clone(), pod);
        concerned
    }

    /// Removes a pod; an address that another has by now stays with that one.
    pub(crate) fn remove_pod(&mut self, name: &Name) -> Vec<IpAddr> {
        let Some(before) = self.pods.remove(name) else { return Vec::new() };
        let own = |ip: &IpAddr| self.by_ip.get(ip).is_some_and(|now| Arc::ptr_eq(now, &before));
        let own: Vec<IpAddr> = before.ips.iter().copied().filter(own).collect();
        for ip in &own {
            self.by_ip.remove(ip);
        }
        own
    }

    /// The pod that has an address, of whatever node.
    pub(crate) fn pod_at(&self, ip: IpAddr) -> Option<&Name> {
        self.by_ip.get(&ip).map(|pod| &pod.name)
    }

    pub(crate) fn labels(&self, pod: &Name) -> Option<Labels> {
        self.pods.get(pod).map(|pod| pod.labels.clone())
    }

    /// Says what the policies say of a connection.
    pub(crate) fn decide(&self, from: Source, to: SocketAddr, protocol: Protocol) -> Decision {
        let target = self.by_ip.get(&to.ip()).map(Arc::as_ref);
        let Source::Ip(ip) = from else { return Decision::default() };
        if ip == to.ip() {
            return Decision::default();
        }
        let source = self.by_ip.get(&ip).map(Arc::as_ref);
        let door = Door { pod: target, port: to.port(), protocol };
        let egress =
            source.and_then(|pod| self.judge(Direction::Egress, pod, Peer { pod: target, ip: Some(to.ip()) }, &[door]));
        let ingress =
            target.and_then(|pod| self.judge(Direction::Ingress, pod, Peer { pod: source, ip: Some(ip) }, &[door]));
        Decision { egress, ingress }
    }

    /// Says whether a pod may ask for names of hosts outside: whether it could talk to a DNS server that is a pod of
    /// kube-system, labelled `k8s-app: kube-dns`, by UDP or TCP. `dns`: that one's address, if it has one.
    pub(crate) fn decide_names(&self, from: Source, dns: Option<IpAddr>) -> Decision {
        let Source::Ip(ip) = from else { return Decision::default() };
        let Some(pod) = self.by_ip.get(&ip) else { return Decision::default() };
        let door = |protocol| Door { pod: Some(&DNS), port: 53, protocol };
        let doors = [door(Protocol::Udp), door(Protocol::Tcp)];
        let egress = self.judge(Direction::Egress, pod, Peer { pod: Some(&DNS), ip: dns }, &doors);
        Decision { egress, ingress: None }
    }

    /// `doors`: any one of them will do.
    fn judge(&self, direction: Direction, pod: &PodFacts, peer: Peer<'_>, doors: &[Door<'_>]) -> Option<Judged> {
        let all = self.policies.get(&pod.name.namespace)?;
        let mut isolating = Vec::new();
        for policy in all.values() {
            let Some(rules) = policy.rules(direction).filter(|_| policy.pods.selects(&pod.labels)) else { continue };
            let namespace = &policy.name.namespace;
            let allows =
                |rule: &PolicyRule| doors.iter().any(|door| rule.takes(*door)) && self.has_peer(rule, namespace, peer);
            if rules.iter().any(allows) {
                let policies = vec![policy.name.name.clone()];
                return Some(Judged { allowed: true, pod: pod.name.clone(), policies });
            }
            isolating.push(policy.name.name.clone());
        }
        (!isolating.is_empty()).then(|| Judged { allowed: false, pod: pod.name.clone(), policies: isolating })
    }

    fn has_peer(&self, rule: &PolicyRule, namespace: &str, peer: Peer<'_>) -> bool {
        rule.peers.is_empty() || rule.peers.iter().any(|wanted| self.is_peer(wanted, namespace, peer))
    }

    fn is_peer(&self, wanted: &PolicyPeer, namespace: &str, peer: Peer<'_>) -> bool {
        match wanted {
            PolicyPeer::Pods { namespaces, pods } => peer.pod.is_some_and(|pod| {
                let there = match namespaces {
                    None => pod.name.namespace == namespace,
                    Some(selector) => self.namespace_is(&pod.name.namespace, selector),
                };
                there && pods.selects(&pod.labels)
            }),
            PolicyPeer::Block { range, except } => match peer.ip {
                Some(ip) => range.contains(ip) && !except.iter().any(|not| not.contains(ip)),
                None => range.is_all() && except.is_empty(),
            },
        }
    }

    /// One that has not been seen yet has its name at least.
    fn namespace_is(&self, name: &str, selector: &super::Selector) -> bool {
        match self.namespaces.get(name) {
            Some(labels) => selector.selects(labels),
            None => selector.selects(&BTreeMap::from([(NAMESPACE_NAME.to_owned(), name.to_owned())])),
        }
    }
}

/// Names are looked up as if this pod were asked.
static DNS: LazyLock<PodFacts> = LazyLock::new(|| {
    let port = |name: &str, protocol| NamedPort { name: name.to_owned(), protocol, port: 53 };
    PodFacts {
        name: Name::new("kube-system", "kube-dns"),
        ips: Vec::new(),
        labels: Arc::new(BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())])),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
    }
});

impl NetworkPolicy {
    fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

impl PolicyRule {
    fn takes(&self, door: Door<'_>) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|port| port.is(door))
    }
}

impl PolicyPort {
    fn is(&self, door: Door<'_>) -> bool {
        self.protocol == Some(door.protocol)
            && match &self.port {
                PortMatch::Any => true,
                PortMatch::Range(first, last) => (*first..=*last).contains(&door.port),
                PortMatch::Named(name) => door.pod.is_some_and(|pod| pod.calls(name, door)),
            }
    }
}

impl PodFacts {
    fn calls(&self, name: &str, door: Door<'_>) -> bool {
        let is = |port: &NamedPort| port.name == name && port.protocol == door.protocol && port.port == door.port;
        self.ports.iter().any(is)
    }
}

#[cfg(test)]
mod tests;
