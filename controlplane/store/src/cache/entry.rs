//! An object in the cache: shared, with its JSON; and how a written object gets there without a copy.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use podium_api::{ApiError, KindRef, Object, ObjectKey, Revision};

use crate::{Attachment, Record};

/// What every stored value begins with, up to its metadata.
const METADATA: &[u8] = b"\"metadata\":{";
/// How far into a value its metadata may begin: behind `apiVersion` and `kind`.
const METADATA_WITHIN: usize = 512;

/// One object of one revision.
#[derive(Debug)]
pub struct Entry {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The object, its `resourceVersion` set.
    pub object: Arc<dyn Object>,
    /// What clients read.
    pub json: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// The object of a write, on its way to the cache, which takes it out.
pub struct ObjectAttachment(Mutex<Option<Box<dyn Object>>>);

impl ObjectAttachment {
    /// Hands an object along with a write of [`stored_value`].
    #[expect(clippy::new_ret_no_self, reason = "a store takes attachments with their type erased")]
    pub fn new(object: Box<dyn Object>) -> Attachment {
        Arc::new(Self(Mutex::new(Some(object))))
    }
}

/// The bytes to store for an object: its JSON without `resourceVersion`.
///
/// # Errors
/// As [`Object::to_json`].
pub fn stored_value(object: &mut dyn Object) -> Result<Bytes, serde_json::Error> {
    object.meta_mut().resource_version = None;
    object.to_json().map(Bytes::from)
}

impl Entry {
    /// The entry of a stored record.
    ///
    /// # Errors
    /// The bytes are no object of this kind.
    pub(crate) fn of(kind: &KindRef, record: &Record) -> Result<Self, ApiError> {
        let mut object = match taken(record) {
            Some(object) => object,
            None => kind.decode(&record.value)?.object,
        };
        object.meta_mut().resource_version = Some(record.modified.to_string());
        let json = match with_revision(&record.value, record.modified) {
            Some(json) => json,
            None => object.to_json().map(Bytes::from).map_err(|e| ApiError::internal(e.to_string()))?,
        };
        let object: Arc<dyn Object> = Arc::from(object);
        Ok(Self { key: object.key(), object, json, revision: record.modified })
    }

    /// The JSON of this object as it was when it went at `revision`.
    pub(crate) fn json_at(&self, revision: Revision) -> Bytes {
        let old = format!("\"resourceVersion\":\"{}\"", self.revision);
        let new = format!("\"resourceVersion\":\"{revision}\"");
        match find(&self.json, old.as_bytes(), METADATA_WITHIN + old.len()) {
            Some(at) => splice(&self.json, at, old.len(), new.as_bytes()),
            None => {
                let mut object = self.object.boxed_clone();
                object.meta_mut().resource_version = Some(revision.to_string());
                object.to_json().map_or_else(|_| self.json.clone(), Bytes::from)
            }
        }
    }
}

fn taken(record: &Record) -> Option<Box<dyn Object>> {
    record.attachment.as_ref()?.downcast_ref::<ObjectAttachment>()?.0.lock().take()
}

/// Puts the revision into a stored value, without decoding it.
fn with_revision(value: &Bytes, revision: Revision) -> Option<Bytes> {
    let at = find(value, METADATA, METADATA_WITHIN)? + METADATA.len();
    // `{}` would need no comma; every object has a name.
    if value.get(at) == Some(&b'}') {
        return None;
    }
    Some(splice(value, at, 0, format!("\"resourceVersion\":\"{revision}\",").as_bytes()))
}

fn find(bytes: &[u8], needle: &[u8], within: usize) -> Option<usize> {
    let end = bytes.len().min(within);
    bytes[..end].windows(needle.len()).position(|w| w == needle)
}

fn splice(bytes: &Bytes, at: usize, remove: usize, insert: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() - remove + insert.len());
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(insert);
    out.extend_from_slice(&bytes[at + remove..]);
    out.freeze()
}
