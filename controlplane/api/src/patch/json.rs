//! JSON patch (RFC 6902), bounded in operations, in copied bytes and in depth.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::{DEPTH_MAX, unprocessable};
use crate::error::{ApiError, Reason};

/// Most operations of one JSON patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// Most bytes that the `copy` operations of one JSON patch may copy.
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

pub(super) fn apply(mut document: Value, operations: &Value) -> Result<Value, ApiError> {
    let count = operations.as_array().map_or(0, Vec::len);
    if count > JSON_PATCH_OPERATIONS_MAX {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {count}: send several patches"
        );
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    let patch = <Patch as serde::Deserialize>::deserialize(operations)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    let mut copied_bytes = 0;
    for (index, operation) in patch.0.iter().enumerate() {
        check_bounds(&document, operation, index, &mut copied_bytes)?;
        if tests_absence(&document, operation) {
            continue;
        }
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation))
            .map_err(|e| unprocessable(&failure(operation, &e.kind.to_string(), &document)))?;
    }
    Ok(document)
}

fn holder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(holder, _)| holder)
}

/// Whether an operation tests that a field is not there, by comparing it with `null`, and it is not.
fn tests_absence(document: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let holds = || document.pointer(holder(path)).is_some_and(Value::is_object);
    test.value.is_null() && document.pointer(path).is_none() && holds()
}

/// Why an operation cannot be carried out, in the words of the library that Kubernetes uses.
///
/// # Source
/// `gopkg.in/evanphx/json-patch.v4`.
fn failure(operation: &PatchOperation, why: &str, document: &Value) -> String {
    let path = operation.path().as_str();
    let (holder, key) = (holder(path), path.rsplit_once('/').map_or(path, |(_, key)| key));
    let has_holder = |path: &str| document.pointer(path).is_some();
    match operation {
        PatchOperation::Test(_) if !has_holder(holder) => {
            format!("test operation does not apply: is missing path: {path}: missing value")
        }
        PatchOperation::Test(_) => format!("testing value {path} failed: test failed"),
        PatchOperation::Add(_) if !has_holder(holder) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) if !has_holder(holder) => {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) if document.pointer(holder).is_some_and(Value::is_object) => {
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        PatchOperation::Replace(_) if !has_holder(holder) => {
            format!("replace operation does not apply: doc is missing path: {path}: missing value")
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        PatchOperation::Move(mv) if !has_holder(mv.from.as_str()) => {
            format!("move operation does not apply: doc is missing from path: {}: missing value", mv.from.as_str())
        }
        PatchOperation::Copy(copy) if !has_holder(copy.from.as_str()) => {
            format!("copy operation does not apply: doc is missing from path: {}: missing value", copy.from.as_str())
        }
        _ => format!("operation does not apply to path: {path}: {why}"),
    }
}

fn check_bounds(
    document: &Value,
    operation: &PatchOperation,
    index: usize,
    copied_bytes: &mut usize,
) -> Result<(), ApiError> {
    let depth_at = |path: &str| path.matches('/').count();
    let moved = |from: &str| document.pointer(from);
    let (value, path) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), add.path.as_str()),
        PatchOperation::Replace(replace) => (Some(&replace.value), replace.path.as_str()),
        PatchOperation::Move(mv) => (moved(mv.from.as_str()), mv.path.as_str()),
        PatchOperation::Copy(copy) => {
            let source = moved(copy.from.as_str());
            *copied_bytes += source.map_or(0, size);
            (source, copy.path.as_str())
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if *copied_bytes > COPIED_BYTES_MAX {
        let message = format!("JSON patch operation {index}: all copies together exceed {COPIED_BYTES_MAX} bytes");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    let room = DEPTH_MAX.saturating_sub(depth_at(path));
    if value.is_some_and(|v| deeper_than(v, room)) {
        let message = format!("JSON patch operation {index} nests objects more than {DEPTH_MAX} deep");
        return Err(unprocessable(&message));
    }
    Ok(())
}

/// About the encoded size: enough to bound copies.
fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>() + 2,
        _ => 8,
    }
}

fn deeper_than(value: &Value, room: usize) -> bool {
    match value {
        Value::Array(items) => room == 0 || items.iter().any(|v| deeper_than(v, room - 1)),
        Value::Object(fields) => room == 0 || fields.values().any(|v| deeper_than(v, room - 1)),
        _ => false,
    }
}
