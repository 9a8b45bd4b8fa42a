//! Kubernetes' protobuf, as typed Go clients speak it: bodies to a tree, as if JSON had come, and trees to bodies.
//!
//! A body is four magic bytes and a `runtime.Unknown` that names the kind and holds the object. Which field of which
//! message is called what in JSON stands in `messages.txt`; what is not in there is skipped, as protobuf wants it.
//! Any bytes are safe to read: depth is bounded here, the size by the caller. Kinds that the table does not have (custom
//! resources, Tables) have no protobuf: clients are answered in JSON, which they accept too.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`.

use serde_json::{Map, Value};

mod decode;
mod encode;
mod table;
#[cfg(test)]
mod tests;
mod wire;

use decode::{Decoder, Problem};
use table::TABLE;
use wire::Reader;

pub use encode::{encode, encode_event};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Whether objects of a kind can be written as protobuf.
pub fn knows(api_version: &str, kind: &str) -> bool {
    TABLE.has(api_version, kind)
}

/// Reads one object.
///
/// # Errors
/// What is wrong with the bytes, and at which field.
pub(crate) fn decode(body: &[u8]) -> Result<Value, String> {
    let rest = body.strip_prefix(MAGIC).ok_or("it does not begin with the magic bytes of Kubernetes' protobuf")?;
    let envelope = Envelope::read(rest).map_err(|e| e.to_string())?;
    let (version, kind) = (envelope.api_version, envelope.kind);
    if !envelope.encoding.is_empty() || !matches!(envelope.content_type, "" | MEDIA_TYPE) {
        return Err(format!(
            "the object in it is {:?} in the encoding {:?}: only plain protobuf can be read",
            envelope.content_type, envelope.encoding
        ));
    }
    let root = TABLE.root(version, kind).ok_or_else(|| {
        format!("no kind {kind:?} of version {version:?} can be read from protobuf: send JSON or YAML instead")
    })?;
    let mut object = Map::new();
    Decoder::new(&TABLE).message(root, envelope.raw, &mut object).map_err(|e| e.to_string())?;
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// `runtime.Unknown` with its `TypeMeta`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    encoding: &'a str,
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut envelope = Self::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.field()? {
            match number {
                1 => envelope.read_type(wire.bytes()?)?,
                2 => envelope.raw = wire.bytes()?,
                3 => envelope.encoding = wire.text()?,
                4 => envelope.content_type = wire.text()?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &'a [u8]) -> Result<(), Problem> {
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.field()? {
            match number {
                1 => self.api_version = wire.text()?,
                2 => self.kind = wire.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}
