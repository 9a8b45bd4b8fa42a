//! Plans of Jobs.

mod policies;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{
    fixture::{job, pod, with_policies, world},
    *,
};
use crate::test_support::{NOW, World, show};

fn plan(world: &World) -> String {
    world.plan(&Jobs, &Job::NAMES, "pi")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(job: &str, pods: &str, expected: Expect) {
    expected.assert_eq(&plan(&world(job, pods)));
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check_with(job: &str, pods: &str, more: Value, expected: Expect) {
    expected.assert_eq(&plan(&with_policies(job, pods, more)));
}

#[test]
fn creates_what_is_missing() {
    check(
        "completions=3 parallelism=2",
        "",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        create pod pi-pk4mf {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":2,"ready":0,"startTime":"1970-01-12T13:46:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check(
        "completions=3 parallelism=2 started=60 succeeded=2",
        "a Succeeded counted; b Succeeded counted",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":2,"terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check(
        "completions=3 parallelism=2 started=60 active=1",
        "a Running ready",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":2,"ready":1,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    // Without a number of completions: as many as may run, until one succeeds.
    check(
        "parallelism=2 started=60 active=1",
        "a Running",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":2,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check("parallelism=2 started=60 active=1 succeeded=1", "a Running; b Succeeded counted", expect![]);
    check(
        "completions=3 started=60 active=1 going",
        "a Running ready",
        expect![[r#"
            status job pi {"active":1,"ready":1,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check("completions=3 managed-by=example.com/other", "", expect![]);
}

#[test]
fn asks_for_the_same_names_again_and_for_others_when_they_are_taken() {
    let made = plan(&world("completions=3 parallelism=3", ""));
    assert_eq!(made, plan(&world("completions=3 parallelism=3", "")));
    let name = made.split_whitespace().nth(2).unwrap();
    let one_there = plan(&world("completions=3 parallelism=3", &format!("{name} Running")));
    assert!(made.matches("create").count() == 3 && one_there.matches("create").count() == 2);
    assert!(!one_there.contains(&format!("create pod {name}")), "{one_there}");
}

/// Whoever waits until a pod is gone must not be shown its successor.
#[test]
fn a_name_is_not_given_twice() {
    let job = "completions=3 parallelism=3 started=60 active=3";
    assert!(plan(&world(job, "a Running; b Running")).contains("create pod pi-999tj"));
    let again = plan(&world(job, "a Running; b Running").freed("pi-999tj", 60_000));
    assert!(again.contains("create pod pi-") && !again.contains("pi-999tj"), "{again}");
}

#[test]
fn bounds_a_plan() {
    let plan = plan(&world("completions=2000 parallelism=2000", ""));
    let (creates, told) = (plan.matches("create pod").count(), plan.matches("; tell").count());
    assert_eq!((creates, told), (BURST_MAX, EVENTS_MAX));
    let pods: Vec<String> = (0..700).map(|i| format!("p{i} Succeeded")).collect();
    let plan = self::plan(&world("completions=1000 parallelism=1000 started=60", &pods.join(";")));
    assert_eq!(plan.matches("patch pod").count(), UNCOUNTED_MAX);
}

#[test]
fn counts_a_success_in_steps() {
    let job = "completions=1 started=60 active=1";
    check(
        job,
        "a Succeeded",
        expect![[r#"
            status job pi {"conditions":[{"reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"succeeded":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    // The status is written, the finalizer still there: nothing is counted twice.
    let job = "completions=1 started=60 waiting-succeeded=a said=SuccessCriteriaMet:CompletionsReached";
    check(job, "a Succeeded", expect![[r#"patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]]);
    check(
        job,
        "a Succeeded counted",
        expect![[r#"
        status job pi {"completionTime":"1970-01-12T13:46:40Z","conditions":[{"reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"reason":"CompletionsReached","status":"True","type":"Complete"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
        event Normal Completed: Job completed"#]],
    );
    // Somebody deleted the pod as soon as it was let go.
    check(
        job,
        "",
        expect![[r#"
        status job pi {"completionTime":"1970-01-12T13:46:40Z","conditions":[{"reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"reason":"CompletionsReached","status":"True","type":"Complete"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
        event Normal Completed: Job completed"#]],
    );
    let job =
        "completions=1 started=60 succeeded=1 said=SuccessCriteriaMet:CompletionsReached,Complete:CompletionsReached";
    check(job, "a Succeeded counted", expect![]);
}

#[test]
fn does_not_conclude_from_a_mirror_that_lags() {
    let job = "completions=2 started=60 waiting-succeeded=a";
    expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"succeeded":["pod/a"]}}
        look again after 1s"#]].assert_eq(&plan(&world(job, "").at(6)));
    let job = "completions=2 started=60 succeeded=1";
    expect!["look again after 1s"].assert_eq(&plan(&world(job, "a Succeeded counted").at(6)));
}

#[test]
fn waits_longer_after_each_failure() {
    let job = "completions=1 started=60 failed=1";
    check(job, "a Failed counted ended=4", expect!["look again after 6s"]);
    check(
        job,
        "a Failed counted ended=10",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":1,"failed":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check(job, "a Failed counted ended=20; b Failed counted ended=12", expect!["look again after 8s"]);
    check(
        "completions=3 started=60 failed=1 succeeded=1",
        "a Failed counted ended=4; b Succeeded counted ended=3",
        expect![[r#"
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":1,"failed":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
}

#[test]
fn fails_at_its_limits() {
    check(
        "completions=2 parallelism=2 limit=0 started=60 active=2",
        "a Failed; b Running ready",
        expect![[r#"
            delete pod b
            event Normal SuccessfulDelete: Deleted pod: b
            status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a","pod/b"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    let job = "completions=2 parallelism=2 limit=0 started=60 terminating=1 waiting-failed=a,b said=FailureTarget:BackoffLimitExceeded";
    check(
        job,
        "a Failed counted; b Running ready going",
        expect![[r#"
            status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"failed":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/b"]}}
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        job,
        "a Failed counted; b Failed counted",
        expect![[r#"
            status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"},{"reason":"BackoffLimitExceeded","status":"True","type":"Failed"}],"failed":2,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}
            event Warning BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
    let job = "completions=2 limit=0 started=60 failed=2 said=FailureTarget:BackoffLimitExceeded";
    check(
        job,
        "a Failed counted",
        expect![[r#"
            status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"},{"reason":"BackoffLimitExceeded","status":"True","type":"Failed"}],"failed":2,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}
            event Warning BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
    check("completions=1 limit=2 restart=OnFailure started=60 active=1", "a Running restarts=1", expect![]);
    check(
        "completions=1 limit=2 restart=OnFailure started=60 active=1",
        "a Running restarts=2",
        expect![[r#"
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a"]}}"#]],
    );
    check("completions=1 deadline=100 started=60 active=1", "a Running", expect!["look again after 40s"]);
    check(
        "completions=1 deadline=60 started=60 active=1",
        "a Running",
        expect![[r#"
        delete pod a
        event Normal SuccessfulDelete: Deleted pod: a
        status job pi {"conditions":[{"reason":"DeadlineExceeded","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a"]}}"#]],
    );
}

#[test]
fn is_suspended_and_resumed() {
    check(
        "completions=2 parallelism=2 suspended",
        "",
        expect![[r#"
        status job pi {"conditions":[{"reason":"JobSuspended","status":"True","type":"Suspended"}],"ready":0,"terminating":0,"uncountedTerminatedPods":{}}
        event Normal Suspended: Job suspended"#]],
    );
    check(
        "completions=2 parallelism=2 suspended started=60 active=2",
        "a Running ready; b Running",
        expect![[r#"
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}
            delete pod b
            delete pod a
            event Normal SuccessfulDelete: Deleted pod: b
            event Normal SuccessfulDelete: Deleted pod: a
            status job pi {"conditions":[{"reason":"JobSuspended","status":"True","type":"Suspended"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":2,"uncountedTerminatedPods":{}}
            event Normal Suspended: Job suspended"#]],
    );
    check("completions=2 suspended started=60 said=Suspended:JobSuspended", "", expect![""]);
    check(
        "completions=1 started=60 said=Suspended:JobSuspended",
        "",
        expect![[r#"
        create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":1,"conditions":[{"reason":"JobResumed","status":"False","type":"Suspended"}],"ready":0,"startTime":"1970-01-12T13:46:40Z","terminating":0,"uncountedTerminatedPods":{}}
        event Normal Resumed: Job resumed"#]],
    );
    check("completions=1 suspended deadline=10 started=60 said=Suspended:JobSuspended", "", expect![""]);
}

#[test]
fn removes_what_is_superfluous() {
    check(
        "completions=9 parallelism=1 started=60 active=2",
        "a Running ready node=n; b Pending",
        expect![[r#"
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}
            delete pod b
            event Normal SuccessfulDelete: Deleted pod: b
            status job pi {"active":1,"ready":1,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{}}"#]],
    );
    // One that can no longer be counted runs for nothing.
    check(
        "completions=2 parallelism=2 started=60 active=2",
        "a Running ready; b Running counted",
        expect![[r#"
        delete pod b
        event Normal SuccessfulDelete: Deleted pod: b
        status job pi {"active":1,"ready":1,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{}}"#]],
    );
    check(
        "completions=2 parallelism=2 indexed started=60 active=3",
        "a Running index=0; b Running ready index=0; c Running index=5",
        expect![[r#"
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}
            patch pod c {"metadata":{"finalizers":["a.b/c"]}}
            delete pod a
            delete pod c
            event Normal SuccessfulDelete: Deleted pod: a
            event Normal SuccessfulDelete: Deleted pod: c
            status job pi {"active":1,"ready":1,"startTime":"1970-01-12T13:45:40Z","terminating":2,"uncountedTerminatedPods":{}}"#]],
    );
}

#[test]
fn runs_each_index_once() {
    check(
        "completions=4 parallelism=2 indexed",
        "",
        expect![[r#"
        create pod pi-0-jlww9 {"annotations":{"batch.kubernetes.io/job-completion-index":"0"},"spec":{"hostname":"pi-0","restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        create pod pi-1-gtsn9 {"annotations":{"batch.kubernetes.io/job-completion-index":"1"},"spec":{"hostname":"pi-1","restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
        status job pi {"active":2,"ready":0,"startTime":"1970-01-12T13:46:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check(
        "completions=4 parallelism=2 indexed started=60 active=2 done=0",
        "a Succeeded counted index=0; b Succeeded index=2; c Running index=1",
        expect![[r#"
            create pod pi-3-cwqlz {"annotations":{"batch.kubernetes.io/job-completion-index":"3"},"spec":{"hostname":"pi-3","restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":2,"completedIndexes":"0,2","ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":2,"terminating":0,"uncountedTerminatedPods":{}}
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    // The index says enough: it is not counted by uid.
    check(
        "completions=2 indexed started=60 done=0 succeeded=1",
        "a Succeeded index=0; b Running index=1",
        expect![[r#"
            status job pi {"active":1,"completedIndexes":"0","ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        "completions=2 indexed started=60 active=1 done=0 succeeded=1",
        "a Succeeded counted index=0; b Failed index=1 ended=60",
        expect![[r#"
            create pod pi-1-gtsn9 {"annotations":{"batch.kubernetes.io/job-completion-index":"1"},"spec":{"hostname":"pi-1","restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":1,"completedIndexes":"0","ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{"failed":["pod/b"]}}
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    // Made smaller.
    check(
        "completions=2 parallelism=2 indexed started=60 done=0-4 succeeded=5",
        "",
        expect![[
            r#"status job pi {"completedIndexes":"0,1","conditions":[{"reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":2,"terminating":0,"uncountedTerminatedPods":{}}"#
        ]],
    );
}

#[test]
fn tells_each_pod_its_index() {
    let spec = json!({"initContainers": [{"name": "i", "image": "i", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "x"}]}],
        "containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"});
    let template = json!({"metadata": {"labels": {"job": "pi"}, "annotations": {"mine": "kept"}}, "spec": spec});
    let world = with_policies("completions=4 indexed started=60 done=0-2", "", json!({"template": template}));
    let key = Key::new(&Job::NAMES, podium_api::ObjectKey::new("d", "pi"));
    let plan = Jobs.reconcile(&key, &world, Timestamp::from_second(NOW).unwrap());
    let Some(Action::CreateAndTell(pod, _)) = plan.actions.first() else { panic!("no pod: {}", show(&plan)) };
    let mut pod = pod.to_value().unwrap();
    let name = pod["metadata"]["name"].take();
    assert!(name.as_str().unwrap().starts_with("pi-3-") && name.as_str().unwrap().len() == 10, "{name}");
    expect![[
        r#"{"annotations":{"batch.kubernetes.io/job-completion-index":"3","mine":"kept"},"finalizers":["batch.kubernetes.io/job-tracking"],"generateName":"pi-3-","labels":{"batch.kubernetes.io/job-completion-index":"3","job":"pi"},"name":null,"namespace":"d","ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"pi","uid":"job/pi"}]}"#
    ]]
    .assert_eq(&pod["metadata"].to_string());
    expect![[
        r#"{"containers":[{"env":[{"name":"JOB_COMPLETION_INDEX","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['batch.kubernetes.io/job-completion-index']"}}}],"image":"i","name":"c"}],"hostname":"pi-3","initContainers":[{"env":[{"name":"JOB_COMPLETION_INDEX","value":"x"}],"image":"i","name":"i"}],"restartPolicy":"Never"}"#
    ]]
    .assert_eq(&pod["spec"].to_string());
}

#[test]
fn replaces_what_goes_or_what_has_failed() {
    let job = "completions=1 started=60 active=1";
    check(
        job,
        "a Running going",
        expect![[r#"
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        &format!("{job} replace=Failed"),
        "a Running going",
        expect![[
            r#"status job pi {"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{}}"#
        ]],
    );
    check(
        &format!("{job} replace=Failed"),
        "a Failed going ended=60",
        expect![[r#"
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"failed":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
}

#[test]
fn adopts_and_releases() {
    check(
        "completions=1 started=60",
        "a Running free",
        expect![[r#"
            patch pod a {"metadata":{"finalizers":["a.b/c","batch.kubernetes.io/job-tracking"],"ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"pi"}]}}
            status job pi {"active":1,"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}"#]],
    );
    check(
        "completions=1 started=60",
        "a Succeeded free",
        expect![[r#"
            patch pod a {"metadata":{"finalizers":["a.b/c","batch.kubernetes.io/job-tracking"],"ownerReferences":[{"apiVersion":"batch/v1","blockOwnerDeletion":true,"controller":true,"kind":"Job","name":"pi"}]}}
            status job pi {"conditions":[{"reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"succeeded":["pod/a"]}}"#]],
    );
    check(
        "completions=1 started=60 active=1",
        "a Running alien",
        expect![[r#"
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …"#]],
    );
    check("completions=1 started=60 going", "a Running free", expect![]);
}

#[test]
fn counts_although_pods_are_refused() {
    let world = world("completions=3 parallelism=3 started=60 active=1", "a Succeeded");
    let error = ApiError::forbidden(&Pod::NAMES, "pi-x", "exceeded quota");
    let key = Key::new(&Job::NAMES, podium_api::ObjectKey::new("d", "pi"));
    let plan = Jobs.refused(&key, &error, &world, Timestamp::from_second(NOW).unwrap());
    expect![[r#"
        event Warning FailedCreate: Error creating: pods "pi-x" is forbidden: exceeded quota
        status job pi {"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"succeeded":["pod/a"]}}
        patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]].assert_eq(&show(&plan));
}

#[test]
fn leaves_alone_what_somebody_else_manages() {
    check("completions=3 parallelism=2 managed-by=example.com/x", "a Running", expect![]);
    let own = plan(&world("completions=3 parallelism=2 managed-by=kubernetes.io/job-controller", ""));
    assert_eq!(own, plan(&world("completions=3 parallelism=2", "")));
}

#[test]
fn lets_go_of_what_is_left_over() {
    let leftover = |world: &World| world.plan(&Jobs, &Pod::NAMES, "a");
    let gone = || World::of("").plus::<Pod>(pod("a Running going"));
    expect![[r#"patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]].assert_eq(&leftover(&gone()));
    // The Job may just not have been heard of.
    expect!["look again after 1s"].assert_eq(&leftover(&World::of("").plus::<Pod>(pod("a Running age=5")).at(6)));
    assert_eq!(leftover(&world("completions=1", "a Running")), "");
    let finished = "completions=1 started=60 succeeded=1 said=SuccessCriteriaMet,Complete";
    expect![[r#"patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]]
        .assert_eq(&leftover(&world(finished, "a Running")));
    assert_eq!(leftover(&world(&format!("{finished} managed-by=example.com/x"), "a Running")), "");
    expect![].assert_eq(&leftover(&world("completions=1", "a Running").plus::<Job>(job("other", ""))));
}

#[test]
fn wakes_for_its_pods() {
    let keys = |world: &World, kind: &str, name: &str| {
        let changed = match kind {
            "pod" => world.get_as::<Pod>(&podium_api::ObjectKey::new("d", name)).unwrap() as std::sync::Arc<dyn Object>,
            _ => world.get_as::<Job>(&podium_api::ObjectKey::new("d", name)).unwrap(),
        };
        let triggers = Jobs.triggers().into_iter().filter(|t| t.kind.names() == changed.names());
        let keys = triggers.flat_map(|t| (t.keys)(&*changed, world)).map(|key| key.to_string());
        keys.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(keys(&world("completions=1", "a Running"), "pod", "a"), "jobs.batch d/pi");
    assert_eq!(keys(&world("completions=1", "a Running free"), "pod", "a"), "jobs.batch d/pi");
    assert_eq!(keys(&world("completions=1", "a Running free alien"), "pod", "a"), "");
    let gone = World::of("").plus::<Pod>(pod("a Running going"));
    assert_eq!(keys(&gone, "pod", "a"), "jobs.batch d/pi, pods d/a");
    let finished = world("completions=1 said=Complete", "a Running; b Running counted");
    assert_eq!(keys(&finished, "job", "pi"), "jobs.batch d/pi, pods d/a");
}
