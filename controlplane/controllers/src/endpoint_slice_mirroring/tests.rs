//! Plans of slices that mirror Endpoints.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Endpoints;
use podium_api::Kind;

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&Mirroring, &Endpoints::NAMES, "web"));
}

const SERVICE: &str = "service web selectorless";

#[test]
fn endpoints_kept_by_hand_are_mirrored() {
    check(
        &format!("{SERVICE}; endpoints web ready=10.0.0.1,2001:db8::1 waiting=10.0.0.2"),
        expect![[r#"
        create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false}}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}
        create endpointslice web-* {"endpoints":[{"addresses":["2001:db8::1"],"conditions":{"ready":true}}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}"#]],
    );
    check(
        &format!("{SERVICE}; endpoints web ready=10.0.0.1 annotations=a:b,{}:x", OWN[1]),
        expect![[
            r#"create endpointslice web-* {"annotations":{"a":"b"},"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}"#
        ]],
    );
    check(&format!("{SERVICE}; endpoints web"), expect![[""]]);
}

#[test]
fn others_are_not() {
    let endpoints = "endpoints web ready=10.0.0.1";
    for world in [
        endpoints.to_owned(),
        format!("service web; {endpoints}"),
        format!("{SERVICE}; {endpoints} labels={SKIP}:true"),
        format!("{SERVICE}; {endpoints} annotations={LEADER}:x"),
        format!("{SERVICE}; {endpoints} deleting"),
    ] {
        check(&world, expect![[""]]);
        check(&format!("{world}; mirrored s of=10.0.0.1"), expect!["delete endpointslice s"]);
    }
}

#[test]
fn slices_follow_and_are_left_alone_when_right() {
    let world = format!("{SERVICE}; endpoints web ready=10.0.0.1");
    check(&format!("{world}; mirrored s of=10.0.0.1; slice other pods=a:10.0.0.9"), expect![[""]]);
    check(
        &format!("{world}; mirrored s of=10.0.0.1,10.0.0.2"),
        expect![[
            r#"update endpointslice s {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}"#
        ]],
    );
    check(&format!("{world}; mirrored s of=10.0.0.1; mirrored t of=10.0.0.1"), expect!["delete endpointslice t"]);
}

#[test]
fn woken_by_what_concerns_it() {
    let world = World::of("");
    for changed in ["endpoints web", "service web", "mirrored s of=10.0.0.1"] {
        assert!(world.keys(&Mirroring, changed).contains("web"), "{changed}");
    }
    assert_eq!(world.keys(&Mirroring, "slice s pods=a:10.0.0.9"), "");
}
