//! Printer columns, selectable fields and the paths of the scale subresource.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionVersion, CustomResourceSubresourceScale, JSONSchemaProps,
};
use podium_api::{FieldErrors, FieldPath};

const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Fields that selectors may name.
const SELECTABLE_MAX: usize = 8;

pub(super) fn check(version: &CustomResourceDefinitionVersion, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(scale) = version.subresources.as_ref().and_then(|s| s.scale.as_ref()) {
        check_scale(scale, &path.child("subresources"), errs);
    }
    for (i, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        check_column(column, &path.child("additionalPrinterColumns").index(i), errs);
    }
    let fields = version.selectable_fields.as_deref().unwrap_or_default();
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let at = path.child("selectableFields");
    match schema {
        _ if fields.is_empty() => {}
        None => {
            let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
            errs.invalid(&at, "", detail);
        }
        Some(schema) => {
            let paths: Vec<&str> = fields.iter().map(|f| f.json_path.as_str()).collect();
            check_selectable(&paths, schema, &at, errs);
        }
    }
}

fn check_column(column: &CustomResourceColumnDefinition, path: &FieldPath, errs: &mut FieldErrors) {
    if column.name.is_empty() {
        errs.required(&path.child("name"), "");
    }
    let one_of = format!("must be one of {}", TYPES.join(","));
    if column.type_.is_empty() {
        errs.required(&path.child("type"), &one_of);
    } else if !TYPES.contains(&column.type_.as_str()) {
        errs.invalid(&path.child("type"), column.type_.as_str(), &one_of);
    }
    if let Some(format) = column.format.as_deref().filter(|f| !f.is_empty() && !FORMATS.contains(f)) {
        errs.invalid(&path.child("format"), format, &format!("must be one of {}", FORMATS.join(",")));
    }
    if column.json_path.is_empty() {
        errs.required(&path.child("JSONPath"), "");
    } else {
        simple_path(&column.json_path, &path.child("JSONPath"), errs);
    }
}

fn simple_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) -> bool {
    let right = text.starts_with('.');
    if !right {
        errs.invalid(path, text, "must be a simple json path starting with .");
    }
    right
}

fn check_scale(scale: &CustomResourceSubresourceScale, path: &FieldPath, errs: &mut FieldErrors) {
    for (name, text, below) in [
        ("scale.specReplicasPath", scale.spec_replicas_path.as_str(), ".spec"),
        ("scale.statusReplicasPath", scale.status_replicas_path.as_str(), ".status"),
    ] {
        let at = path.child(name);
        if text.is_empty() {
            errs.required(&at, "");
        } else if simple_path(text, &at, errs) && !text.starts_with(&format!("{below}.")) {
            errs.invalid(&at, text, &format!("should be a json path under {below}"));
        }
    }
    if let Some(text) = scale.label_selector_path.as_deref().filter(|t| !t.is_empty()) {
        let at = path.child("scale.labelSelectorPath");
        if simple_path(text, &at, errs) && !text.starts_with(".spec.") && !text.starts_with(".status.") {
            errs.invalid(&at, text, "should be a json path under either .spec or .status");
        }
    }
}

fn check_selectable(paths: &[&str], schema: &JSONSchemaProps, at: &FieldPath, errs: &mut FieldErrors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, text) in paths.iter().enumerate() {
        let at = at.index(i).child("jsonPath");
        if text.is_empty() {
            errs.required(&at, "");
            continue;
        }
        let found = match field(text, schema) {
            Ok(found) => found,
            Err(why) => {
                errs.invalid(&at, *text, &format!("is an invalid path: {why}"));
                continue;
            }
        };
        if text.starts_with(".metadata") {
            errs.invalid(&at, *text, "must not point to fields in metadata");
        }
        if !matches!(found.type_.as_deref(), Some("string" | "boolean" | "integer")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errs.invalid(&at, *text, detail);
        }
        if seen.contains(text) {
            errs.duplicate(&at, *text);
        } else {
            seen.push(text);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errs.too_many(at, seen.len(), SELECTABLE_MAX);
    }
}

/// The schema that a path of fields leads to.
pub(super) fn field<'s>(text: &str, schema: &'s JSONSchemaProps) -> Result<&'s JSONSchemaProps, String> {
    let rest = text.strip_prefix('.').ok_or("expected [ or . but got: ".to_owned() + text)?;
    let mut at = schema;
    for name in rest.split('.') {
        if name.contains(['[', ']']) {
            return Err("array notation is not allowed".to_owned());
        }
        at = at
            .properties
            .as_ref()
            .and_then(|p| p.get(name))
            .ok_or_else(|| "does not refer to a valid field".to_owned())?;
    }
    Ok(at)
}
