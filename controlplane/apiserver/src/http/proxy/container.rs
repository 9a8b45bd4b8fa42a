//! What a kubelet streams from containers, asked of the node itself: `/exec/NAMESPACE/POD/CONTAINER`, `/attach/…` and
//! `/portForward/NAMESPACE/POD`. They go the way that `pods/exec` and the like go.
//!
//! Invariant: whoever runs something must be allowed to create `nodes/proxy`, also by GET, as WebSockets have to ask.
//!
//! # Source
//! Kubernetes `pkg/kubelet/server/server.go` (`getExec`, `getAttach`, `getPortForward`).

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use podium_api::{ApiError, Kind as _, Verb};

use super::backend::Life;
use crate::{
    auth::Attributes,
    http::{
        Call, Frontend, about,
        path::{Query, Target},
        resources::not_allowed,
        respond::Answer,
    },
    streaming,
};

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streamed<'a> {
    verb: Verb,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
}

impl<'a> Streamed<'a> {
    /// `None` for all other paths.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (verb, namespace, pod, container) = match parts.as_slice() {
            ["exec", namespace, pod, container] => (Verb::Exec, *namespace, *pod, *container),
            ["attach", namespace, pod, container] => (Verb::Attach, *namespace, *pod, *container),
            ["portForward", namespace, pod] => (Verb::PortForward, *namespace, *pod, ""),
            _ => return None,
        };
        Some(Self { verb, namespace, pod, container })
    }

    /// The query, in the words of `PodExecOptions`.
    fn query(&self, query: &Query) -> Query {
        let names = [("input", "stdin"), ("output", "stdout"), ("error", "stderr"), ("port", "ports")];
        query.renamed(&names).with("container", self.container)
    }
}

impl Frontend {
    /// Takes the connection over. `node`: which one is asked.
    pub(super) async fn stream_from_node(
        &self,
        node: &str,
        streamed: Streamed<'_>,
        (target, call): (&Target<'_>, &Call<'_>),
        life: Life,
    ) -> Result<Answer, ApiError> {
        if !matches!(*call.method, Method::GET | Method::POST) {
            return Err(not_allowed());
        }
        let what = Attributes {
            verb: "create",
            resource: target.resource,
            subresource: target.subresource,
            name: target.name,
            ..Attributes::default()
        };
        self.authorizer.check(call.who, &what)?;
        let found = self.registry.of(&Pod::NAMES)?.cache.get(streamed.namespace, streamed.pod);
        let not_found = || ApiError::not_found(&Pod::NAMES, streamed.pod);
        let entry = found.ok_or_else(not_found)?;
        let pod = entry.object.downcast_ref::<Pod>().ok_or_else(about::unknown)?;
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node) {
            return Err(not_found());
        }
        let query = streamed.query(call.query);
        let life = streaming::Life { permit: life.permit, stop: life.stop };
        self.stream_from(streamed.verb, pod, &Call { query: &query, ..*call }, life).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries() {
        for (path, wanted) in [
            ("/exec/a/p/c", Some((Verb::Exec, "a", "p", "c"))),
            ("/attach/a/p/c/", Some((Verb::Attach, "a", "p", "c"))),
            ("/portForward/a/p", Some((Verb::PortForward, "a", "p", ""))),
            ("/exec/a/p", None),
            ("/run/a/p/c", None),
            ("/pods", None),
        ] {
            let found = Streamed::of(path).map(|s| (s.verb, s.namespace, s.pod, s.container));
            assert_eq!(found, wanted, "{path}");
        }
        let streamed = Streamed::of("/exec/a/p/c").unwrap();
        let query = streamed.query(&Query::parse(Some("command=ls&command=-l&output=1&input=0&container=x")));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert_eq!((query.flag("stdout"), query.flag("stdin"), query.get("container")), (true, false, "c"));
    }
}
