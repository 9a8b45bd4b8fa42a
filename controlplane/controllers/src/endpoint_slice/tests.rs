//! Plans of EndpointSlices.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Service;
use podium_api::Kind;

use super::*;
use crate::test_support::World;

fn plan(world: &str) -> String {
    World::of(world).plan(&EndpointSlices, &Service::NAMES, "web")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, expected: Expect) {
    expected.assert_eq(&plan(world));
}

const SLICE: &str = "slice s owner=service/web pods=a:10.0.0.1";

#[test]
fn lists_pods_behind_a_service() {
    check("service web", expect![[r#"create endpointslice web-* {"endpoints":[],"ports":[]}"#]]);
    check(
        "service web; pod a ip=10.0.0.1 node=n1 ready; pod b ip=10.0.0.2 node=n1; pod c; pod d ip=10.0.0.4 labels=app:x",
        expect![[
            r#"create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}},{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":false,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"b"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#
        ]],
    );
    check(
        "service web; pod a ip=10.0.0.1 node=n1 ready deleting; pod b ip=10.0.0.2 node=n1 phase=Failed",
        expect![[
            r#"create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#
        ]],
    );
    check(
        "service web publish-all; pod a ip=10.0.0.1 node=n1",
        expect![[
            r#"create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":false,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#
        ]],
    );
    check("service web selectorless; pod a ip=10.0.0.1 node=n1", expect![[""]]);
}

#[test]
fn resolves_named_ports_for_each_pod() {
    let pods = "pod a ip=10.0.0.1 node=n1 ready ports=http:8080; pod b ip=10.0.0.2 node=n1 ready ports=http:9090";
    check(
        &format!("service web target=http; {pods}; pod c ip=10.0.0.3 node=n1 ready"),
        expect![[r#"
        create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.3"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"c"}}],"ports":[]}
        create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}
        create endpointslice web-* {"endpoints":[{"addresses":["10.0.0.2"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"b"}}],"ports":[{"name":"http","port":9090,"protocol":"TCP"}]}"#]],
    );
}

#[test]
fn changes_as_little_as_possible() {
    let web = "service web; pod a ip=10.0.0.1 node=n1 ready";
    check(&format!("{web}; {SLICE}"), expect![[""]]);
    check(
        &format!("{web}; pod b ip=10.0.0.2 node=n1 ready; {SLICE}"),
        expect![[
            r#"update endpointslice s {"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"a"}},{"addresses":["10.0.0.2"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","targetRef":{"kind":"Pod","name":"b"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#
        ]],
    );
    check(
        &format!("service web; {SLICE}"),
        expect![[r#"update endpointslice s {"endpoints":[],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#]],
    );
    check(&format!("{web}; {SLICE}; slice t owner=service/web pods=b:10.0.0.2"), expect!["delete endpointslice t"]);
    check(&format!("{web}; {SLICE}; slice t pods=b:10.0.0.2"), expect![[""]]);
}

#[test]
fn endpoints_are_somewhere_and_for_somebody() {
    let hints = |distribution: &str| {
        let plan = plan(&format!(
            "service web {distribution}; node n1 labels=topology.kubernetes.io/zone:z1; node n2; \
             pod a ip=10.0.0.1 node=n1 ready; pod b ip=10.0.0.2 node=n2 ready; pod c ip=10.0.0.3 node=n1"
        ));
        let json = plan.split_once(' ').unwrap().1.split_once(' ').unwrap().1.split_once(' ').unwrap().1;
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let shown = |e: &serde_json::Value| format!("{} {}", e["zone"], e["hints"]).replace('"', "");
        json["endpoints"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(hints(""), ["z1 null", "null null", "z1 null"]);
    for word in ["distribution=PreferClose", "distribution=PreferSameZone"] {
        assert_eq!(hints(word), ["z1 {forZones:[{name:z1}]}", "null null", "z1 null"], "{word}");
    }
    let both = "z1 {forNodes:[{name:n1}],forZones:[{name:z1}]}";
    assert_eq!(hints("distribution=PreferSameNode"), [both, "null {forNodes:[{name:n2}]}", "z1 null"]);
}

#[test]
fn a_node_that_moves_wakes_the_services_of_its_pods() {
    let world = World::of("service web; pod a ip=10.0.0.1 node=n1 ready; pod b ip=10.0.0.2 node=n1 ready");
    assert_eq!(world.keys(&EndpointSlices, "node n1"), "services d/web");
    assert_eq!(world.keys(&EndpointSlices, "node n2"), "");
    let node = |zone: &str| -> Node {
        serde_json::from_value(serde_json::json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } }))
            .unwrap()
    };
    let (one, same, other) = (node("z1"), node("z1"), node("z2"));
    assert!(!EndpointSlices.concerns(Some(&one), Some(&same)), "a heartbeat");
    assert!(EndpointSlices.concerns(Some(&one), Some(&other)));
    assert!(EndpointSlices.concerns(None, Some(&one)) && EndpointSlices.concerns(Some(&one), None));
}

#[test]
fn bounds_a_slice() {
    let pods: String = (0..250).map(|i| format!("; pod p{i} ip=10.0.1.{i} node=n1 ready")).collect();
    let sizes: Vec<_> = plan(&format!("service web{pods}")).lines().map(|l| l.matches("addresses").count()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn wakes_the_services_of_a_pod() {
    let world = World::of("service web; service other selectorless");
    assert_eq!(world.keys(&EndpointSlices, "pod a"), "services d/web");
    assert_eq!(world.keys(&EndpointSlices, "pod a labels=app:x"), "");
    assert_eq!(world.keys(&EndpointSlices, "slice s"), "services d/web");
}
