//! How the lists and structs of a kind are merged: merge keys and strategies by schema and field.
//!
//! They are what the `patchStrategy` and `patchMergeKey` tags of Kubernetes' Go types say (see
//! [`crate::schema::list_extension`]); everything that has none is replaced whole (lists, values) or merged field by
//! field (objects).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Map, Value};

use crate::{
    object::AnyKind,
    schema::{Extension, definitions, list_extension, referred},
};

/// What a tag says of one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FieldRule {
    /// The list is merged, item by item.
    pub merge: bool,
    /// Fields that a patch does not list in `$retainKeys` go.
    pub retain_keys: bool,
    /// An object that is replaced whole.
    pub replace: bool,
    /// What tells the items of a merged list apart; none for lists of plain values.
    pub key: Option<&'static str>,
}

impl FieldRule {
    fn of(extension: &'static Extension) -> Option<Self> {
        let strategy = extension.patch_strategy?;
        let has = |word: &str| strategy.split(',').any(|w| w == word);
        Some(Self {
            merge: has("merge"),
            retain_keys: has("retainKeys"),
            replace: has("replace"),
            key: extension.patch_merge_key,
        })
    }

    /// The value of `x-kubernetes-patch-strategy`.
    pub fn strategy(&self) -> Option<&'static str> {
        match (self.merge, self.retain_keys, self.replace) {
            (true, true, _) => Some("merge,retainKeys"),
            (true, false, _) => Some("merge"),
            (false, true, _) => Some("retainKeys"),
            (false, false, true) => Some("replace"),
            (false, false, false) => None,
        }
    }
}

/// The rule of a field of a schema, if it has one.
pub(crate) fn rule(schema: &str, field: &str) -> Option<FieldRule> {
    FieldRule::of(list_extension(schema, field)?)
}

/// A type inside a [`PatchMeta`]; none where nothing special is below.
pub type TypeRef = Option<usize>;

#[derive(Debug, Clone, Copy, Default)]
struct FieldMeta {
    rule: FieldRule,
    inner: TypeRef,
}

/// What merging has to know of one kind, as an indexed graph (schemas may be recursive).
#[derive(Debug)]
pub struct PatchMeta {
    types: Vec<HashMap<String, FieldMeta>>,
    root: usize,
}

/// One entry for each built-in kind, made when it is first patched.
static CACHE: RwLock<BTreeMap<String, Arc<PatchMeta>>> = RwLock::new(BTreeMap::new());

impl PatchMeta {
    /// What is known of a kind; `None` when it is no built-in one, so that it has no merge keys.
    pub fn of(kind: &dyn AnyKind) -> Option<Arc<Self>> {
        let name = kind.schema_name();
        if !name.starts_with("io.k8s.") {
            return None;
        }
        let cached = CACHE.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if cached.is_some() {
            return cached;
        }
        let meta = Arc::new(Self::build(&name, &definitions([kind]))?);
        CACHE.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&meta));
        Some(meta)
    }

    fn build(root: &str, schemas: &Map<String, Value>) -> Option<Self> {
        let index: HashMap<&str, usize> = schemas.keys().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let types = schemas.iter().map(|(name, schema)| fields_of(name, schema, &index)).collect();
        Some(Self { types, root: *index.get(root)? })
    }

    /// What some types are made of, the first being that of the whole object.
    #[cfg(test)]
    pub(super) fn made(types: Vec<Vec<(&str, FieldRule, TypeRef)>>) -> Self {
        let field = |(name, rule, inner): (&str, FieldRule, TypeRef)| (name.to_owned(), FieldMeta { rule, inner });
        let types = types.into_iter().map(|fields| fields.into_iter().map(field).collect()).collect();
        Self { types, root: 0 }
    }

    /// The type of the whole object.
    pub fn root(&self) -> TypeRef {
        Some(self.root)
    }

    /// The rule of a field and the type of what it holds (of the items, for a list).
    pub fn field(&self, of: TypeRef, name: &str) -> (FieldRule, TypeRef) {
        let meta = of.and_then(|of| self.types.get(of)).and_then(|t| t.get(name)).copied().unwrap_or_default();
        (meta.rule, meta.inner)
    }
}

fn fields_of(name: &str, schema: &Value, index: &HashMap<&str, usize>) -> HashMap<String, FieldMeta> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return HashMap::new() };
    let meta = |(field, property): (&String, &Value)| {
        let target = referred(property).or_else(|| referred(property.get("items")?));
        let inner = target.and_then(|t| index.get(t)).copied();
        let rule = rule(name, field);
        (inner.is_some() || rule.is_some())
            .then(|| (field.clone(), FieldMeta { rule: rule.unwrap_or_default(), inner }))
    };
    properties.iter().filter_map(meta).collect()
}
