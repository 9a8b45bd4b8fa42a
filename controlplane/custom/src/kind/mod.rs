//! [`CustomKind`]: one served version of a CustomResourceDefinition as a kind of the API.
//!
//! Objects are JSON; what is known of them comes from the schema. Conversion between versions here is that of strategy
//! `None`: another `apiVersion`, nothing else.

mod columns;
mod decode;
mod object;
mod path;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    schemars,
};
use podium_api::{
    ApiError, Cell, Decoded, FieldErrors, FieldPath, KindRef, NameRule, Names, Object, Scope, SubresourceInfo,
    field::{FieldError, FieldReason},
    intern,
    kind::Help,
    kind::ScaleView,
    object::{AnyKind, ColumnInfo, SubresourceBehaviour},
    schema::RootType,
};
use serde_json::Value;

use self::columns::Column;
pub use self::{object::CustomObject, path::Path};
use crate::schema::{Schema, compile_rules, openapi, root_type};

/// One served version of a definition.
pub struct CustomKind {
    /// Itself, to hand out.
    me: std::sync::Weak<Self>,
    names: Names,
    scope: Scope,
    schema: Schema,
    /// As written, for OpenAPI.
    props: JSONSchemaProps,
    served: bool,
    status: bool,
    scale: Option<Scale>,
    columns: Vec<Column>,
    selectable: Vec<(&'static str, Path)>,
    types: RootType,
    /// What is stored when it is another version.
    stored: Option<Arc<CustomKind>>,
    /// For clients that use this version.
    warning: Option<String>,
    /// All versions of the definition, by name, when objects of several may be stored as they are.
    family: Option<Family>,
}

/// The versions of one definition, which know each other.
type Family = Arc<Mutex<Vec<std::sync::Weak<CustomKind>>>>;

#[derive(Debug)]
struct Scale {
    spec: Path,
    spec_text: String,
    status: Path,
    selector: Option<Path>,
}

impl fmt::Debug for CustomKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomKind<{}/{}>", self.names.api_version(), self.names.kind)
    }
}

/// The kinds of a definition: one for each version, the stored one first. See [`CustomKind::is_served`].
///
/// # Errors
/// When no version is stored, or there are too many names for this process.
pub fn kinds(definition: &CustomResourceDefinition) -> Result<Vec<Arc<CustomKind>>, FieldErrors> {
    let mut errs = FieldErrors::new();
    let versions = FieldPath::new("spec.versions");
    let Some(storage) = definition.spec.versions.iter().find(|v| v.storage) else {
        errs.required(&versions, "must have exactly one version marked as storage version");
        return Err(errs);
    };
    let full = || {
        let mut errs = FieldErrors::new();
        errs.forbidden(&versions, "this server has seen too many names of custom resources: restart it");
        errs
    };
    let by_webhook = definition.spec.conversion.as_ref().is_some_and(|c| c.strategy == "Webhook");
    let family = by_webhook.then(Family::default);
    let stored = CustomKind::new(definition, storage, None, family.clone()).ok_or_else(full)?;
    let mut kinds = vec![stored.clone()];
    for version in definition.spec.versions.iter().filter(|v| !v.storage) {
        kinds.push(CustomKind::new(definition, version, Some(stored.clone()), family.clone()).ok_or_else(full)?);
    }
    if let Some(family) = family {
        *family.lock().unwrap_or_else(PoisonError::into_inner) = kinds.iter().map(Arc::downgrade).collect();
    }
    Ok(kinds)
}

/// Slices of names, each kept once, as [`intern`] keeps the names.
fn intern_all(names: &[String]) -> Option<&'static [&'static str]> {
    static KNOWN: Mutex<Option<HashMap<Vec<&'static str>, &'static [&'static str]>>> = Mutex::new(None);
    const SLICES_MAX: usize = 100_000;
    let names: Vec<&'static str> = names.iter().map(|n| intern(n)).collect::<Option<_>>()?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(slice) = known.get(&names) {
        return Some(slice);
    }
    if known.len() >= SLICES_MAX {
        return None;
    }
    let slice: &'static [&'static str] = Box::leak(names.clone().into_boxed_slice());
    known.insert(names, slice);
    Some(slice)
}

impl CustomKind {
    fn new(
        definition: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        stored: Option<Arc<Self>>,
        family: Option<Family>,
    ) -> Option<Arc<Self>> {
        let spec = &definition.spec;
        let singular = spec.names.singular.clone().unwrap_or_else(|| spec.names.kind.to_lowercase());
        let names = Names {
            group: intern(&spec.group)?,
            version: intern(&version.name)?,
            kind: intern(&spec.names.kind)?,
            plural: intern(&spec.names.plural)?,
            singular: intern(&singular)?,
            short: intern_all(spec.names.short_names.as_deref().unwrap_or_default())?,
            categories: intern_all(spec.names.categories.as_deref().unwrap_or_default())?,
            name_rule: NameRule::Dns1123Subdomain,
            any_finalizers: true,
        };
        let props = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.clone()).unwrap_or_default();
        let mut schema = Schema::new(&props);
        schema.resource = true;
        schema.preserve |= spec.preserve_unknown_fields == Some(true);
        compile_rules(&schema);
        let subresources = version.subresources.as_ref();
        let given = version.additional_printer_columns.as_deref().unwrap_or_default();
        let mut columns = given.iter().map(Column::new).collect::<Option<Vec<_>>>()?;
        if columns.is_empty() {
            columns.push(Column::age());
        }
        let mut selectable = Vec::new();
        for field in version.selectable_fields.iter().flatten() {
            if let Some(path) = Path::parse(&field.json_path) {
                selectable.push((intern(field.json_path.trim_start_matches('.'))?, path));
            }
        }
        let scale = subresources.and_then(|s| s.scale.as_ref()).and_then(|s| {
            let selector = s.label_selector_path.as_deref().filter(|p| !p.is_empty()).and_then(Path::parse);
            let (spec, status) = (Path::parse(&s.spec_replicas_path)?, Path::parse(&s.status_replicas_path)?);
            Some(Scale { spec, spec_text: s.spec_replicas_path.clone(), status, selector })
        });
        Some(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            names,
            scope: if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
            types: root_type(&schema),
            schema,
            props,
            status: subresources.is_some_and(|s| s.status.is_some()),
            scale,
            columns,
            selectable,
            stored,
            warning: warning(definition, version),
            served: version.served,
            family,
        }))
    }

    /// The schema.
    pub fn structure(&self) -> &Schema {
        &self.schema
    }

    /// Whether clients may use this version.
    pub fn is_served(&self) -> bool {
        self.served
    }

    /// The kind of another version of the same definition, where objects are stored as they were written.
    fn sibling(&self, version: &str) -> Option<Arc<Self>> {
        let family = self.family.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        family.iter().filter_map(std::sync::Weak::upgrade).find(|k| k.names.version == version)
    }

    fn strong(&self) -> Result<Arc<Self>, ApiError> {
        self.me.upgrade().ok_or_else(|| ApiError::internal("invariant: a kind that is used exists"))
    }

    fn of<'o>(&self, object: &'o dyn Object) -> Option<&'o CustomObject> {
        object.downcast_other::<CustomObject>()
    }

    /// All checks of a whole object; what an update left as it was needs not be right.
    fn check(&self, object: &dyn Object, old: Option<&dyn Object>, errs: &mut FieldErrors) {
        let Some(object) = self.of(object) else { return };
        let value = object.whole();
        let old = old.and_then(|o| self.of(o)).map(CustomObject::whole);
        let before = errs.0.len();
        self.schema.check(&value, old.as_ref(), errs);
        self.check_scale(&value, errs);
        let mut wrong_before = FieldErrors::new();
        if let Some(old) = &old {
            self.schema.check_lists(&FieldPath::default(), old, &mut wrong_before);
        }
        if wrong_before.is_empty() {
            self.schema.check_lists(&FieldPath::default(), &value, errs);
        }
        if !self.schema.has_rules() {
            return;
        }
        if errs.0[before..].iter().any(|e| blocks_rules(e.reason)) {
            let message = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                           correct the existing errors to complete validation";
            let field = FieldPath::new("<nil>");
            errs.0.push(FieldError { field, reason: FieldReason::Invalid, message: message.to_owned() });
            return;
        }
        self.schema.check_rules(&value, old.as_ref(), errs);
    }

    fn check_scale(&self, value: &Value, errs: &mut FieldErrors) {
        let Some(scale) = &self.scale else { return };
        let Some(found) = scale.spec.first(value).and_then(Value::as_i64) else { return };
        let path = FieldPath::new(scale.spec_text.trim_start_matches('.'));
        if found < 0 {
            errs.invalid(&path, found, "should be a non-negative integer");
        } else if i32::try_from(found).is_err() {
            errs.invalid(&path, found, "should be less than or equal to 2147483647");
        }
    }
}

fn blocks_rules(reason: FieldReason) -> bool {
    matches!(
        reason,
        FieldReason::NotSupported
            | FieldReason::Required
            | FieldReason::TooLong
            | FieldReason::TooMany
            | FieldReason::TypeInvalid
    )
}

fn warning(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> Option<String> {
    if version.deprecated != Some(true) {
        return None;
    }
    let spec = &definition.spec;
    let default = || format!("{}/{} {} is deprecated", spec.group, version.name, spec.names.kind);
    Some(version.deprecation_warning.clone().unwrap_or_else(default))
}

impl AnyKind for CustomKind {
    fn names(&self) -> Names {
        self.names
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        podium_api::meta::finalizer_warnings(object.meta(), old.map(Object::meta))
    }

    fn subresources(&self) -> Vec<SubresourceInfo> {
        let status = SubresourceInfo { name: "status", behaviour: SubresourceBehaviour::Status };
        let scale = SubresourceInfo { name: "scale", behaviour: SubresourceBehaviour::Scale };
        [self.status.then_some(status), self.scale.as_ref().map(|_| scale)].into_iter().flatten().collect()
    }

    fn columns(&self) -> Vec<ColumnInfo> {
        let name = ColumnInfo::new("Name", podium_api::ColumnType::String, "name", Help::NAME);
        std::iter::once(name).chain(self.columns.iter().map(|c| c.info)).collect()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell> {
        let Some(object) = self.of(object) else { return Vec::new() };
        let name = Cell::from(object.meta.name.clone().unwrap_or_default());
        std::iter::once(name).chain(self.columns.iter().map(|c| c.cell(object, now))).collect()
    }

    fn selectable_fields(&self) -> Vec<&'static str> {
        self.selectable.iter().map(|(name, _)| *name).collect()
    }

    fn selectable(&self, object: &dyn Object, path: &str) -> Option<String> {
        let (_, path) = self.selectable.iter().find(|(name, _)| *name == path)?;
        Some(match self.of(object)?.at(path).as_deref() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
    }

    fn decode(&self, json: &[u8]) -> Result<Decoded, ApiError> {
        decode::from_json(self, json)
    }

    fn decode_value(&self, value: Value) -> Result<Decoded, ApiError> {
        decode::from_value(self, value)
    }

    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, ApiError> {
        decode::stored(self, json)
    }

    fn fill_defaults(&self, object: &mut dyn Object) {
        let Some(object) = object.downcast_other_mut::<CustomObject>() else { return };
        let mut value = Value::Object(std::mem::take(&mut object.fields));
        self.schema.drop_nulls(&mut value);
        self.schema.fill_defaults(&mut value);
        if let Value::Object(mut fields) = value {
            ["apiVersion", "kind", "metadata"].into_iter().for_each(|name| {
                fields.remove(name);
            });
            object.fields = fields;
        }
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        if let (true, Some(object)) = (self.status, object.downcast_other_mut::<CustomObject>()) {
            object.fields.remove("status");
        }
    }

    fn prepare_update(&self, object: &mut dyn Object, old: &dyn Object) {
        if !self.status {
            return;
        }
        let (Some(object), Some(old)) = (object.downcast_other_mut::<CustomObject>(), self.of(old)) else { return };
        match old.fields.get("status") {
            Some(status) => object.fields.insert("status".to_owned(), status.clone()),
            None => object.fields.remove("status"),
        };
    }

    fn prepare_status_update(&self, object: &mut dyn Object, old: &dyn Object) {
        let (Some(object), Some(old)) = (object.downcast_other_mut::<CustomObject>(), self.of(old)) else { return };
        let status = object.fields.remove("status");
        object.fields.clone_from(&old.fields);
        match status {
            Some(status) => object.fields.insert("status".to_owned(), status),
            None => object.fields.remove("status"),
        };
        let written = std::mem::replace(&mut object.meta, old.meta.clone());
        object.meta.resource_version = written.resource_version;
        object.meta.managed_fields = written.managed_fields;
    }

    fn generation_differs(&self, object: &dyn Object, old: &dyn Object) -> Option<bool> {
        let (object, old) = (self.of(object)?, self.of(old)?);
        Some(object.fields != old.fields)
    }

    /// Nothing: creation and update differ in all of it.
    fn validate(&self, _object: &dyn Object, _errs: &mut FieldErrors) {}

    fn validate_create(&self, object: &dyn Object, errs: &mut FieldErrors) {
        self.check(object, None, errs);
    }

    fn validate_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors) {
        self.check(object, Some(old), errs);
    }

    fn validate_status_update(&self, object: &dyn Object, old: &dyn Object, errs: &mut FieldErrors) {
        self.check(object, Some(old), errs);
    }

    fn grace_seconds(&self, _object: &dyn Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        let scale = self.scale.as_ref()?;
        let object = self.of(object)?;
        let number = |path: &Path| {
            let found = object.at(path).and_then(|v| v.as_i64());
            found.and_then(|n| i32::try_from(n).ok()).unwrap_or_default()
        };
        let selector = scale.selector.as_ref().and_then(|p| object.at(p));
        Some(ScaleView {
            spec_replicas: number(&scale.spec),
            status_replicas: number(&scale.status),
            selector: selector.and_then(|s| s.as_str().map(str::to_owned)).unwrap_or_default(),
        })
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> bool {
        let (Some(scale), Some(object)) = (&self.scale, object.downcast_other_mut::<CustomObject>()) else {
            return false;
        };
        let mut value = Value::Object(std::mem::take(&mut object.fields));
        let set = scale.spec.set(&mut value, replicas.into());
        if let Value::Object(fields) = value {
            object.fields = fields;
        }
        set
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn stored_as(&self) -> Option<KindRef> {
        self.stored.clone().map(|kind| kind as KindRef)
    }

    fn to_stored(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ApiError> {
        match (&self.stored, self.of(&*object)) {
            (Some(stored), Some(found)) => Ok(Box::new(found.as_kind(stored))),
            _ => Ok(object),
        }
    }

    fn from_stored(&self, stored: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let Some(found) = self.of(stored) else { return Ok(stored.boxed_clone()) };
        let mut object = found.as_kind(&self.strong()?);
        decode::fit(self, &mut object);
        Ok(Box::new(object))
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let meta = generator.subschema_for::<ObjectMeta>().to_value();
        let schema = openapi::root(&self.props, &meta, &self.names);
        let name = self.schema_name();
        generator.definitions_mut().insert(name.clone(), schema);
        schemars::Schema::new_ref(format!("#/components/schemas/{name}"))
    }

    fn types(&self) -> RootType {
        self.types.clone()
    }

    fn schema_name(&self) -> String {
        let reversed: Vec<&str> = self.names.group.split('.').rev().collect();
        format!("{}.{}.{}", reversed.join("."), self.names.version, self.names.kind)
    }
}
