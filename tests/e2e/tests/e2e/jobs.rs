//! The Jobs of Kubernetes' own conformance tests, with the images and the commands that these name.
//!
//! # Source
//! Kubernetes `test/e2e/apps/job.go`, `test/e2e/framework/job/fixtures.go`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{guests::Cluster, trial};

/// How long they may take together. Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("the jobs of conformance tests end as they should", ends)]
}

const SUCCEED: &str = "exit 0";
const FAIL: &str = "exit 1";
const FAIL_ONCE: &str = "if [[ -r /data/foo ]]\nthen\nexit 0\nelse\ntouch /data/foo\nexit 1\nfi";
const FAIL_ODD: &str = "if [ $(expr ${JOB_COMPLETION_INDEX} % 2) -ne 0 ]; then\nexit 1\nelse\nexit 0\nfi";
/// The first index never ends.
const FIRST_STAYS: &str = "if [[ -r /data/foo ]]\nthen\nexit 0\nelif [[ $JOB_COMPLETION_INDEX -eq 0 ]]\nthen\n\
                           touch /data/foo\nsleep 1000000\nelse\nexit 0\nfi";

/// A Job, and how it ends: the type and the reason of its last condition, and a part of its status.
struct Case {
    name: &'static str,
    script: &'static str,
    restart: &'static str,
    spec: Value,
    ends: (&'static str, Option<&'static str>),
    status: Value,
}

/// Four indexes, two at a time, and more.
fn indexed(more: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimit": 6});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    spec
}

/// What becomes of an exit code of 1.
fn on_one(action: &str) -> Value {
    json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [1]}}]})
}

fn cases() -> Vec<Case> {
    let case = |name, script, spec, ends, status| Case { name, script, restart: "Never", spec, ends, status };
    vec![
        case(
            "indexed",
            SUCCEED,
            indexed(json!({})),
            ("Complete", None),
            json!({"completedIndexes": "0-3", "succeeded": 4}),
        ),
        Case {
            restart: "OnFailure",
            ..case(
                "fail-once-local",
                FAIL_ONCE,
                json!({"completions": 4, "parallelism": 2, "backoffLimit": 6}),
                ("Complete", None),
                json!({"succeeded": 4}),
            )
        },
        case(
            "fail-by-exit-code",
            FAIL,
            json!({"completions": 4, "parallelism": 1, "backoffLimit": 6, "podFailurePolicy": on_one("FailJob")}),
            ("Failed", Some("PodFailurePolicy")),
            json!({"failed": 1}),
        ),
        case(
            "fail-odd",
            FAIL_ODD,
            indexed(json!({"backoffLimitPerIndex": 0})),
            ("Failed", Some("FailedIndexes")),
            json!({"completedIndexes": "0,2", "failedIndexes": "1,3", "succeeded": 2, "failed": 2}),
        ),
        case(
            "too-many-failed",
            FAIL,
            indexed(json!({"parallelism": 1, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0})),
            ("Failed", Some("MaxFailedIndexesExceeded")),
            json!({"failedIndexes": "0"}),
        ),
        case(
            "fail-index",
            FAIL_ODD,
            indexed(json!({"backoffLimitPerIndex": 1, "podFailurePolicy": on_one("FailIndex")})),
            ("Failed", Some("FailedIndexes")),
            json!({"completedIndexes": "0,2", "failedIndexes": "1,3", "failed": 2}),
        ),
        case(
            "some-indexes",
            FIRST_STAYS,
            indexed(json!({"parallelism": 4, "successPolicy": {"rules": [{"succeededIndexes": "1,2"}]}})),
            ("Complete", Some("SuccessPolicy")),
            json!({}),
        ),
        case(
            "some-count",
            FIRST_STAYS,
            indexed(json!({"parallelism": 4, "successPolicy": {"rules": [{"succeededCount": 2}]}})),
            ("Complete", Some("SuccessPolicy")),
            json!({}),
        ),
    ]
}

impl Case {
    fn manifest(&self) -> Value {
        let container = json!({
            "name": "c", "image": "registry.k8s.io/e2e-test-images/busybox:1.36.1-1", "command": ["/bin/sh", "-c"],
            "args": [self.script], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        });
        let mut spec = self.spec.clone();
        spec["template"] = json!({
            "spec": {
                "restartPolicy": self.restart, "terminationGracePeriodSeconds": 1, "containers": [container],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
        });
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": self.name}, "spec": spec})
    }

    fn check(&self, cluster: &Cluster, deadline: Instant) -> Result<()> {
        let (kind, reason) = self.ends;
        loop {
            let status = cluster.get("job", self.name)?["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let ended = conditions.iter().find(|c| ["Complete", "Failed"].iter().any(|end| c["type"] == *end));
            if let Some(ended) = ended {
                ensure!(ended["type"] == kind, "{} ended otherwise: {status}", self.name);
                ensure!(reason.is_none_or(|reason| ended["reason"] == reason), "{}: {status}", self.name);
                for (field, wanted) in self.status.as_object().into_iter().flatten() {
                    ensure!(status[field] == *wanted, "{}: {field} is not {wanted}: {status}", self.name);
                }
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} does not end: {status}", self.name);
            }
        }
    }
}

fn ends() -> Result<()> {
    let cluster = Cluster::start(&["--test-images"])?;
    let cases = cases();
    let manifests: Vec<String> = cases.iter().map(|case| case.manifest().to_string()).collect();
    cluster.apply(&manifests.join("\n---\n"))?;
    let deadline = Instant::now() + PATIENCE;
    for case in &cases {
        case.check(&cluster, deadline)?;
    }
    cluster.up.stop().map(drop)
}
