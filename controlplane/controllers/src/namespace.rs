//! Namespace deletion: everything in it goes, then its finalizer.
//!
//! # Source
//! Kubernetes `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{Kind, KindRef, Object, ObjectKey, Scope, kind_of};
use serde_json::json;

use crate::{Action, Controller, Key, Plan, Trigger, View, ViewExt};

const FINALIZER: &str = "kubernetes";
/// A mirror that has not caught up with the namespace's deletion after so many seconds is trusted nevertheless: those of
/// a remote API tell how far they are only now and then.
const LAG_SECONDS_MAX: i64 = 30;

/// Conditions that tell of failures which cannot happen here: a refused deletion fails the plan, which is tried again.
const NO_FAILURES: [(&str, (&str, &str, &str)); 3] = [
    ("NamespaceDeletionDiscoveryFailure", ("False", "ResourcesDiscovered", "All resources successfully discovered")),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    ),
    (
        "NamespaceDeletionContentFailure",
        ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    ),
];

static NAMESPACED: LazyLock<Vec<KindRef>> = LazyLock::new(|| {
    let mut kinds = podium_api::kinds::all();
    kinds.retain(|kind| kind.scope() == Scope::Namespaced);
    kinds
});

/// The controller that empties namespaces.
pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn component(&self) -> &'static str {
        "namespace-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        let content = NAMESPACED.iter().map(|kind| Trigger { kind: kind.clone(), keys: of_content });
        let namespaces = Trigger { kind: kind_of::<Namespace>(), keys: |object, _| vec![Key::of(object)] };
        content.chain([namespaces]).collect()
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(namespace) = view.get_as::<Namespace>(&key.object) else { return plan };
        if !is_terminating(&namespace) || !finalizers(&namespace).iter().any(|f| f == FINALIZER) {
            return plan;
        }
        let first = condition(&namespace, "NamespaceContentRemaining").is_none();
        let content = Content::of(&key.object.name, view);
        // The first time all kinds, whatever the mirrors show: they may lag behind what was created just before.
        let doomed = NAMESPACED.iter().filter(|kind| first || content.stays.contains_key(kind.names().plural));
        plan.actions.extend(doomed.map(|kind| delete_all(kind, &key.object.name)));
        let conditions = content.conditions();
        if first || !content.is_empty() {
            report(&namespace, conditions, now, &mut plan);
        } else if lags(&namespace, view, now) {
            plan.requeue_in(1);
        } else {
            plan.push(finalize(&namespace));
        }
        plan
    }
}

fn of_content(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let key = ObjectKey::cluster(object.meta().namespace.clone().unwrap_or_default());
    let terminating = view.get_as::<Namespace>(&key).is_some_and(|n| is_terminating(&n));
    if terminating { vec![Key::new(&Namespace::NAMES, key)] } else { Vec::new() }
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default()
}

fn lags(namespace: &Namespace, view: &dyn View, now: Timestamp) -> bool {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let object: &dyn Object = namespace;
    let revision = object.revision();
    now.as_second() - since.as_second() < LAG_SECONDS_MAX
        && NAMESPACED.iter().any(|kind| view.revision(&kind.names()) < revision)
}

fn delete_all(kind: &KindRef, namespace: &str) -> Action {
    Action::DeleteCollection { kind: kind.clone(), namespace: namespace.to_owned() }
}

fn finalize(namespace: &Namespace) -> Action {
    let rest: Vec<&String> = finalizers(namespace).iter().filter(|f| *f != FINALIZER).collect();
    let patch = json!({"spec": {"finalizers": rest}});
    Action::MergePatch {
        kind: kind_of::<Namespace>(),
        key: ObjectKey::of(&namespace.metadata),
        patch,
        subresource: Some("finalize"),
    }
}

/// What a namespace still holds, counted by resource and by finalizer.
#[derive(Default)]
struct Content {
    all: BTreeMap<&'static str, usize>,
    /// Not yet told to go.
    stays: BTreeMap<&'static str, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Content {
    fn of(namespace: &str, view: &dyn View) -> Self {
        let mut content = Self::default();
        for kind in NAMESPACED.iter() {
            let names = kind.names();
            for object in view.list(&names, Some(namespace)) {
                *content.all.entry(names.plural).or_default() += 1;
                if object.meta().deletion_timestamp.is_none() {
                    *content.stays.entry(names.plural).or_default() += 1;
                }
                for finalizer in object.meta().finalizers.iter().flatten() {
                    *content.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
        }
        content
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn conditions(&self) -> Vec<NamespaceCondition> {
        let counts = |n: usize, what: &str, joint: &str| format!("{what}{joint} {n} resource instances");
        let resources: Vec<_> = self.all.iter().map(|(what, n)| counts(*n, what, ". has")).collect();
        let finalizers: Vec<_> = self.finalizers.iter().map(|(what, n)| counts(*n, what, " in")).collect();
        let remain = format!("Some resources are remaining: {}", resources.join(", "));
        let blocked = format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
        let resources = match self.all.is_empty() {
            true => ("False", "ContentRemoved", "All content successfully removed"),
            false => ("True", "SomeResourcesRemain", remain.as_str()),
        };
        let finalizers = match self.finalizers.is_empty() {
            true => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            false => ("True", "SomeFinalizersRemain", blocked.as_str()),
        };
        [("NamespaceContentRemaining", resources), ("NamespaceFinalizersRemaining", finalizers)]
            .into_iter()
            .chain(NO_FAILURES)
            .map(|(kind, (status, reason, message))| NamespaceCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: None,
            })
            .collect()
    }
}

fn condition<'n>(namespace: &'n Namespace, kind: &str) -> Option<&'n NamespaceCondition> {
    namespace.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn report(namespace: &Namespace, conditions: Vec<NamespaceCondition>, now: Timestamp, plan: &mut Plan) {
    let dated = |mut wanted: NamespaceCondition| {
        let same = condition(namespace, &wanted.type_).filter(|known| known.status == wanted.status);
        let since = same.and_then(|known| known.last_transition_time.clone());
        wanted.last_transition_time = since.or(Some(Time(now)));
        wanted
    };
    let mut status = namespace.status.clone().unwrap_or_default();
    status.conditions = Some(conditions.into_iter().map(dated).collect());
    if namespace.status.as_ref() != Some(&status) {
        plan.push(Action::UpdateStatus(Box::new(Namespace { status: Some(status), ..namespace.clone() })));
    }
}
