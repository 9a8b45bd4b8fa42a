//! Tables of cases for the kinds that make pods.

use serde_json::{Value, json};

use super::{errors, examples::yaml, rules::check, rules::with_defaults, update_errors};

const POD: &str = "spec: {containers: [{name: c, image: 'file:///c.wasm'}]}";

fn object(version: &str, kind: &str, spec: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": yaml(spec)})
}

fn template(rest: &str) -> String {
    format!("selector: {{matchLabels: {{app: a}}}}, template: {{metadata: {{labels: {{app: a}}}}, {POD}}}{rest}")
}

#[test]
fn replication_controllers() {
    let rc = |spec: &str| object("v1", "ReplicationController", spec);
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
    let set = |rest: &str| object("apps/v1", "StatefulSet", &format!("{{{}}}", template(rest)));
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
    let set = |rest: &str| object("apps/v1", "DaemonSet", &format!("{{{}}}", template(rest)));
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
    let job = |rest: &str| object("batch/v1", "Job", &format!("{{{pods}{rest}}}"));
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
        (", backoffLimitPerIndex: 1", &["spec.backoffLimitPerIndex: Invalid value: 1: may not be specified when"]),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&job(rest)), wanted);
    }
    let restarts = object("batch/v1", "Job", "{template: {spec: {containers: [{name: c, image: 'file:///c.wasm'}]}}}");
    check("restart", &errors(&restarts), &["spec.template.spec.restartPolicy: Required value: valid values"]);
    let filled = with_defaults(&job(""));
    let spec = &filled["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!(spec["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    assert_eq!(spec["template"]["metadata"]["labels"]["job-name"], "a");
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
fn cron_jobs() {
    let pods = "jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}}}";
    let cron = |rest: &str| object("batch/v1", "CronJob", &format!("{{{pods}{rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        (", schedule: '0 * * * *', timeZone: Europe/Berlin", &[]),
        (", schedule: ''", &["spec.schedule: Required value"]),
        (
            ", schedule: '61 * * * *'",
            &["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59)"],
        ),
        (", schedule: 'TZ=UTC 0 * * * *'", &["spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ"]),
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
    let hpa = |rest: &str| object("autoscaling/v2", "HorizontalPodAutoscaler", &format!("{{{target}, {rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("maxReplicas: 3", &[]),
        (
            "maxReplicas: 0",
            &["spec.maxReplicas: Invalid value: 0: must be greater than 0", "spec.maxReplicas: Invalid value: 0"],
        ),
        (
            "maxReplicas: 3, metrics: [{type: Pods}]",
            &["spec.metrics[0].pods: Required value: must populate information for the given metric source: Pods"],
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
    let old = object("autoscaling/v1", "HorizontalPodAutoscaler", &format!("{{{target}, maxReplicas: 0}}"));
    assert!(errors(&old)[0].starts_with("spec.maxReplicas: Invalid value: 0"));
}
