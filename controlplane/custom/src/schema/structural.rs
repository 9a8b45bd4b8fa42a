//! What makes a schema not structural.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/schema/validation.go`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use podium_api::{FieldErrors, FieldPath};

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that makes a schema not structural, sorted.
pub fn structural_errors(path: &FieldPath, props: &JSONSchemaProps) -> FieldErrors {
    let mut errs = FieldErrors::new();
    invariants(props, Level::Root, path, &mut errs);
    complete_all(props, props, path, path, &mut errs);
    errs.0.sort_by_key(ToString::to_string);
    errs
}

pub(crate) fn items(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(of)) => Some(of),
        _ => None,
    }
}

pub(crate) fn additional(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &props.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(of)) => Some(of),
        _ => None,
    }
}

fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

fn invariants(s: &JSONSchemaProps, level: Level, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = s.type_.as_deref().unwrap_or_default();
    if kind == "array" && s.items.is_none() {
        errs.required(&path.child("items"), "must be specified");
    }
    if let Some(of) = items(s) {
        invariants(of, Level::Item, &path.child("items"), errs);
    }
    for (name, of) in s.properties.iter().flatten() {
        invariants(of, Level::Field, &path.child("properties").key(name), errs);
    }
    if s.additional_properties.is_some() {
        if level == Level::Root {
            errs.forbidden(&path.child("additionalProperties"), "must not be used at the root");
        }
        if let Some(of) = additional(s) {
            invariants(of, Level::Field, &path.child("additionalProperties"), errs);
        }
    }
    extensions(s, path, errs);
    let (any_of, all_of) = (is_int_or_string(s), s.all_of.iter().flatten().next().is_some_and(is_int_or_string));
    value_validation(s, any_of, all_of, path, errs);
    types(s, level, kind, path, errs);
    metadata(s, level, path, errs);
}

fn extensions(s: &JSONSchemaProps, path: &FieldPath, errs: &mut FieldErrors) {
    if !is(s.x_kubernetes_int_or_string) {
        return;
    }
    let detail = "must be false if x-kubernetes-int-or-string is true";
    if is(s.x_kubernetes_preserve_unknown_fields) {
        errs.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), true, detail);
    }
    if is(s.x_kubernetes_embedded_resource) {
        errs.invalid(&path.child("x-kubernetes-embedded-resource"), true, detail);
    }
}

fn types(s: &JSONSchemaProps, level: Level, kind: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let embedded = is(s.x_kubernetes_embedded_resource);
    let at = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { errs.required(&at, detail) } else { errs.invalid(&at, kind, detail) }
    } else if kind.is_empty() && !is(s.x_kubernetes_int_or_string) && !is(s.x_kubernetes_preserve_unknown_fields) {
        errs.required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && s.additional_properties.is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errs.forbidden(&path.child("additionalProperties"), detail);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errs.invalid(&at, kind, "must be object at the root");
    }
    if embedded && !is(s.x_kubernetes_preserve_unknown_fields) && s.properties.iter().flatten().next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errs.required(&path.child("properties"), detail);
    }
}

fn metadata(s: &JSONSchemaProps, level: Level, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(properties) = &s.properties else { return };
    if level != Level::Root && !is(s.x_kubernetes_embedded_resource) {
        return;
    }
    let at = path.child("properties");
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(kind) = properties.get(name).map(|p| p.type_.as_deref().unwrap_or_default()) else { continue };
        if kind != wanted {
            errs.invalid(&at.key(name).child("type"), kind, &format!("must be {wanted}"));
        }
    }
    let Some(meta) = properties.get("metadata").filter(|_| level == Level::Root) else { return };
    let mut rest = meta.clone();
    let only_names = rest.properties.iter().flatten().all(|(name, _)| name == "name" || name == "generateName");
    if only_names {
        rest.properties = None;
    }
    rest.type_ = None;
    rest.default = None;
    if rest != JSONSchemaProps::default() {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errs.forbidden(&at.key("metadata"), detail);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`
fn is_int_or_string(s: &JSONSchemaProps) -> bool {
    let only = |name: &str| JSONSchemaProps { type_: Some(name.to_owned()), ..JSONSchemaProps::default() };
    s.any_of.as_ref().is_some_and(|of| *of == [only("integer"), only("string")])
}

fn value_validation(
    s: &JSONSchemaProps,
    skip_any_of: bool,
    skip_first_all_of: bool,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    for (i, of) in s.any_of.iter().flatten().enumerate().filter(|_| !skip_any_of) {
        nested(of, false, &path.child("anyOf").index(i), errs);
    }
    for (i, of) in s.all_of.iter().flatten().enumerate() {
        nested(of, skip_first_all_of && i == 0, &path.child("allOf").index(i), errs);
    }
    for (i, of) in s.one_of.iter().flatten().enumerate() {
        nested(of, false, &path.child("oneOf").index(i), errs);
    }
    if let Some(of) = &s.not {
        nested(of, false, &path.child("not"), errs);
    }
    if let Some(pattern) = s.pattern.as_deref().filter(|p| !p.is_empty())
        && let Err(error) = crate::cel::compile_pattern(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errs.invalid(&path.child("pattern"), pattern, &detail);
    }
}

fn nested(s: &JSONSchemaProps, skip_any_of: bool, path: &FieldPath, errs: &mut FieldErrors) {
    value_validation(s, skip_any_of, false, path, errs);
    if let Some(of) = items(s) {
        nested(of, false, &path.child("items"), errs);
    }
    for (name, of) in s.properties.iter().flatten() {
        nested(of, false, &path.child("properties").key(name), errs);
    }
    let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let empty = "must be empty to be structural";
    let undefined = "must be undefined to be structural";
    let not_true = "must be false to be structural";
    for (name, wrong, detail) in [
        ("type", given(&s.type_), empty),
        ("additionalProperties", s.additional_properties.is_some(), undefined),
        ("default", s.default.is_some(), undefined),
        ("title", given(&s.title), empty),
        ("description", given(&s.description), empty),
        ("nullable", is(s.nullable), not_true),
        ("x-kubernetes-preserve-unknown-fields", is(s.x_kubernetes_preserve_unknown_fields), not_true),
        ("x-kubernetes-embedded-resource", is(s.x_kubernetes_embedded_resource), not_true),
        ("x-kubernetes-int-or-string", is(s.x_kubernetes_int_or_string), not_true),
        ("x-kubernetes-list-map-keys", s.x_kubernetes_list_map_keys.iter().flatten().next().is_some(), empty),
        ("x-kubernetes-list-type", s.x_kubernetes_list_type.is_some(), undefined),
        ("x-kubernetes-map-type", s.x_kubernetes_map_type.is_some(), undefined),
        ("x-kubernetes-validations", s.x_kubernetes_validations.iter().flatten().next().is_some(), empty),
    ] {
        if wrong {
            errs.forbidden(&path.child(name), detail);
        }
    }
    if s.properties.iter().flatten().any(|(name, _)| name == "metadata") {
        let detail = "must not be specified in a nested context";
        errs.forbidden(&path.child("properties").key("metadata"), detail);
    }
}

/// What value validations speak of must be there in the structure.
fn complete_all(v: &JSONSchemaProps, s: &JSONSchemaProps, at: &FieldPath, seen: &FieldPath, errs: &mut FieldErrors) {
    if let Some(of) = &v.not {
        complete(of, s, at, &seen.child("not"), errs);
    }
    for (name, alternatives) in [("allOf", &v.all_of), ("anyOf", &v.any_of), ("oneOf", &v.one_of)] {
        for (i, of) in alternatives.iter().flatten().enumerate() {
            complete(of, s, at, &seen.child(name).index(i), errs);
        }
    }
}

fn complete(v: &JSONSchemaProps, s: &JSONSchemaProps, at: &FieldPath, seen: &FieldPath, errs: &mut FieldErrors) {
    complete_all(v, s, at, seen, errs);
    let because = |seen: &FieldPath| format!("because it is defined in {seen}");
    if let Some(of) = items(v) {
        let (at, seen) = (at.child("items"), seen.child("items"));
        match items(s) {
            Some(s) => complete(of, s, &at, &seen, errs),
            None => errs.required(&at, &because(&seen)),
        }
    }
    for (name, of) in v.properties.iter().flatten() {
        let (at, seen) = (at.child("properties").key(name), seen.child("properties").key(name));
        match s.properties.iter().flatten().find(|(n, _)| *n == name) {
            Some((_, s)) => complete(of, s, &at, &seen, errs),
            None => errs.required(&at, &because(&seen)),
        }
    }
}
