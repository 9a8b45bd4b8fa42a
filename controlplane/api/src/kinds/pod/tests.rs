//! Tables of cases for pods: status column, defaults, validation, updates, deletion.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    field::FieldErrors,
    kind::{Column, Kind},
};

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

pub(super) fn pod(spec: &str, status: &str) -> Pod {
    let mut manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}});
    manifest["spec"] = yaml(spec);
    manifest["status"] = yaml(status);
    serde_json::from_value(manifest).unwrap()
}

pub(super) fn messages(errs: &FieldErrors) -> Vec<String> {
    errs.0.iter().map(ToString::to_string).collect()
}

fn cell(pod: &Pod, name: &str) -> String {
    let column: &Column<Pod> = Pod::COLUMNS.iter().find(|c| c.name == name).unwrap();
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    (column.value)(pod, now).as_str().unwrap().to_owned()
}

pub(super) const ONE: &str = "{containers: [{name: c, image: i}]}";
const INIT: &str = "{initContainers: [{name: i1, image: i}, {name: i2, image: i}], containers: [{name: c, image: i}]}";

fn container(rest: &str) -> String {
    format!("{{phase: Running, containerStatuses: [{{name: c, image: i, imageID: i, {rest}}}]}}")
}

fn init(rest: &str) -> String {
    format!("{{phase: Pending, initContainerStatuses: [{{name: i1, image: i, imageID: i, ready: false, {rest}}}]}}")
}

#[test]
fn ready_status_restarts() {
    let cases = [
        (ONE, "{phase: Pending}".to_owned(), "0/1 Pending 0"),
        (ONE, "{phase: Failed, reason: Evicted}".to_owned(), "0/1 Evicted 0"),
        (
            ONE,
            "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]}".to_owned(),
            "0/1 SchedulingGated 0",
        ),
        (
            ONE,
            container("ready: false, restartCount: 0, state: {waiting: {reason: ContainerCreating}}"),
            "0/1 ContainerCreating 0",
        ),
        (ONE, container("ready: true, restartCount: 0, state: {running: {}}"), "1/1 Running 0"),
        (
            ONE,
            container(
                "ready: false, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}, \
                lastState: {terminated: {exitCode: 1, finishedAt: '2026-01-02T02:59:05Z'}}",
            ),
            "0/1 CrashLoopBackOff 3 (5m ago)",
        ),
        (
            ONE,
            container("ready: false, restartCount: 1, state: {terminated: {exitCode: 0, reason: Completed}}"),
            "0/1 Completed 1",
        ),
        (
            ONE,
            container("ready: false, restartCount: 0, state: {terminated: {exitCode: 137, reason: OOMKilled}}"),
            "0/1 OOMKilled 0",
        ),
        (ONE, container("ready: false, restartCount: 0, state: {terminated: {exitCode: 3}}"), "0/1 ExitCode:3 0"),
        (
            ONE,
            container("ready: false, restartCount: 0, state: {terminated: {exitCode: 3, signal: 9}}"),
            "0/1 Signal:9 0",
        ),
        (INIT, init("restartCount: 0, state: {waiting: {reason: PodInitializing}}"), "0/1 Init:0/2 0"),
        (INIT, init("restartCount: 0, state: {running: {}}"), "0/1 Init:0/2 0"),
        (INIT, init("restartCount: 2, state: {waiting: {reason: CrashLoopBackOff}}"), "0/1 Init:CrashLoopBackOff 2"),
        (INIT, init("restartCount: 0, state: {terminated: {exitCode: 1, reason: Error}}"), "0/1 Init:Error 0"),
        (INIT, init("restartCount: 0, state: {terminated: {exitCode: 1}}"), "0/1 Init:ExitCode:1 0"),
        (INIT, init("restartCount: 0, state: {terminated: {exitCode: 1, signal: 9}}"), "0/1 Init:Signal:9 0"),
    ];
    for (spec, status, wanted) in cases {
        let pod = pod(spec, &status);
        let got = format!("{} {} {}", cell(&pod, "Ready"), cell(&pod, "Status"), cell(&pod, "Restarts"));
        assert_eq!(got, wanted, "{spec} {status}");
    }
}

#[test]
fn status_of_pods_that_are_deleted() {
    let deleted = "2026-01-02T03:00:00Z";
    for (status, wanted) in [
        ("{phase: Running}", "Terminating"),
        ("{phase: Running, reason: NodeLost}", "Unknown"),
        ("{phase: Succeeded}", "Succeeded"),
    ] {
        let mut pod = pod(ONE, status);
        pod.metadata.deletion_timestamp = serde_json::from_value(json!(deleted)).unwrap();
        assert_eq!(cell(&pod, "Status"), wanted, "{status}");
    }
}

#[test]
fn some_completed_some_running() {
    let spec = "{containers: [{name: a, image: i}, {name: b, image: i}]}";
    let status = |ready: &str| {
        format!(
            "{{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}], containerStatuses: [
              {{name: a, image: i, imageID: i, ready: false, restartCount: 0, state: {{terminated: {{exitCode: 0, reason: Completed}}}}}},
              {{name: b, image: i, imageID: i, ready: true, restartCount: 0, state: {{running: {{}}}}}}]}}"
        )
    };
    assert_eq!(cell(&pod(spec, &status("True")), "Status"), "Running");
    assert_eq!(cell(&pod(spec, &status("False")), "Status"), "NotReady");
}

#[test]
fn pull_policies() {
    let cases = [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("registry:5000/a", "Always"),
        ("registry:5000/a:1", "IfNotPresent"),
        ("a@sha256:aa", "IfNotPresent"),
        ("a:latest@sha256:aa", "Always"),
        ("file:///a/b.wasm", "IfNotPresent"),
        ("", "IfNotPresent"),
    ];
    for (image, wanted) in cases {
        assert_eq!(super::defaults::pull_policy(image), wanted, "{image:?}");
    }
}

#[test]
fn defaults() {
    let mut pod = pod(
        "{containers: [{name: c, image: 'i:1', ports: [{containerPort: 80}], resources: {limits: {cpu: 1.5, memory: 1024Ki}},
           livenessProbe: {httpGet: {port: 80}}, env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}],
          volumes: [{name: v}, {name: m, configMap: {name: m}}]}",
        "{phase: Running}",
    );
    pod.fill_defaults();
    pod.prepare_create();
    let got = serde_json::to_value(&pod).unwrap();
    let container = json!({
        "name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "resources": {"limits": {"cpu": "1500m", "memory": "1Mi"}, "requests": {"cpu": "1500m", "memory": "1Mi"}},
        "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3},
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
    });
    let wanted = json!({
        "containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m", "defaultMode": 420}}],
    });
    assert_eq!(got["spec"], wanted);
    assert_eq!(got["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
}

#[test]
fn qos_classes() {
    let cases = [
        ("{}", "BestEffort"),
        ("{limits: {cpu: 1, memory: 1Gi}}", "Guaranteed"),
        ("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}", "Burstable"),
        ("{limits: {cpu: 1}}", "Burstable"),
        ("{requests: {memory: 1Gi}}", "Burstable"),
        ("{requests: {memory: 0}}", "BestEffort"),
    ];
    for (resources, wanted) in cases {
        let mut pod = pod(&format!("{{containers: [{{name: c, image: i, resources: {resources}}}]}}"), "{}");
        pod.fill_defaults();
        pod.prepare_create();
        assert_eq!(pod.status.unwrap().qos_class.as_deref(), Some(wanted), "{resources}");
    }
}

/// Errors of a pod with this spec.
pub(super) fn check(spec: &str, wanted: &[&str]) {
    let mut pod = pod(spec, "{}");
    pod.fill_defaults();
    pod.prepare_create();
    let mut errs = FieldErrors::new();
    pod.validate(&mut errs);
    let got = messages(&errs);
    let right = got.len() == wanted.len() && got.iter().zip(wanted).all(|(g, w)| g.starts_with(w));
    assert!(right, "{spec}\n got {got:#?}\nwant {wanted:#?}");
}

#[test]
fn validation_of_pods() {
    let cases: &[(&str, &[&str])] = &[
        (ONE, &[]),
        ("{}", &["spec.containers: Required value"]),
        ("{containers: [{}]}", &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]),
        (
            "{containers: [{name: c, image: i}, {name: c, image: ' i'}]}",
            &[
                "spec.containers[1].name: Duplicate value: \"c\"",
                "spec.containers[1].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            ],
        ),
        (
            "{restartPolicy: Sometimes, dnsPolicy: Odd, containers: [{name: C, image: i, imagePullPolicy: Odd}]}",
            &[
                "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of",
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Odd\": supported values: \"Always\", \"IfNotPresent\"",
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsPolicy: Unsupported value: \"Odd\"",
            ],
        ),
        (
            "{containers: [{name: c, image: i}], tolerations: [{value: a}], nodeSelector: {a: 'b c'}, activeDeadlineSeconds: 0}",
            &[
                "spec.nodeSelector: Invalid value: \"b c\": a valid label must be",
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty",
            ],
        ),
        (
            "{containers: [{name: c, image: i}], initContainers: [{name: i, image: i, readinessProbe: {exec: {command: [a]}}}]}",
            &["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"],
        ),
        (
            "{containers: [{name: c, image: i, volumeMounts: [{name: w, mountPath: /a}, {name: v, mountPath: /a, subPath: ../b}]}],
              volumes: [{name: v}, {name: v, secret: {}}, {name: x, emptyDir: {}, hostPath: {path: /a}}]}",
            &[
                "spec.volumes[1].secret.secretName: Required value",
                "spec.volumes[1].name: Duplicate value: \"v\"",
                "spec.volumes[2].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                "spec.containers[0].volumeMounts.subPath: Invalid value: \"../b\": must not contain '..'",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, wanted);
    }
}

#[test]
fn validation_of_containers() {
    let cases: &[(&str, &[&str])] = &[
        (
            "ports: [{containerPort: 80, name: a}, {containerPort: 0, name: a}, {containerPort: 70000, protocol: X, name: '9'}]",
            &[
                "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
                "spec.containers[0].ports[1].containerPort: Required value",
                "spec.containers[0].ports[2].name: Invalid value: \"9\": must contain at least one letter (a-z)",
                "spec.containers[0].ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        ),
        (
            "env: [{name: 'a=b'}, {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.odd}}}, {name: B, valueFrom: {}}]",
            &[
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.odd\": error converting fieldPath: \
                 field label not supported: spec.odd",
                "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`,",
            ],
        ),
        (
            "envFrom: [{}, {configMapRef: {name: ''}}]",
            &[
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                "spec.containers[0].envFrom[1].configMapRef.name: Required value",
            ],
        ),
        (
            "resources: {limits: {cpu: 1, memory: x, odd: 1}, requests: {cpu: 2}}",
            &[
                "spec.containers[0].resources.limits[memory]: Invalid value: \"x\": quantities must match the regular expression",
                "spec.containers[0].resources.limits[odd]: Invalid value: \"odd\": must be a standard resource type or fully qualified",
                "spec.containers[0].resources.limits[odd]: Invalid value: \"odd\": must be a standard resource for containers",
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.containers[0].resources.requests[memory]: Invalid value: \"x\": quantities must match",
                "spec.containers[0].resources.requests[odd]: Invalid value: \"odd\": must be a standard resource type",
                "spec.containers[0].resources.requests[odd]: Invalid value: \"odd\": must be a standard resource for",
            ],
        ),
        (
            "livenessProbe: {successThreshold: 2, httpGet: {port: 0}}, readinessProbe: {periodSeconds: -1}, \
             startupProbe: {exec: {}, tcpSocket: {port: a}}",
            &[
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                "spec.containers[0].readinessProbe: Required value: must specify a handler type",
                "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].startupProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].startupProbe.exec.command: Required value",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(&format!("{{containers: [{{name: c, image: i, {rest}}}]}}"), wanted);
    }
}

#[test]
fn updates() {
    let cases: &[(&str, &str, &[&str])] = &[
        (ONE, "{containers: [{name: c, image: other}]}", &[]),
        (ONE, "{containers: [{name: c, image: i}], tolerations: [{key: a, operator: Exists}]}", &[]),
        (ONE, "{containers: [{name: c, image: i}], activeDeadlineSeconds: 5}", &[]),
        (
            "{containers: [{name: c, image: i}], activeDeadlineSeconds: 5}",
            "{containers: [{name: c, image: i}], activeDeadlineSeconds: 6}",
            &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
        ),
        (
            "{containers: [{name: c, image: i}], tolerations: [{key: a, operator: Exists}]}",
            ONE,
            &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        ),
        (
            ONE,
            "{containers: [{name: c, image: i}], nodeName: n1}",
            &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
               `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
               tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  \
               spec.nodeName: null -> \"n1\""],
        ),
        (
            ONE,
            "{containers: [{name: c, image: i}, {name: d, image: i}]}",
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            "{containers: [{name: c, image: i}], schedulingGates: [{name: a}, {name: b}]}",
            "{containers: [{name: c, image: i}], schedulingGates: [{name: a}], nodeSelector: {a: b}}",
            &[],
        ),
    ];
    for (old, new, wanted) in cases {
        let (mut old, mut new) = (pod(old, "{}"), pod(new, "{}"));
        old.fill_defaults();
        old.prepare_create();
        new.fill_defaults();
        new.prepare_update(&old);
        let mut errs = FieldErrors::new();
        new.validate_update(&old, &mut errs);
        assert_eq!(messages(&errs), *wanted);
        assert_eq!(new.status, old.status);
    }
}

#[test]
fn what_ended_for_good_does_not_run_again() {
    let ended = container("ready: false, restartCount: 0, state: {terminated: {exitCode: 0}}");
    let running = container("ready: false, restartCount: 0, state: {running: {}}");
    for (policy, refused) in [("Always", false), ("OnFailure", true), ("Never", true)] {
        let spec = format!("{{restartPolicy: {policy}, containers: [{{name: c, image: i}}]}}");
        let mut errs = FieldErrors::new();
        pod(&spec, &running).validate_status_update(&pod(&spec, &ended), &mut errs);
        assert_eq!(!errs.is_empty(), refused, "{policy}: {errs:?}");
    }
}

#[test]
fn grace() {
    let bound = "{nodeName: n1, terminationGracePeriodSeconds: 30, containers: []}";
    let cases = [
        ("{terminationGracePeriodSeconds: 30, containers: []}", "{phase: Pending}", None, None),
        (bound, "{phase: Running}", None, Some(30)),
        (bound, "{phase: Running}", Some(5), Some(5)),
        (bound, "{phase: Running}", Some(0), None),
        (bound, "{phase: Running}", Some(-1), Some(1)),
        (bound, "{phase: Succeeded}", Some(5), None),
        (bound, "{phase: Failed}", None, None),
    ];
    for (spec, status, requested, wanted) in cases {
        assert_eq!(pod(spec, status).grace_seconds(requested), wanted, "{spec} {status} {requested:?}");
    }
}
