//! The paths of OpenAPI documents: for each kind the operations on collections, objects and subresources, with the
//! extensions by which kubectl finds them.

use serde_json::{Map, Value, json};

use super::{
    prefix,
    schemas::{gvk, reference},
};
use crate::{
    discovery::{self, ResponseKind},
    kind::{Names, Scope, Storage},
    object::{KindRef, SubresourceBehaviour, SubresourceInfo},
    patch::PatchBody,
};

/// Adds the paths of one kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &KindRef) {
    let names = kind.names();
    let root = format!("/{}", prefix(names.group, names.version));
    let namespaced = kind.scope() == Scope::Namespaced;
    let collection = if namespaced {
        if kind.storage() == Storage::Stored {
            paths.insert(format!("{root}/{}", names.plural), all_namespaces(kind));
        }
        format!("{root}/namespaces/{{namespace}}/{}", names.plural)
    } else {
        format!("{root}/{}", names.plural)
    };
    if kind.storage() == Storage::Answered {
        let what = scoped(kind, namespaced);
        let item = json!({ "post": operation(kind, "post", &what), "parameters": shared(namespaced, false) });
        paths.insert(collection, item);
        return;
    }
    paths.insert(collection.clone(), collection_item(kind, namespaced));
    let object = format!("{collection}/{{name}}");
    paths.insert(object.clone(), object_item(kind, namespaced));
    for sub in kind.subresources() {
        paths.insert(format!("{object}/{}", sub.name), subresource_item(kind, namespaced, &sub));
    }
}

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LOG: &[&str] =
    &["container", "follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps"];

fn parameter(name: &str) -> Value {
    let kind = match name {
        "allowWatchBookmarks"
        | "sendInitialEvents"
        | "watch"
        | "force"
        | "orphanDependents"
        | "follow"
        | "previous"
        | "timestamps" => "boolean",
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" | "limitBytes" | "sinceSeconds" | "tailLines" => "integer",
        _ => "string",
    };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}

/// The parameters that the whole path shares.
fn shared(namespaced: bool, named: bool) -> Value {
    let namespace = namespaced.then(|| path_parameter("namespace"));
    let name = named.then(|| path_parameter("name"));
    name.into_iter().chain(namespace).collect()
}

struct Operation<'a> {
    action: &'a str,
    id: String,
    names: &'a Names,
    kind: Value,
    query: &'a [&'a str],
    answer: Value,
    body: Option<Value>,
}

impl Operation<'_> {
    fn json(self) -> Value {
        let parameters: Vec<Value> = self.query.iter().map(|name| parameter(name)).collect();
        let tag = format!("{}_{}", self.names.group.split('.').next().unwrap_or_default(), self.names.version);
        let mut out = json!({
            "operationId": self.id,
            "tags": [tag.trim_start_matches('_')],
            "parameters": parameters,
            "responses": {
                "200": { "description": "OK", "content": { "application/json": { "schema": self.answer } } },
                "401": { "description": "Unauthorized" },
            },
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.kind,
        });
        if let Some(body) = self.body {
            out["requestBody"] = json!({ "required": true, "content": body });
        }
        out
    }
}

fn json_body(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema }, "application/yaml": { "schema": schema } })
}

fn patch_body() -> Value {
    let types = PatchBody::MEDIA_TYPES.iter();
    types.map(|t| ((*t).to_owned(), json!({ "schema": { "type": "object" } }))).collect::<Map<_, _>>().into()
}

/// `Core`, `Apps`, `NetworkingK8sIo`: part of the ids of operations.
fn id(verb: &str, names: &Names, what: &str) -> String {
    let group = if names.group.is_empty() { "core" } else { names.group };
    let camel = |part: &str| {
        let mut chars = part.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    let group: String = group.trim_end_matches(".k8s.io").split(['.', '-']).map(camel).collect();
    format!("{verb}{group}{}{what}", camel(names.version))
}

fn operation(kind: &KindRef, action: &str, what: &str) -> Value {
    let names = kind.names();
    let own = reference(&kind.schema_name());
    let list = reference(&format!("{}List", kind.schema_name()));
    let status = json!({ "type": "object" });
    let (verb, query, answer, body) = match action {
        "list" => ("list", LIST, list, None),
        "get" => ("read", &["resourceVersion"][..], own, None),
        "post" => ("create", WRITE, own.clone(), Some(json_body(&own))),
        "put" => ("replace", WRITE, own.clone(), Some(json_body(&own))),
        "patch" => ("patch", PATCH, own, Some(patch_body())),
        "deletecollection" => ("deleteCollection", LIST, status, None),
        _ => ("delete", DELETE, status, None),
    };
    let id = id(verb, &names, what);
    Operation { action, id, names: &names, kind: gvk(&names, names.kind), query, answer, body }.json()
}

fn all_namespaces(kind: &KindRef) -> Value {
    let what = format!("{}ForAllNamespaces", kind.names().kind);
    json!({ "get": operation(kind, "list", &what) })
}

fn collection_item(kind: &KindRef, namespaced: bool) -> Value {
    let what = scoped(kind, namespaced);
    let mut item = json!({
        "get": operation(kind, "list", &what),
        "post": operation(kind, "post", &what),
        "parameters": shared(namespaced, false),
    });
    if discovery::verbs(kind).contains(&"deletecollection") {
        item["delete"] = operation(kind, "deletecollection", &what);
    }
    item
}

fn scoped(kind: &KindRef, namespaced: bool) -> String {
    format!("{}{}", if namespaced { "Namespaced" } else { "" }, kind.names().kind)
}

fn object_item(kind: &KindRef, namespaced: bool) -> Value {
    let what = scoped(kind, namespaced);
    json!({
        "get": operation(kind, "get", &what),
        "put": operation(kind, "put", &what),
        "patch": operation(kind, "patch", &what),
        "delete": operation(kind, "delete", &what),
        "parameters": shared(namespaced, true),
    })
}

/// Subresources that speak their kind refer to its schema; the others (`Scale`, `Binding`) are plain objects here.
fn subresource_item(kind: &KindRef, namespaced: bool, sub: &SubresourceInfo) -> Value {
    let names = kind.names();
    let speaks = ResponseKind::of_subresource(&names, sub);
    let own = speaks == ResponseKind::of(&names);
    let schema = if own { reference(&kind.schema_name()) } else { json!({ "type": "object" }) };
    let suffix: String =
        sub.name.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(sub.name.chars().skip(1)).collect();
    let what = format!("{}{suffix}", scoped(kind, namespaced));
    let is_text = matches!(sub.behaviour, SubresourceBehaviour::Verb(crate::kind::Verb::Log));
    let mut item = json!({ "parameters": shared(namespaced, true) });
    for verb in discovery::subresource_verbs(sub) {
        let (method, id_verb, query, body) = match *verb {
            "get" if is_text => ("get", "read", LOG, None),
            "get" => ("get", "read", &[][..], None),
            "create" => ("post", "create", WRITE, Some(json_body(&schema))),
            "patch" => ("patch", "patch", PATCH, Some(patch_body())),
            _ => ("put", "replace", WRITE, Some(json_body(&schema))),
        };
        let operation = Operation {
            action: method,
            id: id(id_verb, &names, &what),
            names: &names,
            kind: json!({ "group": speaks.group, "version": speaks.version, "kind": speaks.kind }),
            query,
            answer: if is_text { json!({ "type": "string" }) } else { schema.clone() },
            body,
        };
        item[method] = operation.json();
    }
    item
}
