//! Tables of what is decided about sidecars, hooks, rules, and pods that are not taken, have to leave or are told to hurry.

use serde_json::{Value, json};

use super::tests::{Life, one, tell};

#[test]
fn sidecars_start_in_order_and_are_waited_for() {
    let probe = json!({ "periodSeconds": 5 });
    let side = |name: &str| json!({ "name": name, "restartPolicy": "Always" });
    let mut probed = side("s");
    probed["startupProbe"] = probe;
    let spec =
        |init: &[Value]| json!({ "restartPolicy": "Never", "initContainers": init, "containers": [{ "name": "app" }] });
    let slow = spec(&[probed, json!({ "name": "i" })]);
    let two = spec(&[side("s"), json!({ "name": "i" }), side("t")]);
    for (spec, script, expected) in [
        // The next one waits until a sidecar has started, not only until it runs.
        (&slow, "up:s", "Pending Unready s=Runningx0 i=PodInitializingx0 app=PodInitializingx0 | probe(s)"),
        (&slow, "up:s started:s", "Pending Unready s=Runningx0 i=ContainerCreatingx0 app=PodInitializingx0 | start(i)"),
        // One that ends while a later one runs is started again and waited for no more.
        (
            &slow,
            "up:s started:s up:i end:s:1 up:s end:i:0",
            "Pending Unready s=Runningx1 i=Completed:0x0 app=ContainerCreatingx0 | start(app)",
        ),
        (
            &two,
            "up:s up:i end:i:0 up:t up:app end:s:1",
            "Running Unready s=Error:1x0 i=Completed:0x0 t=Runningx0 app=Runningx0 | start(s)",
        ),
        // Sidecars do not keep a pod that is done, whether it succeeded or not.
        (
            &two,
            "up:s up:i end:i:0 up:t up:app end:app:0",
            "Running Unready s=Runningx0 i=Completed:0x0 t=Runningx0 app=Completed:0x0 | stop(30)",
        ),
        (
            &two,
            "up:s up:i end:i:0 up:t up:app end:app:3 stopped",
            "Failed Unready s=Completed:0x0 i=Completed:0x0 t=Completed:0x0 app=Error:3x0 |",
        ),
        // An init container that has failed for good ends the sidecars before it; until then the pod is pending.
        (
            &two,
            "up:s up:i end:i:1",
            "Pending Unready s=Runningx0 i=Error:1x0 t=PodInitializingx0 app=PodInitializingx0 | stop(30)",
        ),
        (
            &two,
            "up:s up:i end:i:1 stopped",
            "Failed Unready s=Completed:0x0 i=Error:1x0 t=PodInitializingx0 app=PodInitializingx0 |",
        ),
    ] {
        assert_eq!(tell(spec.clone(), script), expected, "{script}");
    }
}

#[test]
fn containers_wait_for_hooks_of_those_before_them() {
    let hook = json!({ "postStart": { "sleep": { "seconds": 1 } } });
    let spec = json!({ "containers": [{ "name": "a", "lifecycle": hook }, { "name": "b" }] });
    for (script, expected) in [
        ("", "Pending Unready a=ContainerCreatingx0 b=ContainerCreatingx0 | allocate start(a)"),
        ("up:a", "Pending Unready a=Runningx0 b=ContainerCreatingx0 | start(b)"),
        ("up:a up:b end:a:1", "Running Unready a=Error:1x0 b=Runningx0 | start(a)"),
    ] {
        assert_eq!(tell(spec.clone(), script), expected, "{script}");
    }
}

#[test]
fn rules_of_containers_come_before_the_pods_policy() {
    let rules = |policy: &str, action: &str| json!([{ "action": action, "exitCodes": { "operator": "In", "values": [42] } }, { "action": policy }]);
    let spec = |action: &str| {
        let app = json!({ "name": "app", "restartPolicy": "Never", "restartPolicyRules": rules("Restart", action) });
        json!({ "restartPolicy": "Never", "initContainers": [{ "name": "i" }], "containers": [app, { "name": "b" }] })
    };
    for (action, script, expected) in [
        (
            "Restart",
            "up:i end:i:0 up:app up:b end:app:1",
            "Running Unready i=Completed:0x0 app=Error:1x0 b=Runningx0 |",
        ),
        (
            "Restart",
            "up:i end:i:0 up:app up:b end:app:42",
            "Running Unready i=Completed:0x0 app=Error:42x0 b=Runningx0 | start(app)",
        ),
        (
            "RestartAllContainers",
            "up:i end:i:0 up:app up:b end:app:42",
            "Running Unready i=Completed:0x0 app=Error:42x0 b=Runningx0 | end-all",
        ),
        (
            "RestartAllContainers",
            "up:i end:i:0 up:app up:b end:app:42 end:b:0",
            "Running Unready i=Completed:0x0 app=PodInitializingx0 b=PodInitializingx0 | reset start(i)",
        ),
        (
            "RestartAllContainers",
            "up:i end:i:0 up:app up:b end:app:42 end:b:0 up:i end:i:0 up:app up:b",
            "Running Ready i=Completed:0x1 app=Runningx1 b=Runningx1 |",
        ),
        (
            "RestartAllContainers",
            "up:i end:i:0 up:app up:b end:app:42 end:b:0 up:i end:i:0 up:app up:b end:app:0 end:b:0",
            "Succeeded Unready i=Completed:0x1 app=Completed:0x1 b=Completed:0x1 |",
        ),
    ] {
        assert_eq!(tell(spec(action), script), expected, "{action} {script}");
    }
}

#[test]
fn pods_that_are_not_taken_or_have_to_leave() {
    let reason = |life: &Life| {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}: {}", of(&life.prior.reason), of(&life.prior.message))
    };
    let mut life = Life::new(one("Always"), Value::Null);
    life.step("reject");
    assert_eq!(life.settle(), "Failed Unready  |");
    assert_eq!(reason(&life), "OutOfpods: Pod was rejected: no room");
    life.pod.status = Some(life.prior.clone());
    life.step("delete");
    assert_eq!(life.settle(), "Failed Unready  | delete");

    let mut life = Life::new(one("Always"), Value::Null);
    life.settle();
    life.step("up:app");
    life.settle();
    life.step("evict");
    assert_eq!(life.settle(), "Running Ready app=Runningx0 | stop(1)");
    life.step("stopped");
    assert_eq!(life.settle(), "Failed Unready app=Completed:0x0 |");
    assert_eq!(reason(&life), "Evicted: The node was low on resource: memory. ");
    let conditions = life.prior.conditions.unwrap();
    let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
}

#[test]
fn graces_shrink_and_never_grow() {
    for (script, expected) in [
        ("up:app delete:20", "Running Ready app=Runningx0 | stop(20)"),
        ("up:app delete:20 delete:5", "Running Ready app=Runningx0 | hurry(5)"),
        ("up:app delete:20 delete:60", "Running Ready app=Runningx0 |"),
        ("up:app delete:20 delete:5 delete:7", "Running Ready app=Runningx0 |"),
        ("up:app delete:20 delete:5 stopped", "Succeeded Unready app=Completed:0x0 | delete"),
        ("up:app evict delete:60", "Running Ready app=Runningx0 |"),
        // Nothing has run: there is nothing to wait for.
        ("delete:20", "Pending Unready app=ContainerCreatingx0 | stop(20)"),
    ] {
        assert_eq!(tell(one("Always"), script), expected, "{script}");
    }
}

#[test]
fn amounts_that_change_are_given_to_what_runs() {
    for (script, expected) in
        [("up:app cpu:2", "Running Ready app=Runningx0 | resize"), ("up:app cpu:2 +1", "Running Ready app=Runningx0 |")]
    {
        assert_eq!(tell(one("Always"), script), expected, "{script}");
    }
    let mut life = Life::new(one("Always"), Value::Null);
    for step in ["+0", "up:app", "cpu:2"] {
        life.step(step);
        life.settle();
    }
    let status = &life.prior.container_statuses.as_ref().unwrap()[0];
    let limits = status.resources.as_ref().and_then(|r| r.limits.clone()).unwrap();
    assert_eq!(limits["cpu"].0, "2");
}
