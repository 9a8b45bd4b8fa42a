//! `Priority`: pods get the number and the preemption policy of their priority class.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/priority/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};
use podium_api::{ApiError, Kind as _, kinds::SYSTEM_PRIORITY_CLASSES};

use super::{Operation, Plugin, Request, Step};
use crate::registry::{Registry, cache::Filter};

const PREEMPTS: &str = "PreemptLowerPriority";

/// The plug-in.
pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit
            && matches!(request.operation, Operation::Create | Operation::Update)
            && request.subresource.is_empty()
            && request.is_about::<Pod>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if request.operation != Operation::Create {
            keep(request);
            return Ok(());
        }
        let name = request.name;
        let Some(pod) = request.object.as_deref_mut().and_then(|o| o.downcast_mut::<Pod>()) else { return Ok(()) };
        let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
        let forbidden = |why: &str| ApiError::forbidden(&Pod::NAMES, name, why);
        let asked = spec.priority_class_name.clone().filter(|n| !n.is_empty());
        let (class, value, policy) = match asked {
            None => global(registry),
            Some(class) => {
                let found = named(registry, &class);
                let unknown = || forbidden(&format!("no PriorityClass with name {class} was found"));
                let (value, policy) = found.ok_or_else(unknown)?;
                (Some(class), value, policy)
            }
        };
        if spec.priority.is_some_and(|given| given != value) {
            let given = spec.priority.unwrap_or_default();
            return Err(forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            )));
        }
        if spec.preemption_policy.as_ref().is_some_and(|given| *given != policy) {
            let given = spec.preemption_policy.clone().unwrap_or_default();
            return Err(forbidden(&format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            )));
        }
        spec.priority_class_name = class;
        spec.priority = Some(value);
        spec.preemption_policy = Some(policy);
        Ok(())
    }
}

/// What was filled in at creation stays when a change does not name it.
fn keep(request: &mut Request<'_>) {
    let old = request.old.and_then(|o| o.downcast_ref::<Pod>()).and_then(|p| p.spec.as_ref());
    let new = request.object.as_deref_mut().and_then(|o| o.downcast_mut::<Pod>()).and_then(|p| p.spec.as_mut());
    let (Some(old), Some(new)) = (old, new) else { return };
    new.priority = new.priority.or(old.priority);
    if new.preemption_policy.is_none() {
        new.preemption_policy.clone_from(&old.preemption_policy);
    }
}

fn classes(registry: &Registry) -> Vec<PriorityClass> {
    let Ok(of) = registry.of(&PriorityClass::NAMES) else { return Vec::new() };
    let entries = of.cache.list(&Filter::default()).entries;
    entries.iter().filter_map(|e| e.object.downcast_ref::<PriorityClass>().cloned()).collect()
}

/// What pods get that name no class: the lowest of the global defaults.
fn global(registry: &Registry) -> (Option<String>, i32, String) {
    let defaults = classes(registry).into_iter().filter(|c| c.global_default == Some(true));
    match defaults.min_by_key(|c| c.value.unwrap_or_default()) {
        None => (None, 0, PREEMPTS.to_owned()),
        Some(class) => {
            let (value, policy) = read(&class);
            (class.metadata.name, value, policy)
        }
    }
}

fn named(registry: &Registry, name: &str) -> Option<(i32, String)> {
    let stored = registry.of(&PriorityClass::NAMES).ok().and_then(|of| of.cache.get("", name));
    match stored.as_ref().and_then(|e| e.object.downcast_ref::<PriorityClass>()) {
        Some(class) => Some(read(class)),
        None => SYSTEM_PRIORITY_CLASSES.iter().find(|c| c.name == name).map(|c| (c.value, PREEMPTS.to_owned())),
    }
}

fn read(class: &PriorityClass) -> (i32, String) {
    (class.value.unwrap_or_default(), class.preemption_policy.clone().unwrap_or_else(|| PREEMPTS.to_owned()))
}
