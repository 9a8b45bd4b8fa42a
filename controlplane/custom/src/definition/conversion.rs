//! How objects of one version become those of another: none, or by a webhook.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, WebhookClientConfig, WebhookConversion,
};
use podium_api::{FieldErrors, FieldPath, names};

pub(super) fn check(conversion: Option<&CustomResourceConversion>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(conversion) = conversion else { return };
    match (conversion.strategy.as_str(), &conversion.webhook) {
        ("", _) => errs.required(&path.child("strategy"), ""),
        ("None", None) => {}
        ("None", Some(_)) => {
            errs.forbidden(&path.child("webhook"), "should not be set when strategy is not set to Webhook");
        }
        ("Webhook", None) => {
            errs.required(&path.child("webhookClientConfig"), "required when strategy is set to Webhook");
            errs.required(&path.child("conversionReviewVersions"), "");
        }
        ("Webhook", Some(webhook)) => check_webhook(webhook, path, errs),
        (other, _) => errs.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

fn check_webhook(webhook: &WebhookConversion, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("webhookClientConfig");
    match &webhook.client_config {
        None => errs.required(&at, "required when strategy is set to Webhook"),
        Some(client) => check_client(client, &at, errs),
    }
    let at = path.child("conversionReviewVersions");
    let versions = &webhook.conversion_review_versions;
    if versions.is_empty() {
        errs.required(&at, "");
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errs.invalid(&at.index(i), version.as_str(), "duplicate version");
            continue;
        }
        errs.invalid_each(&at.index(i), version, names::is_dns1035_label(version));
    }
    if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        errs.invalid(&at, serde_json::json!(versions), "must include at least one of v1, v1beta1");
    }
}

fn check_client(client: &WebhookClientConfig, path: &FieldPath, errs: &mut FieldErrors) {
    match (&client.url, &client.service) {
        (Some(url), None) => {
            let at = path.child("url");
            let Some(rest) = url.strip_prefix("https://") else {
                let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                errs.invalid(&at, url.as_str(), detail);
                return;
            };
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if host.is_empty() {
                errs.invalid(&at, url.as_str(), "host must be specified; desired format: https://host[/path]");
            }
            if host.contains('@') {
                errs.invalid(&at, url.as_str(), "user information is not permitted in the URL");
            }
            if rest.contains('#') {
                errs.invalid(&at, url.as_str(), "fragments are not permitted in the URL");
            }
            if rest.contains('?') {
                errs.invalid(&at, url.as_str(), "query parameters are not permitted in the URL");
            }
        }
        (None, Some(service)) => {
            let at = path.child("service");
            if service.name.is_empty() {
                errs.required(&at.child("name"), "service name is required");
            }
            if service.namespace.is_empty() {
                errs.required(&at.child("namespace"), "service namespace is required");
            }
            if let Some(port) = service.port.filter(|p| !names::is_port_number(*p).is_empty()) {
                errs.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
            }
            if let Some(wrong) = service.path.as_deref().filter(|p| !p.starts_with('/')) {
                errs.invalid(&at.child("path"), wrong, "must start with a '/'");
            }
        }
        _ => errs.required(path, "exactly one of url or service is required"),
    }
}
