//! Validation of what only Windows has: accounts of containers, and containers that are processes of their node.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateWindowsSecurityContextOptions`,
//! `validateWindowsHostProcessPod`.

use k8s_openapi::api::core::v1::{Container, PodSpec, WindowsSecurityContextOptions};

use super::container::all_containers;
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const CREDENTIALS_KIB_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 256;
const USER_BYTES_MAX: usize = 104;

/// Fields of a pod's security context that pods on Windows have not.
pub(super) const NOT_ON_PODS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// Fields of a container's security context that containers on Windows have not.
pub(super) const NOT_ON_CONTAINERS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks the credentials and the user.
pub(super) fn validate_options(
    options: Option<&WindowsSecurityContextOptions>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        errs.invalid_each(&path.child("gmsaCredentialSpecName"), name, names::is_dns1123_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errs.invalid(&at, "", "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIALS_KIB_MAX * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {CREDENTIALS_KIB_MAX} KiB");
            errs.invalid(&at, spec.as_str(), &detail);
        }
    }
    if let Some(user) = &options.run_as_user_name {
        for why in wrong_with_user(user) {
            errs.invalid(&path.child("runAsUserName"), user.as_str(), &why);
        }
    }
}

/// What is wrong with `DOMAIN\user`.
fn wrong_with_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>().as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".to_owned()],
    };
    let domain_bytes = domain.map_or(0, str::len);
    let only_dots = !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' '));
    let wrong = [
        (
            domain_bytes >= DOMAIN_BYTES_MAX,
            format!("runAsUserName's Domain length must be under {DOMAIN_BYTES_MAX} characters"),
        ),
        (
            domain.is_some_and(|d| !is_net_bios(d) && !is_dns(d)),
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned(),
        ),
        (user.is_empty(), "runAsUserName's User cannot be empty".to_owned()),
        (
            user.len() > USER_BYTES_MAX,
            format!("runAsUserName's User length must not be longer than {USER_BYTES_MAX} characters"),
        ),
        (only_dots, "runAsUserName's User cannot contain only periods or spaces".to_owned()),
        (
            user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']),
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned(),
        ),
    ];
    wrong.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let allowed = |c: char| !matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && domain.chars().all(allowed)
}

fn is_dns(domain: &str) -> bool {
    let label = |text: &str| {
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    domain.split('.').all(label)
}

/// All containers of a pod are processes of their node, or none.
pub(super) fn validate_host_process(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let options = spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
    let of_pod = options.and_then(|o| o.host_process);
    let (mut all, mut of_host) = (0, 0);
    all_containers(spec, path, |container: &Container, path: &FieldPath| {
        all += 1;
        let options = container.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
        let own = options.and_then(|o| o.host_process);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let at = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errs.invalid(&at, own, &detail);
        }
        of_host += usize::from(own.or(of_pod) == Some(true));
    });
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errs.invalid(path, "", detail);
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errs.invalid(&path.child("hostNetwork"), false, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for (name, why) in [
            ("Administrator", None),
            ("CORP\\jane", None),
            ("corp.example.com\\jane", None),
            ("", Some("runAsUserName cannot be an empty string")),
            ("a\\b\\c", Some("runAsUserName cannot contain more than one backslash")),
            ("\\jane", Some("runAsUserName's Domain doesn't match the NetBios nor the DNS format")),
            ("CORP\\", Some("runAsUserName's User cannot be empty")),
            ("...", Some("runAsUserName's User cannot contain only periods or spaces")),
            ("ja:ne", Some("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")),
        ] {
            assert_eq!(wrong_with_user(name), why.into_iter().map(String::from).collect::<Vec<_>>(), "{name}");
        }
    }
}
