//! Plans of Jobs with policies: limits of each index, failures, successes.

use expect_test::expect;
use serde_json::json;

use super::{check, check_with};

#[test]
fn limits_the_failures_of_each_index() {
    let job = "completions=3 parallelism=3 indexed per-index=1 limit=2147483647 started=60 active=3";
    // Index 0 is tried again: its last pod stays until the next one takes its count over.
    check(
        job,
        "a Failed index=0 failures=0; b Running index=1; c Succeeded index=2",
        expect![[r#"
            create pod pi-0-jlww9 {"annotations":{"batch.kubernetes.io/job-completion-index":"0","batch.kubernetes.io/job-index-failure-count":"1"},"spec":{"hostname":"pi-0","restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            status job pi {"active":2,"completedIndexes":"2","failedIndexes":"","ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
            patch pod c {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        job,
        "a Failed index=0 failures=0 ended=4; b Running index=1; c Running index=2",
        expect![[r#"
        status job pi {"active":2,"failedIndexes":"","ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{}}
        look again after 6s"#]],
    );
    check(
        job,
        "a Failed index=0 failures=0; n Running index=0 failures=1; b Running index=1; c Running index=2",
        expect![[r#"
            status job pi {"active":3,"failedIndexes":"","ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"failed":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        job,
        "a Failed index=0 failures=1; b Running index=1; c Running index=2",
        expect![[r#"
            status job pi {"active":2,"failedIndexes":"0","ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"failed":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check(
        &format!("{job} max-failed=0"),
        "a Failed index=0 failures=1; b Running index=1; c Running index=2",
        expect![[r#"
            delete pod b
            delete pod c
            event Normal SuccessfulDelete: Deleted pod: b
            event Normal SuccessfulDelete: Deleted pod: c
            status job pi {"conditions":[{"reason":"MaxFailedIndexesExceeded","status":"True","type":"FailureTarget"}],"failedIndexes":"0","ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":2,"uncountedTerminatedPods":{"failed":["pod/a","pod/b","pod/c"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    let job = "completions=2 parallelism=2 indexed per-index=0 limit=2147483647 started=60 done=0 succeeded=1";
    check(
        job,
        "a Succeeded counted index=0; b Failed index=1 failures=0",
        expect![[r#"
            status job pi {"completedIndexes":"0","conditions":[{"reason":"FailedIndexes","status":"True","type":"FailureTarget"}],"failedIndexes":"1","ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{"failed":["pod/b"]}}
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
}

#[test]
fn follows_its_failure_policy() {
    let rules = |action: &str| {
        json!({"podFailurePolicy": {"rules": [
            {"action": action, "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]}})
    };
    let job = "completions=2 parallelism=2 limit=0 replace=Failed started=60 active=2";
    check_with(
        job,
        "a Failed exit=42; b Running",
        rules("FailJob"),
        expect![[r#"
            delete pod b
            event Normal SuccessfulDelete: Deleted pod: b
            status job pi {"conditions":[{"reason":"PodFailurePolicy","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a","pod/b"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check_with(
        job,
        "a Failed exit=42; b Running",
        rules("Ignore"),
        expect![[r#"
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check_with(
        job,
        "a Failed exit=42; b Running",
        rules("Count"),
        expect![[r#"
            delete pod b
            event Normal SuccessfulDelete: Deleted pod: b
            status job pi {"conditions":[{"reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":1,"uncountedTerminatedPods":{"failed":["pod/a","pod/b"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    check_with(
        job,
        "a Failed exit=1 disrupted; b Running",
        rules("FailJob"),
        expect![[r#"
            create pod pi-999tj {"spec":{"restartPolicy":"Never"}}; tell SuccessfulCreate: Created pod: …
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
    let job = "completions=2 parallelism=2 indexed per-index=5 replace=Failed started=60 active=2";
    check_with(
        job,
        "a Failed exit=42 index=0; b Running index=1",
        rules("FailIndex"),
        expect![[r#"
            status job pi {"active":1,"failedIndexes":"0","ready":0,"startTime":"1970-01-12T13:45:40Z","terminating":0,"uncountedTerminatedPods":{"failed":["pod/a"]}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}"#]],
    );
}

#[test]
fn is_over_when_enough_have_succeeded() {
    let policy = json!({"successPolicy": {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}});
    let job = "completions=3 parallelism=3 indexed started=60 active=3 ready=2";
    check_with(
        job,
        "a Succeeded index=0; b Running ready index=1; c Running ready index=2",
        policy.clone(),
        expect![[r#"
            status job pi {"completedIndexes":"0","conditions":[{"reason":"SuccessPolicy","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":2,"uncountedTerminatedPods":{}}
            patch pod a {"metadata":{"finalizers":["a.b/c"]}}
            patch pod b {"metadata":{"finalizers":["a.b/c"]}}
            patch pod c {"metadata":{"finalizers":["a.b/c"]}}
            delete pod b
            delete pod c
            event Normal SuccessfulDelete: Deleted pod: b
            event Normal SuccessfulDelete: Deleted pod: c"#]],
    );
    let job = "completions=3 parallelism=3 indexed started=60 done=0 succeeded=1 terminating=1 \
               said=SuccessCriteriaMet:SuccessPolicy";
    check_with(job, "a Succeeded counted index=0; b Running counted index=1 going", policy.clone(), expect![]);
    check_with(
        &job.replace("terminating=1", ""),
        "a Succeeded counted index=0",
        policy,
        expect![[r#"
        status job pi {"completedIndexes":"0","completionTime":"1970-01-12T13:46:40Z","conditions":[{"reason":"SuccessPolicy","status":"True","type":"SuccessCriteriaMet"},{"reason":"SuccessPolicy","status":"True","type":"Complete"}],"ready":0,"startTime":"1970-01-12T13:45:40Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
        event Normal Completed: Job completed"#]],
    );
}
