//! `pods/exec`, `pods/attach` and `pods/portforward`: whether the client may, what it asks for, and the way to the node.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use podium_api::{ApiError, Reason, Verb};

use super::{
    Call, Frontend, Permit, about,
    path::Target,
    resources::not_allowed,
    respond::{self, Answer},
};
use crate::{
    auth::Attributes,
    registry::Resource,
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
        let entry = self.entry(resource, target).await?;
        let pod = entry.object.downcast_ref::<Pod>().ok_or_else(about::unknown)?;
        let life = Life { permit, stop: self.stop.clone() };
        match self.to_node(verb, pod, call, life).await {
            Err(error) => match streaming::node_error(&error) {
                Some(words) => Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, words)),
                None => Err(error),
            },
            answer => answer,
        }
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
