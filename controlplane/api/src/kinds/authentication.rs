//! Who somebody is: questions that are answered at once (`TokenReview`, `SelfSubjectReview`) and the request for a
//! token of a ServiceAccount (`TokenRequest`).
//!
//! # Source
//! Kubernetes `pkg/registry/authentication/*/storage.go`, `pkg/apis/authentication/validation/validation.go`,
//! `pkg/apis/authentication/v1/defaults.go`.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Kind, Names, Scope, Storage},
};

const GROUP: &str = "authentication.k8s.io";
/// A token lives at least so long …
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
/// … at most so long …
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// … and so long when nobody says.
const TOKEN_SECONDS: i64 = 60 * 60;

impl Kind for TokenReview {
    const NAMES: Names = Names::new(GROUP, "v1", "TokenReview", "tokenreviews", "tokenreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }
}

impl Kind for SelfSubjectReview {
    const NAMES: Names = Names::new(GROUP, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Answered;

    fn prepare_create(&mut self) {
        self.status = None;
    }
}

impl Kind for TokenRequest {
    const NAMES: Names = Names::new(GROUP, "v1", "TokenRequest", "tokenrequests", "tokenrequest");
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: Storage = Storage::Answered;

    fn fill_defaults(&mut self) {
        self.spec.get_or_insert_default().expiration_seconds.get_or_insert(TOKEN_SECONDS);
    }

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec").child("expirationSeconds");
        match self.spec.as_ref().and_then(|s| s.expiration_seconds).unwrap_or(TOKEN_SECONDS) {
            seconds if seconds < TOKEN_SECONDS_MIN => {
                errs.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
            }
            seconds if seconds > TOKEN_SECONDS_MAX => {
                errs.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}
