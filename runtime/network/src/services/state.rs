//! What a Service's endpoints do at this moment, as this node sees them: for people who ask, not for decisions.

use std::{net::SocketAddr, time::Duration};

use super::{Port, Services};
use crate::{
    balance::{Endpoint, Moment},
    table::{Name, Protocol},
};

/// Endpoints of one port that are told of.
const ENDPOINTS_MAX: usize = 1000;

/// What a Service does now.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceState {
    /// Requests under way that count towards `podium.dev/max-requests`, and those that wait for that; both 0 without it.
    pub under_way: u32,
    /// See `under_way`.
    pub waiting: u32,
    /// `podium.dev/max-requests`
    pub requests_max: Option<u32>,
    /// Its ports.
    pub ports: Vec<PortState>,
}

/// What a port of a Service does now.
#[derive(Debug, Clone, PartialEq)]
pub struct PortState {
    /// Its number.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// How many endpoints this node sends to.
    pub endpoints_total: usize,
    /// The first of them.
    pub endpoints: Vec<EndpointState>,
}

/// What an endpoint does now.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointState {
    /// Where it is.
    pub address: SocketAddr,
    /// Requests and connections under way.
    pub under_way: u32,
    /// What its latency is taken to be: a peak counts at once and fades; what is assumed, before it has answered once.
    pub latency: Duration,
    /// Failures one after the other.
    pub failures: u32,
    /// How long it is still passed over.
    pub ejected_for: Option<Duration>,
}

impl Services {
    /// What a Service does now; `None` when there is none.
    pub(crate) fn state(&self, name: &Name, now: Moment) -> Option<ServiceState> {
        let table = self.0.read();
        let entry = table.entries.get(name)?;
        let (service, shared) = entry.service.as_ref()?;
        let (under_way, waiting) = shared.breaker.counts();
        let requests_max = service.traffic.settings.requests_max;
        let ports = service.ports.iter().filter_map(|p| entry.ports.get(&(p.protocol, p.port)));
        let ports = ports.map(|port| port.state(now)).collect();
        Some(ServiceState { under_way, waiting, requests_max, ports })
    }
}

impl Port {
    fn state(&self, now: Moment) -> PortState {
        PortState {
            port: self.number,
            protocol: self.protocol,
            endpoints_total: self.endpoints.len(),
            endpoints: self.endpoints.iter().take(ENDPOINTS_MAX).map(|endpoint| endpoint.state(now)).collect(),
        }
    }
}

impl Endpoint {
    fn state(&self, now: Moment) -> EndpointState {
        let (under_way, latency, failures, ejected_until) = self.figures();
        let ejected_for = Some(ejected_until.since(now)).filter(|left| !left.is_zero());
        EndpointState { address: self.address, under_way, latency, failures, ejected_for }
    }
}
