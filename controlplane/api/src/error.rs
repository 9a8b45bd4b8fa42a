//! The one error of the API, free of any transport, and its one conversion to Kubernetes' `Status`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/api/errors/errors.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::{field::FieldErrors, kind::Names};

/// Why a request failed, with its HTTP code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the object changed in between, or a precondition does not hold.
    Conflict,
    /// 410: the revision is no longer in the window.
    Expired,
    /// 410: the address is gone.
    Gone,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
}

impl Reason {
    /// HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired | Self::Gone => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// All reasons, for parsing.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Expired,
        Self::Gone,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::TooManyRequests,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Timeout,
    ];

    /// The reason as it stands in a `Status`: the variant's name.
    pub fn as_string(self) -> String {
        format!("{self:?}")
    }
}

/// An error of the API.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Why.
    pub reason: Reason,
    /// What a user reads.
    pub message: String,
    /// What it is about and, for `Invalid`, a cause for each field.
    pub details: Option<Box<StatusDetails>>,
}

impl ApiError {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    fn about(reason: Reason, names: &Names, name: &str, message: String) -> Self {
        let details = StatusDetails {
            group: Some(names.group.to_owned()).filter(|g| !g.is_empty()),
            kind: Some(names.plural.to_owned()),
            name: Some(name.to_owned()).filter(|n| !n.is_empty()),
            ..StatusDetails::default()
        };
        Self { reason, message, details: Some(Box::new(details)) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500. `message` names the operation that failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {}", message.into()))
    }

    /// 404: `pods "a" not found`.
    pub fn not_found(names: &Names, name: &str) -> Self {
        Self::about(Reason::NotFound, names, name, format!("{} {name:?} not found", names.qualified_resource()))
    }

    /// 409: `pods "a" already exists`.
    pub fn already_exists(names: &Names, name: &str) -> Self {
        Self::about(
            Reason::AlreadyExists,
            names,
            name,
            format!("{} {name:?} already exists", names.qualified_resource()),
        )
    }

    /// 409: `Operation cannot be fulfilled on pods "a": why`.
    pub fn conflict(names: &Names, name: &str, why: &str) -> Self {
        Self::about(
            Reason::Conflict,
            names,
            name,
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", names.qualified_resource()),
        )
    }

    /// 409, in the words for a lost race on `resourceVersion`.
    pub fn modified(names: &Names, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(names, name, why)
    }

    /// 403: `pods "a" is forbidden: why`.
    pub fn forbidden(names: &Names, name: &str, why: &str) -> Self {
        Self::about(
            Reason::Forbidden,
            names,
            name,
            format!("{} {name:?} is forbidden: {why}", names.qualified_resource()),
        )
    }

    /// 405.
    pub fn method_not_allowed(names: &Names, verb: &str) -> Self {
        Self::about(
            Reason::MethodNotAllowed,
            names,
            "",
            format!("{verb} is not supported on resources of kind {:?}", names.qualified_resource()),
        )
    }

    /// 422 with a cause for each field.
    pub fn invalid(names: &Names, name: &str, errs: FieldErrors) -> Self {
        let joined = match errs.0.as_slice() {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {joined}", names.qualified_kind());
        let causes = errs.0.into_iter().map(|e| StatusCause {
            field: Some(e.field.to_string()),
            message: Some(e.message),
            reason: Some(e.reason.as_str().to_owned()),
        });
        let mut error = Self::about(Reason::Invalid, names, name, message);
        if let Some(details) = &mut error.details {
            details.kind = Some(names.kind.to_owned());
            details.causes = Some(causes.collect());
        }
        error
    }

    /// 410: a list token or watch revision that is no longer in the window.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 429 or 503 with the seconds after which to try again.
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// Whether this says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether this says that the object changed in between.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The `Status` that clients read.
    pub fn status(&self) -> Status {
        Status {
            code: Some(i32::from(self.reason.code())),
            details: self.details.as_deref().cloned(),
            message: Some(self.message.clone()),
            reason: Some(self.reason.as_string()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }
    }

    /// The error that a `Status` tells of; an unknown reason is judged by its code.
    pub fn from_status(status: Status) -> Self {
        let code = status.code.unwrap_or(500);
        let by_name = |name: &str| Reason::ALL.into_iter().find(|r| r.as_string() == name);
        let by_code = || Reason::ALL.into_iter().find(|r| i32::from(r.code()) == code);
        let reason = status.reason.as_deref().and_then(by_name).or_else(by_code).unwrap_or(Reason::InternalError);
        Self { reason, message: status.message.unwrap_or_default(), details: status.details.map(Box::new) }
    }
}
