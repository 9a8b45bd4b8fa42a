//! Lifecycle hooks: `postStart` and `preStop`.
//!
//! What a hook's failure was goes to the log and not into events, where a secret of its output would be shown.
//!
//! # Source
//! Kubernetes `pkg/kubelet/lifecycle/handlers.go`: any answer to an HTTP hook is a success; `tcpSocket` has never worked.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use super::{PodId, Shared, command, guest::Runtime, http};
use crate::decide::local::Slot;

/// A hook to run.
pub(crate) struct Hook<'a> {
    pub(crate) id: &'a PodId,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) slot: Slot,
    pub(crate) ip: IpAddr,
    pub(crate) runtime: &'a Runtime,
    pub(crate) handler: &'a LifecycleHandler,
}

/// Runs it. Goes on for as long as the hook takes.
pub(crate) async fn run(shared: &Shared, hook: Hook<'_>) -> Result<(), String> {
    let Some(spec) = hook.slot.spec(hook.pod) else { return Ok(()) };
    match hook.handler {
        LifecycleHandler { exec: Some(action), .. } => {
            let argv = action.command.clone().unwrap_or_default();
            let done = command::run(shared, hook.runtime.command(), argv).await?;
            match done.exit_code {
                0 => Ok(()),
                code => Err(format!("command exited with {code}: {}", done.output)),
            }
        }
        LifecycleHandler { http_get: Some(action), .. } => {
            http::get(shared, hook.id, hook.ip, &spec, action).await.map(|_| ()).map_err(|failure| failure.to_string())
        }
        LifecycleHandler { sleep: Some(sleep), .. } => {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            Ok(())
        }
        LifecycleHandler { tcp_socket, .. } => {
            let which = if tcp_socket.is_some() { "tcpSocket" } else { "none" };
            Err(format!("invalid handler: {which}; use exec, httpGet or sleep"))
        }
    }
}
