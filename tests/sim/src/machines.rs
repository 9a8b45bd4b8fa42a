//! [`Machine`]: a node with an agent that registers, renews its lease, and runs, ends and loses pods.
//!
//! A crashed machine does nothing. When it is back nothing runs: pods that are never started again have failed, others start
//! anew. What had ended before is still known. A machine that is cut off lets its pods run on unseen. An evicted pod becomes
//! `Failed`. One whose Node was removed meanwhile registers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use podium_api::{
    ApiError, ObjectKey,
    k8s_openapi::{
        api::{
            coordination::v1::Lease,
            core::v1::{Node, Pod},
        },
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
    },
    kind_of,
};
use podium_client::{ApiRef, Clock, Mirror, MirrorScope, Patch};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    clocks::JumpyClock,
    faults::Wire,
    jobs::ending,
    objects::{is_ready, node, object},
    running::Running,
};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a machine that was given up may still be shown pods that nobody waits for any more.
const DOUBT: Duration = Duration::from_secs(60);

/// A machine, as the simulation sees it.
pub struct Machine {
    name: String,
    wire: Arc<Wire>,
    clock: Arc<JumpyClock>,
    switches: Arc<Switches>,
    running: Arc<Running>,
}

/// What a machine has of the world around it.
pub(crate) struct Surroundings {
    pub(crate) wire: Arc<Wire>,
    pub(crate) clock: Arc<JumpyClock>,
    pub(crate) running: Arc<Running>,
}

#[derive(Default)]
struct Switches {
    crashed: AtomicBool,
    given_up: AtomicBool,
    evict: AtomicBool,
}

impl Machine {
    /// Switches a machine on.
    pub(crate) fn start(name: String, api: ApiRef, around: Surroundings, seed: u64) -> Self {
        let Surroundings { wire, clock, running } = around;
        let switches = Arc::new(Switches::default());
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(7));
        let agent = Agent {
            name: name.clone(),
            api,
            clock: Arc::clone(&clock),
            switches: Arc::clone(&switches),
            running: Arc::clone(&running),
            random,
            failed: BTreeSet::new(),
            ended: BTreeMap::new(),
            started_anew: BTreeSet::new(),
            doubt: None,
        };
        tokio::spawn(agent.run());
        Self { name, wire, clock, switches, running }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Between it and the API.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Its time of day.
    pub fn clock(&self) -> &JumpyClock {
        &self.clock
    }

    /// From now on it does nothing.
    pub fn crash(&self) {
        self.switches.crashed.store(true, Relaxed);
        self.running.only(&self.name, |_| false);
    }

    /// While it does nothing somebody says that it will not come back. Its pods may be made again elsewhere, whether or not
    /// it does.
    pub(crate) fn give_up(&self) {
        self.switches.given_up.store(true, Relaxed);
    }

    /// Whether it does nothing.
    pub fn is_off(&self) -> bool {
        self.switches.crashed.load(Relaxed)
    }

    /// It is back.
    pub fn recover(&self) {
        self.switches.crashed.store(false, Relaxed);
    }

    /// One of its pods fails.
    pub fn evict(&self) {
        self.switches.evict.store(true, Relaxed);
    }
}

struct Agent {
    name: String,
    api: ApiRef,
    clock: Arc<JumpyClock>,
    switches: Arc<Switches>,
    running: Arc<Running>,
    random: SmallRng,
    /// Uids of pods that have failed here: what the mirror still shows of them is old.
    failed: BTreeSet<String>,
    /// Uids of pods that have ended by themselves, and how.
    ended: BTreeMap<String, &'static str>,
    /// Uids of pods whose containers died with the machine and are to be started again.
    started_anew: BTreeSet<String>,
    /// Until then it may start what runs elsewhere by now.
    doubt: Option<Instant>,
}

impl Agent {
    async fn run(mut self) {
        self.register().await;
        let scope = MirrorScope { namespace: None, fields: Some(format!("spec.nodeName={}", self.name)) };
        let Ok(pods) = self.api.mirror(&kind_of::<Pod>(), scope).await else { return };
        let mut beat: Option<Instant> = None;
        let mut crashed = false;
        loop {
            let pause = self.random.random_range(100..600);
            sleep(Duration::from_millis(pause)).await;
            if self.switches.crashed.load(Relaxed) {
                (beat, crashed) = (None, true);
                continue;
            }
            if crashed {
                self.register().await;
                if self.switches.crashed.load(Relaxed) {
                    continue;
                }
                crashed = false;
                self.doubt = self.switches.given_up.swap(false, Relaxed).then(|| Instant::now() + DOUBT);
                self.start_anew(&*pods);
            }
            if beat.is_none_or(|at| at.elapsed() >= HEARTBEAT) && self.heartbeat().await.is_ok() {
                beat = Some(Instant::now());
            }
            self.care(&*pods).await;
        }
    }

    /// Makes sure that there is a Node, while the machine is on.
    async fn register(&self) {
        while let Err(error) = self.api.create(object::<Node>(node(&self.name))).await {
            if error.reason == podium_api::Reason::AlreadyExists || self.switches.crashed.load(Relaxed) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Renews the lease and says that the node is ready: it may have been thought lost though it never was, when the
    /// lease was only late in showing.
    async fn heartbeat(&self) -> Result<(), ApiError> {
        let now = self.clock.now();
        let key = ObjectKey::cluster(&self.name);
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
        self.api.patch(&kind_of::<Node>(), &key, Patch::Strategic(ready), Some("status")).await?;
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now});
        let lease = ObjectKey::new("kube-node-lease", &self.name);
        let renewed = self.api.patch(&kind_of::<Lease>(), &lease, Patch::Merge(json!({"spec": spec})), None).await;
        match renewed {
            Err(error) if error.is_not_found() => {
                let metadata = json!({"name": self.name, "namespace": "kube-node-lease"});
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata,
                    "spec": spec});
                self.api.create(object::<Lease>(lease)).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    /// After a crash nothing runs.
    fn start_anew(&mut self, pods: &dyn Mirror) {
        for pod in pods.list(None) {
            let Some(pod) = pod.downcast_ref::<Pod>() else { continue };
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
            match policy {
                Some("Never") if running && !self.ended.contains_key(&uid) => {
                    self.failed.insert(uid);
                }
                _ if running && !self.failed.contains(&uid) => {
                    self.started_anew.insert(uid);
                }
                _ => {}
            }
        }
    }

    /// Brings each of its pods one step further. What fails is done next time.
    async fn care(&mut self, pods: &dyn Mirror) {
        let mut evict = self.switches.evict.swap(false, Relaxed);
        let mut seen = BTreeSet::new();
        let there = pods.list(None);
        self.running.only(&self.name, |uid| there.iter().any(|pod| pod.uid() == uid));
        for pod in there {
            if self.switches.crashed.load(Relaxed) {
                return;
            }
            let key = pod.key();
            let Some(pod) = pod.downcast_ref::<Pod>() else { continue };
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if !seen.insert(uid.clone()) {
                continue;
            }
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
            if pod.metadata.deletion_timestamp.is_some() {
                self.end(&key, uid, phase).await;
            } else if phase == "Running" && evict && !self.ended.contains_key(&uid) {
                evict = false;
                self.failed.insert(uid.clone());
                self.running.stop(&uid);
                let _ = self.say(&key, &uid, "Failed").await;
            } else if let Some(phase) = self.ending(pod, &uid) {
                let _ = self.say(&key, &uid, phase).await;
            } else if self.failed.contains(&uid) {
                // Said again until it is seen: the first time may have been refused.
                if phase != "Failed" {
                    let _ = self.say(&key, &uid, "Failed").await;
                }
            } else if self.started_anew.remove(&uid) {
                self.starts(&uid, &key.name);
                let _ = self.say_ready(&key, &uid, "Running", false).await;
            } else if phase == "Pending" || phase == "Running" && !is_ready(pod) {
                // Also when the node was thought lost: its pods were marked as not ready meanwhile.
                self.starts(&uid, &key.name);
                let _ = self.say(&key, &uid, "Running").await;
            }
        }
    }

    /// A pod's containers run from now on.
    fn starts(&self, uid: &str, name: &str) {
        if self.doubt.is_none_or(|until| Instant::now() > until) {
            self.running.start(uid, name, &self.name);
        }
    }

    /// How a pod ends that ends at all. Once decided it stays so; it is said again until it is seen.
    fn ending(&mut self, pod: &Pod, uid: &str) -> Option<&'static str> {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Running") || self.failed.contains(uid) {
            return None;
        }
        if let Some(known) = self.ended.get(uid) {
            return Some(known);
        }
        let ending = ending(pod, &mut self.random)?;
        self.ended.insert(uid.to_owned(), ending);
        self.running.stop(uid);
        Some(ending)
    }

    /// A pod is gone when it has been said how it ended, and not before: who waits for its last phase must see it.
    async fn end(&self, key: &ObjectKey, uid: String, phase: &str) {
        self.running.stop(&uid);
        if !matches!(phase, "Succeeded" | "Failed") && self.say(key, &uid, "Failed").await.is_err() {
            return;
        }
        let preconditions = podium_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions {
            uid: Some(uid),
            resource_version: None,
        };
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        let _ = self.api.delete(&kind_of::<Pod>(), key, options).await;
    }

    async fn say(&self, key: &ObjectKey, uid: &str, phase: &str) -> Result<(), ApiError> {
        self.say_ready(key, uid, phase, phase == "Running").await
    }

    async fn say_ready(&self, key: &ObjectKey, uid: &str, phase: &str, ready: bool) -> Result<(), ApiError> {
        let now = self.clock.now();
        let ready = if ready { "True" } else { "False" };
        let condition = |kind: &str| json!({"type": kind, "status": ready, "lastTransitionTime": now});
        let conditions = [condition("Ready"), condition("ContainersReady")];
        let patch = json!({"metadata": {"uid": uid}, "status": {"phase": phase, "conditions": conditions}});
        self.api.patch(&kind_of::<Pod>(), key, Patch::Strategic(patch), Some("status")).await.map(drop)
    }
}
