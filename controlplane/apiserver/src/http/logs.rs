//! `pods/log`: which container is meant, whether it can have a log, and the stream from its node.
//!
//! # Source
//! Kubernetes `pkg/registry/core/pod/rest/log.go`, `ValidatePodLogOptions` and `validateContainerLogStatus` of the kubelet.

use futures::StreamExt as _;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use podium_api::{ApiError, FieldErrors, FieldPath, Names, Reason};

use super::{Permit, body::Body, path::Query, respond};
use crate::{
    gateway::{LogOptions, LogStreams, NodeGateway},
    streaming,
};

const NAMES: Names = Names::new("", "v1", "PodLogOptions", "podlogoptions", "podlogoption");

/// Reads the query of a pod's log.
///
/// # Errors
/// 400 for what is no number or no time, 422 for what Kubernetes does not allow.
pub(crate) fn options(query: &Query, pod: &str, now: Timestamp) -> Result<LogOptions, ApiError> {
    let mut errs = FieldErrors::new();
    let mut number = |key: &'static str, least: i64| -> Result<Option<u64>, ApiError> {
        let number = query.number(key)?;
        if let Some(n) = number.filter(|n| *n < least) {
            let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errs.invalid(&FieldPath::new(key), n, why);
        }
        Ok(number.and_then(|n| u64::try_from(n).ok()))
    };
    let (tail_lines, limit_bytes) = (number("tailLines", 0)?, number("limitBytes", 1)?);
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = query.find("sinceTime").filter(|time| !time.is_empty());
    if since_seconds.is_some() && since_time.is_some() {
        errs.forbidden(&FieldPath::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    let streams = streams(query, tail_lines.is_some(), &mut errs);
    if !errs.is_empty() {
        return Err(ApiError::invalid(&NAMES, pod, errs));
    }
    Ok(LogOptions {
        container: query.get("container").to_owned(),
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines,
        since: since(since_seconds, since_time, now)?,
        timestamps: query.flag("timestamps"),
        limit_bytes,
        streams,
    })
}

fn streams(query: &Query, tail: bool, errs: &mut FieldErrors) -> LogStreams {
    let streams = match query.find("stream") {
        None | Some("All") => return LogStreams::All,
        Some("Stdout") => LogStreams::Stdout,
        Some("Stderr") => LogStreams::Stderr,
        Some(other) => {
            errs.not_supported(&FieldPath::new("stream"), other, &["All", "Stderr", "Stdout"]);
            return LogStreams::All;
        }
    };
    if tail {
        errs.forbidden(&FieldPath::new(""), "`tailLines` and specific `stream` are mutually exclusive for now");
    }
    streams
}

fn since(seconds: Option<u64>, time: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    if let Some(seconds) = seconds {
        let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        return Ok(Some(now.checked_sub(back).unwrap_or(Timestamp::MIN)));
    }
    let read = |text: &str| {
        text.parse().map_err(|_| ApiError::bad_request(format!("sinceTime: {text:?} is no RFC 3339 time")))
    };
    time.map(read).transpose()
}

/// Whether there can be a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its node has it.
    Node,
    /// The pod is on no node yet: there is nothing to read, and nothing wrong.
    Nowhere,
}

/// Fills in the container and refuses those that have no log.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn check(pod: &Pod, options: &mut LogOptions) -> Result<Place, ApiError> {
    streaming::choose_container(pod, &mut options.container)?;
    if streaming::check_host(pod).is_err() {
        return Ok(Place::Nowhere);
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    // Before its node has said anything, the node is asked itself.
    match status_of(pod, &options.container) {
        Some(status) => readable(status, options.previous).map(|()| Place::Node).map_err(|why| {
            ApiError::bad_request(why.replace("%", &format!("{:?} in pod {name:?}", options.container)))
        }),
        None => Ok(Place::Node),
    }
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.chain(&status.ephemeral_container_statuses).flatten().find(|s| s.name == container)
}

/// Whether a container has a log; why not, with `%` for its name.
fn readable(status: &ContainerStatus, previous: bool) -> Result<(), String> {
    let had = |ended: &ContainerStateTerminated| ended.container_id.as_deref().is_some_and(|id| !id.is_empty());
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    if previous {
        let found = last.is_some_and(had);
        return if found { Ok(()) } else { Err("previous terminated container % not found".to_owned()) };
    }
    let Some(state) = &status.state else { return Ok(()) };
    match (&state.running, &state.terminated, last, &state.waiting) {
        (Some(_), ..) => Ok(()),
        (None, Some(ended), ..) if had(ended) => Ok(()),
        (None, _, Some(last), _) if had(last) => Ok(()),
        (None, Some(_), ..) | (None, None, Some(_), _) => Err("container % is terminated".to_owned()),
        (None, None, None, waiting) => {
            let why = match waiting.as_ref().and_then(|w| w.reason.as_deref()).unwrap_or_default() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                "" => "ContainerCreating",
                other => other,
            };
            Err(format!("container % is waiting to start: {why}"))
        }
    }
}

/// The log of a pod that is nowhere.
pub(crate) fn nothing() -> respond::Answer {
    respond::with_body(StatusCode::NO_CONTENT, "text/plain", Body::Full(bytes::Bytes::new()))
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
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn options_are_read_as_in_kubernetes() {
        let wrong = |what: &str| Err(format!("PodLogOptions \"p\" is invalid: {what}"));
        for (query, wanted) in [
            (
                "tailLines=5&limitBytes=1&timestamps=true&follow=1&insecureSkipTLSVerifyBackend=true",
                Ok(LogStreams::All),
            ),
            ("stream=Stderr", Ok(LogStreams::Stderr)),
            ("stream=All&tailLines=1", Ok(LogStreams::All)),
            ("tailLines=-1", wrong("tailLines: Invalid value: -1: must be greater than or equal to 0")),
            ("limitBytes=0", wrong("limitBytes: Invalid value: 0: must be greater than 0")),
            ("sinceSeconds=0", wrong("sinceSeconds: Invalid value: 0: must be greater than 0")),
            (
                "sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z",
                wrong(": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
            ),
            (
                "stream=stdout",
                wrong("stream: Unsupported value: \"stdout\": supported values: \"All\", \"Stderr\", \"Stdout\""),
            ),
            (
                "stream=Stdout&tailLines=1",
                wrong(": Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"),
            ),
            ("sinceTime=x", Err("sinceTime: \"x\" is no RFC 3339 time".to_owned())),
        ] {
            let found = options(&Query::parse(Some(query)), "p", Timestamp::UNIX_EPOCH);
            assert_eq!(found.map(|o| o.streams).map_err(|e| e.message), wanted, "{query}");
        }
    }

    fn pod(node: &str, status: &Value) -> Pod {
        let mut all = json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        all.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
            "status": {"containerStatuses": [all]},
        }))
        .unwrap()
    }

    #[test]
    fn whether_a_container_has_a_log() {
        let running = json!({"state": {"running": {}}});
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "x"}});
        let never = json!({"terminated": {"exitCode": 1}});
        for (node, status, query, wanted) in [
            ("n", running.clone(), "", Ok(Place::Node)),
            ("n", running.clone(), "container=i", Ok(Place::Node)),
            ("", waiting("x"), "", Ok(Place::Nowhere)),
            ("n", running.clone(), "container=x", Err("container x is not valid for pod p")),
            (
                "n",
                waiting("ContainerCreating"),
                "",
                Err("container \"a\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                "n",
                waiting("ImagePullBackOff"),
                "",
                Err("container \"a\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
            (
                "n",
                waiting("ErrImagePull"),
                "",
                Err("container \"a\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            ("n", json!({"state": {"waiting": {}}, "lastState": ended}), "", Ok(Place::Node)),
            ("n", json!({"state": ended}), "", Ok(Place::Node)),
            ("n", json!({"state": never}), "", Err("container \"a\" in pod \"p\" is terminated")),
            ("n", json!({"state": never, "lastState": ended}), "", Ok(Place::Node)),
            ("n", json!({"state": {"running": {}}, "lastState": ended}), "previous=true", Ok(Place::Node)),
            (
                "n",
                json!({"state": {"running": {}}, "lastState": never}),
                "previous=true",
                Err("previous terminated container \"a\" in pod \"p\" not found"),
            ),
            ("n", running, "previous=true", Err("previous terminated container \"a\" in pod \"p\" not found")),
        ] {
            let mut options = options(&Query::parse(Some(query)), "p", Timestamp::UNIX_EPOCH).unwrap();
            let got = check(&pod(node, &status), &mut options).map_err(|e| e.message);
            assert_eq!(got, wanted.map_err(str::to_owned), "{status} {query}");
        }
    }
}
