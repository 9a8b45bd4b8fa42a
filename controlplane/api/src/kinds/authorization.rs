//! Who may do what: questions that are answered at once.
//!
//! # Source
//! Kubernetes `pkg/apis/authorization/validation/validation.go`, `pkg/registry/authorization/*/rest.go`.

use k8s_openapi::{
    api::authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
        SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Kind, Names, Scope, Storage},
};

const GROUP: &str = "authorization.k8s.io";

impl Kind for SubjectAccessReview {
    const NAMES: Names = Names::new(GROUP, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_subject(&self.spec, errs);
        validate_meta(&self.metadata, false, errs);
    }
}

impl Kind for SelfSubjectAccessReview {
    const NAMES: Names =
        Names::new(GROUP, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_what(self.spec.resource_attributes.as_ref(), self.spec.non_resource_attributes.as_ref(), errs);
        validate_meta(&self.metadata, false, errs);
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
        validate_meta(&self.metadata, true, errs);
        let own = self.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(resource) = &self.spec.resource_attributes {
            let namespace = resource.namespace.as_deref().unwrap_or_default();
            if namespace != own {
                let path = FieldPath::new("spec.resourceAttributes.namespace");
                errs.invalid(&path, namespace, "must match metadata.namespace");
            }
        }
        if let Some(url) = &self.spec.non_resource_attributes {
            let value = serde_json::to_value(url).unwrap_or_default();
            errs.invalid(&FieldPath::new("spec.nonResourceAttributes"), value, "disallowed on this kind of request");
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
    validate_what(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errs);
    let user = spec.user.as_deref().unwrap_or_default();
    if user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let path = FieldPath::new("spec").child("user");
        errs.invalid(&path, user, "at least one of user or group must be specified");
    }
}

fn validate_what(resource: Option<&ResourceAttributes>, url: Option<&NonResourceAttributes>, errs: &mut FieldErrors) {
    let path = FieldPath::new("spec");
    match (resource, url) {
        (Some(_), Some(url)) => {
            let value = serde_json::to_value(url).unwrap_or_default();
            let detail = "cannot be specified in combination with resourceAttributes";
            errs.invalid(&path.child("nonResourceAttributes"), value, detail);
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errs.invalid(&path.child("resourceAttributes"), serde_json::Value::Null, detail);
        }
        _ => {}
    }
}

/// Questions have no metadata, but for the namespace that they are asked in.
fn validate_meta(meta: &ObjectMeta, namespaced: bool, errs: &mut FieldErrors) {
    let mut rest = ObjectMeta { managed_fields: None, ..meta.clone() };
    // What the server itself sets on whatever is created.
    (rest.uid, rest.creation_timestamp, rest.generation) = (None, None, None);
    if namespaced {
        rest.namespace = None;
    }
    if rest != ObjectMeta::default() {
        let detail = if namespaced { "must be empty except for namespace" } else { "must be empty" };
        errs.invalid(&FieldPath::new("metadata"), serde_json::to_value(meta).unwrap_or_default(), detail);
    }
}
