//! [`Compiled`]: the policies of one kind that are in force, each with its bindings, compiled once.
//!
//! Invariants: what is shown is what the caches have; a policy is compiled once for each of its revisions; nothing is kept
//! of a policy that is gone or that no binding names. So it is as large as what is stored, and a request costs nothing
//! while neither policies nor bindings change.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::admissionregistration::v1::ParamRef;
use parking_lot::RwLock;
use podium_api::{FieldErrors, Kind, Revision};

use super::matching::Matcher;
use crate::registry::{Registry, cache::Filter};

/// A kind of policies.
pub(super) trait Policy: Send + Sync + Sized + 'static {
    /// As it is written.
    type Written: Kind;
    /// What switches it on.
    type Binding: Kind;

    /// Compiles one; `errs` gets what is wrong with its expressions.
    fn compile(written: &Self::Written, errs: &mut FieldErrors) -> Self;

    /// Whether two say the same.
    fn same_spec(one: &Self::Written, other: &Self::Written) -> bool;

    /// A binding, with the name of the policy that it is for.
    fn bind(binding: &Self::Binding) -> (String, Binding);
}

/// A binding, compiled.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) params: Option<ParamRef>,
    /// Narrows what the policy is about.
    pub(super) matcher: Option<Matcher>,
    /// What a refusal does; empty where there is no choice.
    pub(super) actions: Vec<String>,
}

/// A policy that is in force.
pub(super) struct Active<P> {
    pub(super) policy: Arc<P>,
    pub(super) revision: Revision,
    /// By name; at least one.
    pub(super) bindings: Vec<Binding>,
}

struct Snapshot<P> {
    /// Neither policies nor bindings have changed since.
    at: Revision,
    /// By name.
    active: Arc<BTreeMap<String, Active<P>>>,
}

/// The policies of one kind that are in force.
pub(super) struct Compiled<P>(RwLock<Snapshot<P>>);

impl<P: Policy> Compiled<P> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Snapshot { at: Revision(0), active: Arc::default() }))
    }

    /// Those in force now, by name.
    pub(super) fn active(&self, registry: &Registry) -> Arc<BTreeMap<String, Active<P>>> {
        let (Ok(policies), Ok(bindings)) = (registry.of(&P::Written::NAMES), registry.of(&P::Binding::NAMES)) else {
            return Arc::default();
        };
        let current = |at: Revision| policies.cache.unchanged_since(at) && bindings.cache.unchanged_since(at);
        {
            let known = self.0.read();
            if current(known.at) {
                return known.active.clone();
            }
        }
        let mut known = self.0.write();
        if current(known.at) {
            return known.active.clone();
        }
        // Read before the lists: what changes in between makes the snapshot an old one.
        let at = registry.revision();
        let mut bound: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
        for entry in bindings.cache.list(&Filter::default()).entries {
            if let Some(binding) = entry.object.downcast_ref::<P::Binding>() {
                let (policy, binding) = P::bind(binding);
                bound.entry(policy).or_default().push(binding);
            }
        }
        let mut active = BTreeMap::new();
        for (name, bindings) in bound {
            let Some(entry) = policies.cache.get("", &name) else { continue };
            let Some(written) = entry.object.downcast_ref::<P::Written>() else { continue };
            let revision = entry.revision();
            let same = known.active.get(&name).filter(|a| a.revision == revision).map(|a| a.policy.clone());
            let policy = same.unwrap_or_else(|| Arc::new(P::compile(written, &mut FieldErrors::new())));
            active.insert(name, Active { policy, revision, bindings });
        }
        *known = Snapshot { at, active: Arc::new(active) };
        known.active.clone()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
    use podium_api::Object;
    use serde_json::json;

    use super::*;
    use crate::{Identity, ServerConfig, admission::policy, registry::WriteContext};

    async fn create(registry: &Registry, object: impl Object) {
        let who = Identity::new("a", &[]);
        let context = WriteContext::new(&who, "a").unchecked();
        let resource = registry.of(&object.names()).unwrap();
        registry.create(&resource, "", Box::new(object), &context).await.unwrap();
    }

    async fn delete(registry: &Registry, kind: &podium_api::Names, name: &str) {
        let who = Identity::new("a", &[]);
        let context = WriteContext::new(&who, "a").unchecked();
        let resource = registry.of(kind).unwrap();
        registry.delete(&resource, "", name, &DeleteOptions::default(), &context).await.unwrap();
    }

    #[tokio::test]
    async fn only_what_is_in_force_is_kept_and_compiled_once() {
        let store = Arc::new(podium_store::MemoryStore::new());
        let config = ServerConfig::new("/nonexistent", "127.0.0.1:0".parse().unwrap());
        let clock = Arc::new(podium_client::SystemClock);
        let (registry, _pump) = Registry::open(&config, podium_api::kinds::all(), store, clock).await.unwrap();
        let compiled = Compiled::<policy::Policy>::new();
        for name in ["a", "b"] {
            let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
                "metadata": {"name": name}, "spec": {"validations": [{"expression": "true"}]},
            }))
            .unwrap();
            create(&registry, policy).await;
            let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
                "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
            }))
            .unwrap();
            create(&registry, binding).await;
        }
        let first = compiled.active(&registry);
        assert_eq!(first.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(Arc::ptr_eq(&first, &compiled.active(&registry)), "nothing has changed");
        delete(&registry, &ValidatingAdmissionPolicyBinding::NAMES, "a").await;
        let second = compiled.active(&registry);
        assert_eq!(second.keys().collect::<Vec<_>>(), ["b"], "what is not bound is forgotten");
        assert!(Arc::ptr_eq(&first["b"].policy, &second["b"].policy), "what is the same is not compiled again");
        delete(&registry, &ValidatingAdmissionPolicy::NAMES, "b").await;
        assert!(compiled.active(&registry).is_empty());
    }
}
