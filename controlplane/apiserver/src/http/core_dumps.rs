//! `pods/coredump`: what a container has left that trapped, streamed from its node. Podium's own subresource.
//!
//! It shows memory, secrets included: it is allowed by its own name alone, not to whoever may read logs.

use futures::StreamExt as _;
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::api::core::v1::Pod;
use podium_api::{ApiError, Reason};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Permit, body::Body, path::Query, respond};
use crate::{
    gateway::{CoreDump, NodeGateway},
    streaming,
};

/// Lists core dumps, or streams one.
///
/// # Errors
/// 400 when the container is not told or not there, 404 when there is no such dump, 503 while no node is connected; what the
/// node says.
pub(crate) async fn answer(
    gateway: Option<&dyn NodeGateway>,
    pod: &Pod,
    query: &Query,
    permit: Permit,
    stop: CancellationToken,
) -> Result<respond::Answer, ApiError> {
    let mut container = query.get("container").to_owned();
    streaming::choose_container(pod, &mut container)?;
    streaming::check_host(pod)?;
    let Some(gateway) = gateway else {
        return Err(ApiError::new(Reason::ServiceUnavailable, "the node agent is not connected yet").retry_after(1));
    };
    let found = gateway.core_dumps(pod, &container).await?;
    if query.flag("list") {
        return Ok(listed(&container, &found));
    }
    let dump = chosen(pod, &container, found, query.get("name"))?;
    let stream = gateway.core_dump(pod, &container, &dump.name).await?;
    // The permit counts as long as the stream is open.
    let held = stream.take_until(stop.cancelled_owned()).map(move |item| {
        let _ = &permit;
        item
    });
    let mut answer = respond::with_body(StatusCode::OK, "application/wasm", Body::Stream(held.boxed()));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename={:?}", dump.name)) {
        answer.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

fn listed(container: &str, found: &[CoreDump]) -> respond::Answer {
    let one = |dump: &CoreDump| json!({ "container": container, "name": dump.name, "bytes": dump.bytes });
    let list = json!({ "items": found.iter().map(one).collect::<Vec<_>>() });
    respond::with_body(StatusCode::OK, "application/json", Body::Full(list.to_string().into()))
}

fn chosen(pod: &Pod, container: &str, found: Vec<CoreDump>, name: &str) -> Result<CoreDump, ApiError> {
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    let any = !found.is_empty();
    let mut fitting = found.into_iter().filter(|dump| name.is_empty() || dump.name == name);
    fitting.next().ok_or_else(|| {
        let what = if any { format!("core dump {name:?}") } else { "core dump".to_owned() };
        ApiError::new(Reason::NotFound, format!("container {container:?} in pod {pod:?} has left no {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_or_the_one_that_is_named() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" } })).unwrap();
        let dumps = |names: &[&str]| names.iter().map(|n| CoreDump { name: (*n).to_owned(), bytes: 1 }).collect();
        let told = |names: &[&str], name: &str| {
            chosen(&pod, "c", dumps(names), name).map_or_else(|e| e.message, |dump| dump.name)
        };
        assert_eq!(told(&["b", "a"], ""), "b");
        assert_eq!(told(&["b", "a"], "a"), "a");
        assert_eq!(told(&["b"], "x"), "container \"c\" in pod \"p\" has left no core dump \"x\"");
        assert_eq!(told(&[], ""), "container \"c\" in pod \"p\" has left no core dump");
    }
}
