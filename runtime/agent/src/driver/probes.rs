//! Making one probe: a request to the pod through the network, a connection, a health check, a command. What it takes too long
//! for ends the probe, never the pod.
//!
//! # Source
//! Kubernetes `pkg/kubelet/prober/prober.go` and `pkg/probe`: HTTP codes from 200 to 399 are a success.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container as Spec, Pod, Probe};

use super::{
    PodId, Report, Shared,
    command::{self, Within},
    grpc, http,
};
use crate::decide::{
    local::Slot,
    probe::{Outcome, ProbeKind},
};

/// A probe to make.
pub(crate) struct Job {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) slot: Slot,
    pub(crate) kind: ProbeKind,
    pub(crate) ip: IpAddr,
    pub(crate) run: Arc<str>,
    pub(crate) within: Within,
}

/// Makes it and reports the outcome.
pub(crate) async fn probe(shared: Arc<Shared>, job: Job) {
    let outcome = Box::pin(make(&shared, &job)).await;
    if let Some(container) = job.slot.spec(&job.pod) {
        shared.meter.probed(&job.id, &container.name, job.kind, &outcome);
    }
    shared.report(Report::Probed { pod: job.id, slot: job.slot, kind: job.kind, run: job.run, outcome });
}

async fn make(shared: &Shared, job: &Job) -> Outcome {
    let Some(spec) = job.slot.spec(&job.pod) else { return Outcome::Success };
    let Some(probe) = job.kind.spec(&spec) else { return Outcome::Success };
    let limit = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    let attempt = attempt(shared, job, &spec, probe, limit);
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Outcome::Failed(late(job.ip, &spec, probe, limit)))
}

async fn attempt(shared: &Shared, job: &Job, spec: &Spec, probe: &Probe, limit: Duration) -> Outcome {
    if let Some(action) = &probe.http_get {
        return match http::get(shared, &job.id, job.ip, spec, action).await {
            Ok(answer) if (200..400).contains(&answer.status().as_u16()) => Outcome::Success,
            Ok(answer) => Outcome::Failed(format!("HTTP probe failed with statuscode: {}", answer.status().as_u16())),
            Err(http::Failure::Spec(why)) => Outcome::Unknown(why),
            Err(http::Failure::Call(why)) => Outcome::Failed(why),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = match http::port(spec, &action.port) {
            Ok(port) => port,
            Err(why) => return Outcome::Unknown(why),
        };
        return match shared.network.connect_pod(job.ip, port).await {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failed(format!("dial tcp {}:{port}: connect: connection refused", job.ip)),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Unknown(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or_default();
        let checked = grpc::check(&shared.network, SocketAddr::new(job.ip, port), service, limit).await;
        return checked.map_or_else(Outcome::Failed, |()| Outcome::Success);
    }
    let argv = probe.exec.as_ref().and_then(|e| e.command.clone()).unwrap_or_default();
    match command::run(shared, job.within.clone(), argv).await {
        Ok(done) if done.exit_code == 0 => Outcome::Success,
        Ok(done) => Outcome::Failed(done.output),
        // A command that is not there fails; kubelet's runtimes say so too.
        Err(why) => Outcome::Failed(why),
    }
}

/// Kubelet's words for a probe that took too long.
fn late(ip: IpAddr, spec: &Spec, probe: &Probe, limit: Duration) -> String {
    let seconds = limit.as_secs();
    if let Some(action) = &probe.http_get {
        let url = http::url(ip, spec, action).unwrap_or_default();
        return format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    if let Some(action) = &probe.tcp_socket {
        let port = http::port(spec, &action.port).unwrap_or_default();
        return format!("dial tcp {ip}:{port}: i/o timeout");
    }
    if let Some(action) = &probe.grpc {
        let address = format!("{ip}:{}", action.port);
        return format!("timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded");
    }
    let command = probe.exec.as_ref().and_then(|e| e.command.as_ref()).map(|c| c.join(" ")).unwrap_or_default();
    format!("command timed out: {command:?} timed out after {seconds}s")
}
