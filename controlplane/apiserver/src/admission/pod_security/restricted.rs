//! The checks of the level `restricted`, beside those of `baseline`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/pod-security-admission/policy/check_*.go`.

use k8s_openapi::api::core::v1::Volume;

use super::{
    baseline::{confines, masked_proc, seccomp_fields},
    subject::{Subject, Values, Violation, containers, counted, quoted, setters},
};

type Check = fn(&Subject<'_>, u32) -> Option<Violation>;

/// In the order of their names in Kubernetes, each with the version since when there is such a check.
const CHECKS: [(Check, u32); 7] = [
    (escalation, 8),
    (capabilities, 22),
    (|subject, _| masked_proc(subject), 35),
    (volumes, 0),
    (non_root, 0),
    (user, 23),
    (seccomp, 19),
];

/// What does not meet the level as of a version.
pub(super) fn judge(subject: &Subject<'_>, minor: u32) -> Vec<Violation> {
    let checks = CHECKS.iter().filter(|(_, since)| minor >= *since);
    checks.filter_map(|(check, _)| check(subject, minor)).collect()
}

/// Whether a check is none for pods that run on Windows.
fn spares(subject: &Subject<'_>, minor: u32) -> bool {
    minor >= 25 && subject.is_windows()
}

fn escalation(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if spares(subject, minor) {
        return None;
    }
    let names = subject.named(|c| c.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    (!names.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if spares(subject, minor) {
        return None;
    }
    let keep = subject.named(|c| {
        let dropped = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.drop.as_ref());
        !dropped.into_iter().flatten().any(|c| c == "ALL")
    });
    let mut values = Values::new();
    let add = subject.named(|c| {
        let added = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.add.as_ref());
        let bad: Vec<&str> =
            added.into_iter().flatten().map(String::as_str).filter(|c| *c != "NET_BIND_SERVICE").collect();
        values.extend(&bad);
        !bad.is_empty()
    });
    let mut details: Vec<String> = Vec::new();
    if !keep.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keep)));
    }
    if !add.is_empty() {
        let (add, values) = (containers(&add), quoted(values));
        details.push(format!("{add} must not include {values} in securityContext.capabilities.add"));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

/// The kind of a volume that is not among those that any pod may have.
fn restricted_kind(volume: &Volume) -> Option<&'static str> {
    let free = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    let kinds = [
        ("hostPath", volume.host_path.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    let kind = kinds.iter().find(|(_, is)| *is).map_or("unknown", |(kind, _)| kind);
    (!free).then_some(kind)
}

fn volumes(subject: &Subject<'_>, _minor: u32) -> Option<Violation> {
    let bad: Vec<(&str, &str)> =
        subject.volumes().filter_map(|v| Some((v.name.as_str(), restricted_kind(v)?))).collect();
    let kinds: Values<'_> = bad.iter().map(|(_, kind)| *kind).collect();
    (!bad.is_empty()).then(|| {
        let volumes = counted("volume", "volumes", bad.len());
        let uses = counted("uses", "use", bad.len());
        let what = counted("restricted volume type", "restricted volume types", kinds.len());
        let names = quoted(bad.iter().map(|(name, _)| *name));
        Violation::new("restricted volume types", format!("{volumes} {names} {uses} {what} {}", quoted(kinds)))
    })
}

fn non_root(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    let of_pod = subject.security().and_then(|s| s.run_as_non_root);
    let explicit = subject.named(|c| c.security.and_then(|s| s.run_as_non_root) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return Some(Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    let unset = subject.named(|c| of_pod.is_none() && c.security.and_then(|s| s.run_as_non_root).is_none());
    (!unset.is_empty()).then(|| {
        Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&unset)))
    })
}

fn user(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && subject.has_own_users() {
        return None;
    }
    let pod = subject.security().and_then(|s| s.run_as_user) == Some(0);
    let names = subject.named(|c| c.security.and_then(|s| s.run_as_user) == Some(0));
    setters(pod, &names).map(|who| Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(subject: &Subject<'_>, minor: u32) -> Option<Violation> {
    if spares(subject, minor) {
        return None;
    }
    if let Some(wrong) = seccomp_fields(subject) {
        return Some(wrong);
    }
    let of_pod = subject.security().and_then(|s| s.seccomp_profile.as_ref()).is_some_and(|p| confines(&p.type_));
    let unset = subject.named(|c| !of_pod && c.security.and_then(|s| s.seccomp_profile.as_ref()).is_none());
    (!unset.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&unset)
        );
        Violation::new("seccompProfile", detail)
    })
}
