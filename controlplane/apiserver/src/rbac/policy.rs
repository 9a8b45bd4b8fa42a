//! What every cluster grants: Kubernetes' default roles and bindings, read from a text of one line for each rule.
//!
//! The text (`policy.txt`) is written for this reader and checked by a test; a line that cannot be read is left out.
//! Roles that aggregate others get their rules from a controller.
//!
//! # Source
//! Kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{
        AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::GROUP;

const TEXT: &str = include_str!("policy.txt");

/// Whether the server keeps what it made complete.
pub(super) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// The account of a controller has the role of this name.
const CONTROLLER: &str = "system:controller:";

/// Everything that is granted from the start.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) cluster_roles: Vec<ClusterRole>,
    pub(super) roles: Vec<Role>,
    pub(super) cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub(super) role_bindings: Vec<RoleBinding>,
}

impl Policy {
    /// What is built in.
    pub(super) fn built_in() -> Self {
        let mut policy = Self::default();
        let mut into: Option<usize> = None;
        for line in TEXT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(' ') {
                Some(("role", name)) => into = Some(policy.add_role(name)),
                Some(("label", to)) => policy.label(to),
                Some(("aggregates", to)) => policy.aggregate(to),
                Some(("to", subjects)) => policy.bind(subjects),
                _ => policy.add_rule(into, line),
            }
        }
        policy.bind_controllers();
        policy.namespaced();
        policy
    }

    fn add_role(&mut self, name: &str) -> usize {
        self.cluster_roles.push(ClusterRole { metadata: meta(name, ""), ..ClusterRole::default() });
        self.cluster_roles.len() - 1
    }

    fn label(&mut self, to: &str) {
        let Some(role) = self.cluster_roles.last_mut() else { return };
        role.metadata.labels.get_or_insert_default().insert(aggregate_to(to), "true".to_owned());
    }

    fn aggregate(&mut self, to: &str) {
        let Some(role) = self.cluster_roles.last_mut() else { return };
        let labels = BTreeMap::from([(aggregate_to(to), "true".to_owned())]);
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        role.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
    }

    fn bind(&mut self, to: &str) {
        let Some(name) = self.cluster_roles.last().and_then(|role| role.metadata.name.clone()) else { return };
        self.cluster_role_bindings.push(ClusterRoleBinding {
            metadata: meta(&name, ""),
            role_ref: role_ref("ClusterRole", &name),
            subjects: Some(subjects(to)),
        });
    }

    fn add_rule(&mut self, into: Option<usize>, line: &str) {
        let role = into.and_then(|i| self.cluster_roles.get_mut(i));
        if let (Some(role), Some(rule)) = (role, rule(line)) {
            role.rules.get_or_insert_default().push(rule);
        }
    }

    fn bind_controllers(&mut self) {
        let names: Vec<String> = self.cluster_roles.iter().filter_map(|role| role.metadata.name.clone()).collect();
        for name in names {
            if let Some(account) = name.strip_prefix(CONTROLLER) {
                self.cluster_role_bindings.push(ClusterRoleBinding {
                    metadata: meta(&name, ""),
                    role_ref: role_ref("ClusterRole", &name),
                    subjects: Some(subjects(&format!("account=kube-system/{account}"))),
                });
            }
        }
    }

    /// The roles within namespaces are those whose names say so: `kube-system/NAME`.
    fn namespaced(&mut self) {
        let place = |meta: &ObjectMeta| {
            let (namespace, name) = meta.name.as_deref()?.split_once('/')?;
            Some((namespace.to_owned(), name.to_owned()))
        };
        for role in std::mem::take(&mut self.cluster_roles) {
            match place(&role.metadata) {
                Some((namespace, name)) => {
                    self.roles.push(Role { metadata: meta(&name, &namespace), rules: role.rules });
                }
                None => self.cluster_roles.push(role),
            }
        }
        for binding in std::mem::take(&mut self.cluster_role_bindings) {
            match place(&binding.metadata) {
                Some((namespace, name)) => {
                    // Kubernetes' one binding that is not called as its role.
                    let reader = "extension-apiserver-authentication-reader";
                    let own = if name == reader { format!("system::{name}") } else { name.clone() };
                    self.role_bindings.push(RoleBinding {
                        metadata: meta(&own, &namespace),
                        role_ref: role_ref("Role", &name),
                        subjects: binding.subjects,
                    });
                }
                None => self.cluster_role_bindings.push(binding),
            }
        }
    }
}

fn meta(name: &str, namespace: &str) -> ObjectMeta {
    let (label, value) = BOOTSTRAPPING;
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
        labels: Some([(label.to_owned(), value.to_owned())].into()),
        annotations: Some([(AUTO_UPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn aggregate_to(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

/// `user=NAME group=NAME account=NAMESPACE/NAME`; other words name nobody.
fn subjects(text: &str) -> Vec<Subject> {
    let one = |word: &str| {
        let (kind, name) = word.split_once('=')?;
        let known = |kind: &str| Subject {
            api_group: Some(GROUP.to_owned()),
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: None,
        };
        match (kind, name.split_once('/')) {
            ("user", _) => Some(known("User")),
            ("group", _) => Some(known("Group")),
            ("account", Some((namespace, name))) => Some(Subject {
                api_group: None,
                kind: "ServiceAccount".to_owned(),
                name: name.to_owned(),
                namespace: Some(namespace.to_owned()),
            }),
            _ => None,
        }
    };
    text.split_whitespace().filter_map(one).collect()
}

/// `VERBS URLS`, or `VERBS GROUPS: RESOURCES [= NAMES]`, or `events`; `core` is the group without a name.
pub(super) fn rule(line: &str) -> Option<PolicyRule> {
    if line == "events" {
        return rule("create,patch,update core,events.k8s.io: events");
    }
    let (verbs, rest) = line.split_once(' ')?;
    let list = |text: &str| text.trim().split(',').map(str::to_owned).collect::<Vec<String>>();
    let verbs = list(match verbs {
        "read" => "get,list,watch",
        "write" => "create,delete,deletecollection,patch,update",
        "all" => "create,delete,deletecollection,get,list,patch,update,watch",
        verbs => verbs,
    });
    let Some((groups, resources)) = rest.split_once(": ") else {
        return Some(PolicyRule { verbs, non_resource_urls: Some(list(rest)), ..PolicyRule::default() });
    };
    let (resources, names) = match resources.split_once(" = ") {
        Some((resources, names)) => (resources, Some(list(names))),
        None => (resources, None),
    };
    let group = |name: String| if name == "core" { String::new() } else { name };
    Some(PolicyRule {
        verbs,
        api_groups: Some(list(groups).into_iter().map(group).collect()),
        resources: Some(list(resources)),
        resource_names: names,
        ..PolicyRule::default()
    })
}
