//! Plans of DaemonSets. `H1` is the hash of image `v1`, `H2` that of `v2`.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::*;
use crate::{
    deployment::template_hash,
    test_support::{NOW, World, show},
};

fn hash(image: &str) -> String {
    let template = serde_json::json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]},
    });
    template_hash(&serde_json::from_value::<PodTemplateSpec>(template).unwrap(), None)
}

fn world(text: &str) -> World {
    World::of(&text.replace("H1", &hash("v1")).replace("H2", &hash("v2")))
}

/// A plan's text with `H1` and `H2` again, without what revisions hold, and of a new pod only its node.
fn readable(plan: &str) -> String {
    let line = |line: &str| {
        if let Some((before, after)) = line.split_once("{\"data\":") {
            return format!("{before}{}", after.rsplit_once(',').unwrap().1.trim_end_matches('}'));
        }
        let Some((before, after)) = line.split_once("\"spec\":{\"affinity\"") else { return line.to_owned() };
        let node = after.split("\"values\":[\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let told = after.split_once("; tell").map(|(_, told)| format!("; tell{told}")).unwrap_or_default();
        format!("{}on {node}{told}", before.trim_end_matches('{'))
    };
    let lines: Vec<String> = plan.lines().map(line).collect();
    lines.join("\n").replace(&hash("v1"), "H1").replace(&hash("v2"), "H2")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(text: &str, plan: Expect) {
    plan.assert_eq(&readable(&world(text).plan(&DaemonSets, &DaemonSet::NAMES, "web")));
}

/// A set that has its first revision, with these words.
fn set(words: &str) -> String {
    format!("ds web {words}; revision web-H1 image=v1 rev=1 owner=ds/web labels=app:web,controller-revision-hash:H1")
}

/// The same with a second one, whose template it has now.
fn updated(words: &str) -> String {
    let second = "revision web-H2 image=v2 rev=2 owner=ds/web labels=app:web,controller-revision-hash:H2";
    format!("{}; {second}", set(&format!("image=v2 {words}")))
}

fn nodes(count: u32) -> String {
    (1..=count).map(|n| format!("node n{n}")).collect::<Vec<_>>().join("; ")
}

/// A pod that is well.
fn well(node: u32, hash: &str) -> String {
    format!("daemon p{node} owner=ds/web at={hash} node=n{node} ready")
}

fn all_well(nodes: std::ops::RangeInclusive<u32>, hash: &str) -> String {
    nodes.map(|n| well(n, hash)).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_node_gets_one() {
    check(
        &format!("ds web; {}", nodes(2)),
        expect![[r#"
            create controllerrevision web-H1 "revision":1
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            create pod web-* on n2; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":2,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":2}"#]],
    );
    check(
        &format!("{}; {}; {}", set(""), nodes(3), well(2, "H1")),
        expect![[r#"
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            create pod web-* on n3; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":3,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"numberUnavailable":2,"updatedNumberScheduled":1}"#]],
    );
    check(
        &format!("{}; {}; {}", set(""), nodes(2), all_well(1..=2, "H1")),
        expect![[
            r#"status daemonset web {"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"updatedNumberScheduled":2}"#
        ]],
    );
    // One that waits for its node counts for that node, and a node's pod on its way out is waited for.
    let on_its_way = format!("daemon a owner=ds/web at=H1 for=n1; {} deleting", well(2, "H1"));
    check(
        &format!("{}; {}; {on_its_way}", set(""), nodes(2)),
        expect![[
            r#"status daemonset web {"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"numberUnavailable":1,"updatedNumberScheduled":2}"#
        ]],
    );
}

#[test]
fn a_pod_is_made_for_its_node() {
    let world = world("ds web host-network tolerates=node.kubernetes.io/not-ready; node n1");
    let spec = world.get_as::<DaemonSet>(&podium_api::ObjectKey::new("d", "web")).unwrap();
    let pod = nodes::new_pod(&spec, spec.spec.as_ref().unwrap(), "H", "n1", 2);
    assert_eq!(nodes::target(&pod), Some("n1"));
    let spec = pod.spec.unwrap();
    let show = |t: &k8s_openapi::api::core::v1::Toleration| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{} {} {}", part(&t.key).replace("node.kubernetes.io/", ""), part(&t.operator), part(&t.effect))
    };
    let tolerations: Vec<String> = spec.tolerations.unwrap().iter().map(show).collect();
    let expected = [
        "not-ready Exists ",
        "not-ready Exists NoExecute",
        "unreachable Exists NoExecute",
        "disk-pressure Exists NoSchedule",
        "memory-pressure Exists NoSchedule",
        "pid-pressure Exists NoSchedule",
        "unschedulable Exists NoSchedule",
        "network-unavailable Exists NoSchedule",
    ];
    assert_eq!(tolerations, expected);
    assert_eq!(pod.metadata.labels.unwrap()["controller-revision-hash"], "H");
    assert_eq!(pod.metadata.annotations.unwrap()[nodes::FAILURES], "2");
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
}

#[test]
fn nodes_are_chosen() {
    let ssd = "node n1 labels=disk:ssd; node n2";
    check(
        &format!("{}; {ssd}", set("select=disk:ssd")),
        expect![[r#"
            create controllerrevision web-686bf79c7c "revision":2
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1}"#]],
    );
    check(
        &format!("{}; {ssd}; {}", set("select=disk:ssd"), all_well(1..=2, "H1")),
        expect![[r#"
        create controllerrevision web-686bf79c7c "revision":2
        delete pod p2
        event Normal SuccessfulDelete: Deleted pod: p2
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":1,"numberReady":1}"#]],
    );
    let tainted = "node n1 taints=dedicated:NoSchedule; node n2 taints=dedicated:NoExecute; node n3 cordoned; \
                   node n4 taints=node.kubernetes.io/unreachable:NoExecute,x:PreferNoSchedule";
    check(
        &format!("{}; {tainted}", set("")),
        expect![[r#"
            create pod web-* on n3; tell SuccessfulCreate: Created pod: …
            create pod web-* on n4; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":2,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":2}"#]],
    );
    check(
        &format!("{}; {tainted}; {}", set(""), all_well(1..=4, "H1")),
        expect![[r#"
        delete pod p2
        event Normal SuccessfulDelete: Deleted pod: p2
        status daemonset web {"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":2,"numberMisscheduled":2,"numberReady":2,"updatedNumberScheduled":2}"#]],
    );
    check(
        &format!("{}; {tainted}; {}", set("tolerates=dedicated"), all_well(1..=4, "H1")),
        expect![[r#"
        create controllerrevision web-59bcddcd97 "revision":2
        delete pod p1
        event Normal SuccessfulDelete: Deleted pod: p1
        status daemonset web {"currentNumberScheduled":4,"desiredNumberScheduled":4,"numberAvailable":4,"numberMisscheduled":0,"numberReady":4}"#]],
    );
}

#[test]
fn too_many_are_pruned() {
    let twice = format!(
        "{}; daemon young owner=ds/web at=H1 node=n1 ready age=5; daemon waits owner=ds/web at=H1 for=n1",
        well(1, "H1")
    );
    check(
        &format!("{}; {}; {twice}", set(""), nodes(1)),
        expect![[r#"
        delete pod young
        delete pod waits
        event Normal SuccessfulDelete: Deleted pod: young
        event Normal SuccessfulDelete: Deleted pod: waits
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"updatedNumberScheduled":1}"#]],
    );
    // Of a node that is gone: what is bound is collected by others.
    let gone = "daemon waits owner=ds/web at=H1 for=n9; daemon bound owner=ds/web at=H1 node=n9";
    check(
        &format!("{}; {}; {}; {gone}", set(""), nodes(1), well(1, "H1")),
        expect![[r#"
        delete pod waits
        event Normal SuccessfulDelete: Deleted pod: waits
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"updatedNumberScheduled":1}"#]],
    );
}

#[test]
fn failed_pods_are_replaced_after_a_pause() {
    let failed = |age: i64, failures: &str| {
        let annotations = match failures {
            "" => String::new(),
            n => format!("annotations=podium.dev/daemon-pod-failures:{n}"),
        };
        format!("{}; node n1; daemon a owner=ds/web at=H1 node=n1 phase=Failed age={age} {annotations}", set(""))
    };
    check(
        &failed(3, ""),
        expect![[r#"
        create pod web-* {"annotations":{"podium.dev/daemon-pod-failures":"1"},on n1; tell SuccessfulCreate: Created pod: …
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        event Warning FailedDaemonPod: Found failed daemon pod d/a on node n1, will try to kill it
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}"#]],
    );
    check(
        &failed(3, "3"),
        expect![[r#"
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}
        look again after 1s"#]],
    );
    check(
        &failed(4, "3"),
        expect![[r#"
        create pod web-* {"annotations":{"podium.dev/daemon-pod-failures":"4"},on n1; tell SuccessfulCreate: Created pod: …
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        event Warning FailedDaemonPod: Found failed daemon pod d/a on node n1, will try to kill it
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}"#]],
    );
    check(
        &failed(10, "40"),
        expect![[r#"
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}
        look again after 890s"#]],
    );
    check(
        &failed(1800, "40"),
        expect![[r#"
        create pod web-* {"annotations":{"podium.dev/daemon-pod-failures":"1"},on n1; tell SuccessfulCreate: Created pod: …
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        event Warning FailedDaemonPod: Found failed daemon pod d/a on node n1, will try to kill it
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}"#]],
    );
    check(
        &format!("{} deleting", failed(1, "")),
        expect![[r#"
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1}"#]],
    );
    check(
        &format!("{}; node n1; daemon a owner=ds/web at=H1 node=n1 phase=Succeeded", set("")),
        expect![[r#"
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        event Normal SucceededDaemonPod: Found succeeded daemon pod d/a on node n1, will try to delete it
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1,"updatedNumberScheduled":1}"#]],
    );
}

#[test]
fn rolls_within_what_may_be_missing() {
    let three = nodes(3);
    check(
        &format!("{}; {three}; {}", set("image=v2"), all_well(1..=3, "H1")),
        expect![[r#"
        create controllerrevision web-H2 "revision":2
        delete pod p1
        event Normal SuccessfulDelete: Deleted pod: p1
        status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#]],
    );
    check(
        &format!("{}; {three}; {}", updated("unavailable=2"), all_well(1..=3, "H1")),
        expect![[r#"
        delete pod p1
        delete pod p2
        event Normal SuccessfulDelete: Deleted pod: p1
        event Normal SuccessfulDelete: Deleted pod: p2
        status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#]],
    );
    check(
        &format!("{}; {three}; {}", updated("unavailable=34%"), all_well(1..=3, "H1")),
        expect![[r#"
        delete pod p1
        delete pod p2
        event Normal SuccessfulDelete: Deleted pod: p1
        event Normal SuccessfulDelete: Deleted pod: p2
        status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#]],
    );
    let one_comes = format!("{}; {}", well(1, "H2").replace("ready", ""), all_well(2..=3, "H1"));
    check(
        &format!("{}; {three}; {one_comes}", updated("unavailable=1")),
        expect![[
            r#"status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1,"updatedNumberScheduled":1}"#
        ]],
    );
    // A sick old one goes at once.
    let sick = format!("{one_comes}; ")
        .replace("daemon p3 owner=ds/web at=H1 node=n3 ready", "daemon p3 owner=ds/web at=H1 node=n3");
    check(
        &format!("{}; {three}; {sick}", updated("unavailable=1")),
        expect![[r#"
        delete pod p3
        event Normal SuccessfulDelete: Deleted pod: p3
        status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"numberUnavailable":2,"updatedNumberScheduled":1}"#]],
    );
    check(
        &format!("{}; {three}; {}", updated("ondelete"), all_well(1..=3, "H1")),
        expect![[
            r#"status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#
        ]],
    );
    let ready_for =
        |seconds: u32| format!("{}; {}", well(1, "H2").replace("ready", &format!("ready={seconds}")), well(2, "H1"));
    check(
        &format!("{}; {}; {}", updated("unavailable=1 min-ready=20"), nodes(2), ready_for(15)),
        expect![[r#"
        status daemonset web {"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":1,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1,"updatedNumberScheduled":1}
        look again after 5s"#]],
    );
    check(
        &format!("{}; {}; {}", updated("unavailable=1 min-ready=20"), nodes(2), ready_for(25)),
        expect![[r#"
        delete pod p2
        event Normal SuccessfulDelete: Deleted pod: p2
        status daemonset web {"currentNumberScheduled":2,"desiredNumberScheduled":2,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"updatedNumberScheduled":1}"#]],
    );
}

#[test]
fn surges() {
    let surge = updated("unavailable=0 surge=1");
    let three = nodes(3);
    check(
        &format!("{surge}; {three}; {}", all_well(1..=3, "H1")),
        expect![[r#"
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#]],
    );
    let coming = "daemon new owner=ds/web at=H2 for=n1";
    check(
        &format!("{surge}; {three}; {}; {coming}", all_well(1..=3, "H1")),
        expect![[
            r#"status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#
        ]],
    );
    let there = "daemon new owner=ds/web at=H2 node=n1 ready age=5";
    check(
        &format!("{surge}; {three}; {}; {there}", all_well(1..=3, "H1")),
        expect![[r#"
        delete pod p1
        event Normal SuccessfulDelete: Deleted pod: p1
        status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":3,"numberMisscheduled":0,"numberReady":3}"#]],
    );
    // An old one that is not available may be replaced beside the one that surges.
    let sick = format!("{}; {}", all_well(1..=2, "H1"), well(3, "H1").replace("ready", ""));
    check(
        &format!("{surge}; {three}; {sick}"),
        expect![[r#"
            create pod web-* on n3; tell SuccessfulCreate: Created pod: …
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            status daemonset web {"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1}"#]],
    );
    // A node that is no longer chosen keeps its old pod until enough others are available.
    let moved = "node n1 labels=disk:ssd; node n2";
    check(
        &format!("{}; {moved} taints=x:NoSchedule; {}", updated("unavailable=0 surge=1"), all_well(1..=2, "H1")),
        expect![[r#"
            create pod web-* on n1; tell SuccessfulCreate: Created pod: …
            delete pod p2
            event Normal SuccessfulDelete: Deleted pod: p2
            status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":1,"numberReady":1}"#]],
    );
}

#[test]
fn keeps_history() {
    let old = |n: u32| {
        format!("revision web-{n} image=old{n} rev={n} owner=ds/web labels=app:web,controller-revision-hash:{n}")
    };
    let many: Vec<String> = (1..5).map(old).collect();
    let now = "ds web history=1; revision web-H1 image=v1 rev=9 owner=ds/web labels=app:web,controller-revision-hash:H1; node n1";
    check(
        &format!("{now}; {}; {}", well(1, "2"), many.join("; ")),
        expect![[r#"
        delete pod p1
        event Normal SuccessfulDelete: Deleted pod: p1
        delete controllerrevision web-1
        delete controllerrevision web-3
        delete controllerrevision web-4
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1}"#]],
    );
    // Back to what was: it becomes the newest again.
    check(
        &format!("{}; node n1; {}", updated("").replacen("image=v2", "image=v1", 1), well(1, "H2")),
        expect![[r#"
        patch controllerrevision web-H1 {"metadata":{},"revision":3}
        delete pod p1
        event Normal SuccessfulDelete: Deleted pod: p1
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1}"#]],
    );
    // Two of the same: one is enough, and its label is that of all.
    let twice = "revision twin image=v1 rev=2 owner=ds/web; node n1";
    check(
        &format!("{}; {twice}; {}", set(""), well(1, "H1")),
        expect![[r#"
            patch controllerrevision twin {"metadata":{"labels":{"controller-revision-hash":"twin"}}}
            patch pod p1 {"metadata":{"labels":{"controller-revision-hash":"twin"}}}
            delete controllerrevision web-H1"#]],
    );
    check(
        "ds web; revision web-H1 image=other owner=ds/other labels=app:web,controller-revision-hash:H1",
        expect![[
            r#"status daemonset web {"collisionCount":1,"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}"#
        ]],
    );
}

#[test]
fn leaves_alone_what_is_not_its_own() {
    check("ds web deleting; node n1", expect![[""]]);
    check(
        &format!("{}; node n1; pod a labels=app:web node=n1 ready", set("")),
        expect![[r#"
        patch pod a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"DaemonSet","name":"web"}]}}
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1}"#]],
    );
    check(
        &format!("{}; node n1; {}; pod b labels=app:no owner=ds/web node=n1", set(""), well(1, "H1")),
        expect![[r#"
        patch pod b {"metadata":{"ownerReferences":[]}}
        status daemonset web {"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":0,"numberReady":1,"updatedNumberScheduled":1}"#]],
    );
}

#[test]
fn bounds_a_plan() {
    let plan = world(&format!("{}; {}", set(""), nodes(600))).plan(&DaemonSets, &DaemonSet::NAMES, "web");
    let creates = plan.lines().filter(|line| line.starts_with("create pod")).count();
    let told = plan.lines().filter(|line| line.contains("tell")).count();
    assert_eq!((creates, told), (BURST_MAX, EVENTS_MAX));
}

#[test]
fn says_what_was_refused() {
    let refused = |text: &str| {
        let error = ApiError::new(Reason::Forbidden, "exceeded quota: few");
        let key = Key::new(&DaemonSet::NAMES, podium_api::ObjectKey::new("d", "web"));
        let now = Timestamp::from_second(NOW).unwrap();
        readable(&show(&DaemonSets.refused(&key, &error, &world(text), now)))
    };
    expect![[r#"
        event Warning FailedCreate: Error creating: exceeded quota: few
        status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":1,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":1}"#]].assert_eq(&refused(&format!("{}; node n1", set(""))));
    expect![[r#"
        event Warning FailedCreate: Error creating: exceeded quota: few
        status daemonset web {"currentNumberScheduled":0,"desiredNumberScheduled":0,"numberMisscheduled":1,"numberReady":0}"#]].assert_eq(&refused(
        &format!("{}; {}", set("select=a:b"), well(1, "H1")).replace("; daemon", "; node n1; daemon"),
    ));
}

#[test]
fn bounds_are_rounded_as_kubernetes_does() {
    for (words, desired, expected) in [
        ("", 5, (0, 1)),
        ("unavailable=20%", 5, (0, 1)),
        ("unavailable=21%", 5, (0, 2)),
        ("unavailable=0 surge=1%", 5, (1, 0)),
        ("unavailable=0 surge=0", 5, (0, 1)),
        ("unavailable=0 surge=0", 0, (0, 0)),
    ] {
        let world = world(&set(words));
        let set = world.get_as::<DaemonSet>(&podium_api::ObjectKey::new("d", "web")).unwrap();
        let now = Timestamp::from_second(NOW).unwrap();
        let bounds = Work::new(&set, set.spec.as_ref().unwrap(), &[], "H", &world, now).bounds(desired);
        assert_eq!((bounds.surge, bounds.unavailable), expected, "{words} of {desired}");
    }
}

#[test]
fn of_nodes_and_revisions_only_some_changes_matter() {
    let node = |text: &str| World::of(text).list_as::<Node>(None).remove(0);
    let before = node("node n1");
    for (after, expected) in [
        ("node n1 ready=False", false),
        ("node n1 cordoned", false),
        ("node n1 labels=disk:ssd", true),
        ("node n1 taints=x:NoExecute", true),
    ] {
        assert_eq!(DaemonSets.concerns(Some(&*before), Some(&*node(after))), expected, "{after}");
    }
    assert!(DaemonSets.concerns(None, Some(&*before)) && DaemonSets.concerns(Some(&*before), None));
    let all = World::of("revision own owner=ds/web; revision stray").list_as::<ControllerRevision>(None);
    for (revision, expected) in [(&all[0], (false, true)), (&all[1], (true, true))] {
        let (new, gone) = (DaemonSets.concerns(None, Some(&**revision)), DaemonSets.concerns(Some(&**revision), None));
        assert_eq!((new, gone), expected, "{:?}", revision.metadata.name);
    }
    let sets = World::of("ds web; ds other");
    assert_eq!(sets.keys(&DaemonSets, "node n1"), "daemonsets.apps d/web, daemonsets.apps d/other");
    assert_eq!(sets.keys(&DaemonSets, "daemon p owner=ds/web"), "daemonsets.apps d/web");
}
