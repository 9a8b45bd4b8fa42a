//! Services that only name somebody (`ExternalName`), as backends of Ingresses: another Service of the cluster, or a host
//! outside, under the name that the client asked for.
//!
//! Such a name is whole: no search domain is tried, and an address is no name. A host is judged each time it is called, by
//! name, and its addresses when a connection is opened; what is the host's own or looks like the cluster is nobody's to
//! name. Gateways take no such Services: that is the agent's to say.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use http::{Request, Response};

use crate::{
    Body, CallError, CallTimeouts, Network, SocketError,
    dialer::{ALIASES_MAX, Caller, Membership},
    egress::{Host, Way},
    names::{Meaning, meaning},
    routes::Destination,
    services::{Lookup, Port},
    stream::PodStream,
    table::{BackendPort, Name, Protocol},
    tunnel::wire,
    upgrade,
};

/// Where a backend leads.
pub(crate) enum Goal {
    /// To endpoints.
    Port(Arc<Port>),
    /// To a host outside.
    Host(NamedHost),
}

/// A host outside that a Service names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedHost {
    pub(crate) service: Name,
    /// In lower case, without a dot at its end.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Network {
    /// Where a backend leads now; `None` when there is no such Service or port.
    ///
    /// # Errors
    /// When the name that a Service stands for cannot be meant.
    pub(crate) fn goal(&self, to: &Destination) -> Result<Option<Goal>, CallError> {
        let found = |lookup| match lookup {
            Lookup::Found(port) => Some(Goal::Port(port)),
            Lookup::NoPort | Lookup::NoService => None,
        };
        let services = &self.inner().services;
        let Some(mut host) = services.external(&to.service) else {
            return Ok(found(services.backend(&to.service, &to.port)));
        };
        let service = &to.service;
        let port = match &to.port {
            BackendPort::Number(number) => Some(*number),
            BackendPort::Name(name) => services.named_port(service, name, Protocol::Tcp),
        };
        let Some(port) = port else { return Ok(None) };
        for _ in 0..ALIASES_MAX {
            let name = match self.meant(service, &host) {
                Meaning::Service(name) => name,
                // Digits are a name that nobody has; and connections are kept by name, those to pods by address.
                Meaning::Outside(host) if host.parse::<IpAddr>().is_err() => {
                    return Ok(Some(Goal::Host(NamedHost { service: service.clone(), host, port })));
                }
                Meaning::Loopback(_) => {
                    return Err(CallError::Denied(format!("service {service} names this host itself: {host}")));
                }
                _ => return Err(CallError::NameNotFound(format!("{host}, which service {service} names"))),
            };
            match services.external(&name) {
                Some(next) => host = next,
                None => return Ok(found(services.port(&name, port, Protocol::Tcp))),
            }
        }
        Err(CallError::NameNotFound(format!("service {service} leads from one ExternalName to the next")))
    }

    /// What a whole name means to a Service.
    fn meant(&self, service: &Name, host: &str) -> Meaning {
        let inner = self.inner();
        let (pod, service_account) = (String::new(), String::new());
        let caller = Caller { namespace: service.namespace.clone(), pod, service_account, ip: None };
        let whole = format!("{}.", host.trim_end_matches('.'));
        meaning(&whole, (&caller, &Membership::default()), &inner.config.cluster_domain, &inner.services)
    }

    /// Sends a request to a host that a Service names.
    pub(crate) async fn call_named(
        &self,
        to: &NamedHost,
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        let since = Instant::now();
        let answer = self.call_host(to, request, timeouts).await;
        let metrics = self.metrics().service(&to.service);
        metrics.answered(answer.as_ref().ok().map(Response::status), since.elapsed().as_secs_f64());
        answer
    }

    async fn call_host(
        &self,
        to: &NamedHost,
        mut request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        // Nobody outside learns who calls, nor is told so by a client.
        request.headers_mut().remove(wire::CALLER);
        // Asked each time, since connections are kept.
        self.may_lead_to(to)?;
        if upgrade::is_wanted(&request) {
            let connect = self.connect_named(to);
            return Box::pin(upgrade::pass_on_over(self, to.service.clone(), connect, request)).await;
        }
        let connect = || async move { Ok(self.connect_named(to).await?) };
        let at = format!("{}:{}", to.host, to.port);
        let answer = self.inner().pod_http.send(at, request, timeouts, connect);
        match timeouts.one_try {
            None => answer.await,
            Some(limit) => {
                let late = || CallError::TimedOut(format!("{} did not answer within {limit:?}", to.host));
                tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
            }
        }
    }

    /// Connects to one of the host's addresses.
    async fn connect_named(&self, to: &NamedHost) -> Result<PodStream, SocketError> {
        let outside = &self.inner().outside;
        let addresses = outside.lookup(&to.host).await?;
        let (mut fine, mut bad) = (Vec::new(), String::new());
        for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, to.port)) {
            let cluster = self.inner().is_cluster(address.ip()).then(|| format!("{address} is the cluster's"));
            match cluster.map_or_else(|| outside.judge(Way::Tcp, address), Err) {
                Ok(()) => fine.push(address),
                Err(why) => bad = why,
            }
        }
        match fine.is_empty() {
            true => Err(SocketError::Denied(format!("service {} leads to {}: {bad}", to.service, to.host))),
            false => Ok(outside.connect(fine, ()).await?.2),
        }
    }

    /// Whether a Service may name a host: what its namespace lets pods reach at most bounds it, and what the operator does.
    fn may_lead_to(&self, NamedHost { service, host, port }: &NamedHost) -> Result<(), SocketError> {
        self.within_most(service, (Host::Name(host), *port), format_args!("{host}:{port}"))?;
        let judged = self.inner().outside.judge_name(host);
        judged.map_err(|why| SocketError::Denied(format!("service {service}: {why}")))
    }
}
