//! APIService: a group and version, and which server serves it.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-aggregator/pkg/apis/apiregistration/validation/validation.go`,
//! `pkg/apis/apiregistration/v1/defaults.go`, `pkg/registry/apiservice/{strategy.go,etcd/etcd.go}` there.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    names::{self, NameRule},
};

const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1000;

impl Kind for APIService {
    const NAMES: Names = Names::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice")
        .categories(&["api-extensions"])
        .name_rule(NameRule::Any)
        .any_finalizers();
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Service", |a, _| Cell::from(service(a)))
            .help("The reference to the service that hosts this API endpoint."),
        Column::<Self>::text("Available", |a, _| Cell::from(available(a))).help("Whether this service is available."),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if let Some(service) = &mut spec.service {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(APIServiceStatus::default());
        if self.spec.as_ref().is_none_or(|s| s.service.is_none()) {
            set_available(self);
        }
    }

    crate::kind::status_kept!();

    fn validate(&self, errs: &mut FieldErrors) {
        let spec = self.spec.clone().unwrap_or_default();
        validate_name(self.metadata.name.as_deref().unwrap_or_default(), &spec, errs);
        validate_spec(&spec, &FieldPath::new("spec"), errs);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status").child("conditions");
        let conditions = self.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        for (i, condition) in conditions.iter().enumerate() {
            if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
                errs.not_supported(&path.index(i).child("status"), &condition.status, &["True", "False", "Unknown"]);
            }
        }
    }
}

/// What this server serves itself is there from the start.
fn set_available(object: &mut APIService) {
    let local = APIServiceCondition {
        type_: "Available".to_owned(),
        status: "True".to_owned(),
        reason: Some("Local".to_owned()),
        message: Some("Local APIServices are always available".to_owned()),
        last_transition_time: object.metadata.creation_timestamp.clone(),
    };
    object.status = Some(APIServiceStatus { conditions: Some(vec![local]) });
}

fn validate_name(name: &str, spec: &APIServiceSpec, errs: &mut FieldErrors) {
    let (group, version) = (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
    let (at, required) = (FieldPath::new("metadata").child("name"), format!("{version}.{group}"));
    let messages = names::is_path_segment(name);
    if !messages.is_empty() {
        errs.invalid_each(&at, name, messages);
    } else if name != required {
        errs.invalid(&at, name, &format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
    }
}

fn validate_spec(spec: &APIServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let (group, version) = (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
    match group {
        "" if version != "v1" => {
            errs.required(&path.child("group"), "only v1 may have an empty group and it better be legacy kube");
        }
        "" => {}
        group => errs.invalid_each(&path.child("group"), group, names::is_dns1123_subdomain(group)),
    }
    errs.invalid_each(&path.child("version"), version, names::is_dns1035_label(version));
    let priorities = [
        ("groupPriorityMinimum", spec.group_priority_minimum, GROUP_PRIORITY_MAX),
        ("versionPriority", spec.version_priority, VERSION_PRIORITY_MAX),
    ];
    for (field, priority, max) in priorities {
        if !(1..=max).contains(&priority) {
            errs.invalid(&path.child(field), priority, &format!("must be positive and less than {max}"));
        }
    }
    validate_service(spec, path, errs);
}

fn validate_service(spec: &APIServiceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let bundle = spec.ca_bundle.as_ref().map_or(0, |b| b.0.len());
    let (insecure, at) = (spec.insecure_skip_tls_verify.unwrap_or_default(), path.child("insecureSkipTLSVerify"));
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let value = format!("{bundle} bytes");
            errs.invalid(&path.child("caBundle"), value, "local APIServices may not have a caBundle");
        }
        if insecure {
            errs.invalid(&at, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    for (field, text) in [("namespace", &service.namespace), ("name", &service.name)] {
        if text.as_deref().unwrap_or_default().is_empty() {
            errs.required(&path.child("service").child(field), "");
        }
    }
    if insecure && bundle > 0 {
        errs.invalid(&at, true, "may not be true if caBundle is present");
    }
}

fn service(object: &APIService) -> String {
    match object.spec.as_ref().and_then(|s| s.service.as_ref()) {
        None => "Local".to_owned(),
        Some(s) => {
            format!("{}/{}", s.namespace.as_deref().unwrap_or_default(), s.name.as_deref().unwrap_or_default())
        }
    }
}

fn available(object: &APIService) -> String {
    let conditions = object.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|c| c.type_ == "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if condition.status == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", condition.status, condition.reason.as_deref().unwrap_or_default()),
    }
}
