//! Fields that mean something to Linux containers only. Three answers: what holds anyway needs no word; what means nothing is
//! ignored and said once; what asks for rights that a guest cannot be given is refused, because its program counts on them.
//!
//! The table for users is in `docs/pods.md`; a field is in exactly one of the lists below or holds anyway.

use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec, SecurityContext};

/// What Linux containers have without asking; asking for it gives nothing there, and nothing here.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Why a container cannot be what its spec asks for, naming the field.
pub(crate) fn refusal(pod: &Pod, container: &Spec) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    of_pod(spec).or_else(|| of_container(pod, spec, container))
}

fn of_pod(spec: &PodSpec) -> Option<String> {
    let shared = [
        (spec.host_network, "hostNetwork", "guests have a network of their own and never the host's"),
        (spec.host_pid, "hostPID", "guests see no processes"),
        (spec.host_ipc, "hostIPC", "guests have no IPC namespace"),
    ];
    let (_, field, why) = shared.iter().find(|(is, ..)| *is == Some(true))?;
    Some(format!("spec.{field}: true cannot be granted to WebAssembly: {why}; remove the field"))
}

fn of_container(pod: &Pod, spec: &PodSpec, container: &Spec) -> Option<String> {
    if container.volume_devices.iter().flatten().next().is_some() {
        return Some(
            "volumeDevices cannot be granted to WebAssembly: guests see no devices; use volumeMounts".to_owned(),
        );
    }
    let of_pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let non_root = own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root));
    let user = own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user));
    if non_root == Some(true) && user == Some(0) {
        let words = super::status::pod_words(pod);
        return Some(format!(
            "container's runAsUser breaks non-root policy (pod: {words:?}, container: {})",
            container.name
        ));
    }
    own.and_then(rights)
}

fn rights(context: &SecurityContext) -> Option<String> {
    if context.privileged == Some(true) {
        let words =
            "securityContext.privileged: true cannot be granted to WebAssembly: there is no host to be privileged on";
        return Some(format!("{words}; remove the field"));
    }
    if context.proc_mount.as_deref().is_some_and(|p| p != "Default") {
        return Some("securityContext.procMount: guests see no /proc; remove the field".to_owned());
    }
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let wanted = added.map(|name| name.strip_prefix("CAP_").unwrap_or(name));
    let refused: Vec<_> = wanted.filter(|name| !DEFAULT_CAPABILITIES.contains(name)).collect();
    (!refused.is_empty()).then(|| {
        format!(
            "securityContext.capabilities.add: [{}] cannot be granted to WebAssembly; remove them",
            refused.join(" ")
        )
    })
}

/// Fields of a pod that mean nothing here, as paths; those that hold anyway are not among them.
pub(crate) fn ignored(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut found = Vec::new();
    let mut note = |is: bool, path: &str| found.extend(is.then(|| path.to_owned()));
    note(spec.share_process_namespace == Some(true), "spec.shareProcessNamespace");
    note(spec.set_hostname_as_fqdn == Some(true), "spec.setHostnameAsFQDN");
    note(spec.resource_claims.iter().flatten().next().is_some(), "spec.resourceClaims");
    if let Some(context) = &spec.security_context {
        note(context.sysctls.iter().flatten().next().is_some(), "spec.securityContext.sysctls");
        note(context.se_linux_options.is_some(), "spec.securityContext.seLinuxOptions");
        note(is_localhost(context.seccomp_profile.as_ref().map(|p| &p.type_)), "spec.securityContext.seccompProfile");
        note(
            is_localhost(context.app_armor_profile.as_ref().map(|p| &p.type_)),
            "spec.securityContext.appArmorProfile",
        );
    }
    let lists =
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    for (list, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            found.extend(ignored_of(container).map(|field| format!("spec.{list}[{i}].{field}")));
        }
    }
    found
}

fn ignored_of(container: &Spec) -> impl Iterator<Item = &'static str> {
    let context = container.security_context.as_ref();
    let added = context.and_then(|c| c.capabilities.as_ref()).and_then(|c| c.add.as_ref());
    let profile = context.and_then(|c| c.seccomp_profile.as_ref()).map(|p| &p.type_);
    let armor = context.and_then(|c| c.app_armor_profile.as_ref()).map(|p| &p.type_);
    let all = [
        (container.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()), "lifecycle.stopSignal"),
        (container.ports.iter().flatten().any(|p| p.host_port.is_some_and(|p| p > 0)), "ports.hostPort"),
        (added.is_some_and(|a| !a.is_empty()), "securityContext.capabilities.add"),
        (context.is_some_and(|c| c.se_linux_options.is_some()), "securityContext.seLinuxOptions"),
        (is_localhost(profile), "securityContext.seccompProfile"),
        (is_localhost(armor), "securityContext.appArmorProfile"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, field)| field)
}

/// A profile of the host's own. The others forbid nothing that a guest could do.
fn is_localhost(type_: Option<&String>) -> bool {
    type_.is_some_and(|t| t == "Localhost")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, container: Value) -> Pod {
        let (mut spec, mut container) = (spec, container);
        container["name"] = "c".into();
        spec["containers"] = json!([container]);
        let meta = json!({ "name": "p", "namespace": "n", "uid": "u" });
        serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
    }

    /// What is refused, else what is ignored, else nothing: it holds.
    fn told(spec: Value, container: Value) -> String {
        let pod = pod(spec, container);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        refusal(&pod, container).map_or_else(|| ignored(&pod).join(" "), |why| format!("refused: {why}"))
    }

    #[test]
    fn fields_of_pods() {
        let context = |field: &str, value: Value| json!({ "securityContext": { field: value } });
        for (spec, expected) in [
            (
                json!({ "hostNetwork": true }),
                "refused: spec.hostNetwork: true cannot be granted to WebAssembly: guests have a network of their own and never \
                 the host's; remove the field",
            ),
            (
                json!({ "hostPID": true }),
                "refused: spec.hostPID: true cannot be granted to WebAssembly: guests see no processes; remove the field",
            ),
            (
                json!({ "hostIPC": true }),
                "refused: spec.hostIPC: true cannot be granted to WebAssembly: guests have no IPC namespace; remove the field",
            ),
            (json!({ "hostNetwork": false, "hostUsers": false }), ""),
            (json!({ "shareProcessNamespace": true }), "spec.shareProcessNamespace"),
            (json!({ "runtimeClassName": "wasmtime-spin-v2" }), ""),
            (context("fsGroup", json!(1000)), ""),
            (context("runAsUser", json!(0)), ""),
            (context("runAsNonRoot", json!(true)), ""),
            (context("supplementalGroups", json!([1])), ""),
            (context("seccompProfile", json!({ "type": "RuntimeDefault" })), ""),
            (
                context("seccompProfile", json!({ "type": "Localhost", "localhostProfile": "x" })),
                "spec.securityContext.seccompProfile",
            ),
            (context("seLinuxOptions", json!({ "level": "s0" })), "spec.securityContext.seLinuxOptions"),
            (
                context("sysctls", json!([{ "name": "net.ipv4.tcp_syncookies", "value": "1" }])),
                "spec.securityContext.sysctls",
            ),
            (
                json!({ "securityContext": { "runAsNonRoot": true, "runAsUser": 0 } }),
                "refused: container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)",
            ),
        ] {
            assert_eq!(told(spec.clone(), json!({})), expected, "{spec}");
        }
    }

    #[test]
    fn fields_of_containers() {
        let context = |field: &str, value: Value| json!({ "securityContext": { field: value } });
        for (container, expected) in [
            (
                context("privileged", json!(true)),
                "refused: securityContext.privileged: true cannot be granted to WebAssembly: there is no host to be privileged \
                 on; remove the field",
            ),
            (
                context("capabilities", json!({ "add": ["NET_BIND_SERVICE", "CAP_SYS_ADMIN", "BPF"] })),
                "refused: securityContext.capabilities.add: [SYS_ADMIN BPF] cannot be granted to WebAssembly; remove them",
            ),
            (
                context("capabilities", json!({ "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] })),
                "spec.containers[0].securityContext.capabilities.add",
            ),
            (context("capabilities", json!({ "drop": ["ALL"] })), ""),
            (
                context("procMount", json!("Unmasked")),
                "refused: securityContext.procMount: guests see no /proc; remove the field",
            ),
            (context("procMount", json!("Default")), ""),
            (context("allowPrivilegeEscalation", json!(true)), ""),
            (context("allowPrivilegeEscalation", json!(false)), ""),
            (context("readOnlyRootFilesystem", json!(true)), ""),
            (context("runAsUser", json!(1000)), ""),
            (json!({ "lifecycle": { "stopSignal": "SIGUSR1" } }), "spec.containers[0].lifecycle.stopSignal"),
            (json!({ "ports": [{ "containerPort": 80, "hostPort": 8080 }] }), "spec.containers[0].ports.hostPort"),
            (
                json!({ "volumeDevices": [{ "name": "d", "devicePath": "/dev/x" }] }),
                "refused: volumeDevices cannot be granted to WebAssembly: guests see no devices; use volumeMounts",
            ),
        ] {
            assert_eq!(told(json!({}), container.clone()), expected, "{container}");
        }
    }
}
