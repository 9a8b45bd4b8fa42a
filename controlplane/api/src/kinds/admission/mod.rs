//! What decides about requests beside the API server: webhooks, and policies in CEL with their bindings.
//!
//! Whether expressions compile is checked by the API server, which has CEL; here is everything around them.
//!
//! # Source
//! Kubernetes `pkg/apis/admissionregistration/validation/validation.go`, `pkg/apis/admissionregistration/v1/defaults.go`,
//! `pkg/registry/admissionregistration/*/strategy.go`, `pkg/printers/internalversion/printers.go`.

mod binding;
mod mutating_policy;
mod rules;
mod validating_policy;
mod webhook;

const GROUP: &str = "admissionregistration.k8s.io";
const CATEGORIES: &[&str] = &["api-extensions"];
const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
