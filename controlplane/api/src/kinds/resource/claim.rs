//! ResourceClaim and ResourceClaimTemplate: what devices a pod asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceToleration, ResourceClaim, ResourceClaimSpec,
    ResourceClaimTemplate,
};

use super::{
    CONFIGS_MAX, GROUP, at_most, status, unique, validate_attribute_name, validate_configuration, validate_label,
    validate_selectors,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    meta, names,
};

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const FIRST_AVAILABLE_MAX: usize = 8;
const EXACT_COUNT: &str = "ExactCount";
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

impl Kind for ResourceClaim {
    const NAMES: Names = Names::new(GROUP, "v1", "ResourceClaim", "resourceclaims", "resourceclaim");
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("State", |c, _| Cell::from(status::state(c)))
            .help("A summary of the current state (allocated, pending, reserved, etc.)."),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        fill_defaults(&mut self.spec);
    }

    fn prepare_create(&mut self) {
        self.status = Some(Default::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        status::drop_deallocated(self, old);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_spec(&self.spec, &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("spec"), &self.spec, &old.spec);
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        status::validate(self, old, &request_names(self.spec.devices.as_ref()), errs);
    }
}

impl Kind for ResourceClaimTemplate {
    const NAMES: Names =
        Names::new(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate");
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::AGE];

    fn fill_defaults(&mut self) {
        fill_defaults(&mut self.spec.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        if let Some(template) = &self.spec.metadata {
            meta::validate_template_meta(template, &path.child("metadata"), errs);
        }
        validate_spec(&self.spec.spec, &path.child("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("spec"), &self.spec, &old.spec);
    }
}

fn fill_defaults(spec: &mut ResourceClaimSpec) {
    for request in spec.devices.iter_mut().flat_map(|d| d.requests.iter_mut().flatten()) {
        if let Some(exactly) = &mut request.exactly {
            fill_count(&mut exactly.allocation_mode, &mut exactly.count);
        }
        for sub in request.first_available.iter_mut().flatten() {
            fill_count(&mut sub.allocation_mode, &mut sub.count);
        }
    }
}

fn fill_count(mode: &mut Option<String>, count: &mut Option<i64>) {
    if mode.as_deref().unwrap_or_default().is_empty() {
        *mode = Some(EXACT_COUNT.to_owned());
    }
    if mode.as_deref() == Some(EXACT_COUNT) && count.unwrap_or_default() == 0 {
        *count = Some(1);
    }
}

/// Names of the requests, with those of their alternatives.
pub(super) type RequestNames<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn request_names(claim: Option<&DeviceClaim>) -> RequestNames<'_> {
    let requests = claim.and_then(|c| c.requests.as_deref()).unwrap_or_default();
    let mut names = RequestNames::new();
    for request in requests {
        let alternatives = request.first_available.iter().flatten().map(|s| s.name.as_str());
        names.insert(&request.name, alternatives.collect());
    }
    names
}

fn validate_spec(spec: &ResourceClaimSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(claim) = &spec.devices else { return };
    let path = path.child("devices");
    let names = request_names(Some(claim));
    let requests = claim.requests.as_deref().unwrap_or_default();
    let at = path.child("requests");
    at_most(requests.len(), REQUESTS_MAX, &at, errs);
    unique(requests.iter().map(|r| r.name.as_str()), |i| at.index(i).child("name"), errs);
    for (i, request) in requests.iter().enumerate() {
        validate_request(request, &at.index(i), errs);
    }
    let constraints = claim.constraints.as_deref().unwrap_or_default();
    at_most(constraints.len(), CONSTRAINTS_MAX, &path.child("constraints"), errs);
    for (i, constraint) in constraints.iter().enumerate() {
        validate_constraint(constraint, &names, &path.child("constraints").index(i), errs);
    }
    let configs = claim.config.as_deref().unwrap_or_default();
    at_most(configs.len(), CONFIGS_MAX, &path.child("config"), errs);
    for (i, config) in configs.iter().enumerate() {
        let at = path.child("config").index(i);
        validate_requests(config.requests.as_deref(), &names, &at.child("requests"), errs);
        validate_configuration(config.opaque.as_ref(), &at, errs);
    }
}

fn validate_request(request: &DeviceRequest, path: &FieldPath, errs: &mut FieldErrors) {
    validate_label(&request.name, &path.child("name"), errs);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => errs.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => errs.invalid(
            path,
            serde_json::Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(exactly), true) => {
            let at = path.child("exactly");
            validate_class_name(&exactly.device_class_name, &at.child("deviceClassName"), errs);
            validate_selectors(exactly.selectors.as_ref(), &at.child("selectors"), errs);
            validate_count(exactly.allocation_mode.as_deref(), exactly.count, &at, errs);
            validate_tolerations(exactly.tolerations.as_deref(), &at, errs);
        }
        (None, false) => {
            let path = path.child("firstAvailable");
            at_most(alternatives.len(), FIRST_AVAILABLE_MAX, &path, errs);
            unique(alternatives.iter().map(|s| s.name.as_str()), |i| path.index(i).child("name"), errs);
            for (i, sub) in alternatives.iter().enumerate() {
                let at = path.index(i);
                validate_label(&sub.name, &at.child("name"), errs);
                validate_class_name(&sub.device_class_name, &at.child("deviceClassName"), errs);
                validate_selectors(sub.selectors.as_ref(), &at.child("selectors"), errs);
                validate_count(sub.allocation_mode.as_deref(), sub.count, &at, errs);
                validate_tolerations(sub.tolerations.as_deref(), &at, errs);
            }
        }
    }
}

fn validate_class_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "");
    }
    errs.invalid_each(path, name, names::is_dns1123_subdomain(name));
}

fn validate_count(mode: Option<&str>, count: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let (at, count) = (path.child("count"), count.unwrap_or_default());
    match mode.unwrap_or_default() {
        "All" if count != 0 => errs.invalid(&at, count, "must not be specified when allocationMode is 'All'"),
        EXACT_COUNT if count <= 0 => errs.invalid(&at, count, "must be greater than zero"),
        "All" | EXACT_COUNT => {}
        other => errs.not_supported(&path.child("allocationMode"), other, &["All", EXACT_COUNT]),
    }
}

pub(super) fn validate_tolerations(tolerations: Option<&[DeviceToleration]>, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, toleration) in tolerations.unwrap_or_default().iter().enumerate() {
        let at = path.child("tolerations").index(i);
        let value = toleration.value.as_deref().unwrap_or_default();
        match toleration.key.as_deref().unwrap_or_default() {
            "" => {}
            key => errs.invalid_each(&at.child("key"), key, names::is_qualified_name(key)),
        }
        match toleration.operator.as_deref() {
            Some("Exists") if !value.is_empty() => {
                errs.invalid(&at.child("value"), value, "must be empty for operator `Exists`");
            }
            Some("Exists") => {}
            None | Some("Equal") => errs.invalid_each(&at.child("value"), value, names::is_label_value(value)),
            Some("") => errs.required(&at.child("operator"), ""),
            Some(other) => errs.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        if let Some(effect) = toleration.effect.as_deref().filter(|e| !e.is_empty() && !EFFECTS.contains(e)) {
            errs.not_supported(&at.child("effect"), effect, &EFFECTS);
        }
    }
}

fn validate_constraint(
    constraint: &DeviceConstraint,
    names: &RequestNames<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    validate_requests(constraint.requests.as_deref(), names, &path.child("requests"), errs);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => validate_attribute_name(name, true, &path.child("matchAttribute"), errs),
        (None, Some(name)) => validate_attribute_name(name, true, &path.child("distinctAttribute"), errs),
        (None, None) => errs.required(
            path,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        ),
    }
}

/// Names of requests of the claim, or of a request and one of its alternatives.
pub(super) fn validate_requests(
    requests: Option<&[String]>,
    names: &RequestNames<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let requests = requests.unwrap_or_default();
    at_most(requests.len(), REQUESTS_MAX, path, errs);
    unique(requests.iter().map(String::as_str), |i| path.index(i), errs);
    for (i, request) in requests.iter().enumerate() {
        validate_request_name(request, names, &path.index(i), errs);
    }
}

/// One such name.
pub(super) fn validate_request_name(name: &str, names: &RequestNames<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let detail =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let segments: Vec<&str> = name.split('/').collect();
    let known = match segments.as_slice() {
        [request] => names.contains_key(request),
        [request, sub] => names.get(request).is_some_and(|subs| subs.contains(sub)),
        _ => return errs.invalid(path, name, detail),
    };
    for segment in segments {
        validate_label(segment, path, errs);
    }
    if !known {
        errs.invalid(path, name, detail);
    }
}
