//! From the schemas of the types to those of OpenAPI documents: list types, merge keys, kinds, lists, and references
//! that nothing stands beside.
//!
//! Schemas of custom resources are told as their definitions say: only their lists are added.

use std::sync::LazyLock;

use k8s_openapi::{
    api::{authentication::v1::TokenRequest, autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction},
    apimachinery::pkg::{
        apis::meta::v1::{
            APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ListMeta, Patch, Status, WatchEvent,
        },
        runtime::RawExtension,
        version::Info,
    },
    schemars::SchemaGenerator,
};
use serde_json::{Map, Value, json};

use super::is_builtin;
use crate::{
    kind::{Names, Verb},
    object::{KindRef, SubresourceBehaviour, SubresourceInfo},
    schema::{Extension, ListWord, REF_PREFIX, generator, list_extension},
};

/// What the names of the schemas of `meta/v1` begin with.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";
const BINDING: &str = "io.k8s.api.core.v1.Binding";
const TOKEN: &str = "io.k8s.api.authentication.v1.TokenRequest";

/// The schema of what a subresource speaks, when it is not that of its kind.
pub(super) fn spoken(sub: &SubresourceInfo) -> Option<&'static str> {
    match sub.behaviour {
        SubresourceBehaviour::Scale => Some(SCALE),
        SubresourceBehaviour::Verb(Verb::Eviction) => Some(EVICTION),
        SubresourceBehaviour::Verb(Verb::Binding) => Some(BINDING),
        SubresourceBehaviour::Verb(Verb::Token) => Some(TOKEN),
        _ => None,
    }
}

/// The schemas of these kinds, their lists, and all that their operations speak.
pub(super) fn of_kinds(kinds: &[KindRef]) -> Map<String, Value> {
    let mut generator = generator();
    for kind in kinds {
        kind.schema(&mut generator);
        kind.subresources().iter().filter_map(spoken).for_each(|name| add_spoken(&mut generator, name));
    }
    generator.subschema_for::<Status>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<Patch>();
    generator.subschema_for::<WatchEvent<RawExtension>>();
    generator.subschema_for::<APIResourceList>();
    let mut schemas = finished(generator);
    for kind in kinds {
        let (names, name) = (kind.names(), kind.schema_name());
        let own = json!([gvk(&names, names.kind)]);
        if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), own);
        }
        schemas.insert(format!("{name}List"), list(&names, &name));
    }
    mark_options(&mut schemas, kinds);
    schemas
}

/// The schemas of what tells of the API itself.
pub(super) fn of_discovery() -> Map<String, Value> {
    let mut generator = generator();
    generator.subschema_for::<APIGroup>();
    generator.subschema_for::<APIGroupList>();
    generator.subschema_for::<APIVersions>();
    generator.subschema_for::<Info>();
    finished(generator)
}

fn add_spoken(generator: &mut SchemaGenerator, name: &str) {
    match name {
        SCALE => generator.subschema_for::<Scale>(),
        EVICTION => generator.subschema_for::<Eviction>(),
        BINDING => generator.subschema_for::<Binding>(),
        _ => generator.subschema_for::<TokenRequest>(),
    };
}

/// What is a kind, though no resource.
const KINDS: &[(&str, &str, &str, &str)] = &[
    (SCALE, "autoscaling", "v1", "Scale"),
    (EVICTION, "policy", "v1", "Eviction"),
    (BINDING, "", "v1", "Binding"),
    (TOKEN, "authentication.k8s.io", "v1", "TokenRequest"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "", "v1", "Status"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup", "", "v1", "APIGroup"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList", "", "v1", "APIGroupList"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList", "", "v1", "APIResourceList"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions", "", "v1", "APIVersions"),
];

fn finished(mut generator: SchemaGenerator) -> Map<String, Value> {
    let mut schemas = generator.take_definitions(false);
    for (name, schema) in &mut schemas {
        if is_builtin(name) {
            finish(name, schema);
        }
        wrap_references(schema);
    }
    for (name, group, version, kind) in KINDS {
        if let Some(Value::Object(schema)) = schemas.get_mut(*name) {
            let own = json!([{ "group": group, "version": version, "kind": kind }]);
            schema.insert("x-kubernetes-group-version-kind".to_owned(), own);
        }
    }
    schemas
}

fn finish(name: &str, schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    drop_required_metadata(schema);
    spell_out_alternatives(name, schema);
    if let Some(extension) = list_extension(name, ".") {
        extend(schema, extension);
    }
    if let Some((_, fields)) = UNIONS.iter().find(|(of, _)| *of == name) {
        let by: Map<String, Value> = fields.iter().map(|(f, v)| ((*f).to_owned(), (*v).into())).collect();
        let union = json!([{ "discriminator": "type", "fields-to-discriminateBy": by }]);
        schema.insert("x-kubernetes-unions".to_owned(), union);
    }
    let keys = map_key_defaults();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (field, property) in properties {
        let Value::Object(property) = property else { continue };
        finish_field(name, field, property);
        if let Some((_, _, default)) = keys.iter().find(|(of, key, _)| of == name && key == field) {
            property.insert("default".to_owned(), default.clone());
        }
    }
}

/// Tagged unions: the field `type` says which of the others is set.
const UNIONS: &[(&str, &[(&str, &str)])] = &[
    ("io.k8s.api.core.v1.AppArmorProfile", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.core.v1.SeccompProfile", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", &[("queuing", "Queuing")]),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", &[("exempt", "Exempt"), ("limited", "Limited")]),
];

/// Keys of lists that may be left out, with what they then are: schema of the items, field, value.
fn map_key_defaults() -> &'static [(String, String, Value)] {
    static KEYS: LazyLock<Vec<(String, String, Value)>> = LazyLock::new(|| {
        let of = |schema: &str, list: &str, field: &str| {
            let keys = list_extension(schema, list).map(|e| e.keys.as_slice()).unwrap_or_default();
            keys.iter().find(|k| &*k.name == field).and_then(|k| k.default.clone())
        };
        let known = [
            ("io.k8s.api.core.v1.Container", "ports", "io.k8s.api.core.v1.ContainerPort", "protocol"),
            ("io.k8s.api.core.v1.ServiceSpec", "ports", "io.k8s.api.core.v1.ServicePort", "protocol"),
        ];
        let entry = |(schema, list, item, field): (&str, &str, &str, &str)| {
            Some((item.to_owned(), field.to_owned(), of(schema, list, field)?))
        };
        known.into_iter().filter_map(entry).collect()
    });
    &KEYS
}

fn extend(to: &mut Map<String, Value>, extension: &Extension) {
    for (key, value) in extension.properties() {
        to.insert(key.to_owned(), value);
    }
}

fn finish_field(schema: &str, field: &str, property: &mut Map<String, Value>) {
    let extension = list_extension(schema, field);
    if let Some(extension) = extension {
        extend(property, extension);
        if extension.by_value && property.contains_key("$ref") {
            property.insert("default".to_owned(), json!({}));
        }
    }
    let listed = extension.is_some_and(|e| matches!(e.list, Some(ListWord::Set | ListWord::Map)));
    if property.get("type") == Some(&"array".into()) && !listed {
        property.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
    }
}

/// `DeleteOptions` and events of watches are spoken in every group version.
fn mark_options(schemas: &mut Map<String, Value>, kinds: &[KindRef]) {
    static BUILTIN: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
        let kinds = crate::kinds::served();
        kinds.iter().map(|k| (k.names().group, k.names().version)).collect()
    });
    let mut all = BUILTIN.clone();
    all.extend(kinds.iter().filter(|k| is_builtin(&k.schema_name())).map(|k| (k.names().group, k.names().version)));
    all.push(("", "v1"));
    all.sort_unstable();
    all.dedup();
    for kind in ["DeleteOptions", "WatchEvent"] {
        let Some(Value::Object(schema)) = schemas.get_mut(&format!("{META}{kind}")) else { continue };
        let every = all.iter().map(|(group, version)| json!({ "group": group, "version": version, "kind": kind }));
        schema.insert("x-kubernetes-group-version-kind".to_owned(), every.collect());
    }
}

/// The types ask for metadata, Kubernetes does not: the server names what is missing in it.
fn drop_required_metadata(schema: &mut Map<String, Value>) {
    let refers = schema.get("properties").and_then(|p| p.get("metadata")?.get("$ref")?.as_str());
    if !refers.is_some_and(|r| r.ends_with("ObjectMeta") || r.ends_with("ListMeta")) {
        return;
    }
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|field| field != "metadata");
    if required.is_empty() {
        schema.remove("required");
    }
}

pub(super) fn gvk(names: &Names, kind: &str) -> Value {
    json!({ "group": names.group, "version": names.version, "kind": kind })
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{REF_PREFIX}{name}") })
}

/// `{$ref, description}` becomes `{allOf: [{$ref}], description}`: OpenAPI 3.0 ignores what stands beside `$ref`.
fn wrap_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(wrap_references);
            if fields.len() > 1
                && fields.get("$ref").is_some_and(Value::is_string)
                && let Some(target) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{ "$ref": target }]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_references),
        _ => {}
    }
}

fn spell_out_alternatives(name: &str, schema: &mut Map<String, Value>) {
    let alternatives = match name.rsplit('.').next() {
        Some("IntOrString") => {
            schema.insert("format".to_owned(), "int-or-string".into());
            json!([{ "type": "integer" }, { "type": "string" }])
        }
        Some("Quantity") => json!([{ "type": "string" }, { "type": "number" }]),
        // Kubernetes leaves open what they may be.
        Some("JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray") => {
            schema.remove("oneOf");
            schema.remove("type");
            return;
        }
        _ => return,
    };
    schema.remove("x-kubernetes-int-or-string");
    schema.insert("oneOf".to_owned(), alternatives);
}

const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

fn list(names: &Names, item: &str) -> Value {
    let kind = format!("{}List", names.kind);
    json!({
        "description": format!("{kind} is a list of {}", names.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {
                "description": format!(
                    "APIVersion defines the versioned schema of this representation of an object. Servers should \
                     convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                     More info: {CONVENTIONS}#resources"
                ),
                "type": "string",
            },
            "items": {
                "description": format!("List of {}. More info: {CONVENTIONS}", names.plural),
                "type": "array",
                "items": reference(item),
            },
            "kind": {
                "description": format!(
                    "Kind is a string value representing the REST resource this object represents. Servers may infer \
                     this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More \
                     info: {CONVENTIONS}#types-kinds"
                ),
                "type": "string",
            },
            "metadata": {
                "description": format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds"),
                "allOf": [reference(&format!("{META}ListMeta"))],
            },
        },
        "x-kubernetes-group-version-kind": [gvk(names, &kind)],
    })
}
