//! The paths of OpenAPI documents: for each kind the operations on collections, objects and subresources, with the
//! extensions by which kubectl finds them.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/installer.go` and `pkg/endpoints/openapi/openapi.go`.

use serde_json::{Map, Value, json};

use super::{
    is_builtin, parameters, prefix,
    schemas::{META, gvk, reference},
};
use crate::{
    discovery::{self, ResponseKind},
    kind::{Names, Scope, Storage, Verb},
    object::{KindRef, SubresourceBehaviour, SubresourceInfo},
    patch::PatchBody,
};

/// Adds the paths of one kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &KindRef) {
    let names = kind.names();
    let root = format!("/{}", prefix(names.group, names.version));
    let kind = Described::new(kind);
    let plural = names.plural;
    let place = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("{root}/{place}{plural}");
    if kind.kind.storage() == Storage::Answered {
        paths.insert(collection, kind.path(false, [("post", kind.post())]));
        return;
    }
    if kind.kind.storage() == Storage::Computed {
        let list = kind.list_operation("list", kind.id("list"));
        paths.insert(collection.clone(), kind.path(false, [("get", list)]));
        paths.insert(format!("{collection}/{{name}}"), kind.path(true, [("get", kind.read())]));
        return;
    }
    if kind.namespaced {
        paths.insert(format!("{root}/{plural}"), all_namespaces(&kind, "list"));
        paths.insert(format!("{root}/watch/{plural}"), all_namespaces(&kind, "watchlist"));
    }
    paths.insert(collection.clone(), kind.collection());
    let object = format!("{collection}/{{name}}");
    paths.insert(object.clone(), kind.object());
    let watch = format!("{root}/watch/{place}{plural}");
    paths.insert(watch.clone(), kind.path(false, [("get", kind.watch("watchlist"))]));
    paths.insert(format!("{watch}/{{name}}"), kind.path(true, [("get", kind.watch("watch"))]));
    for sub in kind.kind.subresources() {
        paths.insert(format!("{object}/{}", sub.name), kind.subresource(&sub));
        if sub.behaviour == SubresourceBehaviour::Verb(Verb::Proxy) {
            paths.insert(format!("{object}/{}/{{path}}", sub.name), kind.passed_on(&sub, true));
        }
    }
}

/// Adds the path that lists the resources of a group version.
pub(super) fn add_resource_list(paths: &mut Map<String, Value>, group: &str, version: &str) {
    let id = format!("get{}APIResources", group_version_id(group, version));
    let operation = about(&id, &tag(group, version), "get available resources", "APIResourceList");
    paths.insert(format!("/{}/", prefix(group, version)), json!({ "get": operation }));
}

/// An operation that tells of the API itself.
pub(super) fn about(id: &str, tag: &str, description: &str, answer: &str) -> Value {
    let name = if answer.contains('.') { answer.to_owned() } else { format!("{META}{answer}") };
    json!({
        "operationId": id, "tags": [tag], "description": description, "parameters": [],
        "responses": responses(&[("200", "OK")], &reference(&name), false),
    })
}

fn all_namespaces(kind: &Described<'_>, action: &str) -> Value {
    let (verb, what) = match action {
        "list" => ("list", format!("{}ForAllNamespaces", kind.names.kind)),
        _ => ("watch", format!("{}ListForAllNamespaces", kind.names.kind)),
    };
    let operation = kind.list_operation(action, group_id(verb, &kind.names, &what));
    let mut item = json!({ "get": operation });
    item["parameters"] = Vec::<Value>::new().into();
    item
}

/// A kind, and what its operations have in common.
struct Described<'a> {
    kind: &'a KindRef,
    names: Names,
    namespaced: bool,
    own: Value,
}

struct Operation<'a> {
    action: &'a str,
    id: String,
    description: String,
    query: &'a [&'a str],
    body: Option<Value>,
    responses: Value,
    speaks: Value,
}

impl<'a> Described<'a> {
    fn new(kind: &'a KindRef) -> Self {
        let names = kind.names();
        let own = reference(&kind.schema_name());
        Self { kind, names, namespaced: kind.scope() == Scope::Namespaced, own }
    }

    /// `NamespacedPod`
    fn scoped(&self) -> String {
        format!("{}{}", if self.namespaced { "Namespaced" } else { "" }, self.names.kind)
    }

    fn id(&self, verb: &str) -> String {
        group_id(verb, &self.names, &self.scoped())
    }

    fn operation(&self, operation: Operation<'_>) -> Value {
        let mut out = json!({
            "operationId": operation.id,
            "tags": [tag(self.names.group, self.names.version)],
            "description": operation.description,
            "parameters": parameters::query(operation.query),
            "responses": operation.responses,
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.speaks,
        });
        if let Some(body) = operation.body {
            out["requestBody"] = body;
        }
        out
    }

    fn own_operation(&self, action: &str, id: String, description: String) -> Operation<'static> {
        let action = match action {
            "get" => "get",
            "put" => "put",
            "patch" => "patch",
            "post" => "post",
            "delete" => "delete",
            _ => "deletecollection",
        };
        let (query, codes, body) = plain(action, &self.own, is_builtin(&self.kind.schema_name()));
        let status = reference(&format!("{META}Status"));
        let plain_status = action == "deletecollection" || action == "delete" && !self.kind.returns_deleted();
        let answer = if plain_status { &status } else { &self.own };
        let responses = responses(codes, answer, false);
        Operation { action, id, description, query, body, responses, speaks: gvk(&self.names, self.names.kind) }
    }

    fn post(&self) -> Value {
        let description = format!("create{}{}", article(self.names.kind), self.names.kind);
        self.operation(self.own_operation("post", self.id("create"), description))
    }

    fn list_operation(&self, action: &str, id: String) -> Value {
        let kind = self.names.kind;
        let (description, answer) = match action {
            "list" => (
                format!("list or watch objects of kind {kind}"),
                reference(&format!("{}List", self.kind.schema_name())),
            ),
            "watch" => (
                format!(
                    "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list \
                     operation instead, filtered to a single item with the 'fieldSelector' parameter."
                ),
                reference(&format!("{META}WatchEvent")),
            ),
            _ => (
                format!(
                    "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list \
                     operation instead."
                ),
                reference(&format!("{META}WatchEvent")),
            ),
        };
        let responses = responses(&[("200", "OK")], &answer, true);
        let speaks = gvk(&self.names, kind);
        self.operation(Operation { action, id, description, query: parameters::LIST, body: None, responses, speaks })
    }

    fn watch(&self, action: &str) -> Value {
        let what = if action == "watch" { self.scoped() } else { format!("{}List", self.scoped()) };
        self.list_operation(action, group_id("watch", &self.names, &what))
    }

    fn path<const N: usize>(&self, named: bool, operations: [(&str, Value); N]) -> Value {
        let mut item: Map<String, Value> = operations.into_iter().map(|(m, o)| (m.to_owned(), o)).collect();
        let shared = parameters::shared(self.namespaced, named.then_some(self.names.kind));
        item.insert("parameters".to_owned(), shared.into());
        item.into()
    }

    fn collection(&self) -> Value {
        let list = self.list_operation("list", self.id("list"));
        let mut item = self.path(false, [("get", list), ("post", self.post())]);
        if discovery::verbs(self.kind).contains(&"deletecollection") {
            let description = format!("delete collection of {}", self.names.kind);
            let id = group_id("delete", &self.names, &format!("Collection{}", self.scoped()));
            item["delete"] = self.operation(self.own_operation("deletecollection", id, description));
        }
        item
    }

    fn read(&self) -> Value {
        let description = format!("read the specified {}", self.names.kind);
        self.operation(self.own_operation("get", self.id("read"), description))
    }

    fn object(&self) -> Value {
        let kind = self.names.kind;
        let make = |action: &str, verb: &str, description: String| {
            self.operation(self.own_operation(action, self.id(verb), description))
        };
        let operations = [
            ("get", self.read()),
            ("put", make("put", "replace", format!("replace the specified {kind}"))),
            ("patch", make("patch", "patch", format!("partially update the specified {kind}"))),
            ("delete", make("delete", "delete", format!("delete{}{kind}", article(kind)))),
        ];
        self.path(true, operations)
    }

    fn subresource(&self, sub: &SubresourceInfo) -> Value {
        let speaks = ResponseKind::of_subresource(&self.names, sub);
        let schema = match super::schemas::spoken(sub) {
            Some(name) => reference(name),
            None => self.own.clone(),
        };
        let mut item = self.path(true, []);
        if let Some(query) = connected(sub) {
            return self.connections(item, sub, query, &speaks);
        }
        if sub.behaviour == SubresourceBehaviour::Verb(Verb::Proxy) {
            return self.passed_on(sub, false);
        }
        let raw = match sub.behaviour {
            SubresourceBehaviour::Verb(Verb::Log) => Some((parameters::LOG, text())),
            SubresourceBehaviour::Verb(Verb::CoreDump) => Some((parameters::CORE_DUMP, bytes())),
            _ => None,
        };
        for verb in discovery::subresource_verbs(sub) {
            let (method, id_verb, words) = match *verb {
                "get" => ("get", "read", "read"),
                "create" => ("post", "create", "create"),
                "patch" => ("patch", "patch", "partially update"),
                _ => ("put", "replace", "replace"),
            };
            let (query, codes, body) = plain(method, &schema, is_builtin(&self.kind.schema_name()));
            let (query, responses) = raw.clone().unwrap_or_else(|| (query, responses(codes, &schema, false)));
            let place = if method == "post" { article(self.names.kind) } else { " the specified " };
            item[method] = self.operation(Operation {
                action: method,
                id: group_id(id_verb, &self.names, &format!("{}{}", self.scoped(), camel(sub.name))),
                description: format!("{words} {} of{place}{}", sub.name, self.names.kind),
                query,
                body,
                responses,
                speaks: json!({ "group": speaks.group, "version": speaks.version, "kind": speaks.kind }),
            });
        }
        item
    }
}

impl Described<'_> {
    /// Operations that take the connection over.
    fn connections(
        &self,
        mut item: Value,
        sub: &SubresourceInfo,
        query: &'static [&'static str],
        speaks: &ResponseKind,
    ) -> Value {
        for method in ["get", "post"] {
            item[method] = self.connection((method, ""), sub, query, speaks);
        }
        item
    }

    /// Requests that are passed on, of every method. `path`: with one to pass on.
    fn passed_on(&self, sub: &SubresourceInfo, path: bool) -> Value {
        let speaks = ResponseKind::of_subresource(&self.names, sub);
        let query = match self.names.kind {
            "Pod" => parameters::POD_PROXY,
            "Service" => parameters::SERVICE_PROXY,
            _ => parameters::NODE_PROXY,
        };
        let mut item = self.path(true, []);
        let with = if path { "WithPath" } else { "" };
        for method in ["delete", "get", "head", "options", "patch", "post", "put"] {
            item[method] = self.connection((method, with), sub, query, &speaks);
        }
        if path && let Some(shared) = item["parameters"].as_array_mut() {
            shared.push(parameters::in_path("path", "path to the resource"));
        }
        item
    }

    fn connection(
        &self,
        (method, with): (&str, &str),
        sub: &SubresourceInfo,
        query: &'static [&'static str],
        speaks: &ResponseKind,
    ) -> Value {
        let what = format!("{}{}{}{with}", camel(method), self.scoped(), camel(sub.name));
        self.operation(Operation {
            action: "connect",
            id: group_id("connect", &self.names, &what),
            description: format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name, self.names.kind),
            query,
            body: None,
            responses: text(),
            speaks: json!({ "group": speaks.group, "version": speaks.version, "kind": speaks.kind }),
        })
    }
}

/// The query of a subresource that takes the connection over.
fn connected(sub: &SubresourceInfo) -> Option<&'static [&'static str]> {
    match sub.behaviour {
        SubresourceBehaviour::Verb(Verb::Exec) => Some(parameters::EXEC),
        SubresourceBehaviour::Verb(Verb::Attach) => Some(parameters::ATTACH),
        SubresourceBehaviour::Verb(Verb::PortForward) => Some(parameters::PORT_FORWARD),
        _ => None,
    }
}

type Codes = &'static [(&'static str, &'static str)];

/// Parameters, codes and body of the usual operations.
fn plain(action: &str, schema: &Value, strategic: bool) -> (&'static [&'static str], Codes, Option<Value>) {
    const OK: Codes = &[("200", "OK")];
    const WRITTEN: Codes = &[("200", "OK"), ("201", "Created")];
    const CREATED: Codes = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
    const DELETED: Codes = &[("200", "OK"), ("202", "Accepted")];
    let own = |required| Some(body(&["application/json", "application/yaml"], schema, required));
    let options = || {
        let schema = reference(&format!("{META}DeleteOptions"));
        Some(body(&["application/json", "application/yaml"], &schema, false))
    };
    match action {
        "get" => (parameters::GET, OK, None),
        "put" => (parameters::WRITE, WRITTEN, own(true)),
        "post" => (parameters::WRITE, CREATED, own(true)),
        "patch" => (parameters::PATCH, WRITTEN, Some(patch(strategic))),
        "delete" => (parameters::DELETE, DELETED, options()),
        _ => (parameters::DELETE_COLLECTION, OK, options()),
    }
}

fn body(types: &[&str], schema: &Value, required: bool) -> Value {
    let content: Map<_, _> = types.iter().map(|t| ((*t).to_owned(), json!({ "schema": schema }))).collect();
    let mut out = json!({ "content": content });
    if required {
        out["required"] = true.into();
    }
    out
}

/// All forms of patches; custom resources know no strategic ones.
fn patch(strategic: bool) -> Value {
    let known = PatchBody::MEDIA_TYPES.iter().copied();
    let types: Vec<&str> =
        known.chain(["application/apply-patch+yaml"]).filter(|t| strategic || !t.contains("strategic")).collect();
    body(&types, &reference(&format!("{META}Patch")), true)
}

fn responses(codes: &[(&str, &str)], answer: &Value, stream: bool) -> Value {
    let streams: &[&str] = if stream { &["application/json;stream=watch"] } else { &[] };
    let types: Vec<&str> = ["application/json", "application/yaml"].iter().chain(streams).copied().collect();
    let content: Map<_, _> = types.iter().map(|t| ((*t).to_owned(), json!({ "schema": answer }))).collect();
    let answer = |(code, text): &(&str, &str)| ((*code).to_owned(), json!({ "description": text, "content": content }));
    let mut out: Map<String, Value> = codes.iter().map(answer).collect();
    out.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
    out.into()
}

fn text() -> Value {
    json!({
        "200": { "description": "OK", "content": { "text/plain": { "schema": { "type": "string" } } } },
        "401": { "description": "Unauthorized" },
    })
}

fn bytes() -> Value {
    let mut bytes = text();
    let binary = json!({ "application/wasm": { "schema": { "type": "string", "format": "binary" } } });
    bytes["200"]["content"] = binary;
    bytes
}

/// ` a `, ` an ` or nothing before a plural.
fn article(noun: &str) -> &'static str {
    let noun = noun.to_ascii_lowercase();
    if noun.ends_with('s') && !noun.ends_with("ss") {
        " "
    } else if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        " an "
    } else {
        " a "
    }
}

fn camel(part: &str) -> String {
    let mut chars = part.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// `Core`, `Apps`, `RbacAuthorization`: how operations call a group.
pub(super) fn group_name(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).map(camel).collect()
}

fn group_version_id(group: &str, version: &str) -> String {
    group_name(group) + &camel(version)
}

/// `listCoreV1NamespacedPod`
fn group_id(verb: &str, names: &Names, what: &str) -> String {
    format!("{verb}{}{what}", group_version_id(names.group, names.version))
}

/// `rbacAuthorization`: the tag of a group.
pub(super) fn group_tag(group: &str) -> String {
    let name = group_name(group);
    let mut chars = name.chars();
    chars.next().map(|c| c.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_tag(group))
}
