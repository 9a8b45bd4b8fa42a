//! What follows when a container has ended: pods' and containers' restart policies, and rules by exit code.
//!
//! # Source
//! Kubernetes `pkg/api/v1/pod/util.go` (`ContainerShouldRestart`) and `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.

use k8s_openapi::api::core::v1::{Container as Spec, ContainerRestartRule, PodSpec};

use super::local::{Ended, Slot};

/// `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// A pod's.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        spec.restart_policy.as_deref().and_then(Self::parse).unwrap_or(Self::Always)
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }

    fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterEnd {
    /// It stays ended.
    Stays,
    /// It is started again.
    Again,
    /// All containers of the pod are started again, init containers first.
    AllAgain,
}

/// Whether an init container goes on beside the others.
pub(crate) fn is_sidecar(spec: &Spec) -> bool {
    spec.restart_policy.as_deref() == Some("Always")
}

/// Decides. An init container that has succeeded is never run again, nor is an ephemeral one.
pub(crate) fn after_end(pod: &PodSpec, slot: Slot, spec: &Spec, exit_code: i32) -> AfterEnd {
    let finite_init = matches!(slot, Slot::Init(_)) && !is_sidecar(spec);
    if slot.is_ephemeral() || finite_init && exit_code == 0 {
        return AfterEnd::Stays;
    }
    let own = spec.restart_policy.as_deref().and_then(RestartPolicy::parse);
    let rule = spec.restart_policy_rules.iter().flatten().find(|rule| matches(rule, exit_code));
    match rule.filter(|_| own.is_some()).map(|rule| rule.action.as_str()) {
        Some("Restart") => return AfterEnd::Again,
        Some("RestartAllContainers") => return AfterEnd::AllAgain,
        _ => {}
    }
    let policy = match (own, RestartPolicy::of(pod)) {
        (Some(own), _) => own,
        // Nothing but success ends an init container's tries.
        (None, RestartPolicy::Always) if finite_init => RestartPolicy::OnFailure,
        (None, policy) => policy,
    };
    if policy.restarts(exit_code) { AfterEnd::Again } else { AfterEnd::Stays }
}

/// Whether a container that ended so is started again.
pub(crate) fn restarts(pod: &PodSpec, slot: Slot, spec: &Spec, ended: &Ended) -> bool {
    after_end(pod, slot, spec, ended.exit_code) != AfterEnd::Stays
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(policy: &str, slot: Slot, container: Value, codes: &[i32]) -> String {
        let pod = PodSpec { restart_policy: Some(policy.to_owned()), ..PodSpec::default() };
        let mut container = container;
        container["name"] = "c".into();
        let spec: Spec = serde_json::from_value(container).unwrap();
        let one = |code: &i32| match after_end(&pod, slot, &spec, *code) {
            AfterEnd::Stays => '-',
            AfterEnd::Again => '1',
            AfterEnd::AllAgain => '*',
        };
        codes.iter().map(one).collect()
    }

    #[test]
    fn what_follows_an_end() {
        let rules = |policy: &str, operator: &str, action: &str| {
            json!({ "restartPolicy": policy, "restartPolicyRules": [{ "action": action,
                "exitCodes": { "operator": operator, "values": [42, 43] } }] })
        };
        let (main, init) = (Slot::Main(0), Slot::Init(0));
        for (policy, slot, container, expected) in [
            ("Always", main, json!({}), "111"),
            ("OnFailure", main, json!({}), "-11"),
            ("Never", main, json!({}), "---"),
            ("Always", init, json!({}), "-11"),
            ("OnFailure", init, json!({}), "-11"),
            ("Never", init, json!({}), "---"),
            ("Never", init, json!({ "restartPolicy": "Always" }), "111"),
            ("Never", main, json!({ "restartPolicy": "Always" }), "111"),
            ("Always", main, json!({ "restartPolicy": "Never" }), "---"),
            ("Always", main, json!({ "restartPolicy": "OnFailure" }), "-11"),
            ("Never", init, json!({ "restartPolicy": "OnFailure" }), "-11"),
            ("Always", init, json!({ "restartPolicy": "Never" }), "---"),
            ("Never", main, rules("Never", "In", "Restart"), "--1"),
            ("Never", main, rules("Never", "NotIn", "Restart"), "11-"),
            ("Never", main, rules("OnFailure", "In", "RestartAllContainers"), "-1*"),
            ("Never", init, rules("Never", "NotIn", "RestartAllContainers"), "-*-"),
            ("Always", Slot::Ephemeral(0), json!({}), "---"),
        ] {
            assert_eq!(told(policy, slot, container.clone(), &[0, 1, 42]), expected, "{policy} {slot:?} {container}");
        }
    }
}
