//! Who owns what after an update or an apply, and what an apply makes of the object.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/merge/update.go`, and of Kubernetes' `managedfields/internal` the files
//! `managedfieldsupdater.go`, `stripmeta.go` and `structuredmerge.go`.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Operation, Reset, Schemas, Writer,
    compare::{Comparison, compare},
    conflict::{self, Conflict},
    element::same_value,
    field_set::{to_field_set, with_named_fields},
    managed::{Entry, Fields, Id, ManagedFields},
    merge::merge,
    reconcile::reconcile,
    remove::{remove_for_good, remove_items},
    set::Set,
};
use crate::{error::ApiError, schema::RootType};

/// What nobody owns.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    let metadata = [
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let mut set = Set::of_fields([&["apiVersion"][..], &["kind"], &["metadata"]]);
    for field in metadata {
        set = set.union(Set::of_fields([&["metadata", field][..]]));
    }
    set
});

/// Why an apply fails.
pub(super) enum Failure {
    /// Others own what it changes.
    Conflicts(Vec<Conflict>),
    /// Anything else.
    Other(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

/// One write.
pub(super) struct Updater<'a> {
    schemas: Schemas<'a>,
    writer: &'a Writer<'a>,
    reset: Set,
}

/// What a write changes and what it removes, without what nobody owns.
struct Changes {
    touched: Set,
    removed: Set,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.removed.is_empty()
    }
}

impl From<Comparison> for Changes {
    fn from(c: Comparison) -> Self {
        let touched = c.modified.union(c.added);
        Self { touched: touched.difference(&STRIPPED), removed: c.removed.difference(&STRIPPED) }
    }
}

/// An object in one of its versions.
struct At<'v> {
    value: Cow<'v, Value>,
    types: Cow<'v, RootType>,
}

/// What is left of an object, with `null` for what was emptied.
struct Pruned {
    value: Value,
    /// What went, in this version.
    gone: Set,
    api_version: String,
}

impl At<'_> {
    fn named(&self, set: &Set) -> Set {
        with_named_fields(&self.types, set)
    }

    fn field_set(&self) -> Set {
        self.named(&to_field_set(&self.types, &self.value))
    }
}

impl<'a> Updater<'a> {
    pub(super) fn new(schemas: Schemas<'a>, writer: &'a Writer<'a>, reset: &Reset<'_>) -> Self {
        let paths: Vec<Vec<&str>> = reset.0.iter().map(|path| path.split('.').collect()).collect();
        Self { schemas, writer, reset: Set::of_fields(paths.iter().map(Vec::as_slice)) }
    }

    fn now(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.writer.time.as_second()).ok()
    }

    /// An update by a manager, which owns what it changes.
    pub(super) fn update(&self, old: Option<&Value>, new: &Value, managed: ManagedFields, id: Id) -> ManagedFields {
        let comparison = compare(self.schemas.types, old, new).without(&self.reset);
        let changes = Changes::from(comparison);
        if changes.is_empty() {
            return managed;
        }
        let mut managed = managed;
        self.take_from_others(old, new, &changes, &mut managed, None);
        let own = changes.touched;
        if !own.is_empty() {
            let before = managed.take(&id).map(|e| e.fields.into_set()).unwrap_or_default();
            let fields = Fields::Set(before.union(own));
            let api_version = self.writer.api_version.to_owned();
            managed.entries.push(Entry { id, api_version, time: self.now(), fields });
        }
        managed.cap_updates();
        managed
    }

    /// Takes from everybody (but `own`) what a write changes or removes; says what was changed that they owned.
    fn take_from_others(
        &self,
        old: Option<&Value>,
        new: &Value,
        changes: &Changes,
        managed: &mut ManagedFields,
        own: Option<&Id>,
    ) -> Vec<(Id, Set)> {
        let mut lost = Vec::new();
        let mut elsewhere: BTreeMap<String, Option<Changes>> = BTreeMap::new();
        let mut kept = Vec::with_capacity(managed.entries.len() + 1);
        for mut entry in std::mem::take(&mut managed.entries) {
            if own == Some(&entry.id) {
                kept.push(entry);
                continue;
            }
            let changes = if self.is_here(&entry.api_version) {
                changes
            } else {
                let version = entry.api_version.clone();
                let changes = elsewhere.entry(version).or_insert_with_key(|v| self.changes_at(v, old, new));
                let Some(changes) = changes else { continue };
                changes
            };
            if entry.fields.may_share(&changes.touched) || entry.fields.may_share(&changes.removed) {
                let set = self.reconciled(&entry.api_version, entry.fields.into_set());
                let conflict = set.intersection(&changes.touched);
                if !conflict.is_empty() {
                    lost.push((entry.id.clone(), conflict));
                }
                let set = set.difference(&changes.touched).difference(&changes.removed);
                if set.is_empty() {
                    continue;
                }
                entry.fields = Fields::Set(set);
            }
            kept.push(entry);
        }
        managed.entries = kept;
        lost
    }

    fn is_here(&self, api_version: &str) -> bool {
        self.schemas.versions.is_none() || api_version == self.writer.api_version
    }

    fn types_at(&self, api_version: &str) -> Option<Cow<'a, RootType>> {
        match self.schemas.versions {
            Some(versions) if !self.is_here(api_version) => versions.types(api_version).map(Cow::Owned),
            _ => Some(Cow::Borrowed(self.schemas.types)),
        }
    }

    fn value_at<'v>(&self, value: &'v Value, api_version: &str) -> Option<Cow<'v, Value>> {
        let Some(versions) = self.schemas.versions else { return Some(Cow::Borrowed(value)) };
        if value.get("apiVersion").is_some_and(|v| v == api_version) {
            return Some(Cow::Borrowed(value));
        }
        versions.convert(value, api_version).map(Cow::Owned)
    }

    /// An object in another version; `None` when there is no such version any more.
    fn at<'v>(&self, value: &'v Value, api_version: &str) -> Option<At<'v>>
    where
        'a: 'v,
    {
        Some(At { value: self.value_at(value, api_version)?, types: self.types_at(api_version)? })
    }

    fn changes_at(&self, api_version: &str, old: Option<&Value>, new: &Value) -> Option<Changes> {
        let types = self.types_at(api_version)?;
        let old = match old {
            Some(old) => Some(self.value_at(old, api_version)?),
            None => None,
        };
        let new = self.value_at(new, api_version)?;
        Some(compare(&types, old.as_deref(), &new).without(&self.reset).into())
    }

    fn reconciled(&self, api_version: &str, set: Set) -> Set {
        match self.types_at(api_version) {
            Some(types) => reconcile(&types, set),
            None => set,
        }
    }

    /// Applies a valid configuration.
    pub(super) fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        managed: ManagedFields,
        force: bool,
    ) -> Result<(Value, ManagedFields), Failure> {
        let id = Id::of(self.writer, Operation::Apply);
        let mut managed = managed;
        for entry in &mut managed.entries {
            let set = std::mem::replace(&mut entry.fields, Fields::Set(Set::new())).into_set();
            entry.fields = Fields::Set(self.reconciled(&entry.api_version, set));
        }
        let merged = match live {
            Some(live) => {
                merge(self.schemas.types, live, config).map_err(|e| internal(format!("failed to merge config: {e}")))?
            }
            None => config.clone(),
        };
        let last = managed.take(&id);
        let set = to_field_set(self.schemas.types, config).recursive_difference(&self.reset);
        let time = last.as_ref().and_then(|e| e.time);
        let api_version = self.writer.api_version.to_owned();
        managed.entries.push(Entry { id: id.clone(), api_version, time, fields: Fields::Set(set) });
        let pruned = last.and_then(|last| self.prune(&merged, &managed, last));
        let new = pruned.as_ref().map_or(&merged, |p| &p.value);
        let changes = compare(self.schemas.types, live, new).without(&self.reset).into();
        let lost = self.take_from_others(live, new, &changes, &mut managed, Some(&id));
        if !force && !lost.is_empty() {
            return Err(Failure::Conflicts(conflict::of_managers(lost)));
        }
        let new = match pruned {
            Some(pruned) => self.stored(&merged, &pruned, &managed),
            None => merged,
        };
        self.strip_own(&id, &mut managed, live.is_some_and(|live| same_value(live, &new)));
        Ok((new, managed))
    }

    /// Leaves out of the applied set what nobody owns; the time moves when the object changed.
    fn strip_own(&self, id: &Id, managed: &mut ManagedFields, is_unchanged: bool) {
        let Some(mut own) = managed.take(id) else { return };
        let set = own.fields.into_set().difference(&STRIPPED);
        if set.is_empty() {
            return;
        }
        own.fields = Fields::Set(set);
        if !is_unchanged {
            own.time = self.now();
        }
        managed.entries.push(own);
    }

    /// Removes what was applied last time, is not applied now and belongs to nobody else. `None`: there is nothing to
    /// remove.
    fn prune(&self, merged: &Value, managed: &ManagedFields, last: Entry) -> Option<Pruned> {
        let set = last.fields.into_set();
        let here = self.at(merged, &last.api_version).filter(|_| !set.is_empty())?;
        let last_named = here.named(&set);
        let pruned = remove_items(&here.types, &here.value, &last_named);
        let pruned = self.add_back_owned(&here, pruned, &last.api_version, managed);
        let pruned = self.at(&pruned, &last.api_version)?;
        // What was never applied comes back, too: it stood below something that was.
        let gone = here.field_set().difference(&pruned.field_set()).intersection(&last_named);
        let value = object(remove_items(&here.types, &here.value, &gone));
        let value = self.value_at(&value, self.writer.api_version)?.into_owned();
        Some(Pruned { value, gone, api_version: last.api_version })
    }

    /// The object without what was pruned, as it is stored.
    fn stored(&self, merged: &Value, pruned: &Pruned, managed: &ManagedFields) -> Value {
        let Some(here) = self.at(merged, &pruned.api_version) else { return pruned.value.clone() };
        let mut owned = Set::new();
        for entry in managed.entries.iter().filter(|e| e.api_version == pruned.api_version) {
            owned = owned.union(entry.fields.clone().into_set());
        }
        let value = object(remove_for_good(&here.types, &here.value, &pruned.gone, &owned));
        match self.value_at(&value, self.writer.api_version) {
            Some(value) => value.into_owned(),
            None => pruned.value.clone(),
        }
    }

    /// What was pruned comes back where somebody (the new configuration, too) owns it.
    fn add_back_owned(&self, merged: &At<'_>, pruned: Value, version: &str, managed: &ManagedFields) -> Value {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in &managed.entries {
            let set = owned.entry(&entry.api_version).or_default();
            *set = std::mem::take(set).union(entry.fields.clone().into_set());
        }
        // The version of the pruned fields goes first: others may not convert without them.
        let mut pruned = pruned;
        if let Some(set) = owned.remove(version) {
            pruned = self.add_back(merged, pruned, version, &set);
        }
        for (version, set) in owned {
            pruned = self.add_back(merged, pruned, version, &set);
        }
        pruned
    }

    fn add_back(&self, merged: &At<'_>, pruned: Value, version: &str, owned: &Set) -> Value {
        let (Some(whole), Some(left)) = (self.at(&merged.value, version), self.at(&pruned, version)) else {
            return pruned;
        };
        let wanted = left.field_set().union(whole.named(owned));
        let gone = whole.field_set().difference(&wanted);
        remove_items(&whole.types, &whole.value, &gone)
    }
}

/// An object of which nothing is left is an empty one.
fn object(value: Value) -> Value {
    if value.is_null() { Value::Object(super::typed::Object::new()) } else { value }
}

/// 500 without the words that [`ApiError::internal`] puts before the message: Kubernetes sends it plain.
pub(crate) fn internal(message: String) -> ApiError {
    ApiError::new(crate::Reason::InternalError, message)
}
