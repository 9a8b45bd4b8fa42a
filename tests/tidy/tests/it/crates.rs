//! Rules over crates: the arrows of the architecture, purity, one version of what is heavy.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Metadata, Package, assert_none, metadata};

/// Which crates of the workspace each crate may use. Those not named here (the binary and the tests) may use all.
const ARROWS: &[(&str, &[&str])] = &[
    ("podium-api", &[]),
    ("podium-custom", &["podium-api"]),
    ("podium-controllers", &["podium-api"]),
    ("podium-scheduler", &["podium-api"]),
    ("podium-store", &["podium-api"]),
    ("podium-client", &["podium-api"]),
    ("podium-apiserver", &["podium-api", "podium-custom", "podium-store", "podium-client"]),
    ("podium-drivers", &["podium-api", "podium-client", "podium-controllers", "podium-scheduler"]),
    ("podium-registry", &[]),
    ("podium-sandbox", &[]),
    ("podium-network", &[]),
    ("podium-agent", &["podium-api", "podium-client", "podium-sandbox", "podium-network"]),
    ("podium-guest", &[]),
];

/// May use any other crate, and be used by none.
const TOPS: &[&str] = &["podium", "podium-e2e", "podium-sim", "podium-bench", "podium-fuzz", "podium-tidy"];

/// These decide and do nothing else: no runtime, no server, no sandbox, no randomness.
const PURE: &[&str] = &["podium-api", "podium-custom", "podium-controllers", "podium-scheduler"];
const IMPURE: &[&str] = &["tokio", "axum", "wasmtime", "rand", "getrandom", "hyper", "kube"];

/// Two versions of one of these double its code, or do not work together.
const ONCE: &[&str] = &["wasmtime", "tokio", "hyper", "axum", "kube", "k8s-openapi", "rustls", "serde_json"];

/// Names of the direct normal dependencies of each crate of the workspace.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn uses(metadata: &Metadata) -> Uses {
    let packages = metadata.packages.iter().filter(|p| metadata.workspace_members.contains(&p.id));
    let normal = |package: &Package| {
        let dependencies = package.dependencies.iter().filter(|d| d.kind.is_none());
        dependencies.map(|d| d.name.clone()).collect()
    };
    packages.map(|package| (package.name.clone(), normal(package))).collect()
}

fn wrong_arrows(uses: &Uses) -> Vec<String> {
    let mut wrong = Vec::new();
    for (user, used) in uses {
        let rule = ARROWS.iter().find(|(name, _)| name == user);
        if rule.is_none() && !TOPS.contains(&user.as_str()) {
            wrong.push(format!("{user} is new: say in ARROWS what it may use"));
        }
        for used in used.iter().filter(|name| uses.contains_key(*name)) {
            let allowed = rule.is_none_or(|(_, allowed)| allowed.contains(&used.as_str()));
            if !allowed || TOPS.contains(&used.as_str()) && !TOPS.contains(&user.as_str()) {
                wrong.push(format!("{user} uses {used}: the architecture has no such arrow"));
            }
        }
    }
    wrong
}

fn impure(uses: &Uses) -> Vec<String> {
    let mut found = Vec::new();
    for user in PURE {
        let Some(used) = uses.get(*user) else {
            found.push(format!("{user} is not in the workspace: mend PURE"));
            continue;
        };
        found.extend(
            used.iter().filter(|u| IMPURE.contains(&u.as_str())).map(|u| format!("{user} is pure but uses {u}")),
        );
    }
    found
}

fn duplicates(versions: &[(String, String)]) -> Vec<String> {
    let of = |name: &str| versions.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<BTreeSet<_>>();
    let several = ONCE.iter().map(|name| (name, of(name))).filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} is there in several versions: {versions:?}")).collect()
}

#[test]
fn crates_use_each_other_only_along_the_arrows() {
    assert_none(&wrong_arrows(&uses(&metadata())));
}

#[test]
fn pure_crates_have_no_runtime_no_server_and_no_randomness() {
    assert_none(&impure(&uses(&metadata())));
}

#[test]
fn heavy_dependencies_are_there_once() {
    let packages = metadata().packages;
    let versions: Vec<_> = packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect();
    let missing = ONCE.iter().filter(|name| !versions.iter().any(|(n, _)| n == *name));
    assert_none(&missing.map(|name| format!("{name} is no dependency any more: mend ONCE")).collect::<Vec<_>>());
    assert_none(&duplicates(&versions));
}

#[test]
fn the_rules_find_offenders() {
    let uses = |pairs: &[(&str, &[&str])]| -> Uses {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        pairs.iter().map(|(user, used)| ((*user).to_owned(), set(used))).collect()
    };
    let bad = uses(&[
        ("podium-api", &["podium-client", "tokio"]),
        ("podium-client", &["podium-api"]),
        ("podium-controllers", &["podium"]),
        ("podium-custom", &[]),
        ("podium-new", &[]),
        ("podium-scheduler", &[]),
        ("podium", &["podium-client"]),
    ]);
    assert_eq!(
        wrong_arrows(&bad),
        [
            "podium-api uses podium-client: the architecture has no such arrow",
            "podium-controllers uses podium: the architecture has no such arrow",
            "podium-new is new: say in ARROWS what it may use",
        ]
    );
    assert_eq!(impure(&bad), ["podium-api is pure but uses tokio"]);
    let version = |v: &str| ("tokio".to_owned(), v.to_owned());
    assert_eq!(duplicates(&[version("1.0.0"), version("0.3.0")]).len(), 1);
}
