//! IngressClass: who serves an Ingress.
//!
//! # Source
//! Kubernetes `pkg/apis/networking/{v1/defaults,validation/validation}.go`.

use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference, IngressClassSpec};

use super::{
    ingress::validate_reference,
    pod::{one_of, text_default},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const CONTROLLER_BYTES_MAX: usize = 250;

impl Kind for IngressClass {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass");
    const SCOPE: Scope = Scope::Cluster;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Controller", |c, _| Cell::from(controller(c)))
            .help("Controller that is responsible for handling this class"),
        Column::<Self>::text("Parameters", |c, _| Cell::from(parameters(c)))
            .help("A reference to a resource with additional parameters"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if let Some(parameters) = &mut spec.parameters {
            text_default(&mut parameters.scope, "Cluster");
        }
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let at = path.child("controller");
        let controller = controller(self);
        if controller.len() > CONTROLLER_BYTES_MAX {
            errs.too_long(&at, CONTROLLER_BYTES_MAX);
        }
        validate_controller(&controller, &at, errs);
        if let Some(parameters) = self.spec.as_ref().and_then(|s| s.parameters.as_ref()) {
            validate_parameters(parameters, &path.child("parameters"), errs);
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let at = FieldPath::new("spec").child("controller");
        errs.immutable(&at, &controller(self), &controller(old));
    }
}

fn spec(class: &IngressClass) -> Option<&IngressClassSpec> {
    class.spec.as_ref()
}

fn controller(class: &IngressClass) -> String {
    spec(class).and_then(|s| s.controller.clone()).unwrap_or_default()
}

fn validate_controller(controller: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if controller.is_empty() {
        return errs.required(path, "");
    }
    for (part, message) in names::is_domain_prefixed_path(controller) {
        errs.invalid(path, part, &message);
    }
}

fn validate_parameters(parameters: &IngressClassParametersReference, path: &FieldPath, errs: &mut FieldErrors) {
    validate_reference(parameters.api_group.as_deref(), &parameters.kind, &parameters.name, path, errs);
    let scope = parameters.scope.as_deref();
    one_of(&path.child("scope"), scope, &["Cluster", "Namespace"], errs);
    match (scope, parameters.namespace.as_deref()) {
        (Some("Namespace"), None) => {
            errs.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        (Some("Namespace"), Some(namespace)) => {
            errs.invalid_each(&path.child("namespace"), namespace, names::is_dns1123_label(namespace));
        }
        (Some("Cluster"), Some(_)) => {
            errs.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}

fn parameters(class: &IngressClass) -> String {
    let Some(parameters) = spec(class).and_then(|s| s.parameters.as_ref()) else { return "<none>".to_owned() };
    match &parameters.api_group {
        Some(group) => format!("{}.{group}/{}", parameters.kind, parameters.name),
        None => format!("{}/{}", parameters.kind, parameters.name),
    }
}
