//! `pods/log`: which container is meant, whether it can have a log, and the stream from its node.

use futures::StreamExt as _;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use podium_api::{ApiError, Reason};

use super::{Permit, body::Body, path::Query, respond};
use crate::gateway::{LogOptions, NodeGateway};

/// Reads the query.
///
/// # Errors
/// 400 for what is no number or no time.
pub(crate) fn options(query: &Query, now: Timestamp) -> Result<LogOptions, ApiError> {
    let positive = |key: &str| -> Result<Option<u64>, ApiError> {
        let number = query.number(key)?;
        number
            .map(|n| {
                u64::try_from(n)
                    .map_err(|_| ApiError::bad_request(format!("{key}: must be greater than or equal to 0")))
            })
            .transpose()
    };
    let since = match (positive("sinceSeconds")?, query.find("sinceTime").filter(|t| !t.is_empty())) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        (Some(seconds), None) => {
            let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.checked_sub(back).unwrap_or(Timestamp::MIN))
        }
        (None, Some(text)) => {
            Some(text.parse().map_err(|_| ApiError::bad_request(format!("sinceTime: {text:?} is no RFC 3339 time")))?)
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        container: query.get("container").to_owned(),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: positive("tailLines")?,
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: positive("limitBytes")?,
    })
}

/// Fills in the container and refuses those that have no log.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn check(pod: &Pod, options: &mut LogOptions) -> Result<(), ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(ApiError::bad_request(format!("pod {name} has no containers"))) };
    let containers: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let inits: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    match (options.container.as_str(), containers.as_slice()) {
        ("", [only]) if inits.is_empty() => options.container = (*only).to_owned(),
        ("", many) => {
            let inits = if inits.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", inits.join(" "))
            };
            return Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{inits}",
                many.join(" ")
            )));
        }
        (asked, many) if !many.contains(&asked) && !inits.contains(&asked) => {
            return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
        }
        _ => {}
    }
    if spec.node_name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    waiting(pod, name, options)
}

fn waiting(pod: &Pod, name: &str, options: &LogOptions) -> Result<(), ApiError> {
    let container = &options.container;
    let statuses =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    let Some(status) = statuses.into_iter().find(|s| s.name == *container) else { return Ok(()) };
    if options.previous {
        let ended = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        return if ended {
            Ok(())
        } else {
            Err(ApiError::bad_request(format!("previous terminated container {container:?} in pod {name:?} not found")))
        };
    }
    match never_started(status) {
        None => Ok(()),
        Some(reason) => {
            Err(ApiError::bad_request(format!("container {container:?} in pod {name:?} is waiting to start: {reason}")))
        }
    }
}

fn never_started(status: &ContainerStatus) -> Option<&str> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let ran = status.restart_count > 0 || status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    (!ran).then(|| waiting.reason.as_deref().unwrap_or("ContainerCreating"))
}

/// Opens the stream.
///
/// # Errors
/// 503 while no node is connected; what the node says.
pub(crate) async fn open(
    gateway: Option<&dyn NodeGateway>,
    pod: &Pod,
    options: LogOptions,
    permit: Permit,
    stop: tokio_util::sync::CancellationToken,
) -> Result<respond::Answer, ApiError> {
    let Some(gateway) = gateway else {
        return Err(ApiError::new(Reason::ServiceUnavailable, "the node agent is not connected yet").retry_after(1));
    };
    let stream = gateway.logs(pod, options).await?;
    // The permit counts as long as the stream is open.
    let held = stream.take_until(stop.cancelled_owned()).map(move |item| {
        let _ = &permit;
        item
    });
    Ok(respond::with_body(StatusCode::OK, "text/plain", Body::Stream(held.boxed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_container_and_whether_it_has_a_log() {
        let pod = |containers: &[&str], state: serde_json::Value| -> Pod {
            let containers: Vec<_> = containers.iter().map(|n| serde_json::json!({"name": n})).collect();
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": containers},
                "status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state}]},
            }))
            .unwrap()
        };
        let running = serde_json::json!({"running": {}});
        let creating = serde_json::json!({"waiting": {"reason": "ContainerCreating"}});
        for (pod, query, wanted) in [
            (pod(&["a"], running.clone()), "", Ok("a")),
            (pod(&["a", "b"], running.clone()), "container=b", Ok("b")),
            (
                pod(&["a", "b"], running.clone()),
                "",
                Err("a container name must be specified for pod p, choose one of: [a b]"),
            ),
            (pod(&["a"], running.clone()), "container=x", Err("container x is not valid for pod p")),
            (pod(&["a"], creating), "", Err("container \"a\" in pod \"p\" is waiting to start: ContainerCreating")),
            (pod(&["a"], running), "previous=true", Err("previous terminated container \"a\" in pod \"p\" not found")),
        ] {
            let mut options = options(&Query::parse(Some(query)), Timestamp::UNIX_EPOCH).unwrap();
            let got = check(&pod, &mut options).map_err(|e| e.message);
            assert_eq!(got.map(|()| options.container), wanted.map(str::to_owned).map_err(str::to_owned), "{query}");
        }
    }
}
