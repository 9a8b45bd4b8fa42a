//! [`Object`] and [`AnyKind`]: one type for any object, so that registry, caches and drivers are compiled once and
//! know no kind. [`Kind`]s get both by blanket implementation; custom resources implement them over JSON.

use std::{
    any::{Any, TypeId, type_name},
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, schemars};
use serde::Serialize;

use crate::{
    error::ApiError,
    field::FieldErrors,
    intern::intern,
    kind::{Cell, Column, ColumnType, Help, Kind, Names, ScaleView, Scope, Storage, SubBehaviour, Verb},
    schema::RootType,
};

/// A revision of the store: one counter for the whole cluster. Shown to clients as `resourceVersion`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Namespace and name. The namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Key of a namespaced object (or of a cluster-scoped one, with an empty namespace).
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// The key that an object's metadata spells.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Any object of the API.
pub trait Object: Any + Send + Sync + fmt::Debug {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Names of its kind.
    fn names(&self) -> Names;
    /// Its kind, with all behaviour.
    fn kind(&self) -> KindRef;
    /// The JSON that clients see: `apiVersion`, `kind` and `metadata` first, in this order, with whatever
    /// `resourceVersion` the metadata holds.
    ///
    /// # Errors
    /// Never for the built-in kinds; a map with non-string keys would be one.
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error>;
    /// The same as a tree.
    ///
    /// # Errors
    /// As [`Object::to_json`].
    fn to_value(&self) -> Result<serde_json::Value, serde_json::Error>;
    /// A deep copy.
    fn boxed_clone(&self) -> Box<dyn Object>;
    /// Whether two objects of one kind are the same.
    fn same_as(&self, other: &dyn Object) -> bool;
    /// Gives back memory that is reserved and not used.
    fn compact(&mut self) {}
}

impl<K: Kind> Object for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn names(&self) -> Names {
        K::NAMES
    }

    fn kind(&self) -> KindRef {
        kind_of::<K>()
    }

    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    fn to_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        // By way of the JSON, as for reading: see `decode_value`.
        serde_json::from_slice(&self.to_json()?)
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn same_as(&self, other: &dyn Object) -> bool {
        other.downcast_ref::<K>().is_some_and(|o| self == o)
    }

    fn compact(&mut self) {
        Kind::compact(self);
    }
}

impl dyn Object {
    /// The typed object, if it is a `K`.
    pub fn downcast_ref<K: Kind>(&self) -> Option<&K> {
        (self as &dyn Any).downcast_ref()
    }

    /// The typed object, to change, if it is a `K`.
    pub fn downcast_mut<K: Kind>(&mut self) -> Option<&mut K> {
        (self as &mut dyn Any).downcast_mut()
    }

    /// The typed object in its `Arc`, without a copy, if it is a `K`.
    pub fn downcast_arc<K: Kind>(self: Arc<Self>) -> Option<Arc<K>> {
        (self as Arc<dyn Any + Send + Sync>).downcast().ok()
    }

    /// The object, if it is of a type that is no [`Kind`] (a custom resource).
    pub fn downcast_other<T: Object>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }

    /// The object, to change, if it is of a type that is no [`Kind`] (a custom resource).
    pub fn downcast_other_mut<T: Object>(&mut self) -> Option<&mut T> {
        (self as &mut dyn Any).downcast_mut()
    }

    /// Namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self.meta())
    }

    /// `metadata.uid`, empty when unset.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// `metadata.resourceVersion` as a number; zero when unset or not a number.
    pub fn revision(&self) -> Revision {
        Revision(self.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default())
    }
}

/// An object read from JSON or YAML, with the names of the fields that its kind does not have.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Paths of unknown fields, for example `spec.foo`.
    pub unknown: Vec<String>,
}

/// What discovery and routing need to know of a subresource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// Name in the path.
    pub name: &'static str,
    /// What it does.
    pub behaviour: SubresourceBehaviour,
}

/// What a subresource does, without its functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubresourceBehaviour {
    /// The status alone.
    Status,
    /// `autoscaling/v1 Scale`.
    Scale,
    /// Another part of the object: see [`AnyKind::prepare_part_update`].
    Part,
    /// Served by the API server's table of verbs.
    Verb(Verb),
}

/// A Table column without its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Heading.
    pub name: &'static str,
    /// Type of the cells.
    pub kind: ColumnType,
    /// Format of the cells: `name` for names of objects, mostly empty.
    pub format: &'static str,
    /// What it shows.
    pub help: &'static str,
    /// Greater than `0`: printed only with `-o wide`.
    pub priority: i32,
}

impl ColumnInfo {
    /// A column that is always printed.
    pub fn new(name: &'static str, kind: ColumnType, format: &'static str, help: Help) -> Self {
        // Too many texts are only possible for custom resources, whose columns then go without words.
        let help = intern(&help.words()).unwrap_or_default();
        Self { name, kind, format, help, priority: 0 }
    }
}

/// A kind, with its type erased. Objects handed in must be of this kind; others are treated as no-ops or errors.
pub trait AnyKind: Send + Sync + fmt::Debug + 'static {
    /// Its names.
    fn names(&self) -> Names;
    /// Whether it lives in namespaces.
    fn scope(&self) -> Scope;
    /// What becomes of its objects.
    fn storage(&self) -> Storage {
        Storage::Stored
    }
    /// What clients that use it are told each time: that it is deprecated.
    fn warning(&self) -> Option<&str> {
        None
    }
    /// What is not as it should be in an object that is written, though it is accepted.
    fn warnings(&self, _object: &dyn Object, _old: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }
    /// Its subresources.
    fn subresources(&self) -> Vec<SubresourceInfo>;
    /// Its Table columns.
    fn columns(&self) -> Vec<ColumnInfo>;
    /// The Table cells of one object, one for each column.
    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell>;
    /// Why the object is done and what to say of it, as its row in a Table has it.
    fn completed(&self, _object: &dyn Object) -> Option<(&'static str, &'static str)> {
        None
    }
    /// Names of the fields that field selectors may use, beside `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> Vec<&'static str>;
    /// The value of one of [`AnyKind::selectable_fields`]; `None` when the kind has no such field.
    fn selectable(&self, object: &dyn Object, path: &str) -> Option<String>;
    /// Reads an object from JSON. `apiVersion` and `kind` must be this kind's.
    ///
    /// # Errors
    /// 400 with the path and what was expected there.
    fn decode(&self, json: &[u8]) -> Result<Decoded, ApiError>;
    /// The same from a tree.
    ///
    /// # Errors
    /// As [`AnyKind::decode`].
    fn decode_value(&self, value: serde_json::Value) -> Result<Decoded, ApiError>;
    /// See [`Kind::fill_defaults`].
    fn fill_defaults(&self, object: &mut dyn Object);
    /// See [`Kind::prepare_create`].
    fn prepare_create(&self, object: &mut dyn Object);
    /// See [`Kind::prepare_update`].
    fn prepare_update(&self, object: &mut dyn Object, old: &dyn Object);
    /// See [`Kind::prepare_status_update`].
    fn prepare_status_update(&self, object: &mut dyn Object, old: &dyn Object);
    /// See [`Kind::generation_differs`].
    fn generation_differs(&self, object: &dyn Object, old: &dyn Object) -> Option<bool>;
    /// See [`Kind::validate`].
    fn validate(&self, object: &dyn Object, errs: &mut FieldErrors);
    /// See [`Kind::validate_create`].
    fn validate_create(&self, _object: &dyn Object, _errs: &mut FieldErrors) {}
    /// See [`Kind::validate_update`].
    fn validate_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors);
    /// See [`Kind::validate_status_update`].
    fn validate_status_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors);
    /// Carries over everything but the part that a subresource writes ([`SubresourceBehaviour::Part`]).
    fn prepare_part_update(&self, _subresource: &str, _object: &mut dyn Object, _old: &dyn Object) {}
    /// Checks a write of the part that a subresource writes ([`SubresourceBehaviour::Part`]).
    fn validate_part_update(
        &self,
        _subresource: &str,
        _object: &dyn Object,
        _old: &dyn Object,
        _errs: &mut FieldErrors,
    ) {
    }
    /// See [`Kind::grace_seconds`].
    fn grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
    /// What the scale subresource shows; `None` when there is none.
    fn scale(&self, object: &dyn Object) -> Option<ScaleView>;
    /// Sets the wanted replicas; `false` when there is no scale subresource.
    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> bool;
    /// Reads an object as it was stored, in whichever version it was.
    ///
    /// # Errors
    /// As [`AnyKind::decode`].
    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, ApiError> {
        Ok(self.decode(json)?.object)
    }
    /// See [`Kind::CREATE_ON_UPDATE`].
    fn create_on_update(&self) -> bool {
        false
    }
    /// See [`Kind::UNCONDITIONAL_UPDATE`].
    fn unconditional_update(&self) -> bool {
        true
    }
    /// See [`Kind::RETURNS_DELETED`].
    fn returns_deleted(&self) -> bool {
        false
    }
    /// See [`Kind::ORPHANS_DEPENDENTS`].
    fn orphans_dependents(&self) -> bool {
        false
    }
    /// The kind that objects are stored as, when it is that of another version.
    fn stored_as(&self) -> Option<KindRef> {
        None
    }
    /// The form in which an object of this kind is stored.
    ///
    /// # Errors
    /// 400 when it cannot be converted.
    fn to_stored(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ApiError> {
        Ok(object)
    }
    /// An object of this kind from its stored form.
    ///
    /// # Errors
    /// 500 when it cannot be converted.
    #[expect(clippy::wrong_self_convention, reason = "what is converted from is the stored object, not the kind")]
    fn from_stored(&self, stored: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        Ok(stored.boxed_clone())
    }
    /// The path by which the stored kind knows a selectable field of this one.
    fn stored_field<'p>(&self, path: &'p str) -> &'p str {
        path
    }
    /// Adds the kind's JSON schema, and those it refers to, to a generator.
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema;
    /// How its values are put together, for merging and field ownership.
    fn types(&self) -> RootType;
    /// The name of the schema in OpenAPI documents, for example `io.k8s.api.apps.v1.Deployment`.
    fn schema_name(&self) -> String;
}

/// A handle on a kind.
pub type KindRef = Arc<dyn AnyKind>;

/// The handle on a built-in kind.
pub fn kind_of<K: Kind>() -> KindRef {
    Arc::new(Typed::<K>(PhantomData))
}

struct Typed<K>(PhantomData<fn() -> K>);

fn column_info<K>(column: &Column<K>) -> ColumnInfo {
    ColumnInfo { priority: column.priority, ..ColumnInfo::new(column.name, column.kind, column.format, column.help) }
}

impl<K> fmt::Debug for Typed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Typed<{}>", type_name::<K>())
    }
}

impl<K: Kind> AnyKind for Typed<K> {
    fn names(&self) -> Names {
        K::NAMES
    }

    fn scope(&self) -> Scope {
        K::SCOPE
    }

    fn storage(&self) -> Storage {
        K::STORAGE
    }

    fn subresources(&self) -> Vec<SubresourceInfo> {
        let info = |sub: &crate::kind::Sub<K>| SubresourceInfo {
            name: sub.name,
            behaviour: match sub.behaviour {
                SubBehaviour::Status => SubresourceBehaviour::Status,
                SubBehaviour::Scale { .. } => SubresourceBehaviour::Scale,
                SubBehaviour::Part { .. } => SubresourceBehaviour::Part,
                SubBehaviour::Verb(verb) => SubresourceBehaviour::Verb(verb),
            },
        };
        K::SUBRESOURCES.iter().map(info).collect()
    }

    fn columns(&self) -> Vec<ColumnInfo> {
        static KNOWN: RwLock<BTreeMap<TypeId, Vec<ColumnInfo>>> = RwLock::new(BTreeMap::new());
        let id = TypeId::of::<K>();
        if let Some(columns) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return columns.clone();
        }
        let columns: Vec<_> = K::COLUMNS.iter().map(column_info).collect();
        // Words come out of schemas, which take a while to make.
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(id, columns.clone());
        columns
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell> {
        let cells = |k: &K| K::COLUMNS.iter().map(|c| (c.value)(k, now)).collect();
        object.downcast_ref::<K>().map(cells).unwrap_or_default()
    }

    fn completed(&self, object: &dyn Object) -> Option<(&'static str, &'static str)> {
        object.downcast_ref::<K>().and_then(Kind::completed)
    }

    fn selectable_fields(&self) -> Vec<&'static str> {
        K::FIELDS.iter().map(|f| f.path).collect()
    }

    fn selectable(&self, object: &dyn Object, path: &str) -> Option<String> {
        let field = K::FIELDS.iter().find(|f| f.path == path)?;
        object.downcast_ref::<K>().map(field.value)
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, ApiError> {
        crate::decode::decode::<K>(json)
    }

    fn decode_value(&self, mut value: serde_json::Value) -> Result<Decoded, ApiError> {
        K::fill_tree(&mut value);
        crate::decode::decode_value::<K>(&value)
    }

    fn fill_defaults(&self, object: &mut dyn Object) {
        if let Some(k) = object.downcast_mut::<K>() {
            k.fill_defaults();
        }
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        if let Some(k) = object.downcast_mut::<K>() {
            k.prepare_create();
        }
    }

    fn prepare_update(&self, object: &mut dyn Object, old: &dyn Object) {
        if let (Some(k), Some(old)) = (object.downcast_mut::<K>(), old.downcast_ref()) {
            k.prepare_update(old);
        }
    }

    fn prepare_status_update(&self, object: &mut dyn Object, old: &dyn Object) {
        if let (Some(k), Some(old)) = (object.downcast_mut::<K>(), old.downcast_ref()) {
            k.prepare_status_update(old);
        }
    }

    fn generation_differs(&self, object: &dyn Object, old: &dyn Object) -> Option<bool> {
        object.downcast_ref::<K>()?.generation_differs(old.downcast_ref()?)
    }

    fn validate(&self, object: &dyn Object, errs: &mut FieldErrors) {
        if let Some(k) = object.downcast_ref::<K>() {
            k.validate(errs);
        }
    }

    fn validate_create(&self, object: &dyn Object, errs: &mut FieldErrors) {
        if let Some(k) = object.downcast_ref::<K>() {
            k.validate_create(errs);
        }
    }

    fn validate_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors) {
        if let (Some(k), Some(old)) = (object.downcast_ref::<K>(), old.downcast_ref()) {
            k.validate_update(old, errs);
        }
    }

    fn validate_status_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors) {
        if let (Some(k), Some(old)) = (object.downcast_ref::<K>(), old.downcast_ref()) {
            k.validate_status_update(old, errs);
        }
    }

    fn prepare_part_update(&self, subresource: &str, object: &mut dyn Object, old: &dyn Object) {
        let (Some(k), Some(old)) = (object.downcast_mut::<K>(), old.downcast_ref()) else { return };
        for sub in K::SUBRESOURCES.iter().filter(|s| s.name == subresource) {
            if let SubBehaviour::Part { prepare, .. } = sub.behaviour {
                prepare(k, old);
            }
        }
    }

    fn validate_part_update(&self, subresource: &str, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors) {
        let (Some(k), Some(old)) = (object.downcast_ref::<K>(), old.downcast_ref()) else { return };
        for sub in K::SUBRESOURCES.iter().filter(|s| s.name == subresource) {
            if let SubBehaviour::Part { validate, .. } = sub.behaviour {
                validate(k, old, errs);
            }
        }
    }

    fn grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        object.downcast_ref::<K>()?.grace_seconds(requested)
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        let object = object.downcast_ref::<K>()?;
        K::SUBRESOURCES.iter().find_map(|sub| match sub.behaviour {
            SubBehaviour::Scale { read, .. } => Some(read(object)),
            _ => None,
        })
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> bool {
        let Some(object) = object.downcast_mut::<K>() else { return false };
        let write = K::SUBRESOURCES.iter().find_map(|sub| match sub.behaviour {
            SubBehaviour::Scale { write, .. } => Some(write),
            _ => None,
        });
        write.map(|write| write(object, replicas)).is_some()
    }

    fn create_on_update(&self) -> bool {
        K::CREATE_ON_UPDATE
    }

    fn unconditional_update(&self) -> bool {
        K::UNCONDITIONAL_UPDATE
    }

    fn returns_deleted(&self) -> bool {
        K::RETURNS_DELETED
    }

    fn orphans_dependents(&self) -> bool {
        K::ORPHANS_DEPENDENTS
    }

    fn stored_as(&self) -> Option<KindRef> {
        K::HUB.map(|hub| (hub.kind)())
    }

    fn stored_field<'p>(&self, path: &'p str) -> &'p str {
        let known = K::HUB.and_then(|hub| hub.fields.iter().find(|(own, _)| *own == path));
        known.map_or(path, |(_, stored)| stored)
    }

    fn to_stored(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ApiError> {
        match (K::HUB, object.downcast_ref::<K>()) {
            (Some(hub), Some(k)) => (hub.to)(k),
            _ => Ok(object),
        }
    }

    fn from_stored(&self, stored: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        match K::HUB {
            Some(hub) => (hub.from)(stored).map(|k| Box::new(k) as Box<dyn Object>),
            None => Ok(stored.boxed_clone()),
        }
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<K>()
    }

    fn types(&self) -> RootType {
        crate::schema::types_of(self)
    }

    fn schema_name(&self) -> String {
        K::schema_name().into_owned()
    }
}

/// Serialises an object that is only known as [`Object`].
impl Serialize for dyn Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}
