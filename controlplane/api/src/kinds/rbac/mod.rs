//! Roles and their bindings: who may do what. One set of rules for the cluster and for namespaces.
//!
//! What is checked here is the shape. That nobody grants what they may not do themselves is checked where requests are
//! authorised.
//!
//! # Source
//! Kubernetes `pkg/apis/rbac/validation/validation.go`, `pkg/apis/rbac/v1/defaults.go`,
//! `pkg/printers/internalversion/printers.go`.

mod binding;
mod role;

const GROUP: &str = "rbac.authorization.k8s.io";
