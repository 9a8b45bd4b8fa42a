//! Validation of the types of volumes that pods and PersistentVolumes both may name, and of those of the latter alone.
//!
//! Podium mounts few of them; what is stored is judged all the same, as whoever reads it expects.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validate…VolumeSource`, `validate…PersistentVolumeSource`.

use serde_json::Value;

use super::container::{validate_descending_path, validate_no_backsteps};
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::storage::validate_driver_name,
    names,
};

const PORTAL_BYTES_MAX: usize = 64;
const TENANT_BYTES_MAX: usize = 64;

/// Who names a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kinds) enum Given<'a> {
    /// A pod's volume of this name.
    InPod(&'a str),
    /// A PersistentVolume of this name.
    Persistent(&'a str),
}

/// What errors call a field; two names differ from it, as they do in Kubernetes.
pub(super) fn name_in_errors(field: &str) -> &str {
    match field {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    }
}

/// The fields that each type must have, whatever else is asked of it.
fn required_fields(field: &str) -> &'static [&'static str] {
    match field {
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["monitors", "image"],
        "cephfs" => &["monitors"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "storageos" => &["volumeName"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "hostPath" | "local" => &["path"],
        _ => &[],
    }
}

/// Checks a `source`, which is the field of this name of the volume at `path`.
pub(in crate::kinds) fn validate(
    field: &str,
    source: &Value,
    given: Given<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let at = path.child(if field == "gcePersistentDisk" { "persistentDisk" } else { field });
    for name in required_fields(field) {
        if is_empty(&source[*name]) {
            errs.required(&at.child(name), "");
        }
    }
    match field {
        "hostPath" => validate_host_path(source, &at, errs),
        "gitRepo" => validate_descending_path(text(source, "directory"), &at.child("directory"), errs),
        "gcePersistentDisk" | "awsElasticBlockStore" => validate_partition(source, &at, errs),
        "nfs" if !text(source, "path").starts_with('/') => {
            errs.invalid(&at.child("path"), text(source, "path"), "must be an absolute path");
        }
        "iscsi" => validate_iscsi(source, given, path, &at, errs),
        "glusterfs" => validate_endpoints_namespace(source, &at, errs),
        "flocker" => validate_flocker(source, &at, errs),
        "cinder" => validate_secret(source, given, &at, errs),
        "quobyte" => validate_quobyte(source, &at, errs),
        "fc" => validate_fc(source, &at, errs),
        "flexVolume" => validate_options(source, &at, errs),
        "azureFile" if source.get("secretNamespace").is_some_and(is_empty) => {
            errs.required(&at.child("secretNamespace"), "");
        }
        "azureDisk" => validate_azure_disk(source, &at, errs),
        "storageos" => validate_storage_os(source, given, &at, errs),
        "csi" => validate_csi(source, given, &at, errs),
        "local" => validate_no_backsteps(text(source, "path"), &at.child("path"), errs),
        _ => {}
    }
}

fn text<'a>(source: &'a Value, field: &str) -> &'a str {
    source[field].as_str().unwrap_or_default()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn validate_host_path(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let host_path = text(source, "path");
    if host_path.is_empty() {
        return;
    }
    validate_no_backsteps(host_path, &path.child("path"), errs);
    let supported =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let kind = text(source, "type");
    if !supported.contains(&kind) {
        errs.not_supported(&path.child("type"), kind, &supported);
    }
}

fn validate_partition(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let partition = source["partition"].as_i64().unwrap_or_default();
    if !(0..=255).contains(&partition) {
        errs.invalid(&path.child("partition"), partition, "must be between 1 and 255, inclusive");
    }
}

fn validate_lun(lun: i64, path: &FieldPath, errs: &mut FieldErrors) {
    for message in names::in_range(lun, 0, 255) {
        errs.invalid(&path.child("lun"), lun, &message);
    }
}

fn validate_iscsi(source: &Value, given: Given<'_>, volume: &FieldPath, path: &FieldPath, errs: &mut FieldErrors) {
    let in_pod = matches!(given, Given::InPod(_));
    let unknown = if in_pod { "must be valid format starting with iqn, eui, or naa" } else { "must be valid format" };
    let iqn = text(source, "iqn");
    if !iqn.is_empty() {
        validate_initiator(iqn, unknown, &path.child("iqn"), errs);
    }
    validate_lun(source["lun"].as_i64().unwrap_or_default(), path, errs);
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|f| source[*f] == true);
    let secret = path.child("secretRef");
    if authenticates && source.get("secretRef").is_none() {
        errs.required(&secret, "");
    }
    if !in_pod && source.get("secretRef").is_some_and(|s| is_empty(&s["name"])) {
        errs.required(&secret.child("name"), "");
    }
    let Some(initiator) = source["initiatorName"].as_str() else { return };
    validate_initiator(initiator, unknown, &path.child("initiatorname"), errs);
    let portal = text(source, "targetPortal");
    let (name, at, shown) = match given {
        Given::InPod(name) => (name, volume.child("name"), name),
        Given::Persistent(name) => (name, path.child("targetportal"), portal),
    };
    if name.len() + 1 + portal.len() > PORTAL_BYTES_MAX {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                      iscsi.initiatorName is specified.";
        errs.invalid(&at, shown, detail);
    }
}

/// `iqn.2001-04.com.example:name`, `eui.` and 16 letters or digits, or `naa.` and 32.
fn validate_initiator(name: &str, unknown: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let tail =
        |tail: &str, length: usize| tail.len() == length + 1 && tail.bytes().skip(1).all(|b| b.is_ascii_alphanumeric());
    let well_formed = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => tail(&name[3..], 16),
        Some("naa") => tail(&name[3..], 32),
        _ => return errs.invalid(path, name, unknown),
    };
    if !well_formed {
        errs.invalid(path, name, "must be valid format");
    }
}

fn is_iqn(name: &str) -> bool {
    let Some((head, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once(':')) else { return false };
    let digits =
        |range: std::ops::Range<usize>| head.get(range).is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()));
    let dated = digits(0..4) && head.get(4..5) == Some("-") && digits(5..7) && head.get(7..8) == Some(".");
    let authority = head.get(8..).unwrap_or_default();
    let named = authority.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let plain = |c: char| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_whitespace();
    dated && !authority.is_empty() && named && !rest.is_empty() && rest.chars().all(plain)
}

fn validate_endpoints_namespace(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("endpointsNamespace");
    match source["endpointsNamespace"].as_str() {
        None => {}
        Some("") => {
            errs.invalid(&at, "", "if the endpointnamespace is set, it must be a valid namespace name");
        }
        Some(name) => errs.invalid_each(&at, name, names::is_dns1123_label(name)),
    }
}

fn validate_flocker(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    match (name, uuid) {
        ("", "") => errs.required(path, "one of datasetName and datasetUUID is required"),
        ("", _) | (_, "") => {}
        _ => errs.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"),
    }
    if name.contains('/') {
        errs.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

/// A secret has a name, and for a PersistentVolume a namespace too.
fn validate_secret(source: &Value, given: Given<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(secret) = source.get("secretRef") else { return };
    let fields: &[&str] = if matches!(given, Given::InPod(_)) { &["name"] } else { &["name", "namespace"] };
    for field in fields.iter().filter(|field| is_empty(&secret[**field])) {
        errs.required(&path.child("secretRef").child(field), "");
    }
}

fn validate_quobyte(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let registry = text(source, "registry");
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    if registry.is_empty() {
        errs.required(&path.child("registry"), detail);
    } else if text(source, "tenant").len() > TENANT_BYTES_MAX {
        errs.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.split(',').filter(|pair| !pair.contains(':')) {
            errs.invalid(&path.child("registry"), registry, detail);
        }
    }
    if is_empty(&source["volume"]) {
        errs.required(&path.child("volume"), "");
    }
}

fn validate_fc(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("targetWWNs");
    match (is_empty(&source["targetWWNs"]), is_empty(&source["wwids"])) {
        (true, true) => errs.required(&at, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            errs.invalid(&at, source["targetWWNs"].clone(), detail);
        }
        _ => {}
    }
    if !is_empty(&source["targetWWNs"]) {
        match source["lun"].as_i64() {
            None => errs.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) => validate_lun(lun, path, errs),
        }
    }
}

fn validate_options(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    for key in source["options"].as_object().into_iter().flatten().map(|(key, _)| key) {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errs.invalid(&path.child("options").key(key), key.as_str(), detail);
        }
    }
}

fn validate_azure_disk(source: &Value, path: &FieldPath, errs: &mut FieldErrors) {
    let choices: [(&str, &[&str]); 2] =
        [("cachingMode", &["None", "ReadOnly", "ReadWrite"]), ("kind", &["Dedicated", "Managed", "Shared"])];
    for (field, supported) in choices {
        if let Some(choice) = source[field].as_str().filter(|c| !supported.contains(c)) {
            errs.not_supported(&path.child(field), choice, supported);
        }
    }
    let uri = text(source, "diskURI");
    let (prefix, form) = match source["kind"].as_str() {
        None => return,
        Some("Managed") => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        Some(_) => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !uri.starts_with(prefix) {
        errs.not_supported(&path.child("diskURI"), uri, &[form]);
    }
}

fn validate_storage_os(source: &Value, given: Given<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    for field in ["volumeName", "volumeNamespace"] {
        let name = text(source, field);
        if !name.is_empty() {
            errs.invalid_each(&path.child(field), name, names::is_dns1123_label(name));
        }
    }
    validate_secret(source, given, path, errs);
}

fn validate_csi(source: &Value, given: Given<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    validate_driver_name(text(source, "driver"), &path.child("driver"), errs);
    if matches!(given, Given::InPod(_)) {
        let Some(secret) = source.get("nodePublishSecretRef") else { return };
        match text(secret, "name") {
            "" => errs.required(&path.child("nodePublishSecretRef").child("name"), ""),
            name => errs.invalid_each(&path.child("name"), name, names::is_dns1123_subdomain(name)),
        }
        return;
    }
    if is_empty(&source["volumeHandle"]) {
        errs.required(&path.child("volumeHandle"), "");
    }
    let secrets =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for field in secrets {
        let Some(secret) = source.get(field) else { continue };
        let at = path.child(field);
        match text(secret, "name") {
            "" => errs.required(&at.child("name"), ""),
            name => errs.invalid_each(&at.child("name"), name, names::is_dns1123_subdomain(name)),
        }
        match text(secret, "namespace") {
            "" => errs.required(&at.child("namespace"), ""),
            name => errs.invalid_each(&at.child("namespace"), name, names::is_dns1123_label(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &str, source: &str, given: Given<'_>, wanted: &[&str]) {
        let source: Value = serde_yaml::from_str(source).unwrap();
        let mut errs = FieldErrors::new();
        validate(field, &source, given, &FieldPath::new("v"), &mut errs);
        let got: Vec<_> = errs.0.iter().map(ToString::to_string).collect();
        let right = got.len() == wanted.len() && got.iter().zip(wanted).all(|(got, wanted)| got.starts_with(wanted));
        assert!(right, "{field} {source}: {got:#?}");
    }

    #[test]
    fn types() {
        let (pod, persistent) = (Given::InPod("a"), Given::Persistent("a"));
        let long = "x".repeat(64);
        let cases: &[(&str, &str, Given<'_>, &[&str])] = &[
            (
                "hostPath",
                "{path: /a/../b}",
                pod,
                &["v.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            ("nfs", "{server: s, path: a}", pod, &["v.nfs.path: Invalid value: \"a\": must be an absolute path"]),
            (
                "gcePersistentDisk",
                "{partition: 300}",
                pod,
                &[
                    "v.persistentDisk.pdName: Required value",
                    "v.persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive",
                ],
            ),
            ("iscsi", "{targetPortal: p, iqn: 'iqn.2001-04.com.example:storage', lun: 0}", pod, &[]),
            ("iscsi", "{targetPortal: p, iqn: eui.0123456789ABCDEF, lun: 0}", pod, &[]),
            (
                "iscsi",
                "{targetPortal: p, iqn: x, lun: 256, chapAuthSession: true}",
                pod,
                &[
                    "v.iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
                    "v.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                    "v.iscsi.secretRef: Required value",
                ],
            ),
            (
                "iscsi",
                &format!("{{targetPortal: {long}, iqn: iqn.2001-04.a, lun: 0, initiatorName: naa.0}}"),
                persistent,
                &[
                    "v.iscsi.iqn: Invalid value: \"iqn.2001-04.a\": must be valid format",
                    "v.iscsi.initiatorname: Invalid value: \"naa.0\": must be valid format",
                    "v.iscsi.targetportal: Invalid value: \"xxx",
                ],
            ),
        ];
        for (field, source, given, wanted) in cases {
            check(field, source, *given, wanted);
        }
    }

    #[test]
    fn types_of_some_vendors() {
        let (pod, persistent) = (Given::InPod("a"), Given::Persistent("a"));
        let cases: &[(&str, &str, Given<'_>, &[&str])] = &[
            ("flocker", "{}", pod, &["v.flocker: Required value: one of datasetName and datasetUUID is required"]),
            ("cinder", "{volumeID: a, secretRef: {}}", pod, &["v.cinder.secretRef.name: Required value"]),
            (
                "cinder",
                "{volumeID: a, secretRef: {}}",
                persistent,
                &["v.cinder.secretRef.name: Required value", "v.cinder.secretRef.namespace: Required value"],
            ),
            (
                "quobyte",
                "{registry: 'a:1,b', volume: v}",
                pod,
                &["v.quobyte.registry: Invalid value: \"a:1,b\": must be a"],
            ),
            ("fc", "{targetWWNs: [a]}", pod, &["v.fc.lun: Required value: lun is required if targetWWNs is specified"]),
            (
                "flexVolume",
                "{driver: d, options: {a.k8s.io/b: c}}",
                pod,
                &["v.flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io"],
            ),
            (
                "azureDisk",
                "{diskName: a, diskURI: b, kind: Managed, cachingMode: All}",
                pod,
                &[
                    "v.azureDisk.cachingMode: Unsupported value: \"All\": supported values: \"None\", \"ReadOnly\"",
                    "v.azureDisk.diskURI: Unsupported value: \"b\": supported values: \"/subscriptions/{sub-id}/",
                ],
            ),
            ("csi", "{driver: d.example.com}", pod, &[]),
            (
                "csi",
                "{driver: d, controllerExpandSecretRef: {name: A}}",
                persistent,
                &[
                    "v.csi.volumeHandle: Required value",
                    "v.csi.controllerExpandSecretRef.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                    "v.csi.controllerExpandSecretRef.namespace: Required value",
                ],
            ),
        ];
        for (field, source, given, wanted) in cases {
            check(field, source, *given, wanted);
        }
    }
}
