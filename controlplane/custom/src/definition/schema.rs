//! The schema of one version: what it may not have, what its extensions ask for, its defaults, its rules.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use podium_api::{FieldErrors, FieldPath};
use serde_json::{Value, json};

use super::rules;
use crate::schema::{Schema, additional, items, structural_errors};

/// Fields that the root may have beside a status subresource.
const AT_ROOT: [&str; 22] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

pub(super) fn check(
    props: &JSONSchemaProps,
    old: Option<&JSONSchemaProps>,
    has_status: bool,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let before = errs.0.len();
    if has_status {
        check_root(props, path, errs);
    }
    if props.nullable == Some(true) {
        errs.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    let structural = structural_errors(path, props);
    let is_structural = structural.is_empty();
    errs.0.extend(structural.0);
    if is_structural {
        let mut schema = Schema::new(props);
        schema.resource = true;
        check_defaults(&schema, path, true, errs);
    }
    Walk { errs, forbidden: None, in_meta: false }.schema(props, path, true);
    if errs.0.len() == before {
        rules::check(props, old == Some(props), path, errs);
    }
}

fn check_root(props: &JSONSchemaProps, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = props.type_.as_deref().unwrap_or_default();
    if !kind.is_empty() && kind != "object" {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errs.invalid(&path.child("type"), kind, detail);
        return;
    }
    let Ok(Value::Object(given)) = serde_json::to_value(props) else { return };
    if given.keys().any(|name| !AT_ROOT.contains(&name.as_str())) {
        let allowed = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                       MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties \
                       ExternalDocs Example XPreserveUnknownFields XValidations]";
        let detail =
            format!("only {allowed} fields are allowed at the root of the schema if the status subresource is enabled");
        errs.invalid(path, Value::Object(given), &detail);
    }
}

/// Defaults must have nothing that would be pruned, and be valid.
fn check_defaults(schema: &Schema, path: &FieldPath, root: bool, errs: &mut FieldErrors) {
    if let (Some(default), false) = (&schema.default, root) {
        let at = path.child("default");
        let mut pruned = default.clone();
        schema.prune(&mut pruned, false);
        if pruned != *default {
            errs.invalid(&at, default.clone(), "must not have unknown fields");
        } else {
            let mut filled = default.clone();
            schema.fill_defaults(&mut filled);
            let mut wrong = FieldErrors::new();
            schema.check(&filled, None, &mut wrong);
            schema.check_lists(&FieldPath::default(), &filled, &mut wrong);
            if wrong.is_empty() {
                schema.check_rules(&filled, None, &mut wrong);
            }
            for mut error in wrong.0 {
                let below = error.field.to_string();
                let below = if below == "<nil>" { String::new() } else { below };
                error.field = match (below.is_empty(), below.starts_with('[')) {
                    (true, _) => at.clone(),
                    (_, true) => FieldPath::new(&format!("{at}{below}")),
                    _ => at.child(&below),
                };
                errs.0.push(error);
            }
        }
    }
    for (name, of) in &schema.properties {
        check_defaults(of, &path.child("properties").key(name), false, errs);
    }
    if let Some(of) = &schema.items {
        check_defaults(of, &path.child("items"), false, errs);
    }
    if let crate::schema::Additional::Schema(of) = &schema.additional {
        check_defaults(of, &path.child("additionalProperties"), false, errs);
    }
}

struct Walk<'e> {
    errs: &'e mut FieldErrors,
    /// Why there may be no defaults here.
    forbidden: Option<String>,
    in_meta: bool,
}

impl Walk<'_> {
    fn with<T>(&mut self, forbidden: Option<String>, in_meta: bool, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = (self.forbidden.clone(), self.in_meta);
        self.forbidden = self.forbidden.take().or(forbidden);
        self.in_meta |= in_meta;
        let result = run(self);
        (self.forbidden, self.in_meta) = before;
        result
    }

    fn schema(&mut self, s: &JSONSchemaProps, path: &FieldPath, root: bool) {
        self.standard(s, path);
        if s.unique_items == Some(true) {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errs.forbidden(&path.child("uniqueItems"), detail);
        }
        self.properties(s, path, root);
        if let Some(of) = &s.not {
            self.schema(of, &path.child("not"), false);
        }
        for (name, list) in [("allOf", &s.all_of), ("oneOf", &s.one_of), ("anyOf", &s.any_of)] {
            for (i, of) in list.iter().flatten().enumerate() {
                self.schema(of, &path.child(name).index(i), false);
            }
        }
        if let Some(of) = items(s) {
            self.schema(of, &path.child("items"), false);
        }
        if s.x_kubernetes_preserve_unknown_fields == Some(false) {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errs.invalid(&at, false, "must be true or undefined");
        }
        self.map_type(s, path);
        self.list_type(s, path);
        if s.x_kubernetes_list_type.as_deref() == Some("map") {
            self.list_map(s, path);
        }
        self.list_items(s, path);
    }

    fn properties(&mut self, s: &JSONSchemaProps, path: &FieldPath, root: bool) {
        let properties = s.properties.iter().flatten();
        if let Some(given) = &s.additional_properties {
            let at = path.child("additionalProperties");
            let allows_any = matches!(given, JSONSchemaPropsOrBool::Bool(true));
            if properties.clone().next().is_some() && !allows_any {
                self.errs.forbidden(&at, "additionalProperties and properties are mutual exclusive");
            }
            if let Some(of) = additional(s) {
                let reason = "inside additionalProperties applying to object metadata".to_owned();
                let forbidden = self.in_meta.then_some(reason);
                self.with(forbidden, false, |w| w.schema(of, &at, false));
            }
        }
        let embedded = s.x_kubernetes_embedded_resource == Some(true);
        for (name, of) in properties {
            let is_meta = (root || embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
            let forbidden = (is_meta && root).then(|| format!("in top-level {name}"));
            self.with(forbidden, is_meta, |w| w.schema(of, &path.child("properties").key(name), false));
        }
    }

    fn standard(&mut self, s: &JSONSchemaProps, path: &FieldPath) {
        const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        let kind = s.type_.as_deref().unwrap_or_default();
        if !kind.is_empty() && !TYPES.contains(&kind) {
            self.errs.not_supported(&path.child("type"), kind, &TYPES);
        }
        if let (Some(_), Some(reason)) = (&s.default, &self.forbidden) {
            self.errs.forbidden(&path.child("default"), &format!("must not be set {reason}"));
        }
        for (name, given) in [
            ("id", s.id.as_deref().is_some_and(|id| !id.is_empty())),
            ("additionalItems", s.additional_items.is_some()),
            ("patternProperties", s.pattern_properties.iter().flatten().next().is_some()),
            ("definitions", s.definitions.iter().flatten().next().is_some()),
            ("dependencies", s.dependencies.is_some()),
            ("$ref", s.ref_path.is_some()),
        ] {
            if given {
                self.errs.forbidden(&path.child(name), &format!("{name} is not supported"));
            }
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.errs.forbidden(&path.child("type"), detail);
        }
        if matches!(&s.items, Some(JSONSchemaPropsOrArray::Schemas(_))) {
            self.errs.forbidden(&path.child("items"), "items must be a schema object and not an array");
        }
        if self.in_meta && s.x_kubernetes_embedded_resource == Some(true) {
            let at = path.child("x-kubernetes-embedded-resource");
            self.errs.forbidden(&at, "must not be used inside of resource meta");
        }
    }

    /// An extension that asks for a type.
    fn needs(&mut self, s: &JSONSchemaProps, path: &FieldPath, wanted: &str, because: &str) -> bool {
        let kind = s.type_.as_deref().unwrap_or_default();
        let detail = format!("must be {wanted} if {because} is specified");
        match kind {
            _ if kind == wanted => return true,
            "" => self.errs.required(&path.child("type"), &detail),
            _ => self.errs.invalid(&path.child("type"), kind, &detail),
        }
        false
    }

    fn map_type(&mut self, s: &JSONSchemaProps, path: &FieldPath) {
        let Some(given) = s.x_kubernetes_map_type.as_deref() else { return };
        self.needs(s, path, "object", "x-kubernetes-map-type");
        if given != "atomic" && given != "granular" {
            self.errs.not_supported(&path.child("x-kubernetes-map-type"), given, &["atomic", "granular"]);
        }
    }

    fn list_type(&mut self, s: &JSONSchemaProps, path: &FieldPath) {
        let at = path.child("x-kubernetes-list-type");
        let given = s.x_kubernetes_list_type.as_deref();
        let keys = s.x_kubernetes_list_map_keys.iter().flatten().next().is_some();
        if let Some(given) = given {
            let fits = self.needs(s, path, "array", "x-kubernetes-list-type");
            if let (true, "set", Some(of)) = (fits, given, items(s)) {
                self.set_items(of, path);
            }
            if !matches!(given, "atomic" | "set" | "map") {
                self.errs.not_supported(&at, given, &["atomic", "set", "map"]);
            }
        }
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match given {
            None if keys => self.errs.required(&at, detail),
            Some(other) if keys && other != "map" => self.errs.invalid(&at, other, detail),
            _ => {}
        }
    }

    fn set_items(&mut self, of: &JSONSchemaProps, path: &FieldPath) {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (list, map) = (of.x_kubernetes_list_type.as_deref(), of.x_kubernetes_map_type.as_deref());
        match of.type_.as_deref() {
            Some("array") if list.is_some_and(|l| l != "atomic") => {
                self.errs.invalid(&path.child("items").child("x-kubernetes-list-type"), list, detail);
            }
            Some("object") if map != Some("atomic") => {
                self.errs.invalid(&path.child("items").child("x-kubernetes-map-type"), map, detail);
            }
            _ => {}
        }
    }

    fn list_map(&mut self, s: &JSONSchemaProps, path: &FieldPath) {
        let keys = s.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
        let at = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            self.errs.required(&at, "must not be empty if x-kubernetes-list-type is map");
        }
        let Some(of) = items(s) else {
            if s.items.is_none() {
                self.errs.required(&path.child("items"), "must have a schema if x-kubernetes-list-type is map");
            }
            return;
        };
        let kind = of.type_.as_deref().unwrap_or_default();
        if kind != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.errs.invalid(&path.child("items").child("type"), kind, detail);
            return;
        }
        for (i, key) in keys.iter().enumerate() {
            match of.properties.as_ref().and_then(|p| p.get(key)) {
                Some(p) if matches!(p.type_.as_deref(), Some("array" | "object")) => {
                    let at = path.child("items").child("properties").key(key).child("type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errs.invalid(&at, kind, detail);
                }
                Some(_) => {}
                None => self.errs.invalid(&at, json!(keys), "entries must all be names of item properties"),
            }
            if keys[..i].contains(key) {
                self.errs.invalid(&at, json!(keys), "must not contain duplicate entries");
            }
        }
    }

    /// Items of sets and maps are no nulls, and have their keys.
    fn list_items(&mut self, s: &JSONSchemaProps, path: &FieldPath) {
        let (Some(of), Some(list @ ("set" | "map"))) = (items(s), s.x_kubernetes_list_type.as_deref()) else { return };
        let at = path.child("items");
        if of.nullable == Some(true) {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
            self.errs.forbidden(&at.child("nullable"), &detail);
        }
        for key in s.x_kubernetes_list_map_keys.iter().flatten().filter(|_| list == "map") {
            let Some(property) = of.properties.as_ref().and_then(|p| p.get(key)) else { continue };
            let at = at.child("properties").key(key);
            if property.default.is_none() && !of.required.iter().flatten().any(|r| r == key) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.errs.required(&at.child("default"), detail);
            }
            if property.nullable == Some(true) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.errs.forbidden(&at.child("nullable"), detail);
            }
        }
    }
}
