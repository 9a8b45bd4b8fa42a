//! Making one probe: a request to the pod through the network, or a look whether its port is attached.
//!
//! # Source
//! Kubernetes `pkg/probe/http/request.go` and `http.go`: codes from 200 to 399 are a success.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use k8s_openapi::{
    api::core::v1::{Container as Spec, HTTPGetAction, Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use podium_network::Caller;
use podium_sandbox::Body;

use super::{PodId, Report, Shared};
use crate::decide::{local::Slot, probe::ProbeKind};

/// A probe to make.
pub(crate) struct Job {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) slot: Slot,
    pub(crate) kind: ProbeKind,
    pub(crate) ip: IpAddr,
    pub(crate) run: Arc<str>,
}

/// Makes it and reports the outcome.
pub(crate) async fn probe(shared: Arc<Shared>, job: Job) {
    let outcome = make(&shared, &job).await;
    shared.report(Report::Probed { pod: job.id, slot: job.slot, kind: job.kind, run: job.run, outcome });
}

async fn make(shared: &Shared, job: &Job) -> Result<(), String> {
    let Some(spec) = job.slot.spec(&job.pod) else { return Ok(()) };
    let Some(probe) = job.kind.spec(spec) else { return Ok(()) };
    let limit = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    match tokio::time::timeout(limit, attempt(shared, job, spec, probe)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("probe timed out after {}s", limit.as_secs())),
    }
}

async fn attempt(shared: &Shared, job: &Job, spec: &Spec, probe: &Probe) -> Result<(), String> {
    if let Some(action) = &probe.http_get {
        return http_get(shared, &job.id, job.ip, spec, action).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let port = port(spec, &action.port)?;
        let attached = shared.network.is_attached(job.ip, port);
        return attached
            .then_some(())
            .ok_or_else(|| format!("dial tcp {}:{port}: connect: connection refused", job.ip));
    }
    // Guests have no processes to run and no gRPC health service that could be told apart: never a reason to fail.
    tracing::warn!(pod = %job.id.key, container = spec.name, "exec and gRPC probes are not supported and pass; use httpGet or tcpSocket");
    Ok(())
}

/// One GET; codes from 200 to 399 are a success.
pub(crate) async fn http_get(
    shared: &Shared,
    id: &PodId,
    ip: IpAddr,
    spec: &Spec,
    action: &HTTPGetAction,
) -> Result<(), String> {
    let port = port(spec, &action.port)?;
    let host = action.host.as_deref().filter(|h| !h.is_empty());
    let host = host.map_or_else(|| std::net::SocketAddr::new(ip, port).to_string(), |h| format!("{h}:{port}"));
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("http://{host}{slash}{path}");
    let uri: Uri = url.parse().map_err(|e| format!("invalid URL {url:?}: {e}"))?;
    let mut request = Request::get(uri)
        .header(header::USER_AGENT, concat!("kube-probe/1.36 podium/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    if !action.http_headers.iter().flatten().any(|h| h.name.eq_ignore_ascii_case("host")) {
        request = request.header(header::HOST, &host);
    }
    let body: Body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let request = request.body(body).map_err(|e| format!("invalid request to {url:?}: {e}"))?;
    let caller = Caller { namespace: id.key.namespace.clone(), pod: id.key.name.clone(), ip: Some(ip) };
    let answer = shared.network.dialer(caller).send(request).await.map_err(|e| format!("Get {url:?}: {e}"))?;
    let status = answer.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

fn port(spec: &Spec, port: &IntOrString) -> Result<u16, String> {
    let named =
        |name: &str| spec.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => named(name).or_else(|| name.parse().ok()),
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("couldn't find port: {port:?} in pod spec"))
}
