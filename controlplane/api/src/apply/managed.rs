//! [`ManagedFields`]: the entries of `metadata.managedFields`, and how they are read, written, sorted and bounded.
//!
//! An entry's set is read when it is needed, which on most writes it is not.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go`.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{Operation, Writer, element::PathElement, set::Set};
use crate::error::ApiError;

/// Most managers that own fields by updates; older ones are put together as [`ANCIENT`].
pub const UPDATE_MANAGERS_MAX: usize = 10;

const ANCIENT: &str = "ancient-changes";

/// Who owns which fields, as in `metadata.managedFields`.
#[derive(Debug, Clone, Default)]
pub struct ManagedFields {
    pub(super) entries: Vec<Entry>,
}

/// The fields of one manager.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) api_version: String,
    pub(super) time: Option<Timestamp>,
    pub(super) fields: Fields,
}

/// What tells managers apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// Of updates; whoever applies is one manager across versions.
    pub(super) api_version: Option<String>,
    pub(super) subresource: String,
}

/// A set of fields, read or not yet.
#[derive(Debug, Clone)]
pub(super) enum Fields {
    /// As it was stored.
    Raw(Box<RawValue>),
    Set(Set),
}

impl Id {
    pub(super) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let of_update = operation == Operation::Update;
        Self {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: of_update.then(|| api_version.to_owned()),
            subresource: subresource.to_owned(),
        }
    }

    pub(super) fn of(writer: &Writer<'_>, operation: Operation) -> Self {
        Self::new(writer.manager, operation, writer.api_version, writer.subresource)
    }

    /// The text by which Kubernetes sorts managers.
    pub(super) fn text(&self) -> String {
        let wire = Wire {
            manager: Some(&self.manager),
            operation: self.operation.as_str(),
            api_version: self.api_version.as_deref(),
            subresource: &self.subresource,
            ..Wire::default()
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// As conflicts name it: `"kubectl" with subresource "status" using v1`.
    pub(super) fn shown(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if let Some(version) = &self.api_version {
            out.push_str(&format!(" using {version}"));
        }
        out
    }
}

impl Fields {
    /// The set; an empty one when it is malformed.
    pub(super) fn into_set(self) -> Set {
        match self {
            Self::Set(set) => set,
            Self::Raw(raw) => Set::from_fields(&mut serde_json::Deserializer::from_str(raw.get())).unwrap_or_default(),
        }
    }

    /// `false` when no path of `other` can be in this set, found out without reading it.
    pub(super) fn may_share(&self, other: &Set) -> bool {
        other.nodes().iter().any(|node| match (self, &node.element) {
            (Self::Set(set), element) => set.get(element).is_some(),
            // The text may name the field deeper down, too, or spell it with escapes.
            (Self::Raw(raw), PathElement::Field(name)) if name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                raw.get().contains(&format!("\"f:{name}\"")) || raw.get().contains("\\u")
            }
            (Self::Raw(_), _) => true,
        })
    }

    fn to_raw(&self) -> Box<RawValue> {
        let text = match self {
            Self::Raw(raw) => return raw.clone(),
            Self::Set(set) => set.to_fields(),
        };
        RawValue::from_string(text).unwrap_or_default()
    }

    fn into_tree(self) -> Value {
        match self {
            Self::Raw(raw) => serde_json::from_str(raw.get()).unwrap_or_default(),
            Self::Set(set) => serde_json::to_value(&set).unwrap_or_default(),
        }
    }
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// An entry as it is written, in Kubernetes' order.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    manager: Option<&'a str>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields_type: Option<&'a str>,
    #[serde(rename = "fieldsV1", skip_serializing_if = "Option::is_none")]
    fields: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

/// An entry as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Read {
    manager: Option<String>,
    operation: Option<String>,
    api_version: Option<String>,
    time: Option<Timestamp>,
    fields_type: Option<String>,
    #[serde(rename = "fieldsV1")]
    fields: Option<Box<RawValue>>,
    subresource: Option<String>,
}

impl Read {
    fn entry(self, index: usize) -> Result<Entry, ApiError> {
        let operation = operation(self.operation.as_deref())?;
        let api_version = checked(self.api_version, self.fields_type.as_deref(), index)?;
        let id = Id {
            manager: self.manager.unwrap_or_default(),
            ..Id::new("", operation, &api_version, &self.subresource.unwrap_or_default())
        };
        let fields = self.fields.map_or_else(|| Fields::Set(Set::new()), Fields::Raw);
        Ok(Entry { id, api_version, time: self.time, fields })
    }
}

fn operation(text: Option<&str>) -> Result<Operation, ApiError> {
    match text {
        Some("Apply") => Ok(Operation::Apply),
        Some("Update") => Ok(Operation::Update),
        _ => Err(ApiError::bad_request("operation must be `Apply` or `Update`")),
    }
}

fn checked(api_version: Option<String>, fields_type: Option<&str>, index: usize) -> Result<String, ApiError> {
    let api_version = api_version.filter(|v| !v.is_empty());
    let api_version = api_version.ok_or_else(|| ApiError::bad_request("apiVersion must not be empty"))?;
    match fields_type.unwrap_or_default() {
        "FieldsV1" => Ok(api_version),
        "" => Err(ApiError::bad_request(format!("missing fieldsType in managed fields entry {index}"))),
        other => Err(ApiError::bad_request(format!("invalid fieldsType {other:?} in managed fields entry {index}"))),
    }
}

impl ManagedFields {
    /// Reads `metadata.managedFields`, a JSON array, as it was stored: sets are read when they are needed.
    ///
    /// # Errors
    /// 400 when it is no such array.
    pub fn from_json(json: &[u8]) -> Result<Self, ApiError> {
        let read: Vec<Read> = serde_json::from_slice(json)
            .map_err(|e| ApiError::bad_request(format!("error decoding managed fields: {e}")))?;
        Self::collect(read.into_iter().enumerate().map(|(i, r)| r.entry(i)))
    }

    /// From `metadata.managedFields` of typed metadata, as clients send it: put in order, without what no set holds.
    ///
    /// # Errors
    /// 400 when an entry is malformed.
    pub fn from_entries(entries: Vec<ManagedFieldsEntry>) -> Result<Self, ApiError> {
        let entry = |(index, e): (usize, ManagedFieldsEntry)| {
            let operation = operation(e.operation.as_deref())?;
            let api_version = checked(e.api_version, e.fields_type.as_deref(), index)?;
            let id = Id {
                manager: e.manager.unwrap_or_default(),
                ..Id::new("", operation, &api_version, &e.subresource.unwrap_or_default())
            };
            let fields = e.fields_v1.map_or_else(Default::default, |f| f.0);
            let set = if fields.is_null() { Ok(Set::new()) } else { Set::from_fields(&fields) };
            let set = set.map_err(|why| ApiError::bad_request(format!("error decoding managed fields: {why}")))?;
            Ok(Entry { id, api_version, time: e.time.map(|t| t.0), fields: Fields::Set(set) })
        };
        Self::collect(entries.into_iter().enumerate().map(entry))
    }

    fn collect(entries: impl Iterator<Item = Result<Entry, ApiError>>) -> Result<Self, ApiError> {
        let mut out = Self::default();
        let mut known: HashMap<Id, usize> = HashMap::new();
        for entry in entries {
            let entry = entry?;
            let at = *known.entry(entry.id.clone()).or_insert(out.entries.len());
            match out.entries.get_mut(at) {
                Some(same) => *same = entry,
                None => out.entries.push(entry),
            }
        }
        Ok(out)
    }

    /// The JSON array, without white space.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"[".to_vec();
        for (i, entry) in self.sorted().into_iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend(serde_json::to_vec(&entry.wire()).unwrap_or_default());
        }
        out.push(b']');
        out
    }

    /// For `metadata.managedFields` of typed metadata.
    pub fn into_entries(mut self) -> Vec<ManagedFieldsEntry> {
        self.entries.sort_by(Entry::order);
        let entry = |e: Entry| ManagedFieldsEntry {
            manager: Some(e.id.manager).filter(|m| !m.is_empty()),
            operation: Some(e.id.operation.as_str().to_owned()),
            api_version: Some(e.api_version),
            time: e.time.map(Time),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(e.fields.into_tree())),
            subresource: Some(e.id.subresource).filter(|s| !s.is_empty()),
        };
        self.entries.into_iter().map(entry).collect()
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn sorted(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.order(b));
        entries
    }

    pub(super) fn take(&mut self, id: &Id) -> Option<Entry> {
        let at = self.entries.iter().position(|e| e.id == *id)?;
        Some(self.entries.swap_remove(at))
    }

    /// Puts the oldest updates together until there are few enough managers.
    pub(super) fn cap_updates(&mut self) {
        self.cap_updates_to(UPDATE_MANAGERS_MAX);
    }

    pub(super) fn cap_updates_to(&mut self, managers_max: usize) {
        let is_update = |e: &Entry| e.id.operation == Operation::Update;
        let mut count = self.entries.iter().filter(|e| is_update(e)).count();
        if count <= managers_max {
            return;
        }
        let (mut updates, rest): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(is_update);
        updates.sort_by_cached_key(|e| (e.seconds(), e.id.text()));
        let mut kept: Vec<Entry> = rest;
        let mut oldest: BTreeMap<String, Entry> = BTreeMap::new();
        for entry in updates {
            if count <= managers_max {
                kept.push(entry);
                continue;
            }
            match oldest.remove(&entry.api_version) {
                None => {
                    oldest.insert(entry.api_version.clone(), entry);
                }
                Some(first) => {
                    oldest.insert(entry.api_version.clone(), first.merged_into_bucket(entry));
                    count -= 1;
                }
            }
        }
        for entry in oldest.into_values() {
            match kept.iter_mut().find(|e| e.id == entry.id) {
                Some(same) => *same = entry.merged_into_bucket(same.clone()),
                None => kept.push(entry),
            }
        }
        self.entries = kept;
    }
}

impl Entry {
    fn seconds(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_second)
    }

    /// Applies first, then the older, then by name.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |e: &'_ Self| (e.id.operation, e.seconds());
        key(self)
            .cmp(&key(other))
            .then_with(|| self.id.manager.cmp(&other.id.manager))
            .then_with(|| self.api_version.cmp(&other.api_version))
            .then_with(|| self.id.subresource.cmp(&other.id.subresource))
    }

    /// This one and a newer one as one manager of old changes.
    fn merged_into_bucket(self, newer: Self) -> Self {
        Self {
            id: Id::new(ANCIENT, Operation::Update, &newer.api_version, ""),
            api_version: newer.api_version,
            time: newer.time,
            fields: Fields::Set(newer.fields.into_set().union(self.fields.into_set())),
        }
    }

    fn wire(&self) -> Wire<'_> {
        Wire {
            manager: Some(&*self.id.manager).filter(|m| !m.is_empty()),
            operation: self.id.operation.as_str(),
            api_version: Some(&self.api_version),
            time: self.time,
            fields_type: Some("FieldsV1"),
            fields: Some(self.fields.to_raw()),
            subresource: &self.id.subresource,
        }
    }
}
