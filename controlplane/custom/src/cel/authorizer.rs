//! What expressions ask of the authorizer: `authorizer.group('apps').resource('deployments').check('create').allowed()`.

/// Who may do what is decided by the API server.
pub trait Authorizer: Send + Sync {
    /// Whether it is allowed.
    fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `namespace` and `name` of the service account that is asked for; `None`: the user of the request.
    pub service_account: Option<(String, String)>,
    /// The path, for questions that are not about resources.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// Field selector, or empty.
    pub field_selector: String,
    /// Label selector, or empty.
    pub label_selector: String,
    /// Verb.
    pub verb: String,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or empty.
    pub reason: String,
    /// What went wrong while asking.
    pub error: Option<String>,
}
