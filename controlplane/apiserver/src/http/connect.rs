//! `pods/exec`, `pods/attach` and `pods/portforward`: whether the client may, what it asks for, and the way to the node.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podium_api::{ApiError, Reason, Verb};
use serde_json::{Value, json};

use super::{
    Call, Frontend, Permit, about,
    path::{Query, Target},
    resources::not_allowed,
    respond::{self, Answer},
};
use crate::{
    admission::connect::{self, Connection},
    auth::Attributes,
    registry::{Resource, WriteContext},
    streaming::{self, Forwarder, Life, Prepared, Wanted},
};

impl Frontend {
    /// Takes the connection of a request over.
    pub(super) async fn connect(
        &self,
        (resource, verb): (&Resource, Verb),
        target: &Target<'_>,
        call: &Call<'_>,
        permit: Permit,
    ) -> Result<Answer, ApiError> {
        if !matches!(*call.method, Method::GET | Method::POST) {
            return Err(not_allowed());
        }
        self.may_connect(target, call)?;
        let warnings = self.admit_connection(resource, target, call, options(verb, call.query)).await?;
        let entry = self.entry(resource, target).await?;
        let pod = entry.object.downcast_ref::<Pod>().ok_or_else(about::unknown)?;
        let life = Life { permit, stop: self.stop.clone() };
        let mut answer = self.stream_from(verb, pod, call, life).await?;
        respond::warn(&mut answer, &warnings);
        Ok(answer)
    }

    /// Takes the connection of a request over, which may have it.
    pub(super) async fn stream_from(
        &self,
        verb: Verb,
        pod: &Pod,
        call: &Call<'_>,
        life: Life,
    ) -> Result<Answer, ApiError> {
        match self.to_node(verb, pod, call, life).await {
            Err(error) => match streaming::node_error(&error) {
                Some(words) => Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, words)),
                None => Err(error),
            },
            answer => answer,
        }
    }

    /// Asks webhooks and policies whether a connection may be made; answers with their warnings. `options`: the fields of
    /// `PodExecOptions` and the like.
    pub(super) async fn admit_connection(
        &self,
        resource: &Resource,
        target: &Target<'_>,
        call: &Call<'_>,
        options: Value,
    ) -> Result<Vec<String>, ApiError> {
        let context = WriteContext::new(call.who, "").annotating(call.notes.annotations.clone());
        let Target { namespace, name, subresource, .. } = *target;
        let connection = Connection { resource, subresource, namespace, name, options };
        connect::admit(&self.registry, connection, &context).await?;
        Ok(context.warnings())
    }

    /// Whoever asks by GET, as WebSockets have to, must be allowed to create as well: reading is not enough to run something.
    ///
    /// # Source
    /// Kubernetes 1.35, `pkg/registry/core/pod/rest/subresources.go`.
    fn may_connect(&self, target: &Target<'_>, call: &Call<'_>) -> Result<(), ApiError> {
        if *call.method == Method::POST {
            return Ok(());
        }
        let what = Attributes {
            verb: "create",
            group: target.group,
            resource: target.resource,
            subresource: target.subresource,
            namespace: target.namespace,
            name: target.name,
            path: call.uri.path(),
        };
        self.authorizer.check(call.who, &what)
    }

    async fn to_node(&self, verb: Verb, pod: &Pod, call: &Call<'_>, life: Life) -> Result<Answer, ApiError> {
        let wanted = Wanted { headers: call.headers, upgrade: call.upgrade };
        let gateway = self.gateway.read().clone().ok_or_else(|| {
            ApiError::new(Reason::ServiceUnavailable, "the node agent is not connected yet").retry_after(1)
        });
        match verb {
            Verb::Exec => {
                let mut options = streaming::exec(call.query)?;
                streaming::choose_container(pod, &mut options.attach.container)?;
                streaming::check_host(pod)?;
                streaming::check(wanted)?;
                let session = gateway?.exec(pod, options.clone()).await?;
                streaming::command(wanted, Prepared::exec(session, options), life)
            }
            Verb::Attach => {
                let mut options = streaming::attach(call.query)?;
                streaming::choose_container(pod, &mut options.container)?;
                streaming::check_host(pod)?;
                streaming::check(wanted)?;
                let session = gateway?.attach(pod, options.clone()).await?;
                streaming::command(wanted, Prepared::attach(session, options), life)
            }
            _ => {
                streaming::check_host(pod)?;
                streaming::check(wanted)?;
                let ports = gateway?.port_forward(pod).await?;
                let (name, uid) = (pod.metadata.name.clone(), pod.metadata.uid.clone());
                let forwarder = Forwarder { ports, pod: name.unwrap_or_default(), uid: uid.unwrap_or_default() };
                streaming::forward(wanted, call.query, forwarder, life)
            }
        }
    }
}

/// What a connection is asked for with, as admission sees it.
fn options(verb: Verb, query: &Query) -> Value {
    if verb == Verb::PortForward {
        let ports = query.all("ports").flat_map(|text| text.split(','));
        return json!({ "ports": ports.filter_map(|port| port.parse().ok()).collect::<Vec<i32>>() });
    }
    let mut options = json!({
        "stdin": query.flag("stdin"), "stdout": query.flag("stdout"), "stderr": query.flag("stderr"),
        "tty": query.flag("tty"), "container": query.get("container"),
    });
    if verb == Verb::Exec {
        options["command"] = query.all("command").collect();
    }
    options
}
