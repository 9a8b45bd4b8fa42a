//! Which secrets a pod refers to: pods of nodes themselves may name none, and a ServiceAccount can confine its pods to
//! those that it lists (`kubernetes.io/enforce-mountable-secrets`).
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/serviceaccount/admission.go` (`limitSecretReferences`), `pkg/api/pod/util.go`
//! (`VisitPodSecretNames`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, Pod, PodSpec, ServiceAccount, Volume};

const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";

/// Whether a node shows a pod that it has of its own.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

/// Whether an account confines its pods.
pub(super) fn are_enforced(account: &ServiceAccount) -> bool {
    let value = account.metadata.annotations.as_ref().and_then(|a| a.get(ENFORCED));
    value.is_some_and(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What a pod of a node itself may not name.
pub(super) fn judge_mirror(pod: &Pod) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if names_secrets(spec) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let sources = spec.volumes.iter().flatten().filter_map(|v| v.projected.as_ref()?.sources.as_ref()).flatten();
    if sources.into_iter().any(|s| s.service_account_token.is_some()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    Ok(())
}

/// The name of a container, and where it takes its environment from.
type Environment<'a> = (&'a str, &'a [EnvVar], &'a [EnvFromSource]);

macro_rules! environments {
    ($containers:expr) => {
        $containers
            .map(|c| (c.name.as_str(), c.env.as_deref().unwrap_or_default(), c.env_from.as_deref().unwrap_or_default()))
    };
}

/// The containers' secrets, each with the variable that it is for (none: for all that it holds).
fn secrets_of<'a>(
    environments: impl Iterator<Item = Environment<'a>>,
) -> impl Iterator<Item = (&'a str, Option<&'a str>, &'a str)> {
    environments.flat_map(|(container, env, env_from)| {
        let named = env.iter().filter_map(move |var| {
            let secret = var.value_from.as_ref()?.secret_key_ref.as_ref()?;
            Some((container, Some(var.name.as_str()), secret.name.as_str()))
        });
        let whole =
            env_from.iter().filter_map(move |from| Some((container, None, from.secret_ref.as_ref()?.name.as_str())));
        named.chain(whole)
    })
}

fn names_secrets(spec: &PodSpec) -> bool {
    let init = environments!(spec.init_containers.iter().flatten());
    let main = environments!(spec.containers.iter());
    let late = environments!(spec.ephemeral_containers.iter().flatten());
    spec.image_pull_secrets.as_ref().is_some_and(|s| !s.is_empty())
        || secrets_of(init.chain(main).chain(late)).next().is_some()
        || spec.volumes.iter().flatten().any(volume_names_secrets)
}

fn volume_names_secrets(volume: &Volume) -> bool {
    let local = |secret: Option<&LocalObjectReference>| secret.is_some();
    volume.secret.is_some()
        || volume.azure_file.is_some()
        || volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).any(|s| s.secret.is_some())
        || local(volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || local(volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || local(volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || local(volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || volume.scale_io.is_some()
        || local(volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || local(volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()))
        || local(volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()))
}

fn listed(account: &ServiceAccount) -> BTreeSet<&str> {
    account.secrets.iter().flatten().filter_map(|s| s.name.as_deref()).collect()
}

/// Whether an account lists all secrets that a pod names.
pub(super) fn judge(account: &ServiceAccount, pod: &Pod) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let name = account.metadata.name.as_deref().unwrap_or_default();
    let listed = listed(account);
    for secret in spec.volumes.iter().flatten().filter_map(|v| v.secret.as_ref()?.secret_name.as_deref()) {
        if !listed.contains(secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not \
                 reference that secret"
            ));
        }
    }
    containers("init container", environments!(spec.init_containers.iter().flatten()), &listed, name)?;
    containers("container", environments!(spec.containers.iter()), &listed, name)?;
    let pulls: BTreeSet<&str> = account.image_pull_secrets.iter().flatten().map(|s| s.name.as_str()).collect();
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !pulls.contains(secret.name.as_str()) {
            return Err(format!(
                "imagePullSecrets[{i}].name=\"{}\" is not allowed because service account {name} does not reference that \
                 imagePullSecret",
                secret.name
            ));
        }
    }
    Ok(())
}

/// The same for containers that are added to a pod that runs.
pub(super) fn judge_ephemeral(account: &ServiceAccount, pod: &Pod) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let name = account.metadata.name.as_deref().unwrap_or_default();
    let late = environments!(spec.ephemeral_containers.iter().flatten());
    containers("ephemeral container", late, &listed(account), name)
}

fn containers<'a>(
    what: &str,
    environments: impl Iterator<Item = Environment<'a>>,
    listed: &BTreeSet<&str>,
    account: &str,
) -> Result<(), String> {
    let Some((container, variable, secret)) = secrets_of(environments).find(|(_, _, secret)| !listed.contains(secret))
    else {
        return Ok(());
    };
    let by = variable.map_or_else(|| "envFrom".to_owned(), |variable| format!("envVar {variable}"));
    Err(format!(
        "{what} {container} with {by} referencing secret.secretName=\"{secret}\" is not allowed because service account \
         {account} does not reference that secret"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn an_account_confines_its_pods() {
        let account: ServiceAccount = serde_json::from_value(json!({
            "metadata": {"name": "robot", "annotations": {ENFORCED: "true"}},
            "secrets": [{"name": "known"}], "imagePullSecrets": [{"name": "pull"}],
        }))
        .unwrap();
        assert!(are_enforced(&account) && !are_enforced(&ServiceAccount::default()));
        let by = |secret: &str| json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}});
        let end = "is not allowed because service account robot does not reference that secret";
        for (spec, wanted) in [
            (json!({"containers": [{"name": "c", "env": [by("known")]}]}), None),
            (
                json!({"containers": [{"name": "c", "env": [by("other")]}]}),
                Some(format!("container c with envVar V referencing secret.secretName=\"other\" {end}")),
            ),
            (
                json!({"containers": [], "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]}),
                Some(format!("init container i with envFrom referencing secret.secretName=\"other\" {end}")),
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "other"}}]}),
                Some(format!("volume with secret.secretName=\"other\" {end}")),
            ),
            (
                json!({"containers": [], "imagePullSecrets": [{"name": "pull"}, {"name": "other"}]}),
                Some(
                    "imagePullSecrets[1].name=\"other\" is not allowed because service account robot does not reference \
                     that imagePullSecret"
                        .to_owned(),
                ),
            ),
        ] {
            assert_eq!(judge(&account, &pod(spec)).err(), wanted);
        }
    }

    #[test]
    fn what_mirror_pods_may_not_name() {
        for (spec, wanted) in [
            (json!({"containers": []}), None),
            (
                json!({"containers": [], "serviceAccountName": "a"}),
                Some("a mirror pod may not reference service accounts"),
            ),
            (
                json!({"containers": [], "imagePullSecrets": [{"name": "s"}]}),
                Some("a mirror pod may not reference secrets"),
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}}
                ]}}]}),
                Some("a mirror pod may not use ServiceAccountToken volume projections"),
            ),
        ] {
            assert_eq!(judge_mirror(&pod(spec)).err().as_deref(), wanted);
        }
    }
}
