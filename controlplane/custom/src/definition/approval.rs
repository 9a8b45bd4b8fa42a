//! Groups of Kubernetes itself (`k8s.io`, `kubernetes.io`) need a word from its community.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apihelpers/helpers.go`, `.../controller/apiapproval/apiapproval_controller.go`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use podium_api::{FieldErrors, FieldPath};

const KEY: &str = "api-approved.kubernetes.io";

/// What the annotation of a definition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval<'a> {
    /// There is none.
    Missing,
    /// Neither of the other two.
    Invalid(&'a str),
    /// A URL.
    Approved(&'a str),
    /// `unapproved…`
    Bypassed(&'a str),
}

impl<'a> Approval<'a> {
    /// The approval of a definition; none for groups that need none.
    pub fn of(definition: &'a CustomResourceDefinition) -> Option<Self> {
        let group = definition.spec.group.as_str();
        let is_protected = ["k8s.io", "kubernetes.io"]
            .iter()
            .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
        let text = definition.metadata.annotations.as_ref().and_then(|a| a.get(KEY)).map_or("", String::as_str);
        is_protected.then(|| match text {
            "" => Self::Missing,
            text if text.starts_with("unapproved") => Self::Bypassed(text),
            text if is_url(text) => Self::Approved(text),
            text => Self::Invalid(text),
        })
    }

    /// What the condition `KubernetesAPIApprovalPolicyConformant` says: whether it holds, its reason and message.
    pub fn condition(self) -> (bool, &'static str, String) {
        match self {
            Self::Missing => (false, "MissingAnnotation", missing()),
            Self::Invalid(_) => (false, "InvalidAnnotation", invalid()),
            Self::Approved(url) => (true, "ApprovedAnnotation", format!("approved in {url}")),
            Self::Bypassed(why) => (false, "UnapprovedAnnotation", format!("not approved: {why:?}")),
        }
    }
}

/// Whether there is a scheme and a host.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) && !host.is_empty()
}

fn missing() -> String {
    format!(
        "protected groups must have approval annotation {KEY:?}, see https://github.com/kubernetes/enhancements/pull/1111"
    )
}

fn invalid() -> String {
    format!(
        "protected groups must have approval annotation {KEY:?} with either a URL or a reason starting with \
         \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
    )
}

/// Refuses what says nothing, unless it said the same before.
pub(super) fn check(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    errs: &mut FieldErrors,
) {
    let Some(approval) = Approval::of(definition) else { return };
    if old.and_then(Approval::of) == Some(approval) {
        return;
    }
    let path = FieldPath::new("metadata.annotations").key(KEY);
    match approval {
        Approval::Missing => errs.required(&path, &missing()),
        Approval::Invalid(text) => errs.invalid(&path, text, &invalid()),
        Approval::Approved(_) | Approval::Bypassed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approvals() {
        for (group, annotation, condition) in [
            ("example.com", "", None),
            ("notk8s.io", "", None),
            ("k8s.io", "", Some((false, "MissingAnnotation"))),
            ("gateway.networking.k8s.io", "https://github.com/x/y/pull/1", Some((true, "ApprovedAnnotation"))),
            ("a.kubernetes.io", "unapproved, experimental", Some((false, "UnapprovedAnnotation"))),
            ("a.kubernetes.io", "because", Some((false, "InvalidAnnotation"))),
            ("a.kubernetes.io", "/path", Some((false, "InvalidAnnotation"))),
        ] {
            let mut definition = CustomResourceDefinition::default();
            definition.spec.group = group.to_owned();
            definition.metadata.annotations = Some([(KEY.to_owned(), annotation.to_owned())].into());
            let got = Approval::of(&definition).map(|a| (a.condition().0, a.condition().1));
            assert_eq!(got, condition, "{group} {annotation}");
        }
    }
}
