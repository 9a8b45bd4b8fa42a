//! Reading objects: what is wrong is said with its path, and fields that the kind does not have are listed.

use serde::Deserializer;

use crate::{
    error::ApiError,
    kind::Kind,
    object::{Decoded, Object},
};

/// Reads one `K`.
pub(crate) fn decode<'de, K: Kind>(deserializer: impl Deserializer<'de>) -> Result<Decoded, ApiError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(deserializer, &mut track);
    let read = serde_ignored::deserialize::<_, _, K>(tracked, |path| unknown.push(ignored_path(&path)));
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
