//! `meta.k8s.io/v1 Table`, what `kubectl get` prints, and the objects without spec and status that go with it.
//!
//! Columns and cells come from the kind; this module only puts them into their envelope.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/response.go`.

use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde_json::{Value, json};

use crate::{
    error::ApiError,
    kind::ColumnType,
    object::{AnyKind, Object},
};

/// What each row carries beside its cells: the `includeObject` parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl FromStr for IncludeObject {
    type Err = ApiError;
    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!(
                "unrecognized includeObject value: {other:?}: it must be None, Metadata or Object"
            ))),
        }
    }
}

/// The definitions of a kind's columns.
pub fn columns(kind: &dyn AnyKind) -> Vec<Value> {
    let definition = |column: crate::object::ColumnInfo| {
        let kind = match column.kind {
            ColumnType::String => "string",
            ColumnType::Integer => "integer",
            ColumnType::Number => "number",
            ColumnType::Boolean => "boolean",
            ColumnType::Date => "date",
        };
        json!({
            "name": column.name, "type": kind, "format": column.format, "description": column.help,
            "priority": column.priority,
        })
    };
    kind.columns().into_iter().map(definition).collect()
}

/// The row of one object.
///
/// # Errors
/// 500 when the object cannot be encoded.
pub fn row(kind: &dyn AnyKind, object: &dyn Object, now: Timestamp, include: IncludeObject) -> Result<Value, ApiError> {
    let mut row = json!({ "cells": kind.row(object, now) });
    if let Some((reason, message)) = kind.completed(object) {
        row["conditions"] = json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_metadata(object),
        IncludeObject::Object => {
            let whole = object.to_value().map_err(|e| ApiError::internal(format!("encoding a row's object: {e}")))?;
            row["object"] = whole;
        }
    }
    Ok(row)
}

/// A Table of rows. Watches send the column definitions with their first event only.
pub fn table(kind: &dyn AnyKind, rows: Vec<Value>, metadata: &ListMeta, with_columns: bool) -> Value {
    let definitions = if with_columns { columns(kind) } else { Vec::new() };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The Table of several objects.
///
/// # Errors
/// As [`row`].
pub fn table_of<'a>(
    kind: &dyn AnyKind,
    objects: impl IntoIterator<Item = &'a dyn Object>,
    metadata: &ListMeta,
    now: Timestamp,
    include: IncludeObject,
) -> Result<Value, ApiError> {
    let rows = objects.into_iter().map(|object| row(kind, object, now, include)).collect::<Result<_, _>>()?;
    Ok(table(kind, rows, metadata, true))
}

/// The same Table, metadata or list of metadata as `meta.k8s.io/v1beta1`, which differs in its name only.
pub fn as_beta(mut value: Value) -> Value {
    rename(&mut value);
    for (list, inner) in [("rows", Some("object")), ("items", None)] {
        for item in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            match inner {
                Some(key) => item.get_mut(key).into_iter().for_each(rename),
                None => rename(item),
            }
        }
    }
    value
}

fn rename(value: &mut Value) {
    if value.get("apiVersion").is_some_and(|v| v == "meta.k8s.io/v1") {
        value["apiVersion"] = "meta.k8s.io/v1beta1".into();
    }
}

/// An object's metadata alone, as `meta.k8s.io/v1 PartialObjectMetadata`.
pub fn partial_metadata(object: &dyn Object) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.meta() })
}

/// The metadata of several objects, as `meta.k8s.io/v1 PartialObjectMetadataList`.
pub fn partial_metadata_list<'a>(objects: impl IntoIterator<Item = &'a dyn Object>, metadata: &ListMeta) -> Value {
    let items: Vec<Value> = objects.into_iter().map(partial_metadata).collect();
    json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::kind_of;

    #[test]
    fn rows_of_pods_that_are_done() {
        for (phase, wanted) in
            [("Running", Value::Null), ("Failed", json!("Failed")), ("Succeeded", json!("Succeeded"))]
        {
            let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": {"phase": phase}});
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
            let kind = kind_of::<k8s_openapi::api::core::v1::Pod>();
            let row = row(&*kind, &pod, Timestamp::UNIX_EPOCH, IncludeObject::None).unwrap();
            assert_eq!(row["conditions"][0]["reason"], wanted);
        }
    }

    #[test]
    fn tables_and_metadata() {
        let map: ConfigMap = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
            "metadata": {"name": "m", "namespace": "n", "creationTimestamp": "2020-01-01T00:00:00Z"},
        }))
        .unwrap();
        let kind = kind_of::<ConfigMap>();
        let now: Timestamp = "2020-01-01T00:00:45Z".parse().unwrap();
        let list = ListMeta { resource_version: Some("7".to_owned()), ..ListMeta::default() };
        for (include, object) in [
            ("None", Value::Null),
            ("", json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": map.metadata})),
            ("Object", serde_json::to_value(&map).unwrap()),
        ] {
            let include = include.parse().unwrap();
            let table = table_of(&*kind, [&map as &dyn Object], &list, now, include).unwrap();
            assert_eq!(table["rows"][0]["cells"], json!(["m", 1, "45s"]));
            assert_eq!(table["rows"][0]["object"], object);
            assert_eq!(table["metadata"], json!({"resourceVersion": "7"}));
            let column = |i: usize| table["columnDefinitions"][i].clone();
            assert_eq!((&column(0)["name"], &column(0)["format"]), (&json!("Name"), &json!("name")));
            assert_eq!((&column(1)["type"], &column(1)["priority"]), (&json!("string"), &json!(0)));
        }
        assert_eq!(partial_metadata_list([&map as &dyn Object], &list)["items"][0]["metadata"]["name"], json!("m"));
        let beta = as_beta(table_of(&*kind, [&map as &dyn Object], &list, now, IncludeObject::Metadata).unwrap());
        assert_eq!(beta["apiVersion"], "meta.k8s.io/v1beta1");
        assert_eq!(beta["rows"][0]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
        let beta = as_beta(partial_metadata_list([&map as &dyn Object], &list));
        assert_eq!(beta["items"][0]["apiVersion"], "meta.k8s.io/v1beta1");
        assert!("Some".parse::<IncludeObject>().is_err());
    }

    #[test]
    fn every_kind_has_a_name_column_first() {
        for kind in crate::kinds::all() {
            let columns = columns(&*kind);
            assert!(!columns.is_empty(), "{kind:?}");
            for column in columns {
                assert!(column["name"].as_str().is_some_and(|n| !n.is_empty()));
            }
        }
    }
}
