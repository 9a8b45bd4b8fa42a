//! What the policies of a Job say of its failed pods and of its successes.
//!
//! # Source
//! Kubernetes `pkg/controller/job/pod_failure_policy.go`, `success_policy.go`.

use k8s_openapi::api::{
    batch::v1::{
        PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
        PodFailurePolicyRule, SuccessPolicy,
    },
    core::v1::{ContainerStatus, Pod, PodCondition},
};

use super::indexes::Indexes;

/// What a failed pod means for its Job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why the Job fails because of it.
    pub(super) fails_job: Option<String>,
    /// Whether it counts as a failure.
    pub(super) counts: bool,
    /// Whether its index fails at once.
    pub(super) fails_index: bool,
}

/// Judges a failed pod. The first rule that matches decides; without one it counts.
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.iter().flat_map(|p| &p.rules).enumerate();
    let matched = rules.filter_map(|(i, rule)| Some((i, rule, why(rule, pod)?)));
    for (i, rule, why) in matched {
        let verdict = |counts, fails_index| Verdict { fails_job: None, counts, fails_index };
        let action = rule.action.as_str();
        return match action {
            "Ignore" => verdict(false, false),
            "Count" => verdict(true, false),
            "FailIndex" => verdict(true, true),
            "FailJob" => {
                let fails_job = Some(format!("{why} matching {action} rule at index {i}"));
                Verdict { fails_job, ..verdict(true, false) }
            }
            _ => continue,
        };
    }
    Verdict { fails_job: None, counts: true, fails_index: false }
}

/// By what a rule matches a pod.
fn why(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let meta = &pod.metadata;
    let name =
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    if let Some(codes) = &rule.on_exit_codes {
        let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (container, code) = containers.filter_map(|c| Some((c, exit_code(c, codes)?))).next()?;
        return Some(format!("Container {} for pod {name} failed with exit code {code}", container.name));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let matches = |c: &&PodCondition| patterns.iter().any(|pattern| is_like(c, pattern));
    let condition = status.conditions.iter().flatten().find(matches)?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

/// The exit code of a container when it is one of those asked for.
fn exit_code(container: &ContainerStatus, codes: &PodFailurePolicyOnExitCodesRequirement) -> Option<i32> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let is_meant = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let matches = match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    };
    (is_meant && code != 0 && matches).then_some(code)
}

fn is_like(condition: &PodCondition, pattern: &PodFailurePolicyOnPodConditionsPattern) -> bool {
    condition.type_ == pattern.type_ && condition.status == pattern.status.as_deref().unwrap_or("True")
}

/// By which rule enough indexes have succeeded.
pub(super) fn succeeds(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    let rules = policy?.rules.iter().enumerate().filter(|_| succeeded.total() > 0);
    for (i, rule) in rules {
        let enough = |count: i32| rule.succeeded_count.is_some_and(|wanted| count >= wanted);
        let met = match &rule.succeeded_indexes {
            Some(list) => {
                let wanted = Indexes::parse(list, completions);
                let shared = wanted.shared(succeeded);
                wanted.total() > 0 && (shared == wanted.total() || enough(shared))
            }
            None => enough(succeeded.total()),
        };
        if met {
            return Some(format!("Matched rules at index {i}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn verdict(rules: Value, status: Value) -> Verdict {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
        let pod = json!({"metadata": {"namespace": "d", "name": "a"}, "status": status});
        judge(Some(&policy), &serde_json::from_value(pod).unwrap())
    }

    fn exited(code: i32) -> Value {
        json!({"containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code}}},
        ]})
    }

    #[test]
    fn exit_codes() {
        let on = |action: &str, operator: &str| json!([{"action": action, "onExitCodes": {"operator": operator, "values": [42]}}]);
        let counts = Verdict { fails_job: None, counts: true, fails_index: false };
        assert_eq!(verdict(on("Ignore", "In"), exited(42)), Verdict { counts: false, ..verdict(json!([]), json!({})) });
        assert_eq!(verdict(on("Ignore", "In"), exited(43)), counts);
        assert_eq!(verdict(on("Ignore", "NotIn"), exited(42)), counts);
        assert_eq!(verdict(on("Ignore", "NotIn"), exited(0)), counts);
        assert_eq!(verdict(on("Count", "In"), exited(42)), counts);
        assert!(verdict(on("FailIndex", "In"), exited(42)).fails_index);
        assert_eq!(
            verdict(on("FailJob", "In"), exited(42)).fails_job.as_deref(),
            Some("Container c for pod d/a failed with exit code 42 matching FailJob rule at index 0")
        );
        let other = json!([
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42], "containerName": "other"}},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]);
        assert_eq!(
            verdict(other, exited(42)).fails_job.as_deref(),
            Some("Container c for pod d/a failed with exit code 42 matching FailJob rule at index 1")
        );
    }

    #[test]
    fn conditions() {
        let rule = |action: &str| json!([{"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
        let disrupted = |status: &str| json!({"conditions": [{"type": "DisruptionTarget", "status": status}]});
        assert!(!verdict(rule("Ignore"), disrupted("True")).counts);
        assert!(verdict(rule("Ignore"), disrupted("False")).counts);
        assert_eq!(
            verdict(rule("FailJob"), disrupted("True")).fails_job.as_deref(),
            Some("Pod d/a has condition DisruptionTarget matching FailJob rule at index 0")
        );
    }

    #[test]
    fn successes() {
        for (rule, succeeded, met) in [
            (json!({"succeededCount": 2}), "0", false),
            (json!({"succeededCount": 2}), "0,5", true),
            (json!({"succeededIndexes": "1-3"}), "0-2", false),
            (json!({"succeededIndexes": "1-3"}), "0-3", true),
            (json!({"succeededIndexes": "1-3", "succeededCount": 2}), "0-1", false),
            (json!({"succeededIndexes": "1-3", "succeededCount": 2}), "2-4", true),
            (json!({"succeededIndexes": "x"}), "2-4", false),
        ] {
            let policy = serde_json::from_value(json!({"rules": [{"succeededCount": 100}, rule]})).unwrap();
            let got = succeeds(Some(&policy), 10, &Indexes::parse(succeeded, 10));
            assert_eq!(got.as_deref(), met.then_some("Matched rules at index 1"), "{rule} {succeeded}");
        }
        assert_eq!(succeeds(None, 10, &Indexes::parse("0-9", 10)), None);
    }
}
