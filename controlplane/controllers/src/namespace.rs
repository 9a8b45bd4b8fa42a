//! Namespace deletion: everything in it goes, then its finalizer.
//!
//! # Source
//! Kubernetes `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{Kind, KindRef, Object, ObjectKey, Scope, kind_of};
use serde_json::json;

use crate::{Action, Controller, Key, Keys, Plan, Trigger, View, ViewExt};

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

/// What lives in namespaces, of each kind the version that is stored.
fn is_content(kind: &KindRef) -> bool {
    kind.scope() == Scope::Namespaced && kind.stored_as().is_none()
}

fn content_kinds(view: &dyn View) -> Vec<KindRef> {
    view.kinds().into_iter().filter(is_content).collect()
}

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
        let kinds = podium_api::kinds::all().into_iter();
        let content = kinds.filter(is_content).map(|kind| Trigger { kind, keys: of_content });
        let namespaces = Trigger { kind: kind_of::<Namespace>(), keys: |object, _| vec![Key::of(object)] };
        content.chain([namespaces]).collect()
    }

    fn any_kind(&self) -> Option<Keys> {
        Some(of_content)
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
        let kinds = content_kinds(view);
        // Pods go before what they use: policies, secrets, accounts.
        let pods_first = content.all.contains_key(Pod::NAMES.plural);
        let doomed = kinds.iter().filter(|kind| match pods_first {
            true => kind.names() == Pod::NAMES && content.stays.contains_key(Pod::NAMES.plural),
            false => first || content.stays.contains_key(&resource(kind)),
        });
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

/// `deployments.apps`
fn resource(kind: &KindRef) -> String {
    kind.names().qualified_resource().into_owned()
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
        && content_kinds(view).iter().any(|kind| view.revision(&kind.names()) < revision)
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
    all: BTreeMap<String, usize>,
    /// Not yet told to go.
    stays: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Content {
    fn of(namespace: &str, view: &dyn View) -> Self {
        let mut content = Self::default();
        for kind in content_kinds(view) {
            let (names, resource) = (kind.names(), resource(&kind));
            for object in view.list(&names, Some(namespace)) {
                *content.all.entry(resource.clone()).or_default() += 1;
                if object.meta().deletion_timestamp.is_none() {
                    *content.stays.entry(resource.clone()).or_default() += 1;
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
