//! Ephemeral containers, which come into a pod that runs to look at it: what they are as containers.
//!
//! Wasm has no processes to share. What `targetContainerName` means here is what a command that `kubectl exec` starts in the
//! target would see: its environment, its volumes at the same places, the folder that it starts in.

use k8s_openapi::api::core::v1::{Container as Spec, EnvVar, EphemeralContainer, PodSpec};

/// One of a pod's ephemeral containers.
pub(crate) fn container(pod: &PodSpec, index: usize) -> Option<Spec> {
    let ephemeral = pod.ephemeral_containers.as_ref()?.get(index)?;
    let mut own = plain(ephemeral)?;
    let named = ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty());
    let mut others = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    if let Some(target) = others.find(|c| Some(c.name.as_str()) == named) {
        share(&mut own, target);
    }
    Some(own)
}

/// All of them.
pub(crate) fn containers(pod: &PodSpec) -> Vec<Spec> {
    (0..count(pod)).filter_map(|index| container(pod, index)).collect()
}

/// How many there are.
pub(crate) fn count(pod: &PodSpec) -> usize {
    pod.ephemeral_containers.as_ref().map_or(0, Vec::len)
}

/// What kubectl's profiles ask for, to trace processes: there are none, and nothing is lost.
const TRACE: &str = "SYS_PTRACE";

/// It has the fields of a container, and a target.
fn plain(ephemeral: &EphemeralContainer) -> Option<Spec> {
    let mut container: Spec = serde_json::from_value(serde_json::to_value(ephemeral).ok()?).ok()?;
    let capabilities = container.security_context.as_mut().and_then(|c| c.capabilities.as_mut());
    if let Some(add) = capabilities.and_then(|c| c.add.as_mut()) {
        add.retain(|name| name != TRACE);
    }
    Some(container)
}

/// Adds what the target has, where the container says nothing else.
fn share(own: &mut Spec, target: &Spec) {
    let env = target.env.iter().flatten().map(|variable| of_target(variable, target));
    let env: Vec<_> = env.chain(own.env.take().into_iter().flatten()).collect();
    own.env = Some(env).filter(|env| !env.is_empty());
    let from = target.env_from.iter().flatten().cloned();
    let from: Vec<_> = from.chain(own.env_from.take().into_iter().flatten()).collect();
    own.env_from = Some(from).filter(|from| !from.is_empty());
    for mount in target.volume_mounts.iter().flatten() {
        let mounts = own.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|m| m.mount_path != mount.mount_path) {
            mounts.push(mount.clone());
        }
    }
    own.working_dir = own.working_dir.take().or_else(|| target.working_dir.clone());
}

/// A variable of the target: amounts that name no container are the target's.
fn of_target(variable: &EnvVar, target: &Spec) -> EnvVar {
    let mut variable = variable.clone();
    if let Some(field) = variable.value_from.as_mut().and_then(|from| from.resource_field_ref.as_mut()) {
        field.container_name.get_or_insert_with(|| target.name.clone());
    }
    variable
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_lends_what_a_command_in_it_would_see() {
        let field = json!({ "resourceFieldRef": { "resource": "limits.memory" } });
        let pod: PodSpec = serde_json::from_value(json!({
            "containers": [
                { "name": "app", "workingDir": "/data",
                  "env": [{ "name": "A", "value": "1" }, { "name": "M", "valueFrom": field }],
                  "envFrom": [{ "secretRef": { "name": "s" } }],
                  "volumeMounts": [{ "name": "v", "mountPath": "/data" }, { "name": "w", "mountPath": "/w" }] },
                { "name": "other" },
            ],
            "ephemeralContainers": [
                { "name": "alone", "image": "i", "command": ["sh"], "stdin": true, "tty": true,
                  "securityContext": { "capabilities": { "add": ["SYS_PTRACE", "NET_ADMIN"] } } },
                { "name": "near", "image": "i", "targetContainerName": "app", "env": [{ "name": "A", "value": "2" }],
                  "volumeMounts": [{ "name": "x", "mountPath": "/w" }] },
            ],
        }))
        .unwrap();
        let all = containers(&pod);
        let [alone, near] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((alone.env.as_ref(), alone.volume_mounts.as_ref(), alone.tty), (None, None, Some(true)));
        let added = alone.security_context.as_ref().and_then(|c| c.capabilities.as_ref()?.add.clone());
        assert_eq!(added.as_deref(), Some(&["NET_ADMIN".to_owned()][..]), "what asks for more is looked at as ever");
        let env: Vec<_> = near.env.iter().flatten().map(|e| (e.name.as_str(), e.value.as_deref())).collect();
        assert_eq!(env, [("A", Some("1")), ("M", None), ("A", Some("2"))], "its own come last, and so before");
        let amounts = near.env.as_ref().unwrap()[1].value_from.as_ref().unwrap().resource_field_ref.as_ref();
        assert_eq!(amounts.unwrap().container_name.as_deref(), Some("app"));
        let mounts: Vec<_> = near.volume_mounts.iter().flatten().map(|m| (&*m.name, &*m.mount_path)).collect();
        assert_eq!(mounts, [("x", "/w"), ("v", "/data")]);
        assert_eq!((near.working_dir.as_deref(), near.env_from.as_ref().map(Vec::len)), (Some("/data"), Some(1)));
        assert_eq!(container(&pod, 2), None);
    }
}
