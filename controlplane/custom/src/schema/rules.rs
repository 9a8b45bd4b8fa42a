//! `x-kubernetes-validations`: compiled with the types of the schema, evaluated over values.

use std::sync::OnceLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

use crate::cel::Expression;

/// A rule of a schema.
#[derive(Debug)]
pub struct Rule {
    /// As written.
    pub written: ValidationRule,
    pub(crate) compiled: OnceLock<Result<Compiled, String>>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// What is evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Expression,
    pub(crate) message: Option<Expression>,
    pub(crate) uses_old: bool,
}

impl Rule {
    /// Not compiled yet.
    pub(crate) fn new(written: &ValidationRule) -> Self {
        Self { written: written.clone(), compiled: OnceLock::new() }
    }
}
