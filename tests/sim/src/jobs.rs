//! Jobs in the simulation: what the user does with them, and what must hold of them after every change.
//!
//! - A Job never has more active pods than it may run at once, lost answers or not: "may" is the most that was asked for
//!   within the last [`LATE_SECONDS`].
//! - Its counts never go down, and are at no time more than the pods that ended.
//! - An index succeeds at most once.
//! - What is finished stays as it is; `Complete` and `Failed` come after what announces them.
//! - At the end every success has been counted exactly once.
//! - A CronJob makes no Job twice, and none beside another where that is forbidden.
//!
//! The machines let pods of Jobs end, most of them well (see [`ending`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use podium_api::{
    ObjectKey,
    k8s_openapi::{
        api::{
            batch::v1::{CronJob, Job, JobStatus},
            core::v1::Pod,
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
    },
    kind_of,
};
use podium_client::{Api, Delta, ModelApi, Patch};
use rand::{RngExt, rngs::SmallRng};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    changes::Changes,
    objects::{all, object},
};

/// How old the knowledge of a controller may be.
const LATE_SECONDS: u64 = 60;
const JOBS_MAX: usize = 3;
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// How a running pod ends at this moment, if it is one that ends.
pub(crate) fn ending(pod: &Pod, random: &mut SmallRng) -> Option<&'static str> {
    job_of(&pod.metadata)?;
    match random.random_range(0..100) {
        0..20 => Some("Succeeded"),
        20..23 => Some("Failed"),
        _ => None,
    }
}

/// The uid of the Job that controls an object.
pub(crate) fn job_of(meta: &ObjectMeta) -> Option<&str> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    (owner.kind == "Job").then_some(owner.uid.as_str())
}

/// The user's Jobs, and the invariants.
pub struct Jobs {
    model: Arc<ModelApi>,
    changes: Changes,
    made: u32,
    /// By uid.
    known: BTreeMap<String, Known>,
    /// Whether CronJobs, by uid, let their Jobs overlap.
    overlap: BTreeMap<String, bool>,
    /// Of the Jobs of CronJobs: whose they are, by name, and which of them run.
    scheduled: BTreeMap<String, String>,
    running: BTreeMap<String, String>,
}

/// What has been seen of one Job.
#[derive(Default)]
struct Known {
    name: String,
    /// How many it might run at once, newest last.
    parallelism: Vec<(Instant, i32)>,
    status: JobStatus,
    active: BTreeSet<String>,
    /// Pods that succeeded while they were tracked, with their indexes.
    succeeded: BTreeMap<String, Option<i32>>,
    /// Those of them that were on their way out: they may have been counted as failed by then.
    late: BTreeSet<String>,
    /// Pods that failed, or that were told to go.
    failed: BTreeSet<String>,
}

impl Jobs {
    /// Watches a model.
    pub async fn open(model: Arc<ModelApi>) -> Self {
        let changes = Changes::open(&model, [kind_of::<CronJob>(), kind_of::<Job>(), kind_of::<Pod>()]).await;
        let (known, overlap) = (BTreeMap::new(), BTreeMap::new());
        Self { model, changes, made: 0, known, overlap, scheduled: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// The user does one thing; says what.
    pub async fn act(&mut self, random: &mut SmallRng) -> String {
        if random.random_range(0..8) == 0 {
            return self.schedule(random).await;
        }
        let unfinished: Vec<Arc<Job>> =
            all::<Job>(&self.model).into_iter().filter(|job| !is_finished(&status(job))).collect();
        if unfinished.len() < JOBS_MAX && (unfinished.is_empty() || random.random_bool(0.4)) {
            return self.start(random).await;
        }
        let job = &unfinished[random.random_range(0..unfinished.len())];
        let name = job.metadata.name.clone().unwrap_or_default();
        let key = ObjectKey::new("default", name.as_str());
        let spec = match random.random_range(0..10) {
            0 => {
                let options =
                    DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
                let _ = self.model.delete(&kind_of::<Job>(), &key, options).await;
                return format!("user deletes job {name}");
            }
            1..4 => json!({"suspend": job.spec.as_ref().and_then(|s| s.suspend) != Some(true)}),
            _ => json!({"parallelism": random.random_range(0..5)}),
        };
        let patched = self.model.patch(&kind_of::<Job>(), &key, Patch::Strategic(json!({"spec": spec})), None).await;
        format!("user patches job {name} with {spec}: {}", if patched.is_ok() { "done" } else { "refused" })
    }

    async fn start(&mut self, random: &mut SmallRng) -> String {
        self.made += 1;
        let name = format!("job{}", self.made);
        let mode = if random.random_bool(0.5) { "Indexed" } else { "NonIndexed" };
        let replace = if random.random_bool(0.3) { "Failed" } else { "TerminatingOrFailed" };
        let limit = if random.random_bool(0.2) { random.random_range(0..3) } else { 1_000 };
        let mut spec = json!({
            "completions": random.random_range(1..8), "parallelism": random.random_range(1..5),
            "completionMode": mode, "backoffLimit": limit, "podReplacementPolicy": replace,
            "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "main", "image": "image-0"}],
            }},
        });
        if mode == "Indexed" && random.random_bool(0.5) {
            spec["backoffLimitPerIndex"] = random.random_range(0..3).into();
        }
        let metadata = json!({"name": name, "namespace": "default"});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec});
        self.model.create(object::<Job>(job)).await.expect("the name is new");
        format!("user starts {name}: {spec}")
    }

    /// One CronJob that is due each minute, or none any more.
    async fn schedule(&mut self, random: &mut SmallRng) -> String {
        let crons = all::<CronJob>(&self.model);
        if let Some(cron) = crons.first() {
            let key = ObjectKey::of(&cron.metadata);
            let _ = self.model.delete(&kind_of::<CronJob>(), &key, DeleteOptions::default()).await;
            return format!("user deletes cron job {}", key.name);
        }
        self.made += 1;
        let name = format!("cron{}", self.made);
        let policy = ["Allow", "Forbid", "Replace"][random.random_range(0..3)];
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "image-0"}]});
        let spec = json!({
            "schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": random.random_range(0..3),
            "jobTemplate": {"spec": {"backoffLimit": 1_000, "template": {"spec": pod}}},
        });
        let metadata = json!({"name": name, "namespace": "default"});
        let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec});
        self.model.create(object::<CronJob>(cron)).await.expect("the name is new");
        format!("user schedules {name}: {policy}")
    }

    /// Nothing is suspended or held back any more: from here on all Jobs can end.
    pub async fn release(&self) {
        for cron in all::<CronJob>(&self.model) {
            let patch = Patch::Strategic(json!({"spec": {"suspend": true}}));
            let patched = self.model.patch(&kind_of::<CronJob>(), &ObjectKey::of(&cron.metadata), patch, None).await;
            patched.expect("the cron job is there and the patch is valid");
        }
        for job in all::<Job>(&self.model).into_iter().filter(|job| !is_finished(&status(job))) {
            let key = ObjectKey::of(&job.metadata);
            let patch = Patch::Strategic(json!({"spec": {"suspend": false, "parallelism": 4}}));
            let patched = self.model.patch(&kind_of::<Job>(), &key, patch, None).await;
            patched.expect("the job is there and the patch is valid");
        }
    }

    /// Checks every change since the last time, in the order in which they were made.
    ///
    /// # Errors
    /// The first that breaks an invariant.
    pub fn check(&mut self) -> Result<(), String> {
        self.changes.take().iter().try_for_each(|delta| self.change(delta))
    }

    fn change(&mut self, delta: &Delta) -> Result<(), String> {
        let gone = matches!(delta, Delta::Delete { .. });
        let object = delta.object();
        if let Some(cron) = object.downcast_ref::<CronJob>() {
            let overlaps = cron.spec.concurrency_policy.as_deref() != Some("Forbid");
            self.overlap.insert(object.uid().to_owned(), overlaps);
            return Ok(());
        }
        if let Some(job) = object.downcast_ref::<Job>() {
            self.of_cron(job, gone)?;
            let known = self.known.entry(object.uid().to_owned()).or_default();
            return if gone { Ok(()) } else { known.job(job) };
        }
        let Some(pod) = object.downcast_ref::<Pod>() else { return Ok(()) };
        let Some(known) = job_of(&pod.metadata).and_then(|uid| self.known.get_mut(uid)) else { return Ok(()) };
        known.pod(pod, gone)
    }

    fn of_cron(&mut self, job: &Job, gone: bool) -> Result<(), String> {
        let owner = job.metadata.owner_references.iter().flatten().find(|o| o.kind == "CronJob");
        let Some(owner) = owner else { return Ok(()) };
        let (uid, name) = (job.metadata.uid.clone().unwrap_or_default(), job.metadata.name.clone().unwrap_or_default());
        let first = self.scheduled.entry(name.clone()).or_insert_with(|| uid.clone());
        if *first != uid {
            return Err(format!("job {name} is made a second time"));
        }
        if gone || job.metadata.deletion_timestamp.is_some() || is_finished(&status(job)) {
            self.running.remove(&uid);
            return Ok(());
        }
        self.running.insert(uid, owner.uid.clone());
        let beside = self.running.values().filter(|of| **of == owner.uid).count();
        if beside > 1 && self.overlap.get(&owner.uid) == Some(&false) {
            return Err(format!("job {name} runs beside another of {}, which forbids it", owner.name));
        }
        Ok(())
    }

    /// What is not yet as asked for, once nothing fails.
    pub fn missing(&self) -> Option<String> {
        let jobs = all::<Job>(&self.model);
        if let Some(job) = jobs.iter().find(|job| !is_finished(&status(job))) {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let pods = all::<Pod>(&self.model);
            let mine = pods.iter().filter(|pod| job_of(&pod.metadata) == job.metadata.uid.as_deref());
            let pods: Vec<String> = mine.map(|pod| describe(pod)).collect();
            return Some(format!("job {name} has not finished: {:?}; its pods: {}", status(job), pods.join("; ")));
        }
        let uids: BTreeSet<&str> = jobs.iter().filter_map(|job| job.metadata.uid.as_deref()).collect();
        for pod in all::<Pod>(&self.model) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match job_of(&pod.metadata) {
                Some(job) if !uids.contains(job) => return Some(format!("pod {name} outlives its job")),
                Some(_) if is_tracked(&pod) => return Some(format!("pod {name} was never let go")),
                _ => {}
            }
        }
        jobs.iter().find_map(|job| self.known.get(job.metadata.uid.as_deref()?)?.miscounted(job))
    }
}

impl Known {
    fn job(&mut self, job: &Job) -> Result<(), String> {
        self.name = job.metadata.name.clone().unwrap_or_default();
        let spec = job.spec.clone().unwrap_or_default();
        let suspended = spec.suspend == Some(true);
        let parallelism = if suspended { 0 } else { spec.parallelism.unwrap_or(1) };
        self.asked(parallelism);
        let new = status(job);
        let old = std::mem::replace(&mut self.status, new.clone());
        let fail = |what: &str| Err(format!("job {}: {what}: {old:?} became {new:?}", self.name));
        let count = |n: Option<i32>| n.unwrap_or(0);
        if count(new.succeeded) < count(old.succeeded) || count(new.failed) < count(old.failed) {
            return fail("a count went down");
        }
        if is_finished(&old) && new != old {
            return fail("it had finished");
        }
        let announced = |kind: &str| has(&old, kind) || !is_finished(&new);
        if has(&new, "Complete") && !announced("SuccessCriteriaMet") {
            return fail("it is complete unannounced");
        }
        if has(&new, "Failed") && !announced("FailureTarget") {
            return fail("it has failed unannounced");
        }
        if has(&new, "SuccessCriteriaMet") && has(&new, "FailureTarget") {
            return fail("it both fails and succeeds");
        }
        if count(new.succeeded) > self.successes(|_| true) {
            return fail("more successes are counted than there were");
        }
        if usize::try_from(count(new.failed)).unwrap_or(0) > self.failed.len() {
            return fail("more failures are counted than there were");
        }
        Ok(())
    }

    fn asked(&mut self, parallelism: i32) {
        self.parallelism.push((Instant::now(), parallelism));
        let late = Duration::from_secs(LATE_SECONDS);
        while self.parallelism.get(1).is_some_and(|(since, _)| since.elapsed() > late) {
            self.parallelism.remove(0);
        }
    }

    /// Pods that succeeded, or indexes where each counts once.
    fn successes(&self, of: impl Fn(&str) -> bool) -> i32 {
        let pods: Vec<Option<i32>> = self.succeeded.iter().filter(|(uid, _)| of(uid)).map(|(_, i)| *i).collect();
        let indexes: BTreeSet<i32> = pods.iter().flatten().copied().collect();
        let plain = pods.iter().filter(|index| index.is_none()).count();
        i32::try_from(indexes.len() + plain).unwrap_or(i32::MAX)
    }

    fn pod(&mut self, pod: &Pod, gone: bool) -> Result<(), String> {
        let (uid, name) = (pod.metadata.uid.clone().unwrap_or_default(), pod.metadata.name.as_deref());
        let name = name.unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let index = pod.metadata.annotations.as_ref().and_then(|a| a.get(INDEX)?.parse::<i32>().ok());
        let going = gone || pod.metadata.deletion_timestamp.is_some();
        if going || phase == "Failed" {
            self.failed.insert(uid.clone());
        }
        if phase == "Succeeded" && is_tracked(pod) && !self.succeeded.contains_key(&uid) {
            let again = index.is_some() && !going && self.succeeded.values().any(|known| *known == index);
            self.succeeded.insert(uid.clone(), index);
            if going {
                self.late.insert(uid.clone());
            }
            if again {
                return Err(format!("job {}: index {index:?} succeeds again with {name}", self.name));
            }
        }
        if going || matches!(phase, "Succeeded" | "Failed") {
            self.active.remove(&uid);
            return Ok(());
        }
        if self.active.insert(uid) {
            let last = self.parallelism.last().map_or(0, |(_, last)| *last);
            self.asked(last);
            let most = self.parallelism.iter().map(|(_, most)| *most).max().unwrap_or(0);
            if self.active.len() > usize::try_from(most).unwrap_or(0) {
                let there = self.active.len();
                return Err(format!("job {}: pod {name} is one too many: {there} run, at most {most} may", self.name));
            }
        }
        Ok(())
    }

    /// A Job that has failed counts what then still ran as failed, however it ended.
    fn miscounted(&self, job: &Job) -> Option<String> {
        let status = status(job);
        let counted = status.succeeded.unwrap_or(0);
        let wanted = job.spec.as_ref().and_then(|s| s.completions).unwrap_or(0);
        let most = self.successes(|_| true);
        let least =
            if has(&status, "Complete") { self.successes(|uid| !self.late.contains(uid)).max(wanted) } else { 0 };
        let name = &self.name;
        (counted < least || counted > most)
            .then(|| format!("job {name}: {least} to {most} successes of {wanted} are counted as {counted}"))
    }
}

fn status(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

fn has(status: &JobStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == condition && c.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("no node");
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let going = if pod.metadata.deletion_timestamp.is_some() { ", terminating" } else { "" };
    let tracked = if is_tracked(pod) { ", not counted" } else { "" };
    format!("{name} on {node}: {phase}{going}{tracked}")
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}
