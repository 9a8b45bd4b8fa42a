//! Brings Services to the addresses that they have outside: opens and closes listeners, writes load balancers' status.
//!
//! What cannot be listened at is said by an event and tried again. Addresses of `externalIPs` that are not this host's are
//! somebody else's.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, PortStatus, Service};
use podium_api::{ObjectKey, Reason, kind_of};
use podium_client::{Delta, Patch};
use podium_network::{
    ListenError, OuterListener, OuterPort,
    table::{Name, Protocol},
};
use serde_json::json;

use super::{Shared, traffic::note};
use crate::decide::balancer::{At, Plan, Wanted, concerns, ingress, name_of, plan};

/// How long until what could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Runs until the mirror of Services ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut deltas = shared.services.subscribe();
    let mut balancer = Balancer { shared, open: BTreeMap::new(), health: BTreeMap::new(), said: BTreeMap::new() };
    let mut again = false;
    loop {
        let changed = tokio::select! {
            delta = deltas.recv() => match delta {
                Some(delta) => of_concern(&delta),
                None => return,
            },
            () = tokio::time::sleep(AGAIN), if again => true,
        };
        if !changed {
            continue;
        }
        // What has come meanwhile is looked at together.
        while deltas.try_recv().is_ok() {}
        again = balancer.settle().await;
    }
}

fn of_concern(delta: &Delta) -> bool {
    let is = |object: &Arc<dyn podium_api::Object>| object.downcast_ref::<Service>().is_some_and(concerns);
    match delta {
        Delta::Put { old, new } => is(new) || old.as_ref().is_some_and(is),
        Delta::Delete { old, .. } => is(old),
    }
}

struct Balancer {
    shared: Arc<Shared>,
    open: BTreeMap<At, (Wanted, OuterListener)>,
    health: BTreeMap<u16, (Name, OuterListener)>,
    /// What was said of a Service last.
    said: BTreeMap<Name, String>,
}

impl Balancer {
    /// Makes it so; whether something is left to be tried again.
    async fn settle(&mut self) -> bool {
        let objects = self.shared.services.list(None);
        let services: Vec<&Service> = objects.iter().filter_map(|object| object.downcast_ref()).collect();
        let plan = plan(&services, self.shared.config.load_balancer.as_ref());
        let failed = self.listen(&plan).await;
        let mut again = self.check_health(&plan).await;
        again |= failed.keys().any(|at| plan.listeners.get(at).is_some_and(|wanted| wanted.ours));
        if self.shared.config.load_balancer.is_some() {
            for service in services {
                again |= self.tell(service, &plan, &failed).await;
            }
        }
        self.said.retain(|name, _| plan.balancers.contains_key(name));
        again
    }

    /// Opens and closes listeners; says what cannot be opened.
    async fn listen(&mut self, plan: &Plan) -> BTreeMap<At, ListenError> {
        let same = |a: &Wanted, b: &Wanted| a.service == b.service && a.port == b.port;
        let stale: Vec<At> = self
            .open
            .iter()
            .filter(|(at, (is, _))| !plan.listeners.get(at).is_some_and(|wanted| same(wanted, is)))
            .map(|(at, _)| *at)
            .collect();
        for at in stale {
            if let Some((_, listener)) = self.open.remove(&at) {
                listener.close().await;
            }
        }
        let mut failed = BTreeMap::new();
        for (at, wanted) in &plan.listeners {
            if let Some((is, listener)) = self.open.get_mut(at) {
                if is.ranges != wanted.ranges {
                    listener.allow(wanted.ranges.clone());
                }
                is.clone_from(wanted);
                continue;
            }
            let port = OuterPort { address: at.0, protocol: at.1, service: wanted.service.clone(), port: wanted.port };
            match self.shared.network.listen_service(port, wanted.ranges.clone()).await {
                Ok(listener) => drop(self.open.insert(*at, (wanted.clone(), listener))),
                Err(error) => {
                    let service = &wanted.service;
                    tracing::debug!(%service, %error, ours = wanted.ours, "an address outside cannot be listened at");
                    failed.insert(*at, error);
                }
            }
        }
        failed
    }

    /// Opens and closes ports that tell of local endpoints; whether some could not be opened.
    async fn check_health(&mut self, plan: &Plan) -> bool {
        let stale: Vec<u16> = self
            .health
            .iter()
            .filter(|(port, (of, _))| plan.health.get(port) != Some(of))
            .map(|(port, _)| *port)
            .collect();
        for port in stale {
            if let Some((_, listener)) = self.health.remove(&port) {
                listener.close().await;
            }
        }
        let mut again = false;
        for (port, service) in &plan.health {
            if self.health.contains_key(port) {
                continue;
            }
            let at = SocketAddr::new(self.shared.network.node_port_address(), *port);
            match self.shared.network.listen_health(at, service.clone()).await {
                Ok(listener) => drop(self.health.insert(*port, (service.clone(), listener))),
                Err(error) => {
                    tracing::warn!(%service, %error, "its healthCheckNodePort does not listen");
                    again = true;
                }
            }
        }
        again
    }

    /// Writes a load balancer's status, and says what became of it; whether that has to be tried again.
    async fn tell(&mut self, service: &Service, plan: &Plan, failed: &BTreeMap<At, ListenError>) -> bool {
        let name = name_of(service);
        let wanted = match plan.balancers.get(&name) {
            Some(given) => {
                let (wanted, trouble) = outcome(service, *given, failed);
                self.say(service, &wanted, trouble);
                wanted
            }
            // What another controller wrote of a Service that is its own stays.
            None if service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer")) => {
                return false;
            }
            None => Vec::new(),
        };
        if wanted == ingress(service) {
            return false;
        }
        // None is written as no list, not as an empty one.
        let shown = Some(&wanted).filter(|wanted| !wanted.is_empty());
        let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": shown } } }));
        let key = ObjectKey::of(&service.metadata);
        match self.shared.api.patch(&kind_of::<Service>(), &key, patch, Some("status")).await {
            Ok(_) => false,
            Err(error) if error.reason == Reason::NotFound => false,
            Err(error) => {
                tracing::warn!(service = %name, %error, "the status of a load balancer was not written");
                true
            }
        }
    }

    fn say(&mut self, service: &Service, wanted: &[LoadBalancerIngress], trouble: Option<String>) {
        let (warning, reason, message) = match trouble {
            Some(trouble) => (true, "SyncLoadBalancerFailed", format!("Error syncing load balancer: {trouble}")),
            None => (false, "EnsuredLoadBalancer", "Ensured load balancer".to_owned()),
        };
        let news = self.said.get(&name_of(service)).is_none_or(|said| *said != message);
        // After a start of the agent all is as it was.
        let known = !warning && wanted == ingress(service);
        if news && !known {
            note(&self.shared.recorder, service, (warning, reason), message.clone());
        }
        self.said.insert(name_of(service), message);
    }
}

/// What a load balancer's status is to say, and what is wrong.
fn outcome(
    service: &Service,
    given: Option<std::net::IpAddr>,
    failed: &BTreeMap<At, ListenError>,
) -> (Vec<LoadBalancerIngress>, Option<String>) {
    let Some(ip) = given else {
        return (Vec::new(), Some("no address of the pool is free at all of its ports".to_owned()));
    };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut troubles = Vec::new();
    let ports: Vec<PortStatus> = ports
        .map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = u16::try_from(port.port).unwrap_or_default();
            let error = match protocol.as_str() {
                "TCP" => failed.get(&(SocketAddr::new(ip, number), Protocol::Tcp)),
                "UDP" => failed.get(&(SocketAddr::new(ip, number), Protocol::Udp)),
                _ => None,
            };
            troubles.extend(error.map(ToString::to_string));
            let error = match (protocol.as_str(), error) {
                ("SCTP", _) => Some("podium.dev/NotSupported".to_owned()),
                (_, error) => error.map(|_| "podium.dev/NotListening".to_owned()),
            };
            PortStatus { error, port: port.port, protocol }
        })
        .collect();
    let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
    if ports.iter().all(|port| port.error.is_some()) {
        return (Vec::new(), trouble);
    }
    let ports = ports.iter().any(|port| port.error.is_some()).then_some(ports);
    let (ip, ip_mode) = (Some(ip.to_string()), Some("VIP".to_owned()));
    (vec![LoadBalancerIngress { hostname: None, ip, ip_mode, ports }], trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_which_ports_are_there() {
        let ports = json!([{ "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }]);
        let json = json!({ "metadata": { "name": "x" }, "spec": { "ports": ports } });
        let service: Service = serde_json::from_value(json).unwrap();
        let ip = std::net::IpAddr::from([10, 0, 0, 1]);
        let failed = |all: &[At]| -> BTreeMap<At, ListenError> {
            let error = |at: &At| (*at, ListenError { address: at.0, reason: "the port is already in use".into() });
            all.iter().map(error).collect()
        };
        let (tcp, udp) = ((SocketAddr::new(ip, 80), Protocol::Tcp), (SocketAddr::new(ip, 53), Protocol::Udp));
        let told = |given, failed: &BTreeMap<At, ListenError>| {
            let (ingress, trouble) = outcome(&service, given, failed);
            (serde_json::to_value(ingress).unwrap(), trouble)
        };
        let fine = json!([{ "ip": "10.0.0.1", "ipMode": "VIP" }]);
        assert_eq!(told(Some(ip), &failed(&[])), (fine, None));
        let half = json!([{ "ip": "10.0.0.1", "ipMode": "VIP", "ports": [
            { "port": 80, "protocol": "TCP", "error": "podium.dev/NotListening" },
            { "port": 53, "protocol": "UDP" },
        ] }]);
        let why = "cannot listen on 10.0.0.1:80: the port is already in use".to_owned();
        assert_eq!(told(Some(ip), &failed(&[tcp])), (half, Some(why)));
        let (ingress, trouble) = told(Some(ip), &failed(&[tcp, udp]));
        assert_eq!((ingress, trouble.is_some()), (json!([]), true), "nothing is there");
        assert_eq!(told(None, &failed(&[])).1.as_deref(), Some("no address of the pool is free at all of its ports"));
    }
}
