//! Who may talk to whom: NetworkPolicies, compiled and enforced for everything that is opened between pods, to hosts
//! outside and from clients outside.
//!
//! [`table`] decides purely; [`enforce`] remembers decisions, counts and logs them; [`flows`] knows what is open and
//! cuts what is not allowed any more. The node itself reaches its own pods always, and a pod itself.

mod enforce;
mod flows;
pub(crate) mod selector;
pub(crate) mod table;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

pub(crate) use enforce::Policies;
pub(crate) use flows::{Cut, FlowGuard, Flows, Leash, Opened, OutsideFlow};
pub use selector::{Operator, Requirement, Selector};

use crate::{
    ranges::IpRange,
    table::{Name, Protocol},
};

/// Labels of a pod or a namespace.
pub type Labels = Arc<BTreeMap<String, String>>;

/// One NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Which.
    pub name: Name,
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// What may come in to them; `None`: it says nothing of that, and isolates nobody.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What they may open; `None`: it says nothing of that.
    pub egress: Option<Vec<PolicyRule>>,
}

/// What a policy allows: these peers on these ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// Empty: all.
    pub peers: Vec<PolicyPeer>,
    /// Empty: all, whatever the protocol.
    pub ports: Vec<PolicyPort>,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPeer {
    /// Pods.
    Pods {
        /// Of which namespaces; `None`: of the policy's own.
        namespaces: Option<Selector>,
        /// Which of them.
        pods: Selector,
    },
    /// Addresses.
    Block {
        /// In this range
        range: IpRange,
        /// and in none of these.
        except: Vec<IpRange>,
    },
}

/// Ports of the side that is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPort {
    /// What is spoken; `None`: something that this network does not carry, so nothing.
    pub protocol: Option<Protocol>,
    /// Which ports.
    pub port: PortMatch,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMatch {
    /// All.
    Any,
    /// From the first to the last.
    Range(u16, u16),
    /// The port that the pod which is connected to calls so.
    Named(String),
}

/// What policies need to know of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Which.
    pub name: Name,
    /// Its addresses; none: those that were known of it.
    pub ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its ports that have names.
    pub ports: Vec<NamedPort>,
}

/// A container's port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Who opens something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The node, for itself: probes, port-forward, the API server, programs of the host.
    Node,
    /// A pod, or a host outside.
    Ip(IpAddr),
}

/// Which way a policy looks at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}
