//! Keeps what the network enforces as the API has it: NetworkPolicies, EgressPolicies, labels of pods and namespaces.
//!
//! Pods of other nodes are looked at only once there is a NetworkPolicy. Invariant: policies that are there when the agent
//! starts are in force before the first pod runs.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::{Container, ContainerPort, Namespace, Pod},
        networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use podium_api::{ApiError, Kind, kind_of};
use podium_client::{ApiRef, Delta, Mirror, MirrorScope};
use podium_network::{
    self as net, Labels, NamedPort, Network, Operator, PodFacts, PolicyPeer, PolicyPort, PolicyRule, PortMatch,
    Requirement, Selector,
    table::{Name, Protocol},
};
use tokio::{sync::mpsc::UnboundedReceiver, time::MissedTickBehavior};

use super::egress_policy;

/// How long until a kind that is not served is looked for again.
const NOT_SERVED: Duration = Duration::from_secs(2);

/// Brings policies into force and keeps them so.
pub(crate) struct Policies {
    api: ApiRef,
    network: Network,
    policies: Arc<dyn Mirror>,
    namespaces: Arc<dyn Mirror>,
    local: Arc<dyn Mirror>,
    /// Those of all nodes.
    pods: Option<Arc<dyn Mirror>>,
    egress: Option<Arc<dyn Mirror>>,
}

impl Policies {
    /// Brings into force what is there. `local`: the pods of this node.
    ///
    /// # Errors
    /// When the API does not serve what is needed.
    pub(crate) async fn load(api: &ApiRef, network: &Network, local: Arc<dyn Mirror>) -> Result<Self, ApiError> {
        let mut this = Self {
            policies: mirror::<NetworkPolicy>(api).await?,
            namespaces: mirror::<Namespace>(api).await?,
            egress: mirror::<egress_policy::EgressPolicy>(api).await.ok(),
            api: api.clone(),
            network: network.clone(),
            local,
            pods: None,
        };
        for object in this.namespaces.list(None) {
            this.network.put_namespace_labels(name_of(object.meta()).name.as_str(), labels(object.meta()));
        }
        for object in this.policies.list(None) {
            this.policy(&put(object));
        }
        for object in this.egress.iter().flat_map(|egress| egress.list(None)) {
            this.egress(&put(object));
        }
        for object in this.local.list(None) {
            this.pod(&put(object));
        }
        this.look_at_all_pods().await;
        for object in this.pods.iter().flat_map(|pods| pods.list(None)) {
            this.pod(&put(object));
        }
        Ok(this)
    }

    /// Follows the mirrors until they have ended.
    pub(crate) async fn follow(mut self) {
        let (mut policies, mut namespaces) = (self.policies.subscribe(), self.namespaces.subscribe());
        let mut local = self.local.subscribe();
        let mut pods = self.pods.as_ref().map(|pods| pods.subscribe());
        let mut egress = self.egress.as_ref().map(|egress| egress.subscribe());
        // Goes on however much else is to be done: each of these may come every moment.
        let mut looks = tokio::time::interval(NOT_SERVED);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look_again = egress.is_none() || (pods.is_none() && !self.policies.list(None).is_empty());
            tokio::select! {
                Some(delta) = namespaces.recv() => self.namespace(&delta),
                Some(delta) = local.recv() => self.pod(&delta),
                Some(delta) = next(&mut pods) => self.pod(&delta),
                Some(delta) = next(&mut egress) => self.egress(&delta),
                Some(delta) = policies.recv() => {
                    if pods.is_none() && self.look_at_all_pods().await {
                        pods = self.pods.as_ref().map(|pods| pods.subscribe());
                        // Before the policy: who is known is let in.
                        self.pods.iter().flat_map(|pods| pods.list(None)).for_each(|pod| self.pod(&put(pod)));
                    }
                    self.policy(&delta);
                }
                _ = looks.tick(), if look_again => {
                    if egress.is_none() {
                        self.egress = mirror::<egress_policy::EgressPolicy>(&self.api).await.ok();
                        egress = self.egress.as_ref().map(|egress| egress.subscribe());
                    }
                    if pods.is_none() && self.look_at_all_pods().await {
                        pods = self.pods.as_ref().map(|pods| pods.subscribe());
                    }
                }
                else => return,
            }
        }
    }

    /// Looks at the pods of all nodes if there is a policy; returns whether it does.
    async fn look_at_all_pods(&mut self) -> bool {
        if self.pods.is_none() && !self.policies.list(None).is_empty() {
            match mirror::<Pod>(&self.api).await {
                Ok(pods) => self.pods = Some(pods),
                Err(error) => tracing::warn!(%error, "policies know no pods of other nodes"),
            }
        }
        self.pods.is_some()
    }

    fn policy(&self, delta: &Delta) {
        match delta {
            Delta::Put { new, .. } => match new.downcast_ref() {
                Some(object) => self.network.put_policy(policy(object)),
                None => self.network.remove_policy(&name_of(new.meta())),
            },
            Delta::Delete { old, .. } => self.network.remove_policy(&name_of(old.meta())),
        }
    }

    fn egress(&self, delta: &Delta) {
        match delta {
            Delta::Put { new, .. } => self.network.put_egress_policy(egress_policy::translate(&**new)),
            Delta::Delete { old, .. } => self.network.remove_egress_policy(&name_of(old.meta())),
        }
    }

    fn namespace(&self, delta: &Delta) {
        match delta {
            Delta::Put { new, .. } => {
                self.network.put_namespace_labels(&name_of(new.meta()).name, labels(new.meta()));
            }
            Delta::Delete { old, .. } => self.network.remove_namespace_labels(&name_of(old.meta()).name),
        }
    }

    fn pod(&self, delta: &Delta) {
        let known = match delta {
            Delta::Put { new, .. } => new.downcast_ref().filter(|pod| !has_ended(pod)).map(pod_facts),
            Delta::Delete { .. } => None,
        };
        match known {
            Some(facts) => self.network.put_pod(facts),
            None => self.network.remove_pod(&name_of(delta.object().meta())),
        }
    }
}

fn put(new: Arc<dyn podium_api::Object>) -> Delta {
    Delta::Put { old: None, new }
}

async fn next(deltas: &mut Option<UnboundedReceiver<Delta>>) -> Option<Delta> {
    match deltas {
        Some(deltas) => deltas.recv().await,
        None => std::future::pending().await,
    }
}

async fn mirror<K: Kind>(api: &ApiRef) -> Result<Arc<dyn Mirror>, ApiError> {
    api.mirror(&kind_of::<K>(), MirrorScope::default()).await
}

pub(crate) fn name_of(meta: &ObjectMeta) -> Name {
    Name::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn labels(meta: &ObjectMeta) -> Labels {
    Arc::new(meta.labels.clone().unwrap_or_default())
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What policies need to know of a pod. The addresses of a node's own network are not a pod's.
pub(crate) fn pod_facts(pod: &Pod) -> PodFacts {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let of_node = spec.and_then(|spec| spec.host_network).unwrap_or_default();
    let several = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    let all = several.chain(status.and_then(|status| status.pod_ip.as_deref())).filter_map(|ip| ip.parse().ok());
    let mut ips: Vec<_> = all.filter(|_| !of_node).collect();
    ips.sort_unstable();
    ips.dedup();
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let ports = containers.flat_map(|container: &Container| container.ports.iter().flatten()).filter_map(named_port);
    PodFacts { name: name_of(&pod.metadata), ips, labels: labels(&pod.metadata), ports: ports.collect() }
}

fn named_port(port: &ContainerPort) -> Option<NamedPort> {
    let name = port.name.clone()?;
    Some(NamedPort { name, protocol: protocol(port.protocol.as_deref())?, port: number(port.container_port)? })
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// SCTP is not spoken.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

pub(crate) fn selector(selector: &LabelSelector) -> Selector {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: vec![value.clone()],
    });
    let expressions = selector.match_expressions.iter().flatten().map(|expression| Requirement {
        key: expression.key.clone(),
        operator: match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => Operator::Never,
        },
        values: expression.values.clone().unwrap_or_default(),
    });
    Selector(equal.chain(expressions).collect())
}

fn nothing() -> PolicyPeer {
    let never = Requirement { key: String::new(), operator: Operator::Never, values: Vec::new() };
    PolicyPeer::Pods { namespaces: None, pods: Selector(vec![never]) }
}

fn policy(policy: &NetworkPolicy) -> net::NetworkPolicy {
    let spec = policy.spec.clone().unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    // As Kubernetes fills in what is left out.
    let is = |name: &str| match types.as_slice() {
        [] => name == "Ingress" || !egress.is_empty(),
        types => types.iter().any(|known| known == name),
    };
    let ingress = spec.ingress.iter().flatten().map(|rule| self::rule(rule.from.as_ref(), rule.ports.as_ref()));
    let egress_rules = egress.iter().map(|rule| self::rule(rule.to.as_ref(), rule.ports.as_ref()));
    net::NetworkPolicy {
        name: name_of(&policy.metadata),
        pods: spec.pod_selector.as_ref().map(selector).unwrap_or_default(),
        ingress: is("Ingress").then(|| ingress.collect()),
        egress: is("Egress").then(|| egress_rules.collect()),
    }
}

fn rule(peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>) -> PolicyRule {
    PolicyRule {
        peers: peers.into_iter().flatten().map(peer).collect(),
        ports: ports.into_iter().flatten().map(port).collect(),
    }
}

/// What cannot be read is nobody, and not everybody.
fn peer(peer: &NetworkPolicyPeer) -> PolicyPeer {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(range), _, _) => block(range).unwrap_or_else(nothing),
        (None, None, None) => nothing(),
        (None, namespaces, pods) => PolicyPeer::Pods {
            namespaces: namespaces.as_ref().map(selector),
            pods: pods.as_ref().map(selector).unwrap_or_default(),
        },
    }
}

fn block(block: &IPBlock) -> Option<PolicyPeer> {
    let except = block.except.iter().flatten().map(|range| range.parse().ok());
    Some(PolicyPeer::Block { range: block.cidr.parse().ok()?, except: except.collect::<Option<_>>()? })
}

fn port(port: &NetworkPolicyPort) -> PolicyPort {
    let protocol = protocol(port.protocol.as_deref());
    let range = |first: i32| {
        let first = number(first)?;
        Some(PortMatch::Range(first, port.end_port.map_or(Some(first), number)?))
    };
    let matched = match &port.port {
        None => Some(PortMatch::Any),
        Some(IntOrString::Int(first)) => range(*first),
        Some(IntOrString::String(name)) => Some(PortMatch::Named(name.clone())),
    };
    match matched {
        Some(port) => PolicyPort { protocol, port },
        None => PolicyPort { protocol: None, port: PortMatch::Any },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> net::NetworkPolicy {
        let json = json!({ "metadata": { "namespace": "a", "name": "p" }, "spec": spec });
        policy(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn policies_say_which_directions_they_are_about() {
        let directions = |spec| {
            let policy = read(spec);
            (policy.ingress.map(|rules| rules.len()), policy.egress.map(|rules| rules.len()))
        };
        for (spec, expected) in [
            (json!({ "podSelector": {} }), (Some(0), None)),
            (json!({ "podSelector": {}, "egress": [{}] }), (Some(0), Some(1))),
            (json!({ "podSelector": {}, "policyTypes": ["Egress"] }), (None, Some(0))),
            (json!({ "podSelector": {}, "policyTypes": ["Egress", "Ingress"], "ingress": [{}] }), (Some(1), Some(0))),
        ] {
            assert_eq!(directions(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn rules_are_read() {
        let found = read(json!({
            "podSelector": { "matchLabels": { "app": "web" } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [
                    { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } },
                    { "namespaceSelector": { "matchExpressions": [{ "key": "t", "operator": "Exists" }] } },
                    { "podSelector": {} },
                    { "ipBlock": { "cidr": "nonsense" } },
                ],
                "ports": [
                    { "port": 80, "endPort": 90 }, { "port": "http", "protocol": "UDP" }, { "protocol": "SCTP" },
                    { "port": 70000 },
                ],
            }],
        }));
        let rule = &found.ingress.unwrap()[0];
        let exists = Requirement { key: "t".to_owned(), operator: Operator::Exists, values: Vec::new() };
        let expected = [
            PolicyPeer::Block { range: "10.0.0.0/8".parse().unwrap(), except: vec!["10.1.0.0/16".parse().unwrap()] },
            PolicyPeer::Pods { namespaces: Some(Selector(vec![exists])), pods: Selector::default() },
            PolicyPeer::Pods { namespaces: None, pods: Selector::default() },
            nothing(),
        ];
        assert_eq!(rule.peers, expected);
        let port = |protocol, port| PolicyPort { protocol, port };
        let expected = [
            port(Some(Protocol::Tcp), PortMatch::Range(80, 90)),
            port(Some(Protocol::Udp), PortMatch::Named("http".to_owned())),
            port(None, PortMatch::Any),
            port(None, PortMatch::Any),
        ];
        assert_eq!(rule.ports, expected);
        assert_eq!(found.pods, Selector::label("app", "web"));
    }

    #[test]
    fn pods_have_addresses_labels_and_named_ports() {
        let pod = |spec: Value, status: Value| -> Pod {
            let meta = json!({ "namespace": "a", "name": "web", "labels": { "app": "web" } });
            serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
        };
        let ports = json!([{ "name": "http", "containerPort": 8080 }, { "containerPort": 9 }]);
        let spec = json!({ "containers": [{ "name": "c", "ports": ports }] });
        let found = pod_facts(&pod(spec, json!({ "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }] })));
        assert_eq!(found.ips, [std::net::IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(found.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(found.ports, [NamedPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 8080 }]);
        let of_node = pod(json!({ "containers": [], "hostNetwork": true }), json!({ "podIP": "192.0.2.1" }));
        assert!(pod_facts(&of_node).ips.is_empty());
        assert!(has_ended(&pod(json!({ "containers": [] }), json!({ "phase": "Succeeded" }))));
    }
}
