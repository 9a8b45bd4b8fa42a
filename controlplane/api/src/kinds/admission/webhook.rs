//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};

use super::{
    CATEGORIES, FAILURE_POLICIES, GROUP, REINVOCATION_POLICIES,
    rules::{MATCH_POLICIES, default_text, one_of, validate_conditions, validate_rule, validate_selector},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const TIMEOUT_SECONDS: i32 = 10;
const TIMEOUT_SECONDS_MAX: i32 = 30;

/// The defaults that webhooks of both sorts have.
macro_rules! default_hook {
    ($hook:ident) => {
        default_text(&mut $hook.failure_policy, "Fail");
        default_text(&mut $hook.match_policy, "Equivalent");
        $hook.namespace_selector.get_or_insert_default();
        $hook.object_selector.get_or_insert_default();
        $hook.timeout_seconds.get_or_insert(TIMEOUT_SECONDS);
        default_parts($hook.rules.as_deref_mut(), &mut $hook.client_config);
    };
}

impl Kind for ValidatingWebhookConfiguration {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
    )
    .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Webhooks", |c, _| Cell::from(c.webhooks.as_ref().map_or(0, Vec::len)))
            .help("Webhooks indicates the number of webhooks registered in this configuration"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        for hook in self.webhooks.iter_mut().flatten() {
            default_hook!(hook);
        }
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        Some(self.webhooks != old.webhooks)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_hooks(self.webhooks.iter().flatten().map(Hook::of), errs);
    }
}

impl Kind for MutatingWebhookConfiguration {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
    )
    .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Webhooks", |c, _| Cell::from(c.webhooks.as_ref().map_or(0, Vec::len)))
            .help("Webhooks indicates the number of webhooks registered in this configuration"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        for hook in self.webhooks.iter_mut().flatten() {
            default_text(&mut hook.reinvocation_policy, "Never");
            default_hook!(hook);
        }
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        Some(self.webhooks != old.webhooks)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_hooks(self.webhooks.iter().flatten().map(Hook::of_mutating), errs);
    }
}

fn default_parts(rules: Option<&mut [RuleWithOperations]>, client: &mut WebhookClientConfig) {
    for rule in rules.unwrap_or_default() {
        default_text(&mut rule.scope, "*");
    }
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(443);
    }
}

/// A webhook of either sort. Only those that mutate have a reinvocation policy.
struct Hook {
    hook: ValidatingWebhook,
    reinvocation_policy: Option<String>,
}

impl Hook {
    fn of(hook: &ValidatingWebhook) -> Self {
        Self { hook: hook.clone(), reinvocation_policy: None }
    }

    fn of_mutating(hook: &MutatingWebhook) -> Self {
        let hook = hook.clone();
        Self {
            reinvocation_policy: hook.reinvocation_policy,
            hook: ValidatingWebhook {
                admission_review_versions: hook.admission_review_versions,
                client_config: hook.client_config,
                failure_policy: hook.failure_policy,
                match_conditions: hook.match_conditions,
                match_policy: hook.match_policy,
                name: hook.name,
                namespace_selector: hook.namespace_selector,
                object_selector: hook.object_selector,
                rules: hook.rules,
                side_effects: hook.side_effects,
                timeout_seconds: hook.timeout_seconds,
            },
        }
    }
}

fn validate_hooks(hooks: impl Iterator<Item = Hook>, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, hook) in hooks.enumerate() {
        let path = FieldPath::new("webhooks").index(i);
        validate_hook(&hook, &path, errs);
        let versions = &hook.hook.admission_review_versions;
        validate_versions(versions, &path.child("admissionReviewVersions"), errs);
        let name = hook.hook.name;
        if !name.is_empty() && !seen.insert(name.clone()) {
            errs.duplicate(&path.child("name"), name);
        }
    }
}

fn validate_hook(Hook { hook, reinvocation_policy }: &Hook, path: &FieldPath, errs: &mut FieldErrors) {
    validate_qualified(&hook.name, &path.child("name"), errs);
    for (i, rule) in hook.rules.iter().flatten().enumerate() {
        validate_rule(rule, &path.child("rules").index(i), errs);
    }
    one_of(hook.failure_policy.as_deref(), FAILURE_POLICIES, &path.child("failurePolicy"), errs);
    one_of(hook.match_policy.as_deref(), MATCH_POLICIES, &path.child("matchPolicy"), errs);
    match hook.side_effects.as_str() {
        "" => errs.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        effects => one_of(Some(effects), SIDE_EFFECTS, &path.child("sideEffects"), errs),
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|s| !(1..=TIMEOUT_SECONDS_MAX).contains(s)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errs.invalid(&path.child("timeoutSeconds"), seconds, detail);
    }
    validate_selector(hook.namespace_selector.as_ref(), false, &path.child("namespaceSelector"), errs);
    validate_selector(hook.object_selector.as_ref(), false, &path.child("objectSelector"), errs);
    one_of(reinvocation_policy.as_deref(), REINVOCATION_POLICIES, &path.child("reinvocationPolicy"), errs);
    validate_client(&hook.client_config, &path.child("clientConfig"), errs);
    validate_conditions(hook.match_conditions.as_deref(), &path.child("matchConditions"), errs);
}

fn validate_qualified(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let messages = names::is_dns1123_subdomain(name);
    if name.is_empty() {
        errs.required(path, "");
    } else if !messages.is_empty() {
        errs.invalid(path, name, &messages.join(","));
    } else if name.split('.').count() < 3 {
        errs.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn validate_versions(versions: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    if versions.is_empty() {
        return errs.required(path, &format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if seen.insert(version) {
            errs.invalid_each(&path.index(i), version, names::is_dns1035_label(version));
        } else {
            errs.invalid(&path.index(i), version.as_str(), "duplicate version");
        }
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        errs.invalid(path, versions, &format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

fn validate_client(client: &WebhookClientConfig, path: &FieldPath, errs: &mut FieldErrors) {
    match (&client.url, &client.service) {
        (Some(url), None) => validate_url(url, &path.child("url"), errs),
        (None, Some(service)) => validate_service(service, &path.child("service"), errs),
        _ => errs.required(path, "exactly one of url or service is required"),
    }
}

/// `https://host[:port][/path]`, nothing else.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook/validation.go`.
fn validate_url(url: &str, path: &FieldPath, errs: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        errs.invalid(path, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errs.invalid(path, host, &format!("host must be specified{FORM}"));
    }
    let parts = [
        (user.unwrap_or_default(), user.is_some(), "user information is not permitted in the URL"),
        (fragment, !fragment.is_empty(), "fragments are not permitted in the URL"),
        (query, !query.is_empty(), "query parameters are not permitted in the URL"),
    ];
    for (value, _, detail) in parts.into_iter().filter(|(_, there, _)| *there) {
        errs.invalid(path, value, detail);
    }
}

fn validate_service(service: &ServiceReference, path: &FieldPath, errs: &mut FieldErrors) {
    for (field, text) in [("name", &service.name), ("namespace", &service.namespace)] {
        if text.is_empty() {
            errs.required(&path.child(field), "");
        }
    }
    let port = service.port.unwrap_or(443);
    let messages = names::is_port_number(port);
    if !messages.is_empty() {
        errs.invalid(&path.child("port"), port, &format!("port is not valid: {}", messages.join(", ")));
    }
    validate_path(service.path.as_deref().unwrap_or_default(), &path.child("path"), errs);
}

fn validate_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        return errs.invalid(path, text, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        errs.invalid(path, text, "must start with a '/'");
    }
    let steps = text.strip_prefix('/').unwrap_or(text);
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errs.invalid(path, text, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::is_dns1123_subdomain(step) {
            errs.invalid(path, text, &format!("segment[{i}]: {message}"));
        }
    }
}
