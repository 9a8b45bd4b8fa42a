//! How the lists and structs of a kind are merged: merge keys and strategies by schema and field.
//!
//! The table holds what the `patchStrategy` and `patchMergeKey` tags of Kubernetes' Go types say; everything that is
//! not in it is replaced whole (lists, values) or merged field by field (objects).
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/api/*/v1/types.go`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Map, Value};

use crate::{
    object::AnyKind,
    schema::{definitions, referred},
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
    const MERGE: Self = Self { merge: true, retain_keys: false, replace: false, key: None };
    const RETAIN: Self = Self { merge: false, retain_keys: true, replace: false, key: None };
    const REPLACE: Self = Self { merge: false, retain_keys: false, replace: true, key: None };

    const fn by(key: &'static str) -> Self {
        Self { key: Some(key), ..Self::MERGE }
    }

    const fn retain_by(key: &'static str) -> Self {
        Self { merge: true, retain_keys: true, replace: false, key: Some(key) }
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

type Rules = &'static [(&'static str, FieldRule)];

const CONDITIONS: Rules = &[("conditions", FieldRule::by("type"))];
const CONTAINER: Rules = &[
    ("env", FieldRule::by("name")),
    ("ports", FieldRule::by("containerPort")),
    ("volumeDevices", FieldRule::by("devicePath")),
    ("volumeMounts", FieldRule::by("mountPath")),
];

/// Schema, then its fields that are merged in a special way.
const TABLE: &[(&str, Rules)] = &[
    ("io.k8s.api.apps.v1.DaemonSetStatus", CONDITIONS),
    ("io.k8s.api.apps.v1.DeploymentSpec", &[("strategy", FieldRule::RETAIN)]),
    ("io.k8s.api.apps.v1.DeploymentStatus", CONDITIONS),
    ("io.k8s.api.apps.v1.ReplicaSetStatus", CONDITIONS),
    ("io.k8s.api.apps.v1.StatefulSetStatus", CONDITIONS),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", CONDITIONS),
    ("io.k8s.api.batch.v1.JobStatus", CONDITIONS),
    ("io.k8s.api.core.v1.Container", CONTAINER),
    ("io.k8s.api.core.v1.EphemeralContainer", CONTAINER),
    ("io.k8s.api.core.v1.NamespaceStatus", CONDITIONS),
    ("io.k8s.api.core.v1.NodeSpec", &[("podCIDRs", FieldRule::MERGE)]),
    ("io.k8s.api.core.v1.NodeStatus", &[("addresses", FieldRule::by("type")), ("conditions", FieldRule::by("type"))]),
    ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", CONDITIONS),
    (
        "io.k8s.api.core.v1.PodSpec",
        &[
            ("containers", FieldRule::by("name")),
            ("ephemeralContainers", FieldRule::by("name")),
            ("hostAliases", FieldRule::by("ip")),
            ("imagePullSecrets", FieldRule::by("name")),
            ("initContainers", FieldRule::by("name")),
            ("resourceClaims", FieldRule::retain_by("name")),
            ("schedulingGates", FieldRule::by("name")),
            ("topologySpreadConstraints", FieldRule::by("topologyKey")),
            ("volumes", FieldRule::retain_by("name")),
        ],
    ),
    (
        "io.k8s.api.core.v1.PodStatus",
        &[
            ("conditions", FieldRule::by("type")),
            ("hostIPs", FieldRule::by("ip")),
            ("podIPs", FieldRule::by("ip")),
            ("resourceClaimStatuses", FieldRule::retain_by("name")),
        ],
    ),
    ("io.k8s.api.core.v1.ReplicationControllerStatus", CONDITIONS),
    ("io.k8s.api.core.v1.ServiceAccount", &[("secrets", FieldRule::by("name"))]),
    ("io.k8s.api.core.v1.ServiceSpec", &[("ports", FieldRule::by("port"))]),
    ("io.k8s.api.core.v1.ServiceStatus", CONDITIONS),
    ("io.k8s.api.policy.v1.PodDisruptionBudgetSpec", &[("selector", FieldRule::REPLACE)]),
    ("io.k8s.api.policy.v1.PodDisruptionBudgetStatus", CONDITIONS),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        &[("finalizers", FieldRule::MERGE), ("ownerReferences", FieldRule::by("uid"))],
    ),
];

/// The rule of a field of a schema, if the table has one.
pub(crate) fn rule(schema: &str, field: &str) -> Option<FieldRule> {
    let (_, rules) = TABLE.iter().find(|(name, _)| *name == schema)?;
    rules.iter().find(|(name, _)| *name == field).map(|(_, rule)| *rule)
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
