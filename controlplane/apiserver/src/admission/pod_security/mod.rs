//! `PodSecurity`: the labels of a namespace say how much its pods may ask of their nodes.
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `warn` and `audit` tell of them, also of workloads whose pods would
//! be refused. Nothing is said where no label is: the default is `privileged`. There are no exemptions.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/pod-security-admission/admission/admission.go`.

mod baseline;
mod levels;
mod namespace;
mod restricted;
mod subject;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Pod, PodTemplate, PodTemplateSpec, ReplicationController},
};
use podium_api::{ApiError, Kind as _, Object};

use self::{
    levels::{Level, Standard, Standards},
    subject::{Subject, Violation},
};
use super::{Operation, Plugin, Request, Step};
use crate::registry::Registry;

/// Subresources of pods that change nothing of what is asked of a node.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// The plug-in.
pub(super) struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        let judged = step == Step::Validate && matches!(request.operation, Operation::Create | Operation::Update);
        let whole = request.subresource.is_empty();
        judged
            && if request.is_about::<Pod>() {
                !IGNORED.contains(&request.subresource)
            } else {
                whole && (request.is_about::<Namespace>() || request.object.as_deref().is_some_and(has_template))
            }
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        if let Some(namespace) = request.new_as::<Namespace>() {
            return namespace::judge(registry, request, namespace);
        }
        let Some(found) = registry.of(&Namespace::NAMES)?.cache.get("", request.namespace) else {
            return Err(ApiError::internal(format!("failed to lookup namespace {:?}", request.namespace)));
        };
        let (standards, errs) = Standards::of(found.object.meta().labels.as_ref());
        let judgement = Judgement { request, standards, wrong_labels: !errs.is_empty() };
        match request.new_as::<Pod>() {
            Some(pod) => judgement.pod(pod),
            None => {
                judgement.template();
                Ok(())
            }
        }
    }
}

/// One request under the standards of its namespace.
struct Judgement<'a> {
    request: &'a Request<'a>,
    standards: Standards,
    wrong_labels: bool,
}

impl Judgement<'_> {
    fn pod(&self, pod: &Pod) -> Result<(), ApiError> {
        let standards = &self.standards;
        if standards.are_privileged() && !self.wrong_labels {
            self.annotate("enforce-policy", standards.enforce.to_string());
            return Ok(());
        }
        let old = self.request.old.and_then(|o| o.downcast_ref::<Pod>());
        if old.is_some_and(|old| !differs(pod, old)) {
            return Ok(());
        }
        let Some(spec) = &pod.spec else { return Ok(()) };
        let subject = Subject::new(pod.metadata.annotations.as_ref(), spec);
        self.annotate("enforce-policy", standards.enforce.to_string());
        let wrong = standards.enforce.judge(&subject);
        let denied = (!wrong.is_empty()).then(|| {
            let why = format!("violates PodSecurity \"{}\": {}", standards.enforce, told(&wrong));
            self.request.forbidden(&why)
        });
        self.tell(&subject, denied.is_none());
        denied.map_or(Ok(()), Err)
    }

    /// What makes pods is never refused: its pods are.
    fn template(&self) {
        let standards = &self.standards;
        let tells = standards.warn.level != Level::Privileged || standards.audit.level != Level::Privileged;
        let template = self.request.object.as_deref().and_then(template_of);
        let Some(template) = template.filter(|_| tells || self.wrong_labels) else { return };
        let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
        if let Some(spec) = &template.spec {
            self.tell(&Subject::new(annotations, spec), true);
        }
    }

    /// Notes and warns. Whoever is refused anyway is not warned.
    fn tell(&self, subject: &Subject<'_>, warns: bool) {
        let Standards { audit, warn, .. } = &self.standards;
        if self.wrong_labels {
            self.annotate("error", "Failed to parse policy: the labels of the namespace are invalid".to_owned());
        }
        let wrong = audit.judge(subject);
        if !wrong.is_empty() {
            self.annotate("audit-violations", format!("would violate PodSecurity \"{audit}\": {}", told(&wrong)));
        }
        let wrong = if warns { warn.judge(subject) } else { Vec::new() };
        if !wrong.is_empty() {
            self.request.context.warn(format!("would violate PodSecurity \"{warn}\": {}", told(&wrong)));
        }
    }

    fn annotate(&self, key: &str, value: String) {
        self.request.context.annotate(format!("{}{key}", levels::PREFIX), value);
    }
}

/// `reason (detail), reason`
fn told(wrong: &[Violation]) -> String {
    let one = |v: &Violation| match v.detail.as_str() {
        "" => v.reason.clone(),
        detail => format!("{} ({detail})", v.reason),
    };
    wrong.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Standard {
    /// What of a pod does not meet it.
    fn judge(&self, subject: &Subject<'_>) -> Vec<Violation> {
        let minor = self.minor();
        match self.level {
            Level::Privileged => Vec::new(),
            Level::Baseline => baseline::judge(subject, minor, false),
            Level::Restricted => {
                let mut wrong = baseline::judge(subject, minor, true);
                wrong.extend(restricted::judge(subject, minor));
                wrong
            }
        }
    }
}

/// Whether a change of a pod can make it ask for more: another image, another container.
fn differs(new: &Pod, old: &Pod) -> bool {
    let images = |pod: &Pod| -> [Vec<Option<String>>; 2] {
        let spec = pod.spec.as_ref();
        let containers = spec.iter().flat_map(|s| &s.containers).map(|c| c.image.clone()).collect();
        let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| c.image.clone()).collect();
        [containers, init]
    };
    let late = |pod: &Pod| -> BTreeMap<String, Option<String>> {
        let containers = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        containers.map(|c| (c.name.clone(), c.image.clone())).collect()
    };
    let before = late(old);
    images(new) != images(old) || late(new).iter().any(|(name, image)| before.get(name) != Some(image))
}

fn has_template(object: &dyn Object) -> bool {
    template_of(object).is_some()
}

/// The pods that an object makes.
fn template_of(object: &dyn Object) -> Option<&PodTemplateSpec> {
    if let Some(set) = object.downcast_ref::<ReplicaSet>() {
        return set.spec.as_ref()?.template.as_ref();
    }
    if let Some(deployment) = object.downcast_ref::<Deployment>() {
        return Some(&deployment.spec.as_ref()?.template);
    }
    if let Some(job) = object.downcast_ref::<Job>() {
        return Some(&job.spec.as_ref()?.template);
    }
    if let Some(set) = object.downcast_ref::<StatefulSet>() {
        return Some(&set.spec.as_ref()?.template);
    }
    if let Some(set) = object.downcast_ref::<DaemonSet>() {
        return Some(&set.spec.as_ref()?.template);
    }
    if let Some(job) = object.downcast_ref::<CronJob>() {
        return Some(&job.spec.job_template.spec.as_ref()?.template);
    }
    if let Some(controller) = object.downcast_ref::<ReplicationController>() {
        return controller.spec.as_ref()?.template.as_ref();
    }
    object.downcast_ref::<PodTemplate>()?.template.as_ref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::{Value, json};

    use super::*;

    /// What is said of a pod of one container, as of a version.
    fn check(level: Level, version: Option<u32>, pod: Value, container: Value) -> String {
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
        let first = spec["containers"][0].as_object_mut().unwrap();
        first.extend(container.as_object().unwrap().clone());
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        told(&Standard { level, version }.judge(&Subject::new(None, &spec)))
    }

    fn secure(context: Value) -> Value {
        json!({"securityContext": context})
    }

    #[test]
    fn baseline_checks() {
        for (pod, container, wanted) in [
            (json!({}), json!({}), ""),
            (
                json!({"hostNetwork": true, "hostIPC": true}),
                json!({}),
                "host namespaces (hostNetwork=true, hostIPC=true)",
            ),
            (
                json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/"}}]}),
                json!({}),
                "hostPath volumes (volumes \"a\", \"b\")",
            ),
            (
                json!({}),
                json!({"ports": [{"containerPort": 1, "hostPort": 80}]}),
                "hostPort (container \"c\" uses hostPort 80)",
            ),
            (
                json!({}),
                json!({"livenessProbe": {"httpGet": {"host": "evil", "port": 1}}}),
                "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"evil\")",
            ),
            (
                json!({}),
                secure(json!({"privileged": true, "capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}})),
                "non-default capabilities (container \"c\" must not include \"BPF\", \"NET_RAW\" in \
                 securityContext.capabilities.add), privileged (container \"c\" must not set \
                 securityContext.privileged=true)",
            ),
            (
                secure(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
                json!({}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
            (
                secure(
                    json!({"seccompProfile": {"type": "Unconfined"}, "sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
                ),
                secure(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (pod and container \"c\" must not set securityContext.seccompProfile.type to \
                 \"Unconfined\"), forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({}),
                secure(json!({"appArmorProfile": {"type": "Unconfined"}, "procMount": "Unmasked"})),
                "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\"), \
                 procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (json!({"hostUsers": false}), secure(json!({"procMount": "Unmasked"})), ""),
            (
                json!({}),
                secure(json!({"windowsOptions": {"hostProcess": true}})),
                "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
            ),
        ] {
            assert_eq!(check(Level::Baseline, None, pod, container), wanted);
        }
    }

    const ESCALATION: &str =
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)";
    const CAPABILITIES: &str =
        "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])";
    const NON_ROOT: &str = "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)";
    const SECCOMP: &str = "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \
                           \"RuntimeDefault\" or \"Localhost\")";

    #[test]
    fn restricted_checks() {
        let hard = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        let pod = secure(json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
        let all = [ESCALATION, CAPABILITIES, NON_ROOT, SECCOMP].join(", ");
        for (version, pod, container, wanted) in [
            (None, json!({}), json!({}), all.as_str()),
            (None, pod.clone(), secure(hard.clone()), ""),
            (Some(20), json!({}), json!({}), &[ESCALATION, NON_ROOT, SECCOMP].join(", ")),
            (Some(7), json!({}), json!({}), NON_ROOT),
            (Some(25), json!({"os": {"name": "windows"}}), json!({}), NON_ROOT),
            (
                None,
                pod.clone(),
                secure(json!({"allowPrivilegeEscalation": false, "runAsUser": 0, "runAsNonRoot": false,
                    "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})),
                "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in \
                 securityContext.capabilities.add), runAsNonRoot != true (container \"c\" must not set \
                 securityContext.runAsNonRoot=false), runAsUser=0 (container \"c\" must not set runAsUser=0)",
            ),
        ] {
            assert_eq!(check(Level::Restricted, version, pod, container), wanted);
        }
        let mut with_volume = pod;
        with_volume["volumes"] =
            json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}]);
        assert_eq!(
            check(Level::Restricted, None, with_volume, secure(hard)),
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")"
        );
    }
}
