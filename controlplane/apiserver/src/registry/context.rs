//! [`WriteContext`]: who writes and how it is meant, and what the writer is to be told beside the object.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use parking_lot::Mutex;
use podium_api::ApiError;
use serde_json::{Value, json};

use crate::{audit::Annotations, auth::Identity};

/// How many warnings one answer may carry.
const WARNINGS_MAX: usize = 64;

/// The longest name of a field manager, in characters.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`.
pub(crate) const MANAGER_MAX: usize = 128;

/// How a write is meant.
#[derive(Debug)]
pub(crate) struct WriteContext<'a> {
    /// Who writes.
    pub(crate) who: &'a Identity,
    /// The field manager.
    pub(crate) manager: Cow<'a, str>,
    /// Everything but the writing.
    pub(crate) dry_run: bool,
    /// Neither validated nor judged by admission: for objects of the server itself.
    pub(crate) unchecked: bool,
    /// Why no object may come of it that was not there before.
    pub(crate) no_creation: Option<ApiError>,
    warnings: Mutex<Vec<String>>,
    annotations: Annotations,
}

impl<'a> WriteContext<'a> {
    /// A write by `who` under the name of a field manager.
    pub(crate) fn new(who: &'a Identity, manager: impl Into<Cow<'a, str>>) -> Self {
        Self {
            who,
            manager: manager.into(),
            dry_run: false,
            unchecked: false,
            no_creation: None,
            warnings: Mutex::default(),
            annotations: Annotations::default(),
        }
    }

    /// The same, as a trial.
    pub(crate) fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The same, with notes that the audit log sees.
    pub(crate) fn annotating(mut self, annotations: Annotations) -> Self {
        self.annotations = annotations;
        self
    }

    /// The same, by somebody who may be refused to make what is not there.
    pub(crate) fn no_creation(mut self, why: Option<ApiError>) -> Self {
        self.no_creation = why;
        self
    }

    /// A write of the server itself, which no rule may keep from being made.
    pub(crate) fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }

    /// As admission plug-ins see a creation.
    pub(crate) fn create_options(&self) -> Value {
        self.options("CreateOptions")
    }

    /// As admission plug-ins see a change.
    pub(crate) fn update_options(&self) -> Value {
        self.options("UpdateOptions")
    }

    /// As admission plug-ins see a deletion.
    pub(crate) fn delete_options(&self, options: &DeleteOptions) -> Value {
        let mut value = serde_json::to_value(options).unwrap_or_default();
        value["kind"] = "DeleteOptions".into();
        value["apiVersion"] = "meta.k8s.io/v1".into();
        value
    }

    fn options(&self, kind: &str) -> Value {
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "fieldManager": self.manager});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }

    /// Adds a warning for the client; a repeated one counts once.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.lock();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// Notes something for the audit log.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.lock().entry(key.into()).or_insert_with(|| value.into());
    }
}

/// The field manager of a client that names none: the first part of its user agent.
pub(crate) fn manager_of(user_agent: &str) -> String {
    let name: String = user_agent.split('/').next().unwrap_or_default().chars().take(MANAGER_MAX).collect();
    if name.is_empty() || name.chars().any(char::is_control) { "unknown".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_by_user_agent() {
        for (agent, manager) in [
            ("kubectl/v1.36.0 (linux/amd64)", "kubectl"),
            ("kube-controller-manager", "kube-controller-manager"),
            ("", "unknown"),
            ("/x", "unknown"),
        ] {
            assert_eq!(manager_of(agent), manager, "{agent}");
        }
        assert_eq!(manager_of(&"x".repeat(500)).len(), MANAGER_MAX);
    }

    #[test]
    fn warnings_are_bounded_and_not_repeated() {
        let who = Identity::new("a", &[]);
        let context = WriteContext::new(&who, "a");
        (0..100).for_each(|i| context.warn(format!("w{}", i % 80)));
        assert_eq!(context.warnings().len(), WARNINGS_MAX);
    }
}
