//! Manifests, read and checked before anything is started: what can be known without a cluster is said now.

use std::path::PathBuf;

use anyhow::{Result, bail};
use podium_api::{ApiError, FieldErrors, KindRef};
use serde_json::Value;

use crate::commands::apply::{Document, read_documents};

/// Reads all manifests and checks them as the API server will.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let documents = read_documents(paths)?;
    let kinds = podium_api::kinds::all();
    let mistakes: Vec<String> = documents
        .iter()
        .filter_map(|document| {
            let error = check(&kinds, &document.value).err()?;
            Some(format!("{}: {}", document.source, error.message))
        })
        .collect();
    if !mistakes.is_empty() {
        bail!("the manifests are not valid, nothing was started:\n  {}", mistakes.join("\n  "));
    }
    Ok(documents)
}

/// Decodes, defaults and validates one object. Kinds that are not built in are left to the server.
fn check(kinds: &[KindRef], value: &Value) -> Result<(), ApiError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let found = kinds.iter().find(|k| k.names().kind == kind && k.names().api_version() == api_version);
    let Some(kind) = found else { return Ok(()) };
    let mut decoded = kind.decode_value(value.clone())?;
    if !decoded.unknown.is_empty() {
        let fields = decoded.unknown.iter().map(|f| format!("unknown field {f:?}")).collect::<Vec<_>>().join(", ");
        return Err(ApiError::bad_request(format!("{}: {fields}", kind.names().kind)));
    }
    let object = decoded.object.as_mut();
    kind.fill_defaults(object);
    kind.prepare_create(object);
    let mut errors = FieldErrors::new();
    kind.validate(object, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let name = object.meta().name.clone().unwrap_or_default();
    Err(ApiError::invalid(&kind.names(), &name, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(yaml: &str) -> String {
        let value = serde_yaml::from_str(yaml).unwrap();
        check(&podium_api::kinds::all(), &value).map_or_else(|e| e.message, |()| "ok".to_owned())
    }

    #[test]
    fn mistakes_are_said_before_the_start() {
        assert_eq!(said("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"), "ok");
        assert_eq!(said("{apiVersion: example.com/v1, kind: Thing}"), "ok");
        let unknown = said("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dta: {}}");
        assert!(unknown.contains("unknown field \"dta\""), "{unknown}");
        let wrong = said("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: three}}");
        assert!(wrong.contains("spec.replicas"), "{wrong}");
        let missing =
            said("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {}, template: {}}}");
        assert!(missing.contains("is invalid"), "{missing}");
    }
}
