//! The order of groups and of their versions in discovery: it decides what `kubectl get events` means.
//!
//! # Source
//! Kubernetes `pkg/controlplane/apiserver/aggregator.go`, `cmd/kube-apiserver/app/server.go` (priorities) and
//! `staging/src/k8s.io/apimachinery/pkg/version/helpers.go` (versions).

use std::cmp::{Ordering, Reverse};

/// A group, its priority, and the priorities of its versions.
type Group = (&'static str, i32, &'static [(&'static str, i32)]);

/// Groups whose place is not left to their names, with their versions' priorities in their APIServices. In discovery
/// all versions of a group are ordered by their names, which comes to the same.
const GROUPS: &[Group] = &[
    ("apiregistration.k8s.io", 20_000, &[("v1", 15)]),
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17_400, &[("v1", 15)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15)]),
    ("networking.k8s.io", 17_200, &[("v1", 15)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io", 16_000, &[("v1", 15)]),
    ("resource.k8s.io", 15_900, &[("v1", 15)]),
    ("storagemigration.k8s.io", 15_800, &[("v1", 15)]),
];

/// What definitions of custom resources ask for.
const CUSTOM: i32 = 1_000;

fn group_priority(group: &str) -> i32 {
    GROUPS.iter().find(|(name, ..)| *name == group).map_or(CUSTOM, |(_, priority, _)| *priority)
}

/// The priority of a built-in group and that of its version in it, as its APIService has them.
pub fn priorities(group: &str, version: &str) -> Option<(i32, i32)> {
    let (_, priority, versions) = GROUPS.iter().find(|(name, ..)| *name == group)?;
    Some((*priority, versions.iter().find(|(name, _)| *name == version)?.1))
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
