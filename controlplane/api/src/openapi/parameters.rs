//! The parameters of operations, as OpenAPI v3 describes them.
//!
//! # Source
//! `parameters.json` holds the documentation of `ListOptions`, `UpdateOptions`, `PatchOptions`, `DeleteOptions` and
//! `PodLogOptions` (The Kubernetes Authors, Apache-2.0).

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
pub(super) const GET: &[&str] = &["pretty"];
pub(super) const WRITE: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation"];
pub(super) const PATCH: &[&str] = &["pretty", "dryRun", "patch/fieldManager", "fieldValidation", "force"];
pub(super) const DELETE: &[&str] = &["pretty", "dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
pub(super) const DELETE_COLLECTION: &[&str] = &[
    "pretty",
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
pub(super) const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];
pub(super) const CORE_DUMP: &[&str] = &["coredump/container", "coredump/list", "coredump/name"];
pub(super) const EXEC: &[&str] = &["command", "exec/container", "stderr", "stdin", "stdout", "tty"];
pub(super) const ATTACH: &[&str] = &["attach/container", "stderr", "stdin", "stdout", "tty"];
pub(super) const PORT_FORWARD: &[&str] = &["ports"];
pub(super) const POD_PROXY: &[&str] = &["pod/path"];
pub(super) const SERVICE_PROXY: &[&str] = &["service/path"];
pub(super) const NODE_PROXY: &[&str] = &["node/path"];

static KNOWN: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("parameters.json")).expect("invariant: parameters.json is well-formed")
});

/// Parameters of the query, by their names (`patch/fieldManager` where one has another meaning elsewhere).
pub(super) fn query(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| one(name)).collect()
}

fn one(name: &str) -> Value {
    let known = KNOWN.get(name).unwrap_or(&Value::Null);
    json!({
        "name": known["name"], "in": "query", "description": known["description"],
        "schema": { "type": known["type"], "uniqueItems": true },
    })
}

/// A parameter that is a part of the path.
pub(super) fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "description": description, "required": true,
        "schema": { "type": "string", "uniqueItems": true },
    })
}

/// The parameters that all operations of a path share. `named`: the kind whose object's name is in the path.
pub(super) fn shared(namespaced: bool, named: Option<&str>) -> Vec<Value> {
    let name = named.map(|kind| in_path("name", &format!("name of the {kind}")));
    let namespace =
        namespaced.then(|| in_path("namespace", "object name and auth scope, such as for teams and projects"));
    name.into_iter().chain(namespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_known() {
        let proxies = [POD_PROXY, SERVICE_PROXY, NODE_PROXY].concat();
        let others =
            [LIST, GET, WRITE, PATCH, DELETE, DELETE_COLLECTION, LOG, CORE_DUMP, EXEC, ATTACH, PORT_FORWARD].concat();
        for name in others.into_iter().chain(proxies) {
            let parameter = one(name);
            for key in ["name", "description"] {
                assert!(parameter[key].as_str().is_some_and(|t| !t.is_empty()), "{name}: {parameter}");
            }
        }
    }
}
