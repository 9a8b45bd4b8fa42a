//! Endpoints of Services that are no pods, as whoever comes from outside reaches them: through Ingresses, Gateways and node
//! ports. Pods reach such endpoints as any host outside, where that is granted to them; see [`crate::Dialer`].
//!
//! Who writes an endpoint into a namespace asks for it. What the namespace lets its pods reach at most bounds it, and what
//! the operator does; the host's own addresses are the operator's to grant.

use std::net::{IpAddr, SocketAddr};

use http::{Request, Response};

use crate::{
    Body, CallError, CallTimeouts, Network, SocketError,
    egress::{Host, HostPatterns, Refusal, Way},
    policy::Source,
    stream::PodStream,
    table::Name,
};

impl Network {
    /// Whether an endpoint is no pod's, and the caller none either.
    pub(crate) fn leads_beyond(&self, from: Source, to: IpAddr) -> bool {
        let inner = self.inner();
        let is_pod = matches!(from, Source::Ip(ip) if inner.is_cluster(ip));
        !is_pod && !inner.is_cluster(to)
    }

    /// Sends a request to an endpoint outside.
    pub(crate) async fn call_beyond(
        &self,
        (service, to): (&Name, SocketAddr),
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        // Asked each time, since connections are kept.
        self.may_lead(service, to)?;
        let connect = || async move { Ok(self.connect_beyond((service, to), ()).await?) };
        self.inner().pod_http.send(to, request, timeouts, connect).await
    }

    /// Connects to an endpoint outside. `held` is held by the client's end.
    pub(crate) async fn connect_beyond<G: Send + Unpin + 'static>(
        &self,
        (service, to): (&Name, SocketAddr),
        held: G,
    ) -> Result<PodStream, SocketError> {
        self.may_lead(service, to)?;
        let outside = &self.inner().outside;
        let refused = |why| SocketError::Denied(format!("service {service}: {why}"));
        outside.judge(Way::Tcp, to).map_err(refused)?;
        Ok(outside.connect(vec![to], held).await?.2)
    }

    fn may_lead(&self, service: &Name, to: SocketAddr) -> Result<(), SocketError> {
        self.within_most(service, (Host::Ip(to.ip()), to.port()), to)
    }

    /// Whether a host outside is within what the Service's namespace and the operator let pods reach at most.
    pub(crate) fn within_most(
        &self,
        service: &Name,
        (host, port): (Host<'_>, u16),
        shown: impl std::fmt::Display,
    ) -> Result<(), SocketError> {
        let inner = self.inner();
        let allows = |most: &HostPatterns| most.allow(Way::Tcp, host, port);
        let namespace = inner.namespaces.read().get(&service.namespace).and_then(|limits| limits.max.clone());
        let refusal = match (namespace, inner.outside.max_hosts()) {
            (Some(most), _) if !allows(&most) => Refusal::AboveNamespace,
            (_, Some(most)) if !allows(most) => Refusal::AboveNode,
            _ => return Ok(()),
        };
        inner.metrics.refused(refusal.reason());
        let advice = refusal.advice();
        Err(SocketError::Denied(format!("service {service} leads to {shown}, outside the cluster: {advice}")))
    }
}
