//! Whether a FlowSchema is about a request. Rules are read once, when the object changes.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/rule.go`.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::auth::{Attributes, Identity};

/// The namespace that a request counts to: that of a namespace is itself.
pub(super) fn namespace_of<'a>(what: &Attributes<'a>) -> &'a str {
    if what.group.is_empty() && what.resource == "namespaces" && what.namespace.is_empty() {
        return what.name;
    }
    what.namespace
}

/// The rules of a schema.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    subjects: Vec<Who>,
    resources: Vec<OfResources>,
    paths: Vec<OfPaths>,
}

#[derive(Debug)]
enum Who {
    Anybody,
    User(String),
    Group(String),
    /// Namespace, and a name unless all are meant.
    Account(String, Option<String>),
}

#[derive(Debug)]
enum List {
    All,
    Of(Vec<String>),
}

#[derive(Debug)]
struct OfResources {
    verbs: List,
    groups: List,
    resources: List,
    namespaces: List,
    cluster: bool,
}

#[derive(Debug)]
struct OfPaths {
    verbs: List,
    paths: List,
}

impl Rules {
    pub(super) fn read(spec: &FlowSchemaSpec) -> Self {
        Self(spec.rules.iter().flatten().map(Rule::read).collect())
    }

    pub(super) fn matches(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        self.0.iter().any(|rule| rule.matches(who, what))
    }
}

impl Rule {
    fn read(rule: &PolicyRulesWithSubjects) -> Self {
        Self {
            subjects: rule.subjects.iter().filter_map(Who::read).collect(),
            resources: rule.resource_rules.iter().flatten().map(OfResources::read).collect(),
            paths: rule.non_resource_rules.iter().flatten().map(OfPaths::read).collect(),
        }
    }

    fn matches(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(who)) {
            return false;
        }
        if what.resource.is_empty() {
            return self.paths.iter().any(|rule| rule.matches(what));
        }
        self.resources.iter().any(|rule| rule.matches(what))
    }
}

impl Who {
    /// `None` for what is nobody.
    fn read(subject: &Subject) -> Option<Self> {
        Some(match subject.kind.as_str() {
            "User" => match subject.user.as_ref()?.name.as_str() {
                "*" => Self::Anybody,
                name => Self::User(name.to_owned()),
            },
            "Group" => match subject.group.as_ref()?.name.as_str() {
                "*" => Self::Anybody,
                name => Self::Group(name.to_owned()),
            },
            "ServiceAccount" => {
                let account = subject.service_account.as_ref()?;
                let name = Some(&account.name).filter(|name| *name != "*").cloned();
                Self::Account(account.namespace.clone(), name)
            }
            _ => return None,
        })
    }

    fn is(&self, who: &Identity) -> bool {
        match self {
            Self::Anybody => true,
            Self::User(name) => *name == who.user,
            Self::Group(name) => who.groups.contains(name),
            Self::Account(namespace, name) => {
                let full = who.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                full.is_some_and(|(at, account)| at == namespace && name.as_ref().is_none_or(|name| name == account))
            }
        }
    }
}

impl List {
    fn read(list: &[String]) -> Self {
        match list {
            [all] if all == "*" => Self::All,
            some => Self::Of(some.to_vec()),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.any(|entry| entry == value)
    }

    fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Of(list) => list.iter().any(|entry| test(entry)),
        }
    }
}

impl OfResources {
    fn read(rule: &ResourcePolicyRule) -> Self {
        Self {
            verbs: List::read(&rule.verbs),
            groups: List::read(&rule.api_groups),
            resources: List::read(&rule.resources),
            namespaces: List::read(rule.namespaces.as_deref().unwrap_or_default()),
            cluster: rule.cluster_scope == Some(true),
        }
    }

    fn matches(&self, what: &Attributes<'_>) -> bool {
        let resource = |entry: &str| match what.subresource {
            "" => entry == what.resource,
            sub => entry.split_once('/') == Some((what.resource, sub)),
        };
        let place = match namespace_of(what) {
            "" => self.cluster,
            namespace => self.namespaces.has(namespace),
        };
        place && self.verbs.has(what.verb) && self.groups.has(what.group) && self.resources.any(resource)
    }
}

impl OfPaths {
    fn read(rule: &NonResourcePolicyRule) -> Self {
        Self { verbs: List::read(&rule.verbs), paths: List::read(&rule.non_resource_urls) }
    }

    /// A path is also a rule for everything below it.
    fn matches(&self, what: &Attributes<'_>) -> bool {
        let below = |entry: &str| {
            let folder = entry.trim_end_matches('*').trim_end_matches('/');
            what.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(what.verb) && self.paths.any(|entry| entry == what.path || below(entry))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(subject: Value, rule: Value) -> Rules {
        let key = if rule.get("nonResourceURLs").is_some() { "nonResourceRules" } else { "resourceRules" };
        let spec =
            json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [{"subjects": [subject], key: [rule]}]});
        Rules::read(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn subjects() {
        let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true});
        let jane = Identity::new("jane", &["devs", "system:authenticated"]);
        let robot = Identity::new("system:serviceaccount:kube-system:gc", &["system:serviceaccounts"]);
        let what = Attributes { verb: "get", resource: "nodes", name: "n", ..Attributes::default() };
        let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        for (subject, is_jane, is_robot) in [
            (json!({"kind": "User", "user": {"name": "jane"}}), true, false),
            (json!({"kind": "User", "user": {"name": "*"}}), true, true),
            (json!({"kind": "Group", "group": {"name": "devs"}}), true, false),
            (json!({"kind": "Group", "group": {"name": "jane"}}), false, false),
            (json!({"kind": "Group", "group": {"name": "*"}}), true, true),
            (account("kube-system", "gc"), false, true),
            (account("kube-system", "*"), false, true),
            (account("kube", "*"), false, false),
            (account("kube-system", "g"), false, false),
            (account("default", "gc"), false, false),
            (json!({"kind": "Robot"}), false, false),
            (json!({"kind": "User", "group": {"name": "devs"}}), false, false),
        ] {
            let rules = rules(subject.clone(), everything.clone());
            assert_eq!((rules.matches(&jane, &what), rules.matches(&robot, &what)), (is_jane, is_robot), "{subject}");
        }
    }

    #[test]
    fn resources() {
        let who = Identity::new("jane", &[]);
        let anybody = json!({"kind": "User", "user": {"name": "*"}});
        let pod = Attributes { verb: "get", resource: "pods", namespace: "a", name: "p", ..Attributes::default() };
        let status = Attributes { subresource: "status", ..pod };
        let node = Attributes { resource: "nodes", namespace: "", ..pod };
        let space = Attributes { resource: "namespaces", namespace: "", name: "a", ..pod };
        let rule = |verbs: &[&str], group: &str, resource: &str, namespaces: &[&str], cluster: bool| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource], "namespaces": namespaces, "clusterScope": cluster});
        for (rule, wanted) in [
            (rule(&["*"], "*", "*", &["*"], true), [true, true, true, true]),
            (rule(&["*"], "*", "*", &["*"], false), [true, true, false, true]),
            (rule(&["*"], "*", "*", &[], true), [false, false, true, false]),
            (rule(&["list", "get"], "", "pods", &["a"], false), [true, false, false, false]),
            (rule(&["*"], "", "pods/status", &["a"], false), [false, true, false, false]),
            (rule(&["*"], "apps", "pods", &["a"], false), [false; 4]),
            (rule(&["list"], "", "pods", &["a"], false), [false; 4]),
            (rule(&["*"], "", "pods", &["b"], false), [false; 4]),
            (rule(&["*"], "", "namespaces", &["a"], false), [false, false, false, true]),
        ] {
            let rules = rules(anybody.clone(), rule.clone());
            let got = [pod, status, node, space].map(|what| rules.matches(&who, &what));
            assert_eq!(got, wanted, "{rule}");
        }
    }

    #[test]
    fn paths() {
        let who = Identity::new("jane", &[]);
        let anybody = json!({"kind": "User", "user": {"name": "*"}});
        for (url, path, wanted) in [
            ("*", "/anything", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", true),
            ("/healthz", "/healthzz", false),
            ("/openapi/*", "/openapi/v3", true),
            ("/openapi/*", "/openapi", false),
            ("/", "/version", true),
        ] {
            let rules = rules(anybody.clone(), json!({"verbs": ["get"], "nonResourceURLs": [url]}));
            let what = |verb| Attributes { verb, path, ..Attributes::default() };
            assert_eq!(rules.matches(&who, &what("get")), wanted, "{url} {path}");
            assert!(!rules.matches(&who, &what("post")));
        }
    }
}
