//! Reads objects of custom kinds: metadata with its types, the rest pruned to the schema.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/customresource_handler.go` (`schemaCoercingDecoder`,
//! `unstructuredDefaulter`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_api::{ApiError, Decoded, Object};
use serde_json::Value;

use super::{CustomKind, CustomObject};

pub(super) fn from_json(kind: &CustomKind, json: &[u8]) -> Result<Decoded, ApiError> {
    let value = serde_json::from_slice(json).map_err(|error| refused(kind, &error.to_string()))?;
    from_value(kind, value)
}

fn refused(kind: &CustomKind, error: &str) -> ApiError {
    let names = kind.names;
    let (name, version) = (names.kind, names.version);
    ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {error}"))
}

pub(super) fn from_value(kind: &CustomKind, value: Value) -> Result<Decoded, ApiError> {
    let names = kind.names;
    let (mut object, mut unknown) = read(kind, value, |found, field| {
        let wanted = if field == "kind" { names.kind.to_owned() } else { names.api_version().into_owned() };
        if found == wanted {
            return Ok(());
        }
        Err(refused(kind, &format!("{field}: invalid value: string {found:?}, expected {wanted:?}")))
    })?;
    let mut rest = Value::Object(std::mem::take(&mut object.fields));
    unknown.extend(kind.schema.prune(&mut rest, true));
    if let Value::Object(fields) = rest {
        object.fields = fields;
    }
    Ok(Decoded { object: Box::new(object), unknown })
}

/// An object as it was stored: of any version of the kind; fields that the schema no longer has are left out.
pub(super) fn stored(kind: &CustomKind, json: &[u8]) -> Result<Box<dyn Object>, ApiError> {
    let value: Value = serde_json::from_slice(json).map_err(|error| refused(kind, &error.to_string()))?;
    let version =
        value.get("apiVersion").and_then(Value::as_str).and_then(|v| v.rsplit('/').next()).unwrap_or_default();
    let sibling = if version == kind.names.version { None } else { kind.sibling(version) };
    let kind = sibling.as_deref().unwrap_or(kind);
    let (mut object, _) = read(kind, value, |_, _| Ok(()))?;
    fit(kind, &mut object);
    Ok(Box::new(object))
}

/// Prunes and fills in, without a word.
pub(super) fn fit(kind: &CustomKind, object: &mut CustomObject) {
    let mut rest = Value::Object(std::mem::take(&mut object.fields));
    kind.schema.prune(&mut rest, true);
    kind.schema.drop_nulls(&mut rest);
    kind.schema.fill_defaults(&mut rest);
    if let Value::Object(mut fields) = rest {
        ["apiVersion", "kind", "metadata"].into_iter().for_each(|name| {
            fields.remove(name);
        });
        object.fields = fields;
    }
}

fn read(
    kind: &CustomKind,
    value: Value,
    check: impl Fn(&str, &str) -> Result<(), ApiError>,
) -> Result<(CustomObject, Vec<String>), ApiError> {
    let Value::Object(mut fields) = value else {
        return Err(refused(kind, "json: cannot unmarshal into an object"));
    };
    for field in ["apiVersion", "kind"] {
        match fields.remove(field) {
            Some(Value::String(found)) => check(&found, field)?,
            None => check("", field)?,
            Some(other) => return Err(refused(kind, &format!("{field}: invalid type: {other}, expected a string"))),
        }
    }
    let mut unknown = Vec::new();
    let meta = match fields.remove("metadata") {
        None | Some(Value::Null) => ObjectMeta::default(),
        Some(meta) => serde_ignored::deserialize(meta, |path| unknown.push(format!("metadata.{}", plain(&path))))
            .map_err(|error| refused(kind, &format!("metadata: {error}")))?,
    };
    Ok((CustomObject { kind: kind.strong()?, meta, fields }, unknown))
}

/// `serde_ignored` shows `Option`s as `?`.
fn plain(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}
