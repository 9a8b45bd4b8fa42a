//! Patches: JSON patch (RFC 6902), merge patch (RFC 7396) and Kubernetes' strategic merge patch, on plain JSON.
//!
//! Invariants: a failed patch changes nothing (the current object is consumed, the caller keeps its own); no patch of
//! an allowed size makes an object grow without bound or nest deeper than [`DEPTH_MAX`]. What comes out is not yet
//! validated: the registry decodes it as it would an update.

use serde_json::Value;

use crate::{error::ApiError, error::Reason, object::AnyKind};

mod json;
mod merge;
pub mod meta;
mod strategic;
mod strategic_list;
mod three_way;

pub use json::{COPIED_BYTES_MAX, JSON_PATCH_OPERATIONS_MAX};
pub use merge::merge;
pub use meta::{FieldRule, PatchMeta, TypeRef};
pub use three_way::three_way;

/// Deepest nesting of a patched object.
pub const DEPTH_MAX: usize = 256;

/// Server-side apply, which is no patch of its own but comes as one.
const APPLY: &str = "application/apply-patch+yaml";

/// The patch of a request, by its format.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchBody {
    /// `application/json-patch+json`
    Json(Value),
    /// `application/merge-patch+json`
    Merge(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
}

impl PatchBody {
    /// The media types that patches come in.
    pub const MEDIA_TYPES: [&'static str; 3] =
        ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

    /// Reads a patch of a media type (without parameters).
    ///
    /// # Errors
    /// 415 for other media types, 400 when the body is no JSON.
    pub fn read(media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let make = match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            _ => return Err(unknown_format(&Self::MEDIA_TYPES)),
        };
        serde_json::from_slice(body)
            .map(make)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: invalid JSON: {e}")))
    }
}

/// Applies a patch to an object of a kind.
///
/// # Errors
/// 400 when the patch is malformed, 413 when it asks for too much, 415 when the kind has no such patches, 422 when it
/// cannot be applied to this object, and 500, as Kubernetes has it, for some faults of strategic merge patches (items
/// without their merge key, unknown directives, an order that does not fit).
pub fn apply(kind: &dyn AnyKind, current: Value, patch: &PatchBody) -> Result<Value, ApiError> {
    match patch {
        PatchBody::Json(operations) => json::apply(current, operations),
        PatchBody::Merge(patch) => {
            object_or_refuse(patch)?;
            let mut current = current;
            merge::merge(&mut current, patch);
            Ok(current)
        }
        PatchBody::Strategic(patch) => {
            object_or_refuse(patch)?;
            let Some(meta) = PatchMeta::of(kind) else {
                let known = PatchBody::MEDIA_TYPES.map(|t| if t.contains("strategic") { "" } else { t });
                return Err(unknown_format(&known));
            };
            strategic::apply(&meta, current, patch)
        }
    }
}

/// 415 in Kubernetes' words. `known`: the media types of patches, empty for those that do not count here.
fn unknown_format(known: &[&str]) -> ApiError {
    let known: Vec<&str> = known.iter().copied().filter(|t| !t.is_empty()).chain([APPLY]).collect();
    let known = known.join(", ");
    let message = format!("the body of the request was in an unknown format - accepted media types include: {known}");
    ApiError::new(Reason::UnsupportedMediaType, message)
}

fn object_or_refuse(patch: &Value) -> Result<(), ApiError> {
    if patch.is_object() {
        Ok(())
    } else {
        Err(ApiError::bad_request("error decoding patch: it must be a JSON object"))
    }
}

/// 422 in Kubernetes' words, and why.
fn unprocessable(why: &str) -> ApiError {
    let message = format!("the server rejected our request due to an error in our request: {why}");
    ApiError::new(Reason::Invalid, message)
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
