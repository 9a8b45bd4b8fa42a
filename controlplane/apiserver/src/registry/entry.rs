//! [`Entry`]: one object as it is kept in memory: shared, with its JSON ready to be sent.
//!
//! `metadata.managedFields` is in the JSON only. As a tree it would be several times as large as the object that it is
//! about, and nothing but the writing of objects ever looks at it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use podium_api::{ApiError, Object, Revision};
use podium_store::Key;
use serde_json::Value;

/// What stands before the metadata in every object's JSON.
const METADATA: &[u8] = b"\"metadata\":{";
const FIELD: &[u8] = b"\"managedFields\":";

/// One object as clients see it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its key in the store.
    pub(crate) key: Key,
    /// The object, with its `resourceVersion`, without `managedFields`.
    pub(crate) object: Arc<dyn Object>,
    /// Its JSON.
    pub(crate) json: Bytes,
    /// Where in the JSON the array of `managedFields` is; empty when there is none.
    managed: Range<u32>,
}

impl Entry {
    /// An object as it is, with `managed` as the JSON array of its `managedFields` (empty for none).
    ///
    /// # Errors
    /// 500 when it cannot be encoded.
    pub(crate) fn of(key: Key, object: Arc<dyn Object>, managed: &[u8]) -> Result<Self, ApiError> {
        let json =
            object.to_json().map_err(|e| ApiError::internal(format!("encoding a {}: {e}", object.names().kind)))?;
        let (json, managed) = splice(json, managed);
        Ok(Self { key, object, json: json.into(), managed })
    }

    /// An object at a revision.
    ///
    /// # Errors
    /// As [`Entry::of`].
    pub(crate) fn new(
        key: Key,
        mut object: Box<dyn Object>,
        managed: &[u8],
        revision: Revision,
    ) -> Result<Self, ApiError> {
        object.meta_mut().resource_version = Some(revision.to_string());
        object.compact();
        Self::of(key, object.into(), managed)
    }

    /// An object as it was just written: its JSON is what was stored, with the revision put in.
    pub(super) fn written(key: Key, written: Written, value: &[u8], revision: Revision) -> Self {
        let Written { mut object, managed } = written;
        let field = format!("\"resourceVersion\":\"{revision}\"");
        object.meta_mut().resource_version = Some(revision.to_string());
        object.compact();
        let (json, shift) = insert(value.to_vec(), &[field.as_bytes()]);
        let by = |n: u32| if managed.is_empty() { 0 } else { n + at(shift.len()) };
        Self { key, object: object.into(), json: json.into(), managed: by(managed.start)..by(managed.end) }
    }

    /// The same entry, shown as another version of the object.
    ///
    /// # Errors
    /// As [`Entry::of`].
    pub(crate) fn showing(&self, object: Arc<dyn Object>) -> Result<Self, ApiError> {
        Self::of(self.key.clone(), object, self.managed())
    }

    /// Its revision.
    pub(crate) fn revision(&self) -> Revision {
        self.object.revision()
    }

    /// The JSON array of `managedFields`; empty when there is none.
    pub(crate) fn managed(&self) -> &[u8] {
        self.json.get(self.managed.start as usize..self.managed.end as usize).unwrap_or_default()
    }

    /// The object as a tree, with `managedFields`.
    ///
    /// # Errors
    /// Never: the JSON was written here.
    pub(crate) fn tree(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.json).map_err(|e| ApiError::internal(format!("reading a stored object: {e}")))
    }

    /// The object as a tree, without `managedFields`.
    ///
    /// # Errors
    /// As [`Entry::tree`].
    pub(crate) fn bare_tree(&self) -> Result<Value, ApiError> {
        let mut tree = self.tree()?;
        if let Some(meta) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
        }
        Ok(tree)
    }
}

/// An object on its way into the store.
pub(crate) struct Draft {
    pub(crate) object: Box<dyn Object>,
    /// The JSON array of its `managedFields`; empty for none.
    pub(crate) managed: Vec<u8>,
}

/// An object that is on disk now, and where in its JSON `managedFields` are.
pub(super) struct Written {
    object: Box<dyn Object>,
    managed: Range<u32>,
}

impl Draft {
    /// The JSON that is stored: without `resourceVersion`, which is the record's revision.
    ///
    /// # Errors
    /// 500 when it cannot be encoded.
    pub(super) fn encode(mut self) -> Result<(Vec<u8>, Written), ApiError> {
        self.object.meta_mut().resource_version = None;
        let object = self.object;
        let json =
            object.to_json().map_err(|e| ApiError::internal(format!("encoding a {}: {e}", object.names().kind)))?;
        let (json, managed) = splice(json, &self.managed);
        Ok((json, Written { object, managed }))
    }
}

/// Takes `managedFields` out of an object that was read whole; the JSON array, empty for none.
pub(crate) fn take_managed(object: &mut dyn Object) -> Vec<u8> {
    match object.meta_mut().managed_fields.take() {
        Some(entries) if !entries.is_empty() => serde_json::to_vec(&entries).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Puts `managedFields` into the metadata; where they are then.
fn splice(json: Vec<u8>, managed: &[u8]) -> (Vec<u8>, Range<u32>) {
    if managed.is_empty() {
        return (json, 0..0);
    }
    let (json, field) = insert(json, &[FIELD, managed]);
    let start = field.start + FIELD.len();
    (json, at(start)..at(start + managed.len()))
}

/// Puts a field, in pieces, before all others of the metadata; which bytes are new, with the comma.
fn insert(json: Vec<u8>, field: &[&[u8]]) -> (Vec<u8>, Range<usize>) {
    let Some(place) = metadata_at(&json) else { return (json, 0..0) };
    let mut out = Vec::with_capacity(json.len() + field.iter().map(|f| f.len()).sum::<usize>() + 1);
    out.extend_from_slice(&json[..place]);
    field.iter().for_each(|piece| out.extend_from_slice(piece));
    if json.get(place) != Some(&b'}') {
        out.push(b',');
    }
    let end = out.len();
    out.extend_from_slice(&json[place..]);
    (out, place..end)
}

/// Where the first field of the object's own metadata is. Other objects may lie in it, with metadata of theirs, and before
/// its own: the template in a ControllerRevision's data does.
fn metadata_at(json: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut at) = (0_usize, false, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' if !in_text && depth == 1 && json[at..].starts_with(METADATA) => return Some(at + METADATA.len()),
            b'"' => in_text = !in_text,
            b'\\' if in_text => at += 1,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Objects are far smaller than 4 GiB.
fn at(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn managed_fields_live_in_the_json_only() {
        for (json, managed, wanted) in [
            (r#"{"kind":"A","metadata":{"name":"a"}}"#, "", r#"{"kind":"A","metadata":{"name":"a"}}"#),
            (r#"{"metadata":{}}"#, "[1]", r#"{"metadata":{"managedFields":[1]}}"#),
            (r#"{"metadata":{"name":"a"},"x":1}"#, "[1]", r#"{"metadata":{"managedFields":[1],"name":"a"},"x":1}"#),
            (
                r#"{"data":[{"metadata":{"b":"}\\\"{"}}],"metadata":{"name":"a"}}"#,
                "[1]",
                r#"{"data":[{"metadata":{"b":"}\\\"{"}}],"metadata":{"managedFields":[1],"name":"a"}}"#,
            ),
        ] {
            let (out, range) = splice(json.as_bytes().to_vec(), managed.as_bytes());
            assert_eq!(String::from_utf8(out.clone()).unwrap(), wanted);
            assert_eq!(&out[range.start as usize..range.end as usize], managed.as_bytes());
        }
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for managed in ["", r#"[{"manager":"m"}]"#] {
            let mut object = ConfigMap::default();
            object.metadata.name = Some("a".to_owned());
            let draft = Draft { object: Box::new(object.clone()), managed: managed.as_bytes().to_vec() };
            let (value, written) = draft.encode().unwrap();
            let entry = Entry::written("k".into(), written, &value, Revision(7));
            let again = Entry::new("k".into(), Box::new(object), managed.as_bytes(), Revision(7)).unwrap();
            assert_eq!(entry.managed(), managed.as_bytes());
            assert_eq!((entry.tree().unwrap(), entry.revision()), (again.tree().unwrap(), again.revision()));
            assert!(entry.object.same_as(&*again.object));
        }
    }
}
