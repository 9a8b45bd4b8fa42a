//! The checks of the level `baseline`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/pod-security-admission/policy/check_*.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{AppArmorProfile, LifecycleHandler, Probe, SELinuxOptions};

use super::subject::{Subject, Values, Violation, containers, counted, quoted, setters};

type Check = fn(&Subject<'_>, u32) -> Option<Violation>;

/// In the order of their names in Kubernetes, each with the version since when the level `restricted` has a check of its
/// own in place of it.
const CHECKS: [(Check, Option<u32>); 12] = [
    (app_armor, None),
    (capabilities, Some(22)),
    (host_namespaces, None),
    (host_paths, Some(0)),
    (host_ports, None),
    (hosts_of_probes, None),
    (privileged, None),
    (proc_mount, Some(35)),
    (selinux, None),
    (seccomp, Some(19)),
    (sysctls, None),
    (windows_host_process, None),
];

/// What does not meet the level as of a version; `restricted`: without what that level checks itself.
pub(super) fn judge(subject: &Subject<'_>, minor: u32, restricted: bool) -> Vec<Violation> {
    let own = |since: &Option<u32>| restricted && since.is_some_and(|since| minor >= since);
    let checks = CHECKS.iter().filter(|(_, since)| !own(since));
    checks.filter_map(|(check, _)| check(subject, minor)).collect()
}

fn app_armor(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad = |profile: Option<&AppArmorProfile>| {
        let kind = profile.map(|p| p.type_.clone());
        kind.filter(|kind| !matches!(kind.as_str(), "RuntimeDefault" | "Localhost"))
    };
    let mut values: BTreeSet<String> = BTreeSet::new();
    let of_pod = bad(subject.security().and_then(|s| s.app_armor_profile.as_ref()));
    let names = subject.named(|c| {
        let kind = bad(c.security.and_then(|s| s.app_armor_profile.as_ref()));
        values.extend(kind.clone());
        kind.is_some()
    });
    values.extend(of_pod.clone());
    let fine = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let all = subject.annotations.into_iter().flatten();
    let annotations: Vec<String> = all
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !fine(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(of_pod.is_some(), &names).into_iter().collect();
    who.extend((!annotations.is_empty()).then(|| counted("annotation", "annotations", annotations.len()).to_owned()));
    if who.is_empty() {
        return None;
    }
    let shown: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = counted("forbidden AppArmor profile", "forbidden AppArmor profiles", shown.len());
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(shown));
    Some(Violation::new(reason, detail))
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let mut values = Values::new();
    let names = subject.named(|c| {
        let added = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.add.as_ref());
        let bad: Vec<&str> =
            added.into_iter().flatten().map(String::as_str).filter(|c| !CAPABILITIES.contains(c)).collect();
        values.extend(&bad);
        !bad.is_empty()
    });
    (!names.is_empty()).then(|| {
        let (names, values) = (containers(&names), quoted(values));
        let detail = format!("{names} must not include {values} in securityContext.capabilities.add");
        Violation::new("non-default capabilities", detail)
    })
}

fn host_namespaces(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let spec = subject.spec;
    let all = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let set: Vec<String> =
        all.iter().filter(|(_, set)| *set == Some(true)).map(|(name, _)| format!("{name}=true")).collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_paths(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let names: Vec<&str> = subject.volumes().filter(|v| v.host_path.is_some()).map(|v| v.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let detail = format!("{} {}", counted("volume", "volumes", names.len()), quoted(&names));
        Violation::new("hostPath volumes", detail)
    })
}

fn host_ports(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let mut ports: BTreeSet<String> = BTreeSet::new();
    let names = subject.named(|c| {
        let bad: Vec<String> =
            c.ports.iter().filter_map(|p| p.host_port).filter(|p| *p != 0).map(|p| p.to_string()).collect();
        ports.extend(bad.iter().cloned());
        !bad.is_empty()
    });
    (!names.is_empty()).then(|| {
        let uses = counted("uses", "use", names.len());
        let what = counted("hostPort", "hostPorts", ports.len());
        let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
        Violation::new("hostPort", format!("{} {uses} {what} {ports}", containers(&names)))
    })
}

fn hosts_of_probes(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 34 {
        return None;
    }
    let mut hosts: BTreeSet<String> = BTreeSet::new();
    let mut names = subject.named(|c| {
        let of_probe = |p: &&Probe| {
            [p.http_get.as_ref().and_then(|h| h.host.clone()), p.tcp_socket.as_ref().and_then(|t| t.host.clone())]
        };
        let of_handler = |h: &LifecycleHandler| {
            [h.http_get.as_ref().and_then(|h| h.host.clone()), h.tcp_socket.as_ref().and_then(|t| t.host.clone())]
        };
        let handlers = c.lifecycle.into_iter().flat_map(|l| [&l.post_start, &l.pre_stop]).flatten();
        let found = c.probes.iter().flatten().flat_map(of_probe).chain(handlers.flat_map(of_handler));
        let bad: Vec<String> = found.flatten().filter(|h| !h.is_empty()).collect();
        hosts.extend(bad.iter().cloned());
        !bad.is_empty()
    });
    names.sort_unstable();
    (!names.is_empty()).then(|| {
        let uses = counted("uses", "use", names.len());
        let what = counted("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        Violation::new("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&names), quoted(hosts)))
    })
}

fn privileged(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let names = subject.named(|c| c.security.and_then(|s| s.privileged) == Some(true));
    (!names.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.privileged=true", containers(&names));
        Violation::new("privileged", detail)
    })
}

fn proc_mount(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    masked_proc(subject)
}

/// The same without exception.
pub(super) fn masked_proc(subject: &Subject<'_>) -> Option<Violation> {
    let mut values = Values::new();
    let names = subject.named(|c| {
        let bad = c.security.and_then(|s| s.proc_mount.as_deref()).filter(|m| *m != "Default");
        values.extend(bad);
        bad.is_some()
    });
    (!names.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(values));
        Violation::new("procMount", detail)
    })
}

fn selinux(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let mut types = Values::new();
    let (mut user, mut role) = (false, false);
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let mut bad = |options: &SELinuxOptions| -> (bool, Option<String>) {
        let kind = options.type_.clone().unwrap_or_default();
        let known = matches!(kind.as_str(), "" | "container_t" | "container_init_t" | "container_kvm_t")
            || minor >= 31 && kind == "container_engine_t";
        user |= !empty(&options.user);
        role |= !empty(&options.role);
        (!known || !empty(&options.user) || !empty(&options.role), (!known).then_some(kind))
    };
    let mut kinds: Vec<String> = Vec::new();
    let mut check = |options: Option<&SELinuxOptions>| {
        let (wrong, kind) = options.map_or((false, None), &mut bad);
        kinds.extend(kind);
        wrong
    };
    let pod = check(subject.security().and_then(|s| s.se_linux_options.as_ref()));
    let names = subject.named(|c| check(c.security.and_then(|s| s.se_linux_options.as_ref())));
    let who = setters(pod, &names)?;
    types.extend(kinds.iter().map(String::as_str));
    let mut data: Vec<String> = Vec::new();
    data.extend((!types.is_empty()).then(|| format!("{} {}", counted("type", "types", types.len()), quoted(&types))));
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

/// Whether a type of seccomp profiles confines.
pub(super) fn confines(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

fn seccomp(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 { seccomp_annotations(subject) } else { seccomp_fields(subject) }
}

fn seccomp_annotations(subject: &Subject<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let fine = |v: &str| v == "runtime/default" || v == "docker/default" || v.starts_with("localhost/");
    let of_containers =
        subject.containers.iter().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", c.name));
    let keys = of_containers.chain([POD.to_owned()]);
    let value = |key: &String| subject.annotations.and_then(|a| a.get(key)).filter(|v| !fine(v)).cloned();
    let mut bad: Vec<String> = keys.filter_map(|key| value(&key).map(|v| format!("{key}={v:?}"))).collect();
    bad.sort_unstable();
    (!bad.is_empty()).then(|| {
        let what = counted("annotation", "annotations", bad.len());
        Violation::new("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
    })
}

/// Profiles that do not confine, whoever sets them.
pub(super) fn seccomp_fields(subject: &Subject<'_>) -> Option<Violation> {
    let mut values = Values::new();
    let of_pod = subject.security().and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
    let of_pod = of_pod.filter(|kind| !confines(kind));
    values.extend(of_pod);
    let names = subject.named(|c| {
        let kind = c.security.and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
        let bad = kind.filter(|kind| !confines(kind));
        values.extend(bad);
        bad.is_some()
    });
    let who = setters(of_pod.is_some(), &names)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    Some(Violation::new("seccompProfile", detail))
}

/// Sysctls that are safe, each since a version.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    let set = subject.security().and_then(|s| s.sysctls.as_ref());
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && minor >= *since);
    let bad: Vec<&str> = set.into_iter().flatten().map(|s| s.name.as_str()).filter(|name| !safe(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let pod = subject.security().and_then(|s| s.windows_options.as_ref()).and_then(|w| w.host_process) == Some(true);
    let names = subject
        .named(|c| c.security.and_then(|s| s.windows_options.as_ref()).and_then(|w| w.host_process) == Some(true));
    let who = setters(pod, &names)?;
    Some(Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}
