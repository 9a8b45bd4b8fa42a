//! What is to be audited: an `audit.k8s.io/v1` Policy, read strictly. The first rule that matches a request decides.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::{Attributes, Identity};

/// How much of a request is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what and how it ended.
    Metadata,
    /// Also the object that was sent.
    Request,
    /// Also the object that was answered.
    RequestResponse,
}

impl Level {
    /// As events name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A policy that was read and makes sense.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: KindName,
    #[serde(default, rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
enum ApiVersion {
    #[default]
    #[serde(rename = "audit.k8s.io/v1")]
    V1,
}

#[derive(Debug, Clone, Default, Deserialize)]
enum KindName {
    #[default]
    Policy,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Written")]
struct Rule(Written);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Written {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(rule: Written) -> Result<Self, String> {
        if rule.level.is_none() {
            return Err("level: Required value".to_owned());
        }
        let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if of_resources && !rule.non_resource_urls.is_empty() {
            return Err(
                "nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".to_owned()
            );
        }
        for url in &rule.non_resource_urls {
            let star = url.find('*').is_some_and(|at| at + 1 < url.len());
            if star || !(url == "*" || url.starts_with('/')) {
                return Err(format!(
                    "nonResourceURLs: Invalid value: {url:?}: must begin with a \"/\" and have a \"*\" only at its end"
                ));
            }
        }
        for of in &rule.resources {
            if of.group.contains('/') {
                return Err(format!("resources.group: Invalid value: {:?}: a group has no version", of.group));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                return Err("resources.resourceNames: using resourceNames requires at least one resource".to_owned());
            }
        }
        Ok(Self(rule))
    }
}

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the audit policy {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("{}:{line}: no audit policy: {reason}", path.display())]
    Wrong {
        /// Where.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// What the policy says about one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decision {
    pub(crate) level: Level,
    pub(crate) omit_stages: Vec<Stage>,
    pub(crate) omit_managed_fields: bool,
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: path.into(), source })?;
        let policy: Self = serde_yaml::from_str(&text).map_err(|error| PolicyError::Wrong {
            path: path.into(),
            line: error.location().map_or(1, |l| l.line()),
            reason: error.to_string(),
        })?;
        if policy.rules.is_empty() {
            let reason = "it has no rules, so that nothing would be written".to_owned();
            return Err(PolicyError::Wrong { path: path.into(), line: 1, reason });
        }
        Ok(policy)
    }

    /// What to do with a request.
    pub(crate) fn decide(&self, who: &Identity, what: &Attributes<'_>) -> Decision {
        let Some(Rule(rule)) = self.rules.iter().find(|rule| rule.0.matches(who, what)) else {
            return Decision::default();
        };
        Decision {
            level: rule.level.unwrap_or_default(),
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Written {
    fn matches(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|entry| entry == value);
        if !any(&self.users, &who.user) || !any(&self.verbs, what.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| who.groups.contains(group)) {
            return false;
        }
        let resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        match (resources, !self.non_resource_urls.is_empty()) {
            (true, _) => !what.resource.is_empty() && any(&self.namespaces, what.namespace) && self.names(what),
            (_, true) => {
                what.resource.is_empty() && self.non_resource_urls.iter().any(|url| url_matches(url, what.path))
            }
            _ => true,
        }
    }

    fn names(&self, what: &Attributes<'_>) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|of| of.matches(what))
    }
}

impl GroupResources {
    fn matches(&self, what: &Attributes<'_>) -> bool {
        if self.group != what.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let name = self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == what.name);
        name && self.resources.iter().any(|pattern| resource_matches(pattern, what))
    }
}

fn resource_matches(pattern: &str, what: &Attributes<'_>) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == what.resource && what.subresource.is_empty()),
        Some(("*", sub)) => !sub.is_empty() && sub == what.subresource,
        Some((resource, "*")) => resource == what.resource,
        Some((resource, sub)) => resource == what.resource && sub == what.subresource,
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, PolicyError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{text}")).unwrap();
        Policy::read(&path)
    }

    #[test]
    fn the_first_rule_decides() {
        let policy = policy(
            "omitStages: [RequestReceived]
rules:
- {level: None, users: [quiet], verbs: [watch]}
- {level: Metadata, resources: [{group: '', resources: [secrets, pods/log]}]}
- {level: Request, resources: [{group: apps, resources: ['*'], resourceNames: [x]}], omitManagedFields: true}
- {level: RequestResponse, namespaces: [shop], resources: [{group: ''}]}
- {level: None, nonResourceURLs: ['/healthz*']}
- {level: Metadata, userGroups: [people], omitStages: [Panic]}
",
        )
        .unwrap();
        let at = |user: &str, verb, group, (resource, subresource), namespace, (name, path)| {
            let who = Identity::new(user, if user == "jane" { &["people"] } else { &[] });
            policy.decide(&who, &Attributes { verb, group, resource, subresource, namespace, name, path }).level
        };
        for (got, want) in [
            (at("quiet", "watch", "", ("secrets", ""), "a", ("", "")), Level::None),
            (at("a", "watch", "", ("secrets", ""), "a", ("", "")), Level::Metadata),
            (at("a", "get", "", ("pods", "log"), "a", ("p", "")), Level::Metadata),
            (at("a", "get", "", ("pods", ""), "a", ("p", "")), Level::None),
            (at("a", "get", "", ("pods", ""), "shop", ("p", "")), Level::RequestResponse),
            (at("a", "get", "apps", ("deployments", "scale"), "b", ("x", "")), Level::Request),
            (at("a", "get", "apps", ("deployments", ""), "b", ("y", "")), Level::None),
            (at("jane", "get", "", ("", ""), "", ("", "/healthz/ping")), Level::None),
            (at("jane", "get", "", ("", ""), "", ("", "/version")), Level::Metadata),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn what_is_refused_and_where() {
        for (text, line, why) in [
            ("rules:\n- level: Metadata\n- level: Everything\n", 5, "Everything"),
            ("rules:\n- level: Metadata\n  verb: [get]\n", 5, "verb"),
            ("rules: []\n", 1, "no rules"),
            ("rules:\n- verbs: [get]\n", 4, "level: Required value"),
            ("rules:\n- level: Request\n  nonResourceURLs: [/a*b]\n", 4, "/a*b"),
            ("rules:\n- level: Request\n  namespaces: [a]\n  nonResourceURLs: [/a]\n", 4, "both"),
        ] {
            let error = policy(text).unwrap_err();
            let PolicyError::Wrong { line: at, reason, .. } = &error else { panic!("{error}") };
            assert!(reason.contains(why), "{reason}");
            assert_eq!(*at, line, "{error}");
        }
    }
}
