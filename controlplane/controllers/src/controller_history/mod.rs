//! ControllerRevisions: the pod templates that a StatefulSet or DaemonSet had, kept so that it can go back to them.
//!
//! A revision's data is a strategic merge patch that replaces `spec.template`, in the very form in which Kubernetes
//! writes it: `kubectl rollout undo` applies it as it stands, and the hash in the names of a StatefulSet's revisions is
//! that of Kubernetes 1.34 and later. Which revision is meant, and what has to be written for it, is decided by the owner.
//!
//! # Source
//! Kubernetes `pkg/controller/history/controller_history.go`, `getPatch` of `pkg/controller/statefulset` and of
//! `pkg/controller/daemon`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use podium_api::{Kind, Object};
use serde_json::{Map, Value, json};

use crate::{Action, owners::controller_ref};

/// Label of a StatefulSet's revisions: the hash in their names.
pub(crate) const HASH: &str = "controller.kubernetes.io/hash";
/// Label of pods, and of a DaemonSet's revisions: which revision it is.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";
/// Longest part of a revision's name before its hash, in bytes.
const PREFIX_BYTES_MAX: usize = 223;

/// The data of the revision that brings a template back.
pub(crate) fn data_of(template: &PodTemplateSpec) -> Value {
    // Every template of the API has a JSON form.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    as_go_writes(&mut template);
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// Adds the structs that Go writes even when nothing is in them.
fn as_go_writes(template: &mut Value) {
    if !template.is_object() {
        *template = json!({});
    }
    for part in ["metadata", "spec"] {
        if !template[part].is_object() {
            template[part] = json!({});
        }
    }
    let Some(spec) = template["spec"].as_object_mut() else { return };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.entry("resources").or_insert_with(|| json!({}));
        }
    }
}

/// The template that a revision brings back; `None` when its data is something else.
pub(crate) fn template_in(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Whether a revision brings back the template of this data, whichever version wrote it.
pub(crate) fn has_data(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|d| d.0 == *data) || template_in(revision).is_some_and(|t| data_of(&t) == *data)
}

/// The hash of a revision's data. `collisions` changes it when another revision has the same.
pub(crate) fn hash(data: &Value, collisions: i32) -> String {
    let mut text = String::new();
    write_go_json(data, &mut text);
    text.push_str(&collisions.to_string());
    // FNV-1, not 1a.
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
    crate::deployment::safe_encode(&hash.to_string())
}

/// JSON as Go's `encoding/json` writes maps: keys sorted, and nothing that means something to HTML.
fn write_go_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_go_text(key, out);
                out.push(':');
                write_go_json(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_go_json(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_go_text(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn write_go_text(text: &str, out: &mut String) {
    for c in Value::from(text).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// `PREFIX-HASH`, cut to what a name may be long.
pub(crate) fn name(prefix: &str, hash: &str) -> String {
    let mut end = prefix.len().min(PREFIX_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &prefix[..end])
}

/// Oldest first.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by(|a, b| {
        let age = |r: &ControllerRevision| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (a.revision, age(a), &a.metadata.name).cmp(&(b.revision, age(b), &b.metadata.name))
    });
}

/// The number after that of the newest of these, which are sorted.
pub(crate) fn next_number(sorted: &[Arc<ControllerRevision>]) -> i64 {
    sorted.last().map_or(1, |newest| newest.revision.saturating_add(1))
}

/// A new revision of `owner`, with the labels of its template and one that tells the hash.
pub(crate) fn new<K: Kind>(
    owner: &K,
    named: String,
    template: &PodTemplateSpec,
    data: Value,
    number: i64,
    (label, hash): (&str, String),
) -> ControllerRevision {
    let meta = owner.metadata();
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(label.to_owned(), hash);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(named),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Gives a revision another number: what is gone back to becomes the newest.
pub(crate) fn renumber(revision: &ControllerRevision, number: i64) -> Action {
    patch(revision, json!({}), Some(number))
}

/// Puts labels on an object as it was seen.
pub(crate) fn relabel(object: &dyn Object, labels: &[(&str, &str)]) -> Action {
    let labels: Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    patch(object, json!({"labels": labels}), None)
}

fn patch(object: &dyn Object, mut metadata: Value, number: Option<i64>) -> Action {
    metadata["uid"] = object.meta().uid.clone().into();
    metadata["resourceVersion"] = object.meta().resource_version.clone().into();
    let mut patch = json!({"metadata": metadata});
    if let Some(number) = number {
        patch["revision"] = number.into();
    }
    Action::MergePatch { kind: object.kind(), key: object.key(), patch, subresource: None }
}

/// The value of a label; empty when there is none.
pub(crate) fn label<'m>(meta: &'m ObjectMeta, key: &str) -> &'m str {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str).unwrap_or_default()
}

/// The revisions to delete so that at most `limit` of those in no use are kept; `unused` is sorted.
pub(crate) fn surplus(unused: &[Arc<ControllerRevision>], limit: i32) -> &[Arc<ControllerRevision>] {
    let Ok(limit) = usize::try_from(limit) else { return &[] };
    &unused[..unused.len().saturating_sub(limit)]
}
