//! Plans of quotas.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::World;

fn check(world: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&ResourceQuotas, &ResourceQuota::NAMES, "q"));
}

#[test]
fn counts_what_is_limited() {
    check(
        "quota q hard=pods:5,configmaps:2; pod a; pod b; configmap c; service s",
        expect![[
            r#"status resourcequota q {"hard":{"configmaps":"2","pods":"5"},"used":{"configmaps":"1","pods":"2"}}"#
        ]],
    );
    check(
        "quota q hard=count/replicasets.apps:5,services:1; rs a",
        expect![[
            r#"status resourcequota q {"hard":{"count/replicasets.apps":"5","services":"1"},"used":{"count/replicasets.apps":"1","services":"0"}}"#
        ]],
    );
}

#[test]
fn leaves_alone_what_is_right() {
    check("quota q hard=pods:5 used=pods:1; pod a", expect![[r#""#]]);
    check("pod a", expect![[r#""#]]);
}

#[test]
fn hears_of_what_it_counts() {
    let world = World::of("quota q hard=pods:5; quota maps hard=configmaps:1; pod a");
    assert_eq!(world.keys(&ResourceQuotas, "pod b"), "resourcequotas d/q");
    assert_eq!(world.keys(&ResourceQuotas, "configmap b"), "resourcequotas d/maps");
    assert_eq!(world.keys(&ResourceQuotas, "service b"), "");
}
