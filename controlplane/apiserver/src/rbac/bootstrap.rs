//! Makes the roles and bindings that every cluster has, and keeps them complete.
//!
//! What is missing of rules, subjects, labels and annotations is added at each start, unless the annotation
//! `rbac.authorization.kubernetes.io/autoupdate` says `false`; what a user added is left alone. Nothing is written of
//! what is complete.
//!
//! # Source
//! Kubernetes `pkg/registry/rbac/reconciliation`, `pkg/registry/rbac/rest/storage_rbac.go`.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{ApiError, Kind, Object as _, ObjectKey};

use super::{
    covers,
    policy::{AUTO_UPDATE, Policy},
};
use crate::{
    bootstrap::{self, own},
    registry::{Part, Registry, WriteContext, cache::Entry},
    server::StartError,
};

/// As in Kubernetes, these are the server's.
const MANAGER: &str = "kube-apiserver";
/// How many writes are under way at once: the store takes them together.
const WRITES: usize = 256;

/// A kind of which some are built in.
trait Kept: Kind + Clone {
    /// Adds what `wanted` has and this lacks; the objects differ afterwards where something was missing.
    fn complete(&mut self, wanted: &Self);
    /// Whether this cannot become `wanted` by adding: it has to be made anew.
    fn is_other(&self, _wanted: &Self) -> bool {
        false
    }
}

impl Kept for ClusterRole {
    fn complete(&mut self, wanted: &Self) {
        complete_meta(&mut self.metadata, &wanted.metadata);
        match &wanted.aggregation_rule {
            Some(rule) => {
                let known = self.aggregation_rule.get_or_insert_default();
                let selectors = known.cluster_role_selectors.get_or_insert_default();
                add_missing(selectors, rule.cluster_role_selectors.as_deref().unwrap_or_default());
            }
            None => complete_rules(&mut self.rules, wanted.rules.as_deref()),
        }
    }
}

impl Kept for Role {
    fn complete(&mut self, wanted: &Self) {
        complete_meta(&mut self.metadata, &wanted.metadata);
        complete_rules(&mut self.rules, wanted.rules.as_deref());
    }
}

impl Kept for ClusterRoleBinding {
    fn complete(&mut self, wanted: &Self) {
        complete_meta(&mut self.metadata, &wanted.metadata);
        complete_subjects(&mut self.subjects, wanted.subjects.as_deref());
    }

    fn is_other(&self, wanted: &Self) -> bool {
        differs(&self.role_ref, &wanted.role_ref)
    }
}

impl Kept for RoleBinding {
    fn complete(&mut self, wanted: &Self) {
        complete_meta(&mut self.metadata, &wanted.metadata);
        complete_subjects(&mut self.subjects, wanted.subjects.as_deref());
    }

    fn is_other(&self, wanted: &Self) -> bool {
        differs(&self.role_ref, &wanted.role_ref)
    }
}

/// Makes what is missing.
///
/// # Errors
/// What the API says of the first write that fails.
pub(crate) async fn ensure(registry: &Registry) -> Result<(), StartError> {
    let policy = Policy::built_in();
    let kept = async {
        keep_all(registry, policy.cluster_roles).await?;
        keep_all(registry, policy.roles).await?;
        keep_all(registry, policy.cluster_role_bindings).await?;
        keep_all(registry, policy.role_bindings).await
    };
    let operation = || "make the roles and bindings that every cluster has".to_owned();
    kept.await.map_err(|source| StartError::Bootstrap { operation: operation(), source })
}

async fn keep_all<T: Kept>(registry: &Registry, wanted: Vec<T>) -> Result<(), ApiError> {
    let writes = stream::iter(wanted).map(|wanted| keep(registry, wanted));
    writes.buffer_unordered(WRITES).try_collect().await
}

async fn keep<T: Kept>(registry: &Registry, wanted: T) -> Result<(), ApiError> {
    let resource = registry.of(&T::NAMES)?;
    let key = ObjectKey::of(wanted.meta());
    let Some(entry) = resource.cache.get(&key.namespace, &key.name) else {
        return bootstrap::ensure(registry, Box::new(wanted), MANAGER).await;
    };
    let Some(known) = entry.object.downcast_ref::<T>().filter(|known| is_ours(known.meta())) else { return Ok(()) };
    let who = own();
    let context = WriteContext::new(&who, MANAGER).unchecked();
    if known.is_other(&wanted) {
        registry.delete(&resource, &key.namespace, &key.name, &Default::default(), &context).await?;
        return bootstrap::ensure(registry, Box::new(wanted), MANAGER).await;
    }
    let completed = |current: &T| {
        let mut completed = current.clone();
        completed.complete(&wanted);
        completed
    };
    if completed(known).same_as(&*entry.object) {
        return Ok(());
    }
    let change = |current: &Entry| {
        let changed = current.object.downcast_ref::<T>().map(|known| Box::new(completed(known)) as _);
        Ok(changed.unwrap_or_else(|| current.object.boxed_clone()).into())
    };
    registry.update_with(&resource, (&key.namespace, &key.name), Part::Main, &context, change).await.map(|_| ())
}

/// Whether nobody forbade to keep it. What lacks the annotation is kept, as in Kubernetes.
fn is_ours(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().and_then(|a| a.get(AUTO_UPDATE)).is_none_or(|value| value != "false")
}

fn complete_meta(known: &mut ObjectMeta, wanted: &ObjectMeta) {
    let add = |known: &mut Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        for (key, value) in wanted.iter().flatten() {
            known.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
        }
    };
    add(&mut known.labels, &wanted.labels);
    add(&mut known.annotations, &wanted.annotations);
}

/// Whatever rules allow what is wanted, they need not be these.
fn complete_rules(known: &mut Option<Vec<PolicyRule>>, wanted: Option<&[PolicyRule]>) {
    for rule in wanted.unwrap_or_default() {
        let held = known.as_deref().unwrap_or_default();
        if !covers::missing(held, std::slice::from_ref(rule)).is_empty() {
            known.get_or_insert_default().push(rule.clone());
        }
    }
}

fn complete_subjects(known: &mut Option<Vec<Subject>>, wanted: Option<&[Subject]>) {
    let wanted = wanted.unwrap_or_default();
    if !wanted.is_empty() {
        add_missing(known.get_or_insert_default(), wanted);
    }
}

fn add_missing<T: PartialEq + Clone>(known: &mut Vec<T>, wanted: &[T]) {
    for one in wanted {
        if !known.contains(one) {
            known.push(one.clone());
        }
    }
}

fn differs(known: &RoleRef, wanted: &RoleRef) -> bool {
    (&known.kind, &known.name) != (&wanted.kind, &wanted.name)
}
