//! Plans of Endpoints.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Service;
use podium_api::Kind;

use super::*;
use crate::test_support::World;

fn plan(world: &str) -> String {
    World::of(world).plan(&EndpointsObjects, &Service::NAMES, "web")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, expected: Expect) {
    expected.assert_eq(&plan(world));
}

#[test]
fn lists_ready_and_other_addresses() {
    let pods = "pod a ip=10.0.0.1 node=n1 ready; pod b ip=10.0.0.2 node=n1; pod c ip=10.0.0.3 node=n1 ready deleting";
    check(
        &format!("service web; {pods}"),
        expect![[
            r#"create endpoints web {"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}}],"notReadyAddresses":[{"ip":"10.0.0.2","nodeName":"n1","targetRef":{"kind":"Pod","name":"b"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}"#
        ]],
    );
    check(
        &format!("service web publish-all; {pods}"),
        expect![[
            r#"create endpoints web {"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}},{"ip":"10.0.0.2","nodeName":"n1","targetRef":{"kind":"Pod","name":"b"}},{"ip":"10.0.0.3","nodeName":"n1","targetRef":{"kind":"Pod","name":"c"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}"#
        ]],
    );
    check("service web", expect!["create endpoints web {}"]);
    check("service web selectorless", expect![[""]]);
}

#[test]
fn goes_with_its_service_when_ours() {
    check(
        "endpoints web labels=endpoints.kubernetes.io/managed-by:endpoint-controller",
        expect!["delete endpoints web"],
    );
    check("endpoints web", expect![[""]]);
}

#[test]
fn leaves_out_what_is_too_much() {
    let ready: String =
        (0..1000).map(|i| format!("; pod r{i} ip=10.1.{}.{} node=n1 ready", i / 250, i % 250)).collect();
    let plan = plan(&format!("service web{ready}; pod late ip=10.9.9.9 node=n1"));
    assert_eq!(plan.matches("\"ip\"").count(), ADDRESSES_MAX);
    assert!(plan.contains("over-capacity\":\"truncated") && !plan.contains("10.9.9.9"));
}
