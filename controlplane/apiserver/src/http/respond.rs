//! Answers: objects, lists and errors in the shape that was negotiated.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use podium_api::{ApiError, Object, protobuf, table};
use serde::Serialize;
use serde_json::Value;

use super::{
    body::Body,
    negotiate::{Encoding, Form, Shape},
    path::Query,
};
use crate::registry::{
    Resource,
    cache::Entry,
    list::{Page, Token},
};

/// An answer.
pub(crate) type Answer = Response<Body>;

/// An answer of ready bytes.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    with_body(status, content_type, Body::Full(body))
}

/// An answer with a body.
pub(crate) fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// An answer of plain text.
pub(crate) fn text(status: StatusCode, body: String) -> Answer {
    bytes(status, "text/plain; charset=utf-8", Bytes::from(body))
}

/// A value, encoded as asked.
pub(crate) fn value<T: Serialize + ?Sized>(
    status: StatusCode,
    encoding: Encoding,
    value: &T,
) -> Result<Answer, ApiError> {
    let encoded = match encoding {
        Encoding::Json => serde_json::to_vec(value).map_err(|e| e.to_string()),
        Encoding::Yaml => serde_yaml::to_string(value).map(String::into_bytes).map_err(|e| e.to_string()),
        Encoding::Protobuf => return as_protobuf(status, value),
    };
    let encoded = encoded.map_err(|e| ApiError::internal(format!("encoding the answer: {e}")))?;
    Ok(bytes(status, encoding.content_type(), encoded.into()))
}

/// A value as protobuf; as JSON, which clients of protobuf read too, where its kind has none.
fn as_protobuf<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Result<Answer, ApiError> {
    let tree = serde_json::to_value(value).map_err(|e| ApiError::internal(format!("encoding the answer: {e}")))?;
    Ok(match protobuf::encode(&tree) {
        Some(body) => bytes(status, protobuf::MEDIA_TYPE, body.into()),
        None => bytes(status, Encoding::Json.content_type(), tree.to_string().into()),
    })
}

/// An error as a `Status`.
pub(crate) fn error(error: &ApiError) -> Answer {
    status(error, Value::Object(serde_json::Map::new()))
}

/// An expired list, with the token that gets the rest of it as it is now.
pub(crate) fn error_and_rest(error: &ApiError, rest: &Token) -> Answer {
    status(error, serde_json::json!({"continue": rest.encode()}))
}

fn status(error: &ApiError, metadata: Value) -> Answer {
    let status = StatusCode::from_u16(error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut object = serde_json::to_value(error.status()).unwrap_or_default();
    object["metadata"] = metadata;
    let mut answer = bytes(status, "application/json", object.to_string().into());
    let retry = error.details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(retry) = retry.and_then(|s| HeaderValue::from_str(&s.to_string()).ok()) {
        answer.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    if error.reason == podium_api::Reason::Unauthorized {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Adds `Warning` headers, as many and as long as Kubernetes would.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings.iter().take(32) {
        let text: String = warning.replace('\\', r"\\").replace('"', "\\\"").chars().take(256).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Tells clients of a version that it is deprecated.
pub(crate) fn deprecated(answer: &mut Answer, resource: &Resource) {
    if let Some(warning) = resource.kind.warning() {
        warn(answer, &[warning.to_owned()]);
    }
}

/// One object.
pub(crate) fn entry(
    status: StatusCode,
    resource: &Resource,
    entry: &Entry,
    shape: Shape,
    query: &Query,
    now: Timestamp,
) -> Result<Answer, ApiError> {
    match (shape.form, shape.encoding) {
        (Form::Table, encoding) => {
            let meta =
                ListMeta { resource_version: entry.object.meta().resource_version.clone(), ..ListMeta::default() };
            let include = query.get("includeObject").parse()?;
            let mut table = table::table_of(&*resource.kind, [&*entry.object], &meta, now, include)?;
            restore_rows(&mut table, std::iter::once(entry));
            value(status, encoding, &named(table, shape))
        }
        (Form::Metadata, encoding) => value(status, encoding, &named(partial_metadata(entry), shape)),
        (_, Encoding::Json) => Ok(bytes(status, "application/json", entry.json.clone())),
        (_, encoding) => encoded(status, encoding, &entry.json),
    }
}

/// The metadata of an object, with its `managedFields`.
pub(crate) fn partial_metadata(entry: &Entry) -> Value {
    let mut object = table::partial_metadata(&*entry.object);
    restore_managed(&mut object, entry);
    object
}

/// Puts back the `managedFields`, which entries have in their JSON only. `object`: of metadata, or anything without.
pub(crate) fn restore_managed(object: &mut Value, entry: &Entry) {
    let managed = entry.managed();
    if managed.is_empty() {
        return;
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && let Ok(fields) = serde_json::from_slice(managed)
    {
        meta.insert("managedFields".to_owned(), fields);
    }
}

fn restore_rows<'a>(table: &mut Value, entries: impl Iterator<Item = &'a Entry>) {
    let rows = table["rows"].as_array_mut().into_iter().flatten();
    rows.zip(entries).for_each(|(row, entry)| {
        if let Some(object) = row.get_mut("object") {
            restore_managed(object, entry);
        }
    });
}

/// A Table or metadata in the version that was asked for.
fn named(value: Value, shape: Shape) -> Value {
    if shape.beta { table::as_beta(value) } else { value }
}

/// Ready JSON in another encoding.
fn encoded(status: StatusCode, encoding: Encoding, json: &[u8]) -> Result<Answer, ApiError> {
    let tree: Value =
        serde_json::from_slice(json).map_err(|e| ApiError::internal(format!("reading the stored object: {e}")))?;
    value(status, encoding, &tree)
}

/// A list. JSON is put together from ready bytes.
pub(crate) fn page(
    resource: &Resource,
    page: &Page,
    shape: Shape,
    query: &Query,
    now: Timestamp,
) -> Result<Answer, ApiError> {
    let meta = list_meta(page);
    let objects = || page.entries.iter().map(|e| &*e.object as &dyn Object);
    let status = StatusCode::OK;
    match (shape.form, shape.encoding) {
        (Form::Table, encoding) => {
            let include = query.get("includeObject").parse()?;
            let mut table = table::table_of(&*resource.kind, objects(), &meta, now, include)?;
            restore_rows(&mut table, page.entries.iter().map(|e| &**e));
            value(status, encoding, &named(table, shape))
        }
        (Form::Metadata, encoding) => {
            let mut list = table::partial_metadata_list(objects(), &meta);
            let items = list["items"].as_array_mut().into_iter().flatten();
            items.zip(&page.entries).for_each(|(item, entry)| restore_managed(item, entry));
            value(status, encoding, &named(list, shape))
        }
        (_, encoding) => listed(resource, &page.entries, &meta, encoding),
    }
}

/// A list of objects that were just deleted.
pub(crate) fn deleted_list(
    resource: &Resource,
    entries: Vec<Arc<Entry>>,
    revision: String,
    encoding: Encoding,
) -> Result<Answer, ApiError> {
    let meta = ListMeta { resource_version: Some(revision), ..ListMeta::default() };
    listed(resource, &entries, &meta, encoding)
}

fn listed(
    resource: &Resource,
    entries: &[Arc<Entry>],
    meta: &ListMeta,
    encoding: Encoding,
) -> Result<Answer, ApiError> {
    let (head, tail) = list_ends(resource, meta);
    if encoding == Encoding::Json {
        let items = entries.iter().map(|e| e.json.clone());
        return Ok(with_body(StatusCode::OK, encoding.content_type(), Body::list(head, items, tail)));
    }
    let items: Vec<&[u8]> = entries.iter().map(|e| &e.json[..]).collect();
    encoded(StatusCode::OK, encoding, &[&head, items.join(&b","[..]).as_slice(), &tail].concat())
}

fn list_meta(page: &Page) -> ListMeta {
    ListMeta {
        resource_version: Some(page.revision.to_string()),
        continue_: page.next.as_ref().map(|t| t.encode()),
        remaining_item_count: page.remaining.and_then(|n| i64::try_from(n).ok()),
        ..ListMeta::default()
    }
}

fn list_ends(resource: &Resource, meta: &ListMeta) -> (Bytes, Bytes) {
    let names = &resource.names;
    let meta = serde_json::to_string(meta).unwrap_or_else(|_| "{}".to_owned());
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
        names.kind,
        names.api_version()
    );
    (Bytes::from(head), Bytes::from_static(b"]}\n"))
}
