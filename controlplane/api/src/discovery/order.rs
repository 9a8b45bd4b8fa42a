//! The order of groups and of their versions in discovery: it decides what `kubectl get events` means.
//!
//! # Source
//! Kubernetes `pkg/controlplane/apiserver/aggregator.go`, `cmd/kube-apiserver/app/server.go` (priorities) and
//! `staging/src/k8s.io/apimachinery/pkg/version/helpers.go` (versions).

use std::cmp::{Ordering, Reverse};

/// Groups whose place is not left to their names. All versions of the built-in groups are ordered by their version,
/// as Kubernetes' table of them does too.
const GROUPS: &[(&str, u32)] = &[
    ("apiregistration.k8s.io", 20_000),
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];

/// What definitions of custom resources ask for.
const CUSTOM: u32 = 1_000;

fn group_priority(group: &str) -> u32 {
    GROUPS.iter().find(|(name, _)| *name == group).map_or(CUSTOM, |(_, priority)| *priority)
}

/// Compares groups: the one that comes first is less.
pub(super) fn by_priority(a: &str, b: &str) -> Ordering {
    group_priority(b).cmp(&group_priority(a)).then_with(|| a.cmp(b))
}

/// A version, taken apart; the greater one comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Version<'a> {
    /// Anything, by its name.
    Other(Reverse<&'a str>),
    /// `v1`, `v1beta2`: how stable (alpha 0, beta 1, stable 2), the major and the minor number.
    Kube(u8, u64, u64),
}

fn parse(version: &str) -> Version<'_> {
    let other = Version::Other(Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let stages = [("alpha", 0), ("beta", 1)];
    let found = stages.iter().find_map(|(word, stage)| rest.split_once(word).map(|(a, b)| (a, b, *stage)));
    let (major, minor, stage) = found.unwrap_or((rest, "", 2));
    match (number(major), if stage == 2 { Some(0) } else { number(minor) }) {
        (Some(major), Some(minor)) => Version::Kube(stage, major, minor),
        _ => other,
    }
}

/// A number without sign and leading zero.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// Compares versions of a group: the preferred one is less.
pub(super) fn by_version(a: &str, b: &str) -> Ordering {
    parse(b).cmp(&parse(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_kubernetes_documents_it() {
        let sorted =
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10", "v0"];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort_by(|a, b| by_version(a, b));
        assert_eq!(shuffled, sorted);
    }

    #[test]
    fn groups_by_priority_then_name() {
        let mut groups = ["z.example.com", "batch", "a.example.com", "", "events.k8s.io", "apps"];
        groups.sort_by(|a, b| by_priority(a, b));
        assert_eq!(groups, ["", "apps", "events.k8s.io", "batch", "a.example.com", "z.example.com"]);
    }
}
