//! What somebody may do: questions that are answered at once.
//!
//! # Source
//! Kubernetes `pkg/apis/authorization/validation/validation.go`, `pkg/registry/authorization/*/rest.go`.

use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Kind, Names, Scope, Storage},
};

const GROUP: &str = "authorization.k8s.io";

impl Kind for SelfSubjectAccessReview {
    const NAMES: Names =
        Names::new(GROUP, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        one_of(self.spec.resource_attributes.as_ref(), self.spec.non_resource_attributes.as_ref(), errs);
    }
}

impl Kind for SubjectAccessReview {
    const NAMES: Names = Names::new(GROUP, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_subject(&self.spec, errs);
    }
}

impl Kind for LocalSubjectAccessReview {
    const NAMES: Names =
        Names::new(GROUP, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview");
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_subject(&self.spec, errs);
        if self.spec.non_resource_attributes.is_some() {
            let path = FieldPath::new("spec").child("nonResourceAttributes");
            errs.invalid(&path, "", "disallowed on this kind of request");
        }
    }
}

impl Kind for SelfSubjectRulesReview {
    const NAMES: Names =
        Names::new(GROUP, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }
}

fn validate_subject(spec: &SubjectAccessReviewSpec, errs: &mut FieldErrors) {
    one_of(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errs);
    let nobody = spec.user.as_deref().unwrap_or_default().is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty);
    if nobody {
        errs.invalid(&FieldPath::new("spec").child("user"), "", "at least one of user or group must be specified");
    }
}

fn one_of(resource: Option<&ResourceAttributes>, non_resource: Option<&NonResourceAttributes>, errs: &mut FieldErrors) {
    let spec = FieldPath::new("spec");
    match (resource, non_resource) {
        (Some(_), Some(_)) => errs.invalid(
            &spec.child("nonResourceAttributes"),
            "",
            "cannot be specified in combination with resourceAttributes",
        ),
        (None, None) => {
            errs.invalid(
                &spec.child("resourceAttributes"),
                "",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            );
        }
        _ => {}
    }
}
