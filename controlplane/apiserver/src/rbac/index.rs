//! [`Index`]: every binding by whom it is for, with the role that it gives.
//!
//! Holds the objects of the caches themselves: it costs three words and a key for each subject.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use podium_api::Object;

use super::{GROUP, Sources};
use crate::{
    auth::Identity,
    registry::cache::{Entry, Filter},
};

/// All grants.
pub(super) struct Index {
    /// What [`Sources::changes`] was before the objects were read.
    pub(super) made_at: [u64; 4],
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
}

/// Those of the cluster, or of one namespace.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// One subject of a binding.
pub(super) struct Grant {
    pub(super) binding: Arc<Entry>,
    subject: usize,
    role: Option<Arc<Entry>>,
}

impl Index {
    pub(super) fn new(sources: &Sources, made_at: [u64; 4]) -> Self {
        let mut index = Self { made_at, cluster: Grants::default(), namespaces: HashMap::new() };
        for binding in sources.cluster_role_bindings.list(&Filter::default()).entries {
            index.cluster.add(sources, &binding, "");
        }
        for binding in sources.role_bindings.list(&Filter::default()).entries {
            let namespace = binding.object.meta().namespace.clone().unwrap_or_default();
            index.namespaces.entry(namespace.clone()).or_default().add(sources, &binding, &namespace);
        }
        index
    }

    /// Shows what somebody has, those of the cluster first, until `f` has seen enough.
    pub(super) fn visit<'a, B>(
        &'a self,
        who: &Identity,
        namespace: &str,
        mut f: impl FnMut(&'a Grant) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let own = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        for grants in std::iter::once(&self.cluster).chain(own) {
            let user = grants.users.get(&who.user);
            let groups = who.groups.iter().filter_map(|group| grants.groups.get(group));
            user.into_iter().chain(groups).flatten().try_for_each(&mut f)?;
        }
        ControlFlow::Continue(())
    }
}

impl Grants {
    fn add(&mut self, sources: &Sources, binding: &Arc<Entry>, namespace: &str) {
        let Some((reference, subjects)) = parts(&*binding.object) else { return };
        let role = role(sources, reference, namespace);
        for (i, subject) in subjects.iter().enumerate() {
            let grant = || Grant { binding: binding.clone(), subject: i, role: role.clone() };
            match subject.kind.as_str() {
                "User" => self.users.entry(subject.name.clone()).or_default().push(grant()),
                "Group" => self.groups.entry(subject.name.clone()).or_default().push(grant()),
                "ServiceAccount" => {
                    let own = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
                    if !own.is_empty() {
                        let user = format!("system:serviceaccount:{own}:{}", subject.name);
                        self.users.entry(user).or_default().push(grant());
                    }
                }
                _ => {}
            }
        }
    }
}

impl Grant {
    /// The rules of the role; none when there is no such role.
    pub(super) fn rules(&self) -> Option<&[PolicyRule]> {
        rules(self.role.as_ref()?)
    }

    /// What is said of a role that is not there.
    pub(super) fn missing(&self) -> String {
        parts(&*self.binding.object).map(|(role, _)| not_found(role)).unwrap_or_default()
    }

    /// `ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
    pub(super) fn describe(&self) -> String {
        let Some((role, subjects)) = parts(&*self.binding.object) else { return String::new() };
        let meta = self.binding.object.meta();
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().filter(|n| !n.is_empty());
        let binding = match namespace {
            Some(namespace) => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
            None => format!("ClusterRoleBinding {name:?}"),
        };
        let subject = subjects.get(self.subject).map(|s| to(s, namespace.unwrap_or_default())).unwrap_or_default();
        format!("{binding} of {} {:?} to {subject}", role.kind, role.name)
    }
}

fn to(subject: &Subject, namespace: &str) -> String {
    let name = match subject.kind.as_str() {
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
            format!("{}/{own}", subject.name)
        }
        _ => subject.name.clone(),
    };
    format!("{} {name:?}", subject.kind)
}

/// What a binding gives, and to whom.
pub(super) fn parts(object: &dyn Object) -> Option<(&RoleRef, &[Subject])> {
    let cluster = object.downcast_ref::<ClusterRoleBinding>().map(|b| (&b.role_ref, b.subjects.as_deref()));
    let found = cluster.or_else(|| object.downcast_ref::<RoleBinding>().map(|b| (&b.role_ref, b.subjects.as_deref())));
    found.map(|(role, subjects)| (role, subjects.unwrap_or_default()))
}

/// The rules of a Role or ClusterRole.
pub(super) fn rules(entry: &Entry) -> Option<&[PolicyRule]> {
    let cluster = entry.object.downcast_ref::<ClusterRole>().map(|r| r.rules.as_deref());
    let found = cluster.or_else(|| entry.object.downcast_ref::<Role>().map(|r| r.rules.as_deref()));
    found.map(Option::unwrap_or_default)
}

/// The role that a binding in a namespace (or, with none, of the cluster) refers to.
pub(super) fn role(sources: &Sources, role: &RoleRef, namespace: &str) -> Option<Arc<Entry>> {
    match role.kind.as_str() {
        "ClusterRole" => sources.cluster_roles.get("", &role.name),
        "Role" if !namespace.is_empty() => sources.roles.get(namespace, &role.name),
        _ => None,
    }
}

/// What is said of a role that is not there.
pub(super) fn not_found(role: &RoleRef) -> String {
    match role.kind.as_str() {
        kind @ ("ClusterRole" | "Role") => format!("{}s.{GROUP} {:?} not found", kind.to_lowercase(), role.name),
        kind => format!("unsupported role reference kind: {kind:?}"),
    }
}
