//! Who asks and whether they may: identities from client certificates and bearer tokens, and the [`Authorizer`] seam.
//!
//! Nothing here ever prints a token. A request without credentials has no identity; it may only read health and version.

use std::{collections::BTreeMap, fmt};

use http::HeaderMap;
use podium_api::{ApiError, Reason};
use sha2::{Digest, Sha256};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name, for example `kubernetes-admin`.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// A number that is never used again, where the user has one.
    pub uid: String,
    /// What else is known of the user.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in groups.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            user: user.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            uid: String::new(),
            extra: BTreeMap::new(),
        }
    }

    /// A component in this process, for example `system:kube-scheduler`.
    pub fn component(name: &str) -> Self {
        Self::new(format!("system:{name}"), &["system:authenticated"])
    }
}

/// What is asked for, in the words of Kubernetes' authorization.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural resource; empty for paths that are no resources.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Name, or empty.
    pub name: &'a str,
    /// The path, for what is no resource.
    pub path: &'a str,
}

/// Whether somebody may do something, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether they may.
    pub allowed: bool,
    /// What allows it, or what went wrong; often nothing.
    pub reason: String,
}

/// Decides whether an identity may do something.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether it may. Quick: it is asked for every request.
    fn allows(&self, who: &Identity, what: &Attributes<'_>) -> bool;

    /// The same with the reason, for those who want to know it.
    fn decide(&self, who: &Identity, what: &Attributes<'_>) -> Decision;

    /// Passes what is allowed.
    ///
    /// # Errors
    /// 403 in Kubernetes' words.
    fn check(&self, who: &Identity, what: &Attributes<'_>) -> Result<(), ApiError> {
        if self.allows(who, what) {
            return Ok(());
        }
        match self.decide(who, what) {
            // It has been granted in between.
            Decision { allowed: true, .. } => Ok(()),
            Decision { reason, .. } => Err(forbidden(who, what, &reason)),
        }
    }
}

/// Who shows no credentials.
pub(crate) fn anonymous() -> Identity {
    Identity::new("system:anonymous", &["system:unauthenticated"])
}

/// 401 in Kubernetes' words.
pub(crate) fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// 403 in Kubernetes' words. `reason`: what went wrong while deciding, or nothing.
pub(crate) fn forbidden(who: &Identity, what: &Attributes<'_>, reason: &str) -> ApiError {
    let user = &who.user;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if what.resource.is_empty() {
        let message = format!("forbidden: User {user:?} cannot {} path {:?}{reason}", what.verb, what.path);
        return ApiError::new(Reason::Forbidden, message);
    }
    let resource = match what.subresource {
        "" => what.resource.to_owned(),
        sub => format!("{}/{sub}", what.resource),
    };
    let object = match (what.resource, what.group, what.name) {
        (r, "", "") => format!("{r} is forbidden"),
        (r, g, "") => format!("{r}.{g} is forbidden"),
        (r, "", n) => format!("{r} {n:?} is forbidden"),
        (r, g, n) => format!("{r}.{g} {n:?} is forbidden"),
    };
    let place = match what.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let (verb, group) = (what.verb, what.group);
    let message =
        format!("{object}: User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}{reason}");
    let mut error = ApiError::new(Reason::Forbidden, message);
    let details = error.details.get_or_insert_default();
    details.kind = Some(what.resource.to_owned());
    details.group = Some(what.group.to_owned()).filter(|g| !g.is_empty());
    details.name = Some(what.name.to_owned()).filter(|n| !n.is_empty());
    error
}

/// Who the request is to be made as: `Impersonate-User` and its companions.
///
/// # Errors
/// 400 for groups without a user; 403 when `who` may not be somebody else.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`.
pub(crate) fn impersonated(
    who: &Identity,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Option<Identity>, ApiError> {
    const EXTRA: &str = "impersonate-extra-";
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let user = headers.get("impersonate-user").map(text).filter(|u| !u.is_empty());
    let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    let uid = headers.get("impersonate-uid").map(text).unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(key.to_owned()).or_default().push(text(value));
        }
    }
    let Some(user) = user else {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::bad_request("requested impersonation without impersonating a user"));
    };
    let group = "authentication.k8s.io";
    let check = |what: Attributes<'_>| authorizer.check(who, &Attributes { verb: "impersonate", ..what });
    match service_account(&user) {
        Some((namespace, name)) => {
            check(Attributes { resource: "serviceaccounts", namespace, name, ..Attributes::default() })?;
        }
        None => check(Attributes { resource: "users", name: &user, ..Attributes::default() })?,
    }
    for name in &groups {
        check(Attributes { resource: "groups", name, ..Attributes::default() })?;
    }
    if !uid.is_empty() {
        check(Attributes { group, resource: "uids", name: &uid, ..Attributes::default() })?;
    }
    for (subresource, name) in extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
        check(Attributes { group, resource: "userextras", subresource, name, ..Attributes::default() })?;
    }
    let mut as_whom = Identity { user, groups, uid, extra };
    if let Some((namespace, _)) = service_account(&as_whom.user)
        && as_whom.groups.is_empty()
    {
        as_whom.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = if as_whom.user == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !as_whom.groups.iter().any(|g| g == known) {
        as_whom.groups.push(known.to_owned());
    }
    Ok(Some(as_whom))
}

/// Namespace and name of the ServiceAccount that a user is.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Tokens that are known, by their hash, so that comparing takes as long whatever was guessed.
pub(crate) struct Tokens(Vec<([u8; 32], Identity)>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Tokens {
    pub(crate) fn new(tokens: impl IntoIterator<Item = (String, Identity)>) -> Self {
        Self(tokens.into_iter().map(|(token, who)| (digest(&token), who)).collect())
    }

    /// Whose token it is. Looks at all tokens and all bytes of each.
    pub(crate) fn identity(&self, token: &str) -> Option<&Identity> {
        let given = digest(token);
        let mut found = None;
        for (known, who) in &self.0 {
            let differs = known.iter().zip(given).fold(0u8, |acc, (a, b)| acc | (a ^ b));
            if differs == 0 {
                found = Some(who);
            }
        }
        found
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The identity that a verified client certificate stands for: its common name, and its organisations as groups.
pub(crate) fn certificate_identity(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<_> = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(Identity { user, groups, ..Identity::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let tokens = Tokens::new([("secret".to_owned(), Identity::new("admin", &[MASTERS]))]);
        assert_eq!(tokens.identity("secret").map(|i| i.user.as_str()), Some("admin"));
        for wrong in ["", "secre", "secret ", "SECRET"] {
            assert_eq!(tokens.identity(wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains("secret"));
    }

    #[test]
    fn what_a_refusal_says() {
        let who = Identity::new("jane", &[]);
        let what = Attributes {
            verb: "list",
            group: "apps",
            resource: "deployments",
            subresource: "",
            namespace: "default",
            name: "",
            path: "",
        };
        assert_eq!(
            forbidden(&who, &what, "").message,
            "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" in \
             the namespace \"default\""
        );
        let what = Attributes {
            verb: "get",
            group: "",
            resource: "nodes",
            subresource: "status",
            name: "n1",
            namespace: "",
            path: "",
        };
        assert_eq!(
            forbidden(&who, &what, "").message,
            "nodes \"n1\" is forbidden: User \"jane\" cannot get resource \"nodes/status\" in API group \"\" at the \
             cluster scope"
        );
    }
}
