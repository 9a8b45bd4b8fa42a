//! Other servers' groups in the discovery documents of this one.

use serde_json::{Value, json};

/// Group, version, and the server's own `APIResourceList`.
pub(crate) type Remote = (String, String, Value);

/// Adds groups to an `APIGroupList`.
pub(crate) fn add_groups(document: &mut Value, remotes: &[Remote]) {
    let Some(groups) = document.get_mut("groups").and_then(Value::as_array_mut) else { return };
    for name in names(remotes) {
        let new = group(name, remotes);
        match groups.iter_mut().find(|g| g["name"] == name) {
            None => groups.extend(new),
            Some(known) => {
                let more = new.and_then(|mut g| g["versions"].as_array_mut().map(std::mem::take)).unwrap_or_default();
                if let Some(versions) = known["versions"].as_array_mut() {
                    versions.extend(more);
                }
            }
        }
    }
}

/// One `APIGroup`, of other servers' versions alone.
pub(crate) fn group(name: &str, remotes: &[Remote]) -> Option<Value> {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = remotes.iter().filter(|(g, ..)| g == name).map(|(_, v, _)| version(v)).collect();
    let preferred = versions.first()?.clone();
    Some(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred}),
    )
}

/// Adds groups to an `APIGroupDiscoveryList`.
pub(crate) fn add_aggregated(document: &mut Value, remotes: &[Remote]) {
    let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) else { return };
    for name in names(remotes) {
        let own = remotes.iter().filter(|(g, ..)| g == name);
        let versions: Vec<Value> = own
            .map(|(group, version, list)| {
                json!({"version": version, "freshness": "Current", "resources": resources(group, version, list)})
            })
            .collect();
        match items.iter_mut().find(|item| item["metadata"]["name"] == name) {
            None => items.push(json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})),
            Some(known) => {
                if let Some(known) = known["versions"].as_array_mut() {
                    known.extend(versions);
                }
            }
        }
    }
}

fn names(remotes: &[Remote]) -> Vec<&str> {
    let mut names: Vec<&str> = remotes.iter().map(|(group, ..)| group.as_str()).collect();
    names.dedup();
    names
}

fn resources(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let all = || list["resources"].as_array().into_iter().flatten();
    let text = |value: &Value, field: &str, default: &str| value[field].as_str().unwrap_or(default).to_owned();
    let kind = |resource: &Value| {
        json!({
            "group": text(resource, "group", group), "version": text(resource, "version", version),
            "kind": text(resource, "kind", ""),
        })
    };
    let mut out = Vec::new();
    for resource in all() {
        let name = resource["name"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains('/') {
            continue;
        }
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut item = json!({
            "resource": name, "responseKind": kind(resource), "scope": scope,
            "singularResource": text(resource, "singularName", ""), "verbs": resource["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                item[field] = resource[field].clone();
            }
        }
        let below = |sub: &Value| {
            let (main, sub_name) = sub["name"].as_str()?.split_once('/')?;
            (main == name).then(|| json!({"subresource": sub_name, "responseKind": kind(sub), "verbs": sub["verbs"]}))
        };
        let subresources: Vec<Value> = all().filter_map(below).collect();
        if !subresources.is_empty() {
            item["subresources"] = subresources.into();
        }
        out.push(item);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_other_servers_stand_beside_our_own() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
        ]});
        let remotes = vec![("wardle.example.com".to_owned(), "v1".to_owned(), list)];
        let mut groups = json!({"groups": [{"name": "apps"}]});
        add_groups(&mut groups, &remotes);
        assert_eq!(groups["groups"][1]["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
        let mut aggregated = json!({"items": []});
        add_aggregated(&mut aggregated, &remotes);
        let resource = &aggregated["items"][0]["versions"][0]["resources"][0];
        assert_eq!(resource["responseKind"]["kind"], "Flunder");
        assert_eq!(resource["subresources"][0]["subresource"], "status");
        assert_eq!(group("other", &remotes), None);
    }
}
