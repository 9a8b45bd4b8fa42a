//! Plans of aggregated roles.

use expect_test::{Expect, expect};
use podium_api::Kind as _;

use super::*;
use crate::test_support::World;

fn check(world: &str, role: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&ClusterRoleAggregation, &ClusterRole::NAMES, role));
}

#[test]
fn gathers_rules_once_by_name() {
    check(
        "clusterrole all of=part:yes; clusterrole b labels=part:yes verbs=get,list; clusterrole a labels=part:yes verbs=get; \
         clusterrole c labels=part:no verbs=watch; clusterrole d labels=part:yes verbs=list",
        "all",
        expect![[
            r#"update clusterrole all {"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"part":"yes"}}]},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#
        ]],
    );
}

#[test]
fn leaves_alone_what_is_right_and_itself_out() {
    check(
        "clusterrole all of=part:yes labels=part:yes verbs=get; clusterrole a labels=part:yes verbs=get",
        "all",
        expect![[""]],
    );
    check("clusterrole plain verbs=get", "plain", expect![[""]]);
    check(
        "clusterrole all of=part:yes verbs=get; clusterrole a labels=part:no verbs=get",
        "all",
        expect![[
            r#"update clusterrole all {"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"part":"yes"}}]},"rules":[]}"#
        ]],
    );
}

#[test]
fn every_role_concerns_all_that_aggregate() {
    let world = World::of("clusterrole all of=part:yes; clusterrole more of=x:y; clusterrole a verbs=get");
    let keys = world.keys(&ClusterRoleAggregation, "clusterrole new labels=part:yes verbs=get");
    assert_eq!(keys, "clusterroles.rbac.authorization.k8s.io all, clusterroles.rbac.authorization.k8s.io more");
}
