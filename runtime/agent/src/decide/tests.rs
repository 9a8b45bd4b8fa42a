//! Whole lives of pods as scripts: each step changes what runs, then everything decided is done (as far as it is data).

use std::net::IpAddr;

use podium_sandbox::Ending;
use serde_json::{Value, json};

use super::{
    admission::Rejection,
    local::Evicted,
    probe::{Outcome, ProbeKind},
    *,
};
use crate::decide::local::Run;

pub(super) struct Life {
    pub(super) pod: Pod,
    pub(super) local: Local,
    pub(super) prior: PodStatus,
    now: Timestamp,
}

const FACTS: Facts = Facts { host_ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

impl Life {
    pub(super) fn new(spec: Value, status: Value) -> Self {
        let meta = json!({ "name": "web", "namespace": "shop", "uid": "u1", "generation": 3 });
        let pod: Pod = serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap();
        let now = Timestamp::from_second(10_000).unwrap();
        let prior = pod.status.clone().unwrap_or_default();
        Self { local: Local::adopt(&pod, now), pod, prior, now }
    }

    fn slot(&self, name: &str) -> Slot {
        let spec = self.pod.spec.as_ref().unwrap();
        let init = spec.init_containers.iter().flatten().position(|c| c.name == name);
        init.map(Slot::Init).unwrap_or_else(|| Slot::Main(spec.containers.iter().position(|c| c.name == name).unwrap()))
    }

    pub(super) fn step(&mut self, step: &str) {
        let parts: Vec<_> = step.split(':').collect();
        let slot = |life: &Self| life.slot(parts[1]);
        let now = self.now;
        match parts[0] {
            "up" => {
                let slot = slot(self);
                let run = Run { id: "podium://x".into(), image_id: "file://a@sha256:0".into() };
                let spec = slot.spec(&self.pod).unwrap().clone();
                self.local.container(slot).unwrap().started(&spec, run, now);
            }
            "end" => {
                let ending = match parts[2] {
                    "oom" => Ending::OutOfMemory { limit_bytes: 64 },
                    "trap" => Ending::Trapped { message: "unreachable".into(), backtrace: vec!["at f".into()] },
                    code => Ending::Finished { code: code.parse().unwrap() },
                };
                let slot = slot(self);
                self.local.container(slot).unwrap().ended(&ending, None, now);
            }
            "fail" => {
                let reason = match parts[2] {
                    "ErrImagePull" => FailureReason::ErrImagePull,
                    "Config" => FailureReason::CreateContainerConfigError,
                    _ => FailureReason::CreateContainerError,
                };
                let slot = slot(self);
                self.local.container(slot).unwrap().failed(reason, "why".into(), now);
            }
            "ok" | "bad" => {
                let slot = slot(self);
                let spec = slot.spec(&self.pod).unwrap().clone();
                let container = self.local.container(slot).unwrap();
                let outcome = if parts[0] == "ok" { Outcome::Success } else { Outcome::Failed(String::new()) };
                container.probed(ProbeKind::Readiness, &spec, &outcome, now);
            }
            "delete" => {
                self.pod.metadata.deletion_timestamp = Some(status::time(now));
                self.pod.metadata.deletion_grace_period_seconds = parts.get(1).map(|grace| grace.parse().unwrap());
            }
            "started" => {
                let slot = slot(self);
                let spec = slot.spec(&self.pod).unwrap().clone();
                self.local.container(slot).unwrap().probed(ProbeKind::Startup, &spec, &Outcome::Success, now);
            }
            "reject" => {
                let message = "no room".to_owned();
                self.local.admission = Admission::Refused(Box::new(Rejection { reason: "OutOfpods", message }));
            }
            "evict" => {
                let message = "The node was low on resource: memory. ".to_owned();
                self.local.evicted = Some(Box::new(Evicted { grace_seconds: 1, message }));
            }
            "cpu" => {
                let spec = self.pod.spec.as_mut().unwrap();
                spec.containers[0].resources =
                    serde_json::from_value(json!({ "limits": { "cpu": parts[1] } })).unwrap();
                *self.pod.metadata.generation.get_or_insert(0) += 1;
            }
            "stopped" => {
                for container in self.local.init.iter_mut().chain(&mut self.local.main).filter(|c| c.busy()) {
                    container.ended(&Ending::Finished { code: 0 }, None, now);
                }
                self.local.stopping = Stopping::Done;
            }
            plus => self.now = after(now, plus.strip_prefix('+').unwrap().parse().unwrap()),
        }
    }

    /// Does what is decided until nothing more is; tells what was done and what the status says then.
    pub(super) fn settle(&mut self) -> String {
        let mut done = Vec::new();
        loop {
            let decision = decide(&self.pod, &self.local, &self.prior, &FACTS, self.now);
            let actions: Vec<_> = decision
                .actions
                .into_iter()
                .filter(|a| *a != Action::Delete || !done.contains(&"delete".to_owned()))
                .collect();
            if actions.is_empty() {
                let wake = decision.wake_at.map(|at| format!("wake+{}", at.as_second() - self.now.as_second()));
                done.extend(wake);
                if let Some(status) = decision.status {
                    self.prior = status;
                }
                return format!("{} | {}", words(&self.prior), done.join(" ")).trim().to_owned();
            }
            for action in actions {
                done.extend(Some(self.act(action)).filter(|told| !told.is_empty()));
            }
        }
    }

    fn act(&mut self, action: Action) -> String {
        let name = |life: &Self, slot: Slot| slot.spec(&life.pod).unwrap().name.clone();
        match action {
            Action::Admit => {
                self.local.taken(&self.pod);
                String::new()
            }
            Action::Resize => {
                self.local.allocate(&self.pod);
                "resize".into()
            }
            Action::EndAll => {
                self.local.all_again = true;
                for container in self.local.init.iter_mut().chain(&mut self.local.main) {
                    container.killing();
                }
                "end-all".into()
            }
            Action::Reset => {
                self.local.reset();
                "reset".into()
            }
            Action::Hurry { grace_seconds } => {
                self.local.grace_seconds = Some(grace_seconds);
                format!("hurry({grace_seconds})")
            }
            Action::Allocate => {
                self.local.ip = Some([10, 244, 0, 2].into());
                "allocate".into()
            }
            Action::Start(slot) => {
                self.local.container(slot).unwrap().starting(self.now);
                format!("start({})", name(self, slot))
            }
            Action::Probe(slot, kind) => {
                self.local.container(slot).unwrap().probes.as_mut().unwrap().begin(kind);
                format!("probe({})", name(self, slot))
            }
            Action::Stop { grace_seconds, failed } => {
                self.local.stopping = Stopping::Running;
                self.local.grace_seconds = Some(grace_seconds);
                self.local.failed = failed;
                format!("stop({grace_seconds})")
            }
            Action::Delete => "delete".into(),
        }
    }
}

fn words(status: &PodStatus) -> String {
    let one = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
        let state = s.state.as_ref().unwrap();
        let reason = |reason: &Option<String>| reason.clone().unwrap_or_default();
        let text = match (&state.waiting, &state.terminated) {
            (Some(waiting), _) => reason(&waiting.reason),
            (_, Some(ended)) => format!("{}:{}", reason(&ended.reason), ended.exit_code),
            _ => "Running".to_owned(),
        };
        format!("{}={text}x{}", s.name, s.restart_count)
    };
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let all: Vec<_> = all.map(one).collect();
    let ready = if status::is_ready(status) { "Ready" } else { "Unready" };
    format!("{} {ready} {}", status.phase.as_deref().unwrap_or_default(), all.join(" "))
}

pub(super) fn tell(spec: Value, script: &str) -> String {
    let mut life = Life::new(spec, Value::Null);
    let mut told = life.settle();
    for step in script.split_whitespace() {
        life.step(step);
        told = life.settle();
    }
    told
}

pub(super) fn one(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "app", "image": "file://a" }] })
}

#[test]
fn restart_policies_and_back_off() {
    for (policy, script, expected) in [
        ("Always", "", "Pending Unready app=ContainerCreatingx0 | allocate start(app)"),
        ("Always", "up:app", "Running Ready app=Runningx0 |"),
        ("Always", "up:app end:app:0", "Running Unready app=Completed:0x0 | start(app)"),
        ("Always", "up:app end:app:1 up:app", "Running Ready app=Runningx1 |"),
        ("Always", "up:app end:app:1 up:app end:app:1", "Running Unready app=CrashLoopBackOffx1 | wake+10"),
        ("Always", "up:app end:app:1 up:app end:app:1 +9", "Running Unready app=CrashLoopBackOffx1 | wake+1"),
        ("Always", "up:app end:app:1 up:app end:app:1 +10", "Running Unready app=Error:1x1 | start(app)"),
        (
            "Always",
            "up:app end:app:1 up:app end:app:1 +10 up:app end:app:1",
            "Running Unready app=CrashLoopBackOffx2 | wake+20",
        ),
        ("Always", "up:app end:app:1 up:app +601 end:app:1", "Running Unready app=Error:1x1 | start(app)"),
        ("OnFailure", "up:app end:app:0", "Succeeded Unready app=Completed:0x0 |"),
        ("OnFailure", "up:app end:app:2", "Running Unready app=Error:2x0 | start(app)"),
        ("Never", "up:app end:app:0", "Succeeded Unready app=Completed:0x0 |"),
        ("Never", "up:app end:app:2", "Failed Unready app=Error:2x0 |"),
        ("Never", "up:app end:app:oom", "Failed Unready app=OOMKilled:137x0 |"),
        ("Never", "up:app end:app:trap", "Failed Unready app=Error:134x0 |"),
    ] {
        assert_eq!(tell(one(policy), script), expected, "{policy}: {script}");
    }
}

#[test]
fn starts_that_fail() {
    for (script, expected) in [
        ("fail:app:ErrImagePull", "Pending Unready app=ErrImagePullx0 | wake+2"),
        ("fail:app:ErrImagePull +2", "Pending Unready app=ImagePullBackOffx0 | wake+8"),
        ("fail:app:ErrImagePull +10", "Pending Unready app=ContainerCreatingx0 | start(app)"),
        ("fail:app:ErrImagePull +10 fail:app:ErrImagePull +2", "Pending Unready app=ImagePullBackOffx0 | wake+18"),
        ("fail:app:Config", "Pending Unready app=CreateContainerConfigErrorx0 | wake+1"),
        ("fail:app:Config +1 fail:app:Config", "Pending Unready app=CreateContainerConfigErrorx0 | wake+2"),
        ("fail:app:Create", "Pending Unready app=CreateContainerErrorx0 | wake+10"),
        ("fail:app:Config +1 up:app", "Running Ready app=Runningx0 |"),
    ] {
        assert_eq!(tell(one("Always"), script), expected, "{script}");
    }
}

#[test]
fn ends_of_pods() {
    let deadline = json!({ "activeDeadlineSeconds": 30, "containers": [{ "name": "app" }] });
    let probed = json!({ "terminationGracePeriodSeconds": 7, "containers": [{ "name": "app", "readinessProbe": { "periodSeconds": 5 } }] });
    for (spec, script, expected) in [
        (one("Always"), "up:app delete", "Running Ready app=Runningx0 | stop(30)"),
        (one("Always"), "up:app delete stopped", "Succeeded Unready app=Completed:0x0 | delete"),
        (one("Always"), "up:app end:app:1 up:app end:app:1 delete stopped", "Failed Unready app=Error:1x1 | delete"),
        (deadline.clone(), "up:app", "Running Ready app=Runningx0 | wake+30"),
        (deadline.clone(), "up:app +30", "Running Ready app=Runningx0 | stop(30)"),
        (deadline, "up:app +30 stopped", "Failed Unready app=Completed:0x0 |"),
        (probed.clone(), "up:app", "Running Unready app=Runningx0 | probe(app)"),
        (probed.clone(), "up:app ok:app", "Running Ready app=Runningx0 | wake+5"),
        (probed.clone(), "up:app ok:app +5 bad:app +5 bad:app", "Running Ready app=Runningx0 | wake+5"),
        (probed.clone(), "up:app ok:app +5 bad:app +5 bad:app +5 bad:app", "Running Unready app=Runningx0 | wake+5"),
        (probed, "up:app ok:app delete", "Running Ready app=Runningx0 | stop(7)"),
    ] {
        assert_eq!(tell(spec, script), expected, "{script}");
    }
}

#[test]
fn init_containers_and_sidecars() {
    let two = |policy: &str| json!({ "restartPolicy": policy, "initContainers": [{ "name": "a" }, { "name": "b" }], "containers": [{ "name": "app" }] });
    let side = json!({ "restartPolicy": "Never", "initContainers": [{ "name": "s", "restartPolicy": "Always" }], "containers": [{ "name": "app" }] });
    for (spec, script, expected) in [
        (
            two("Always"),
            "",
            "Pending Unready a=ContainerCreatingx0 b=PodInitializingx0 app=PodInitializingx0 | allocate start(a)",
        ),
        (
            two("Always"),
            "up:a end:a:0",
            "Pending Unready a=Completed:0x0 b=ContainerCreatingx0 app=PodInitializingx0 | start(b)",
        ),
        (
            two("Always"),
            "up:a end:a:0 up:b end:b:0 up:app",
            "Running Ready a=Completed:0x0 b=Completed:0x0 app=Runningx0 |",
        ),
        (
            two("Always"),
            "up:a end:a:1 up:a end:a:1",
            "Pending Unready a=CrashLoopBackOffx1 b=PodInitializingx0 app=PodInitializingx0 | wake+10",
        ),
        (two("Never"), "up:a end:a:1", "Failed Unready a=Error:1x0 b=PodInitializingx0 app=PodInitializingx0 |"),
        (side.clone(), "up:s", "Pending Unready s=Runningx0 app=ContainerCreatingx0 | start(app)"),
        (side.clone(), "up:s up:app", "Running Ready s=Runningx0 app=Runningx0 |"),
        (side, "up:s up:app end:app:0 stopped", "Succeeded Unready s=Completed:0x0 app=Completed:0x0 |"),
    ] {
        assert_eq!(tell(spec, script), expected, "{script}");
    }
}

#[test]
fn a_new_agent_takes_over() {
    let container = |state: Value, last: Value| {
        json!({ "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 2,
        "containerID": "podium://old", "state": state, "lastState": last })
    };
    let ended = |code: i32| json!({ "terminated": { "exitCode": code, "reason": "Error", "finishedAt": "1970-01-01T00:00:05Z" } });
    let running = json!({ "running": { "startedAt": "1970-01-01T00:00:05Z" } });
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    for (policy, phase, container, expected) in [
        (
            "Always",
            "Running",
            container(running.clone(), json!({})),
            "Running Unready app=ContainerStatusUnknown:137x2 | start(app)",
        ),
        ("Never", "Running", container(running, json!({})), "Failed Unready app=ContainerStatusUnknown:137x2 |"),
        ("Always", "Running", container(waiting, ended(1)), "Running Unready app=Error:1x2 | start(app)"),
        ("Never", "Failed", container(ended(1), json!({})), "Failed Unready app=Error:1x2 |"),
        ("OnFailure", "Running", container(ended(0), json!({})), "Succeeded Unready app=Error:0x2 |"),
    ] {
        let status = json!({ "phase": phase, "podIP": "10.244.0.9", "containerStatuses": [container] });
        let mut life = Life::new(one(policy), status);
        assert_eq!(life.settle(), expected, "{policy} {phase}");
        assert_eq!(life.local.ip, Some([10, 244, 0, 9].into()));
    }
}

#[test]
fn conditions_tell_what_is_missing_and_since_when() {
    let mut life = Life::new(one("Always"), json!({ "conditions": [{ "type": "Mine", "status": "True" }] }));
    life.settle();
    let show = |life: &Life| {
        let show = |c: &k8s_openapi::api::core::v1::PodCondition| {
            let since = c.last_transition_time.as_ref().map_or(0, |t| t.0.as_second());
            format!(
                "{}={}{}@{since}",
                c.type_,
                c.status,
                c.reason.as_ref().map(|r| format!("({r})")).unwrap_or_default()
            )
        };
        life.prior.conditions.iter().flatten().map(show).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        show(&life),
        "PodReadyToStartContainers=True@10000 Initialized=True@10000 Ready=False(ContainersNotReady)@10000 \
         ContainersReady=False(ContainersNotReady)@10000 PodScheduled=True@10000 Mine=True@0"
    );
    life.step("+5");
    life.step("up:app");
    life.settle();
    assert_eq!(
        show(&life),
        "PodReadyToStartContainers=True@10000 Initialized=True@10000 Ready=True@10005 ContainersReady=True@10005 \
         PodScheduled=True@10000 Mine=True@0"
    );
    assert_eq!(life.prior.observed_generation, Some(3));
    assert_eq!(life.prior.qos_class.as_deref(), Some("BestEffort"));
}
