//! kubelet's `/pods` and `/runningpods`.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use k8s_openapi::api::core::v1::{Container, Pod};
use podium_api::ObjectKey;
use podium_network::{Body, BoxError};
use serde_json::{Value, json};

use super::{JSON, Shared, answer};

/// All pods that are bound to this node, written one after the other.
pub(super) fn all(shared: &Shared) -> Response<Body> {
    let head = Bytes::from_static(b"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[");
    let pods = shared.pods.list(None).into_iter().enumerate().filter_map(|(i, pod)| {
        let mut json = if i > 0 { vec![b','] } else { Vec::new() };
        json.extend(pod.to_json().ok()?);
        Some(Bytes::from(json))
    });
    let pieces = std::iter::once(head).chain(pods).chain([Bytes::from_static(b"]}\n")]);
    let frames = stream::iter(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece))));
    answer(StatusCode::OK, JSON, StreamBody::new(frames).boxed_unsync())
}

/// What runs now, as the runtime knows it.
pub(super) fn running(shared: &Shared) -> Value {
    let pods = shared.meter.read().into_iter().map(|pod| {
        let found = pod_of(shared, &pod.id.key);
        let container = |name: &str| {
            let image = found.as_ref().and_then(|found| spec_of(found, name)?.image.clone()).unwrap_or_default();
            json!({ "name": name, "image": image, "resources": {} })
        };
        let containers: Vec<Value> = pod.containers.iter().map(|c| container(&c.name)).collect();
        json!({
            "metadata": { "name": pod.id.key.name, "namespace": pod.id.key.namespace, "uid": pod.id.uid },
            "spec": { "containers": containers },
            "status": {},
        })
    });
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.collect::<Vec<_>>() })
}

/// Whether a pod of this node has a container; else what a kubelet says.
pub(super) fn has_container(shared: &Shared, pod: &ObjectKey, container: &str) -> Result<(), String> {
    let Some(found) = pod_of(shared, pod) else { return Err("pod does not exist\n".to_owned()) };
    match spec_of(&found, container).is_some() || is_ephemeral(&found, container) {
        true => Ok(()),
        false => Err(format!("container {container:?} not found in pod {:?}\n", pod.name)),
    }
}

fn pod_of(shared: &Shared, key: &ObjectKey) -> Option<Arc<Pod>> {
    shared.pods.get(key)?.downcast_arc()
}

fn spec_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| spec.ephemeral_containers.iter().flatten().any(|c| c.name == name))
}
