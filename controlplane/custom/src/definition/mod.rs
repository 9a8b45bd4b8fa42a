//! Checks CustomResourceDefinitions as they are written.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`.

mod approval;
mod columns;
mod conversion;
mod rules;
mod schema;
#[cfg(test)]
mod tests;

pub use approval::Approval;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionVersion,
};
use podium_api::{FieldErrors, FieldPath, names};
use serde_json::Value;

/// Checks a definition. `old`: what it was before.
pub fn validate_definition(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    errs: &mut FieldErrors,
) {
    let spec = &definition.spec;
    let path = FieldPath::new("spec");
    let wanted = format!("{}.{}", spec.names.plural, spec.group);
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    if old.is_none() && name != wanted {
        errs.invalid(&FieldPath::new("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    check_group(definition, &path, errs);
    for (i, version) in spec.versions.iter().enumerate() {
        let at = path.child("versions").index(i);
        if version.schema.as_ref().is_none_or(|s| s.open_api_v3_schema.is_none()) {
            errs.required(&at.child("schema").child("openAPIV3Schema"), "");
        }
    }
    check_versions(definition, old, &path, errs);
    check_names(&spec.names, &path.child("names"), true, errs);
    conversion::check(spec.conversion.as_ref(), &path.child("conversion"), errs);
    if let Some(accepted) = definition.status.as_ref().and_then(|s| s.accepted_names.as_ref()) {
        check_names(accepted, &FieldPath::new("status.acceptedNames"), false, errs);
    }
    approval::check(definition, old, errs);
    let preserved = |d: &CustomResourceDefinition| d.spec.preserve_unknown_fields == Some(true);
    if preserved(definition) && !old.is_some_and(preserved) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errs.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    if let Some(old) = old {
        check_update(definition, old, &path, errs);
    }
}

fn check_group(definition: &CustomResourceDefinition, path: &FieldPath, errs: &mut FieldErrors) {
    let spec = &definition.spec;
    let at = path.child("group");
    let wrong = names::is_dns1123_subdomain(&spec.group);
    if spec.group.is_empty() {
        errs.required(&at, "");
    } else if !wrong.is_empty() {
        errs.invalid(&at, spec.group.as_str(), &wrong.join(","));
    } else if !spec.group.contains('.') {
        errs.invalid(&at, spec.group.as_str(), "should be a domain with at least one dot");
    }
    match spec.scope.as_str() {
        "" => errs.required(&path.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errs.not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
}

fn shown<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn check_versions(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let versions = &definition.spec.versions;
    let at = path.child("versions");
    for (i, version) in versions.iter().enumerate() {
        let at = at.index(i);
        let wrong = names::is_dns1035_label(&version.name);
        if !wrong.is_empty() {
            errs.invalid(&at.child("name"), version.name.as_str(), &wrong.join(","));
        }
        let before = old.and_then(|o| o.spec.versions.iter().find(|v| v.name == version.name));
        check_version(version, before, &at, errs);
    }
    let mut seen = std::collections::HashSet::new();
    if !versions.iter().all(|v| seen.insert(v.name.as_str())) {
        errs.invalid(&at, shown(versions), "must contain unique version names");
    }
    if versions.iter().filter(|v| v.storage).count() != 1 {
        errs.invalid(&at, shown(versions), "must have exactly one version marked as storage version");
    }
}

fn check_version(
    version: &CustomResourceDefinitionVersion,
    old: Option<&CustomResourceDefinitionVersion>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    check_deprecation(version, path, errs);
    let has_status = version.subresources.as_ref().is_some_and(|s| s.status.is_some());
    if let Some(props) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) {
        let before = old.and_then(|v| v.schema.as_ref()).and_then(|s| s.open_api_v3_schema.as_ref());
        schema::check(props, before, has_status, &path.child("schema").child("openAPIV3Schema"), errs);
    }
    columns::check(version, path, errs);
}

fn check_deprecation(version: &CustomResourceDefinitionVersion, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(warning) = version.deprecation_warning.as_deref() else { return };
    let at = path.child("deprecationWarning");
    if version.deprecated != Some(true) {
        errs.invalid(&at, warning, "can only be set for deprecated versions");
        return;
    }
    if warning.len() > 256 {
        errs.invalid(&at, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errs.invalid(&at, warning, "must not be an empty string");
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {i}");
        errs.invalid(&at, warning, &detail);
    }
}

fn check_names(given: &CustomResourceDefinitionNames, path: &FieldPath, required: bool, errs: &mut FieldErrors) {
    let singular = given.singular.as_deref().unwrap_or_default();
    let list_kind = given.list_kind.as_deref().unwrap_or_default();
    for (name, value, mixed) in [
        ("plural", given.plural.as_str(), false),
        ("singular", singular, false),
        ("kind", given.kind.as_str(), true),
        ("listKind", list_kind, true),
    ] {
        let at = path.child(name);
        if value.is_empty() {
            if required {
                errs.required(&at, "");
            }
            continue;
        }
        let wrong = names::is_dns1035_label(&if mixed { value.to_lowercase() } else { value.to_owned() });
        if !wrong.is_empty() {
            let before = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errs.invalid(&at, value, &format!("{before}{}", wrong.join(",")));
        }
    }
    for (name, list) in [("shortNames", &given.short_names), ("categories", &given.categories)] {
        for (i, value) in list.iter().flatten().enumerate() {
            let wrong = names::is_dns1035_label(value);
            if !wrong.is_empty() {
                errs.invalid(&path.child(name).index(i), value.as_str(), &wrong.join(","));
            }
        }
    }
    if !given.kind.is_empty() && given.kind == list_kind {
        errs.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True")
}

fn check_update(
    definition: &CustomResourceDefinition,
    old: &CustomResourceDefinition,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let (new, before) = (&definition.spec, &old.spec);
    if is_established(old) {
        errs.immutable(&path.child("scope"), &new.scope, &before.scope);
        errs.immutable(&path.child("names").child("kind"), &new.names.kind, &before.names.kind);
    }
    errs.immutable(&path.child("group"), &new.group, &before.group);
    errs.immutable(&path.child("names").child("plural"), &new.names.plural, &before.names.plural);
    check_stored_versions(definition, errs);
}

/// Versions of which objects may be stored must stay in the definition.
pub fn check_stored_versions(definition: &CustomResourceDefinition, errs: &mut FieldErrors) {
    let path = FieldPath::new("status.storedVersions");
    let stored = definition.status.as_ref().and_then(|s| s.stored_versions.clone()).unwrap_or_default();
    if stored.is_empty() {
        errs.invalid(&path, shown(&stored), "must have at least one stored version");
        return;
    }
    for version in definition.spec.versions.iter().filter(|v| v.storage && !stored.contains(&v.name)) {
        errs.invalid(&path, shown(&stored), &format!("must have the storage version {}", version.name));
    }
    for (i, version) in stored.iter().enumerate() {
        if definition.spec.versions.iter().any(|v| v.name == *version) {
            continue;
        }
        let detail = format!(
            "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {version} and removes {version} from \
             status.storedVersions"
        );
        errs.invalid(&path.index(i), version.as_str(), &detail);
    }
}
