//! Reading objects: what is wrong is said with its path, and fields that the kind does not have are listed.

use crate::{
    error::ApiError,
    kind::Kind,
    object::{Decoded, Object},
};

/// Reads one `K` from a tree.
///
/// By way of its JSON: reading the types of all kinds from a second format would double what this crate takes to compile.
pub(crate) fn decode_value<K: Kind>(value: &serde_json::Value) -> Result<Decoded, ApiError> {
    let json = serde_json::to_vec(value).map_err(|error| ApiError::internal(format!("encoding a tree: {error}")))?;
    decode::<K>(&json).map_err(|mut error| {
        // Lines and columns are those of the JSON in between, which nobody has seen.
        if let Some(end) = error.message.rfind(" at line ") {
            error.message.truncate(end);
        }
        error
    })
}

/// Told of each field that a kind does not have.
///
/// One type for all kinds: with a closure of a function that is generic over them, each kind would have its own copy of all
/// that reads an ObjectMeta or a PodSpec, two thirds of what this crate takes to compile.
type OnUnknown<'a> = &'a mut dyn FnMut(serde_ignored::Path<'_>);

/// Reads one `K` from JSON.
pub(crate) fn decode<K: Kind>(json: &[u8]) -> Result<Decoded, ApiError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let mut on_unknown = |path: serde_ignored::Path<'_>| unknown.push(ignored_path(&path));
    let read = serde_ignored::deserialize::<_, OnUnknown<'_>, K>(tracked, &mut on_unknown);
    match read {
        Ok(object) => Ok(Decoded { object: Box::new(object) as Box<dyn Object>, unknown }),
        Err(error) => {
            let (kind, version) = (K::NAMES.kind, K::NAMES.version);
            let path = track.path().to_string();
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {place}{error}");
            Err(ApiError::bad_request(message))
        }
    }
}

/// `spec.template.spec.containers[0].foo`: `serde_ignored` shows `Option`s as `?`.
fn ignored_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Path::Map { parent, key } => match ignored_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}
