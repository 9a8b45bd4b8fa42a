//! `ServiceAccount`: every pod runs as an account that is there, gets its token mounted and its image pull secrets.
//!
//! The token, the cluster's CA certificate and the namespace are one projected volume, as Kubernetes' clients look for
//! them. Pods of nodes themselves (mirror pods) have no account.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/serviceaccount/admission.go`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use podium_api::{ApiError, Kind as _};

use super::{Operation, Plugin, Request, Step, mountable};
use crate::registry::{Registry, cache::Filter, generated_name};

const DEFAULT: &str = "default";
/// How long a pod waits for the account that every namespace gets.
const PATIENCE: Duration = Duration::from_millis(1500);
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and seven seconds by which tokens made for pods are known.
const EXPIRATION_SECONDS: i64 = 3607;
const FILE_MODE: i32 = 0o644;
const ROOT_CA: &str = "kube-root-ca.crt";
const EPHEMERAL: &str = "ephemeralcontainers";

/// The plug-in.
pub(super) struct ServiceAccounts;

#[async_trait]
impl Plugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        let ephemeral = step == Step::Validate
            && request.operation == Operation::Update
            && request.subresource == EPHEMERAL
            && request.is_about::<Pod>();
        ephemeral || request.creates::<Pod>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(pod) = request.new_as_mut::<Pod>() else { return Ok(()) };
        if mountable::is_mirror(pod) {
            return self.validate(registry, request).await;
        }
        let spec = pod.spec.get_or_insert_default();
        let name = spec.service_account_name.take().filter(|n| !n.is_empty()).unwrap_or_else(|| DEFAULT.to_owned());
        spec.service_account_name = Some(name.clone());
        // The old name of the field.
        spec.service_account = Some(name.clone());
        let account = account(registry, request, &name).await?;
        let Some(spec) = request.new_as_mut::<Pod>().and_then(|p| p.spec.as_mut()) else { return Ok(()) };
        if automounts(&account, spec) {
            mount(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        judge(&account, request)
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(pod) = request.new_as::<Pod>() else { return Ok(()) };
        if mountable::is_mirror(pod) && request.operation == Operation::Create {
            return mountable::judge_mirror(pod).map_err(|why| request.forbidden(&why));
        }
        let name = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            let why = format!("no service account specified for pod {}/{}", request.namespace, request.name);
            return Err(request.forbidden(&why));
        }
        let account = account(registry, request, name).await?;
        judge(&account, request)
    }
}

fn judge(account: &ServiceAccount, request: &Request<'_>) -> Result<(), ApiError> {
    let Some(pod) = request.new_as::<Pod>().filter(|_| mountable::are_enforced(account)) else { return Ok(()) };
    let judged = match request.subresource {
        EPHEMERAL => mountable::judge_ephemeral(account, pod),
        _ => mountable::judge(account, pod),
    };
    judged.map_err(|why| request.forbidden(&why))
}

async fn account(registry: &Registry, request: &Request<'_>, name: &str) -> Result<Arc<ServiceAccount>, ApiError> {
    let namespace = request.namespace;
    let found = match find(registry, namespace, name) {
        None if name == DEFAULT => await_default(registry, namespace).await,
        found => found,
    };
    found.ok_or_else(|| {
        let missing = format!("serviceaccount {name:?} not found");
        request.forbidden(&format!("error looking up service account {namespace}/{name}: {missing}"))
    })
}

fn find(registry: &Registry, namespace: &str, name: &str) -> Option<Arc<ServiceAccount>> {
    registry.of(&ServiceAccount::NAMES).ok()?.cache.get(namespace, name)?.object.clone().downcast_arc()
}

/// The account that a namespace gets soon after it was made.
async fn await_default(registry: &Registry, namespace: &str) -> Option<Arc<ServiceAccount>> {
    let of = registry.of(&ServiceAccount::NAMES).ok()?;
    let mut changes = of.cache.subscribe(Filter { namespace: namespace.to_owned(), ..Filter::default() });
    let found = async {
        loop {
            if let Some(account) = find(registry, namespace, DEFAULT) {
                return Some(account);
            }
            changes.recv().await?;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.ok().flatten()
}

/// Whether a pod gets the token: it decides itself, or else its account does.
fn automounts(account: &ServiceAccount, spec: &PodSpec) -> bool {
    spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true)
}

/// Mounts the token in every container that has nothing at its place.
fn mount(spec: &mut PodSpec) {
    let known = spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME_PREFIX)).map(|v| v.name.clone());
    let name = known.clone().unwrap_or_else(|| generated_name(VOLUME_PREFIX));
    let mut needed = false;
    let free = |c: &&mut Container| c.volume_mounts.iter().flatten().all(|m| m.mount_path != MOUNT_PATH);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).filter(free) {
        needed = true;
        // Few have other mounts, and pods are many: no room is kept.
        container.volume_mounts.get_or_insert_with(|| Vec::with_capacity(1)).push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    if needed && known.is_none() {
        spec.volumes.get_or_insert_default().push(Volume {
            name,
            projected: Some(token_volume()),
            ..Volume::default()
        });
    }
}

fn token_volume() -> ProjectedVolumeSource {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(EXPIRATION_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: ROOT_CA.to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let none = VolumeProjection::default;
    ProjectedVolumeSource {
        default_mode: Some(FILE_MODE),
        sources: Some(vec![
            VolumeProjection { service_account_token: Some(token), ..none() },
            VolumeProjection { config_map: Some(authority), ..none() },
            VolumeProjection { downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }), ..none() },
        ]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_token_is_mounted_once_where_nothing_else_is() {
        let own = json!([{"name": "v", "mountPath": MOUNT_PATH}]);
        let mut pod = spec(json!({
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "volumeMounts": own}],
        }));
        mount(&mut pod);
        let once = pod.clone();
        mount(&mut pod);
        assert_eq!(pod, once, "a second time changes nothing");
        let shown = serde_json::to_value(&pod).unwrap();
        let name = shown["volumes"][0]["name"].as_str().unwrap();
        assert_eq!(name.len(), VOLUME_PREFIX.len() + 5);
        let mounted = json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(
            (&shown["initContainers"][0]["volumeMounts"], &shown["containers"][0]["volumeMounts"]),
            (&mounted, &mounted)
        );
        assert_eq!(shown["containers"][1]["volumeMounts"], own);
        assert_eq!(
            shown["volumes"][0]["projected"],
            json!({"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ]})
        );
        let mut nothing = spec(json!({"containers": [{"name": "b", "image": "x", "volumeMounts": own}]}));
        mount(&mut nothing);
        assert_eq!(nothing.volumes, None);
    }

    #[test]
    fn who_decides_on_the_token() {
        for (account, pod, wanted) in [
            (json!(null), json!(null), true),
            (json!(false), json!(null), false),
            (json!(false), json!(true), true),
            (json!(true), json!(false), false),
        ] {
            let account: ServiceAccount =
                serde_json::from_value(json!({"automountServiceAccountToken": account})).unwrap();
            let pod = spec(json!({"containers": [], "automountServiceAccountToken": pod}));
            assert_eq!(automounts(&account, &pod), wanted);
        }
    }
}
