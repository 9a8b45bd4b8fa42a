//! Tables of cases for the kinds that make pods.

use serde_json::{Value, json};

use super::{errors, examples::yaml, object, rules::check, rules::with_defaults, update_errors};

const POD: &str = "spec: {containers: [{name: c, image: 'file:///c.wasm'}]}";

fn set(version: &str, kind: &str, spec: &str) -> Value {
    let mut set = object(version, kind, &format!("{{spec: {spec}}}"));
    set["metadata"]["uid"] = "u".into();
    set
}

fn template(rest: &str) -> String {
    format!("selector: {{matchLabels: {{app: a}}}}, template: {{metadata: {{labels: {{app: a}}}}, {POD}}}{rest}")
}

#[test]
fn replication_controllers() {
    let rc = |spec: &str| set("v1", "ReplicationController", spec);
    let full = rc(&format!("{{template: {{metadata: {{labels: {{app: a}}}}, {POD}}}}}"));
    assert_eq!(errors(&full), [] as [&str; 0]);
    let filled = with_defaults(&full);
    assert_eq!(
        (&filled["spec"]["selector"], &filled["metadata"]["labels"]),
        (&json!({"app": "a"}), &json!({"app": "a"}))
    );
    assert_eq!(filled["spec"]["replicas"], 1);
    let got = errors(&rc("{selector: {app: a}}"));
    check("no template", &got, &["spec.template: Required value"]);
}

#[test]
fn stateful_sets() {
    let set = |rest: &str| set("apps/v1", "StatefulSet", &format!("{{{}}}", template(rest)));
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        (
            ", podManagementPolicy: Sometimes",
            &["spec.podManagementPolicy: Invalid value: \"Sometimes\": must be 'OrderedReady' or 'Parallel'"],
        ),
        (
            ", updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: -1}}",
            &["spec.updateStrategy.rollingUpdate.partition: Invalid value: -1"],
        ),
        (
            ", volumeClaimTemplates: [{metadata: {name: v}, spec: {}}]",
            &[
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value",
                "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&set(rest)), wanted);
    }
    let filled = with_defaults(&set(""));
    assert_eq!(filled["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(filled["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    assert!(update_errors(&set(", replicas: 1"), &set(", replicas: 2")).is_empty());
    let changed = update_errors(&set(", serviceName: a"), &set(", serviceName: b"));
    assert!(
        changed[0].starts_with("spec: Forbidden: updates to statefulset spec for fields other than"),
        "{changed:?}"
    );
}

#[test]
fn daemon_sets() {
    let set = |rest: &str| set("apps/v1", "DaemonSet", &format!("{{{}}}", template(rest)));
    let rolling = |amounts: &str| format!(", updateStrategy: {{type: RollingUpdate, rollingUpdate: {{{amounts}}}}}");
    assert_eq!(errors(&set("")), [] as [&str; 0]);
    let both = errors(&set(&rolling("maxSurge: 1, maxUnavailable: 1")));
    check("both", &both, &["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when"]);
    let none = errors(&set(&rolling("maxSurge: 0, maxUnavailable: 0")));
    check("none", &none, &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0"]);
    let filled = with_defaults(&set(""));
    assert_eq!(filled["spec"]["updateStrategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
}

#[test]
fn jobs() {
    let pods = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}";
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{{pods}{rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        (
            ", completions: -1, parallelism: -1",
            &["spec.parallelism: Invalid value: -1", "spec.completions: Invalid value: -1"],
        ),
        (
            ", completionMode: Indexed, parallelism: 2",
            &["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            ", backoffLimitPerIndex: 1",
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            ", completionMode: Sometimes, managedBy: me, podReplacementPolicy: Now",
            &[
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                "spec.completionMode: Unsupported value: \"Sometimes\": supported values: \"NonIndexed\", \"Indexed\"",
                "spec.podReplacementPolicy: Unsupported value: \"Now\": supported values: \"Failed\", \
                 \"TerminatingOrFailed\"",
            ],
        ),
        (", completionMode: Indexed, completions: 5, backoffLimitPerIndex: 1, maxFailedIndexes: 5", &[]),
        (
            ", completionMode: Indexed, completions: 5, maxFailedIndexes: 6",
            &[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
            ],
        ),
        (
            ", completionMode: Indexed, completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1",
            &[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above \
                 100000 and used with backoff limit per index",
            ],
        ),
        (
            ", selector: {matchLabels: {app: a}}",
            &[
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"batch.kubernetes.io/controller-uid\":\
                 \"u\"}}: `selector` not auto-generated",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&job(rest)), wanted);
    }
    let restarts = set("batch/v1", "Job", "{template: {spec: {containers: [{name: c, image: 'file:///c.wasm'}]}}}");
    check("restart", &errors(&restarts), &["spec.template.spec.restartPolicy: Required value: valid values"]);
    let filled = with_defaults(&job(""));
    let spec = &filled["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!(spec["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    assert_eq!(spec["template"]["metadata"]["labels"]["job-name"], "a");
}

#[test]
fn job_updates() {
    let pods = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}";
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{{pods}{rest}}}"));
    let own = |rest: &str| {
        let mut own = job(&format!(", manualSelector: true, selector: {{matchLabels: {{app: a}}}}{rest}"));
        own["spec"]["template"]["metadata"] = json!({"labels": {"app": "a"}});
        own
    };
    let indexed = |rest: &str| own(&format!(", completionMode: Indexed{rest}"));
    let small = indexed(", completions: 2, parallelism: 2");
    assert_eq!(update_errors(&small, &indexed(", completions: 3, parallelism: 3")), [] as [&str; 0]);
    let torn = update_errors(&small, &indexed(", completions: 3, parallelism: 2"));
    check("torn", &torn, &["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]);
    // Before it is started, where a Job's pods run may still be said.
    let suspended = |affinity: Value| {
        let mut suspended = own(", suspend: true, completions: 1");
        suspended["spec"]["template"]["spec"]["affinity"] = affinity;
        suspended
    };
    let nodes = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}}});
    assert_eq!(update_errors(&suspended(Value::Null), &suspended(nodes.clone())), [] as [&str; 0]);
    assert_eq!(update_errors(&suspended(nodes.clone()), &suspended(json!({}))), [] as [&str; 0]);
    let mut started = own(", completions: 1");
    started["spec"]["template"]["spec"]["affinity"] = nodes;
    assert!(update_errors(&own(", completions: 1"), &started)[0].starts_with("spec.template: Invalid value"));
    let changed = update_errors(&own(", completions: 1"), &own(", completions: 2"));
    assert!(changed.iter().any(|e| e.starts_with("spec.completions: Invalid value")), "{changed:?}");
    assert_eq!(
        update_errors(&own(", completions: 2, parallelism: 1"), &own(", completions: 2, parallelism: 2")),
        [] as [&str; 0]
    );
}

#[test]
fn policies_of_jobs() {
    let pods = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}";
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{{pods}{rest}}}"));
    let failure = |rule: &str| job(&format!(", podFailurePolicy: {{rules: [{rule}]}}"));
    let rule = "spec.podFailurePolicy.rules[0]";
    let cases: &[(&str, &[&str])] = &[
        ("{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}", &[]),
        ("{action: FailJob, onExitCodes: {containerName: c, operator: In, values: [1, 42]}}", &[]),
        (
            "{action: FailIndex, onExitCodes: {operator: In, values: [3, 1, 1, 0], containerName: d}}",
            &[
                "R.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "R.onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in \
                 the pod template",
                "R.onExitCodes.values[2]: Duplicate value: 1",
                "R.onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator",
                "R.onExitCodes.values: Invalid value: [3,1,1,0]: must be ordered",
            ],
        ),
        (
            "{action: '', onExitCodes: {operator: '', values: []}, onPodConditions: [{type: a b, status: Maybe}]}",
            &[
                "R.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
                "R.onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]",
                "R.onExitCodes.values: Invalid value: []: at least one value is required",
                "R.onPodConditions[0].type: Invalid value: \"a b\": name part",
                "R.onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \
                 \"Unknown\"",
                "R: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
            ],
        ),
        (
            "{action: Restart}",
            &[
                "R.action: Unsupported value: \"Restart\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                "R: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        ),
    ];
    for (text, wanted) in cases {
        let wanted: Vec<_> = wanted.iter().map(|w| w.replacen('R', rule, 1)).collect();
        check(text, &errors(&failure(text)), &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let success = |rest: &str| job(&format!(", completionMode: Indexed, completions: 5, successPolicy: {{{rest}}}"));
    let rule = "spec.successPolicy.rules[0]";
    let cases: &[(&str, &[&str])] = &[
        ("rules: [{succeededIndexes: '0,2-4', succeededCount: 2}]", &[]),
        (
            "rules: []",
            &[
                "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is \
               specified",
            ],
        ),
        ("rules: [{}]", &["R: Required value: at least one of succeededCount or succeededIndexes must be specified"]),
        (
            "rules: [{succeededIndexes: '0,5', succeededCount: 6}]",
            &[
                "R.succeededIndexes: Invalid value: \"0,5\": error parsing succeededIndexes: too large index: \"5\"",
                "R.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
                "R.succeededCount: Invalid value: 6: must be less than or equal to 0 (the number of indexes in the specified \
                 succeededIndexes field)",
            ],
        ),
    ];
    for (text, wanted) in cases {
        let wanted: Vec<_> = wanted.iter().map(|w| w.replacen('R', rule, usize::from(w.starts_with('R')))).collect();
        check(text, &errors(&success(text)), &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// What a write of a status from one to another is told.
fn status_errors(manifest: &Value, old: &str, new: &str) -> Vec<String> {
    let (mut before, mut after) = (manifest.clone(), manifest.clone());
    (before["status"], after["status"]) = (yaml(old), yaml(new));
    let ((kind, old), (_, new)) = (super::read(&before), super::read(&after));
    let mut errs = crate::field::FieldErrors::new();
    kind.validate_status_update(new.as_ref(), old.as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_on_its_way_out_is_counted_from_zero() {
    for kind in ["Deployment", "ReplicaSet"] {
        let manifest = set("apps/v1", kind, "{selector: {matchLabels: {a: b}}, template: {}}");
        check(kind, &status_errors(&manifest, "{replicas: 0}", "{replicas: 0, terminatingReplicas: 2}"), &[]);
        let wanted = "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0";
        check(kind, &status_errors(&manifest, "{replicas: 0}", "{replicas: 0, terminatingReplicas: -1}"), &[wanted]);
    }
}

#[test]
fn statuses_of_jobs() {
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{template: {{}}{rest}}}"));
    let condition =
        |kinds: &[&str]| kinds.iter().map(|k| format!("{{type: {k}, status: 'True'}}")).collect::<Vec<_>>().join(", ");
    let times = "startTime: '2026-01-01T00:00:00Z', completionTime: '2026-01-01T00:00:05Z'";
    let done = format!("{{{times}, succeeded: 1, conditions: [{}]}}", condition(&["SuccessCriteriaMet", "Complete"]));
    let only = |kinds: &[&str]| format!("{{startTime: '2026-01-01T00:00:00Z', conditions: [{}]}}", condition(kinds));
    let failed = only(&["FailureTarget", "Failed"]);
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("", "{}", "{active: 1, ready: 1, startTime: '2026-01-01T00:00:00Z'}", &[]),
        ("", "{}", &done, &[]),
        ("", "{active: 1}", &failed, &[]),
        (
            "",
            "{}",
            &only(&["Complete"]),
            &[
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true \
                 condition",
                "status.completionTime: Required value: completionTime is required for Complete jobs",
            ],
        ),
        (
            "",
            "{}",
            &only(&["Failed"]),
            &[
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            ],
        ),
        (
            "",
            &done,
            "{failed: 1, ready: 2}",
            &[
                "status.ready: Invalid value: 2: cannot set more ready pods than active",
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        ),
        (
            "",
            "{}",
            "{completionTime: '2026-01-01T00:00:00Z', startTime: '2026-01-01T00:00:05Z', completedIndexes: '1', failedIndexes: '2'}",
            &[
                "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no \
                 Complete=True condition",
                "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": completionTime cannot be set before startTime",
                "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed \
                 completion mode",
                "status.failedIndexes: Invalid value: \"2\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            ],
        ),
    ];
    for (rest, old, new, wanted) in cases {
        check(new, &status_errors(&job(rest), old, new), wanted);
    }
}

#[test]
fn a_job_starts_anew_when_it_goes_on() {
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{template: {{}}{rest}}}"));
    let ran = |condition: &str, start: &str| {
        format!("{{startTime: {start}, conditions: [{{type: Suspended, status: '{condition}'}}]}}")
    };
    let (first, later) = ("'2026-01-01T00:00:00Z'", "'2026-01-01T00:01:00Z'");
    let refused: &[&str] = &["status.startTime: Required value: startTime cannot be removed for unsuspended job"];
    for (rest, old, new, wanted) in [
        ("", ran("True", first), ran("False", later), &[][..]),
        ("", ran("False", first), ran("False", later), refused),
        ("", ran("True", first), ran("False", "null"), refused),
        (", suspend: true", ran("False", first), ran("True", "null"), &[]),
    ] {
        check(&new, &status_errors(&job(rest), &old, &new), wanted);
    }
}

#[test]
fn counters_of_jobs() {
    let job = |rest: &str| set("batch/v1", "Job", &format!("{{template: {{}}{rest}}}"));
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            ", completionMode: Indexed, completions: 5, backoffLimitPerIndex: 1",
            "{}",
            "{completedIndexes: '0-2', failedIndexes: '2,7'}",
            &[
                "status.failedIndexes: Invalid value: \"2,7\": error parsing failedIndexes: too large index: \"7\"",
                "status.failedIndexes: Invalid value: \"2,7\": failedIndexes and completedIndexes overlap at index: 2",
            ],
        ),
        (
            "",
            "{active: 1}",
            "{active: 1, uncountedTerminatedPods: {succeeded: [a, ''], failed: [a]}}",
            &[
                "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            ],
        ),
    ];
    for (rest, old, new, wanted) in cases {
        check(new, &status_errors(&job(rest), old, new), wanted);
    }
}

#[test]
fn cron_jobs() {
    let pods = "jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}}}";
    let cron = |rest: &str| set("batch/v1", "CronJob", &format!("{{{pods}{rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        (", schedule: '0 * * * *', timeZone: Europe/Berlin", &[]),
        (", schedule: ''", &["spec.schedule: Required value"]),
        (
            ", schedule: '61 * * * *'",
            &["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59)"],
        ),
        (", schedule: 'TZ=UTC 0 * * * *'", &["spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ"]),
        (
            ", schedule: '@daily', timeZone: europe/berlin",
            &["spec.timeZone: Invalid value: \"europe/berlin\": unknown time zone europe/berlin"],
        ),
        (
            ", schedule: '@daily', timeZone: local",
            &[
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
            ],
        ),
        (
            ", schedule: '@daily', timeZone: ''",
            &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty"],
        ),
        (", schedule: '@daily', timeZone: 'a b'", &["spec.timeZone: Invalid value: \"a b\": unknown time zone a b"]),
        (", schedule: '@daily', concurrencyPolicy: Maybe", &["spec.concurrencyPolicy: Unsupported value: \"Maybe\""]),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&cron(rest)), wanted);
    }
    let mut selects = cron(", schedule: '@daily'");
    selects["spec"]["jobTemplate"]["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
    assert!(errors(&selects)[0].ends_with("`selector` will be auto-generated"), "{:?}", errors(&selects));
    let mut long = cron(", schedule: '@daily'");
    long["metadata"]["name"] = json!("a".repeat(53));
    assert!(errors(&long)[0].contains("must be no more than 52 characters"));
}

#[test]
fn autoscalers() {
    let target = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: w}";
    let hpa = |rest: &str| set("autoscaling/v2", "HorizontalPodAutoscaler", &format!("{{{target}, {rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("maxReplicas: 3", &[]),
        (
            "maxReplicas: 0",
            &["spec.maxReplicas: Invalid value: 0: must be greater than 0", "spec.maxReplicas: Invalid value: 0"],
        ),
        (
            "maxReplicas: 3, metrics: [{type: Pods}]",
            &["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
        ),
        (
            "maxReplicas: 3, behavior: {scaleUp: {stabilizationWindowSeconds: 4000, selectPolicy: Some}}",
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Some\"",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&hpa(rest)), wanted);
    }
    let filled = with_defaults(&hpa("maxReplicas: 3"));
    assert_eq!(filled["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let old = set("autoscaling/v1", "HorizontalPodAutoscaler", &format!("{{{target}, maxReplicas: 0}}"));
    assert!(errors(&old)[0].starts_with("spec.maxReplicas: Invalid value: 0"));
}
