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
        json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation))
            .map_err(|e| unprocessable(failure(index, operation, &e.kind.to_string(), &document)))?;
    }
    Ok(document)
}

fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

fn failure(index: usize, operation: &PatchOperation, why: &str, document: &Value) -> String {
    let place = format!("JSON patch operation {index} ({} {:?})", name(operation), operation.path().as_str());
    match operation {
        PatchOperation::Test(test) => {
            let found = document.pointer(test.path.as_str());
            let found = found.map_or_else(|| "nothing there".to_owned(), |v| format!("found {}", shortened(v)));
            format!("{place} failed: testing value {} failed: {found}", shortened(&test.value))
        }
        _ => format!("{place} failed: {why}"),
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
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
        return Err(unprocessable(message));
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
