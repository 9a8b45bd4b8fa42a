//! The whole control plane in one thread and in virtual time, with faults that a seed decides.
//!
//! Real parts: controllers, scheduler, their drivers, the event recorder and the kinds. Around them: the reference model
//! of the API, an API in between that fails as networks fail ([`faults`]), machines that run pods and crash ([`machines`]),
//! hosts that lose what runs on them and whose clocks jump ([`cluster`]), and users of Deployments ([`user`]), of
//! StatefulSets and DaemonSets, of Jobs ([`jobs`]), of budgets and of nodes. After every step the invariants are checked on
//! every change in order ([`invariants`]); at the end, without faults, everything must become what the user asked for.
//!
//! Equal seeds make equal runs, down to the last revision: a failure prints its seed, and the seed replays it.

mod changes;
pub mod clocks;
mod cluster;
mod evictor;
pub mod faults;
pub mod invariants;
pub mod jobs;
#[cfg(test)]
mod lost_machine;
pub mod machines;
pub mod many;
mod objects;
mod operator;
mod running;
mod sets;
pub mod user;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_client::{ClockRef, ModelApi, TokioClock};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::sleep;

use crate::{
    clocks::JumpyClock,
    cluster::Cluster,
    evictor::Evictor,
    faults::{FAULTS, Faults},
    invariants::Invariants,
    jobs::Jobs,
    machines::Machine,
    operator::Operator,
    sets::SetUser,
    user::User,
};

/// How many things the user does (or happen to machines) in one run.
const STEPS: usize = 30;
/// The time between two looks at the invariants.
const SLICE: Duration = Duration::from_millis(200);
/// How long everything may take to become what was asked for, once nothing fails any more.
const SETTLE_SECONDS: u64 = 1_200;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Changes to objects.
    pub revision: u64,
    /// What went wrong on purpose, in the order of [`FAULTS`].
    pub faults: [u64; FAULTS.len()],
    /// Pods that were made.
    pub pods: u64,
    /// A digest of all changes in order.
    pub digest: u64,
    /// Virtual seconds until everything was as asked for.
    pub settled_seconds: u64,
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// Replays it.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// The last changes before.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}", self.what)?;
        write!(f, "replay it with: cargo run --release -p podium-sim -- --seed {} --seeds 1", self.seed)
    }
}

impl std::error::Error for Failure {}

/// Runs one cluster from its seed.
///
/// # Errors
/// The first invariant that did not hold, or what had not become as asked for in the end.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_with(seed, u64::MAX)
}

/// The same with one more rule: never more than so many pods are made.
fn run_with(seed: u64, pods_max: u64) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(simulate(seed, pods_max))
}

async fn simulate(seed: u64, pods_max: u64) -> Result<Report, Failure> {
    let mut random = SmallRng::seed_from_u64(seed);
    let start = Timestamp::from_second(1_800_000_000).expect("a valid time");
    let clock: ClockRef = Arc::new(TokioClock::starting_at(start));
    let server_clock = JumpyClock::new(&clock);
    let model = Arc::new(ModelApi::new(server_clock.clone()));
    let faults = Arc::new(Faults::new(random.random()));
    let mut invariants = Invariants::open(&model, Arc::clone(&faults), pods_max).await;
    let mut users = Users::open(&model, &server_clock).await;
    let mut cluster = Cluster::start(&model, &faults, (&clock, server_clock), seed);
    let fail = |what: String, invariants: &Invariants| Failure { seed, what, history: invariants.history() };
    for _ in 0..STEPS {
        let did = match random.random_range(0..3) {
            0 => cluster.suffer(&mut random),
            _ => users.act(cluster.machines(), &mut random).await,
        };
        invariants.note(did);
        let pause = random.random_range(1..300);
        for _ in 0..pause {
            sleep(SLICE).await;
            let held = invariants.check().and_then(|()| users.jobs.check()).and_then(|()| cluster.check());
            held.map_err(|what| fail(what, &invariants))?;
        }
        cluster.start_parts();
    }
    faults.stop();
    cluster.mend();
    users.release().await;
    invariants.note("no more faults".to_owned());
    let settled = settle(&mut users, &model, &mut invariants, &cluster).await;
    let settled_seconds = settled.map_err(|what| fail(what, &invariants))?;
    cluster.shutdown().await;
    let (pods, digest) = (invariants.pods_made(), invariants.digest());
    Ok(Report { revision: model.revision().0, faults: faults.counts(), pods, digest, settled_seconds })
}

/// Who uses the cluster.
struct Users {
    deployer: User,
    sets: SetUser,
    evictor: Evictor,
    operator: Operator,
    jobs: Jobs,
}

impl Users {
    async fn open(model: &Arc<ModelApi>, clock: &Arc<JumpyClock>) -> Self {
        Self {
            deployer: User::new(Arc::clone(model)),
            sets: SetUser::new(Arc::clone(model)),
            evictor: Evictor::new(Arc::clone(model), Arc::clone(clock)),
            operator: Operator::new(Arc::clone(model)),
            jobs: Jobs::open(Arc::clone(model)).await,
        }
    }

    /// One thing happens; says what.
    async fn act(&mut self, machines: &[Machine], random: &mut SmallRng) -> String {
        match random.random_range(0..14) {
            0..4 => self.deployer.act(random).await,
            4..7 => self.sets.act(random).await,
            7..9 => self.evictor.act(random).await,
            9..11 => self.operator.act(machines, random).await,
            _ => self.jobs.act(random).await,
        }
    }

    /// Nothing is held back any more: from here on all can become as asked for.
    async fn release(&self) {
        self.deployer.release().await;
        self.operator.release().await;
        self.jobs.release().await;
    }

    /// What is not yet as asked for.
    fn missing(&self, model: &ModelApi) -> Option<String> {
        let pods = self.deployer.missing(model).or_else(|| self.sets.missing(model));
        pods.or_else(|| self.jobs.missing()).or_else(|| self.evictor.missing())
    }
}

async fn settle(
    users: &mut Users,
    model: &ModelApi,
    invariants: &mut Invariants,
    cluster: &Cluster,
) -> Result<u64, String> {
    let mut missing = String::new();
    for second in 0..SETTLE_SECONDS {
        sleep(Duration::from_secs(1)).await;
        invariants.check()?;
        users.jobs.check()?;
        cluster.check()?;
        match users.missing(model) {
            None => return Ok(second),
            Some(what) => missing = what,
        }
    }
    Err(format!("after {SETTLE_SECONDS} s without faults still: {missing}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    /// The same seeds each time: a test fails for a change in the code only. The binary tries others.
    #[test]
    fn clusters_survive_their_faults() {
        let faults: [AtomicU64; FAULTS.len()] = Default::default();
        let seen = |seed: u64, report: &Report| {
            assert!(report.pods > 0 && report.revision > 100, "seed {seed} does next to nothing: {report:?}");
            faults.iter().zip(report.faults).for_each(|(sum, count)| _ = sum.fetch_add(count, Relaxed));
        };
        let failures = many::run_many(0..1_000, many::cores(), 1, seen);
        assert!(failures.is_empty(), "{}", failures[0]);
        for (fault, count) in FAULTS.iter().zip(faults) {
            assert!(count.into_inner() > 500, "there is next to no {fault:?}");
        }
    }

    #[test]
    fn a_seed_that_fails_replays_exactly() {
        for seed in [3, 4, 5] {
            let failure = || run_with(seed, 5).expect_err("every cluster makes more pods");
            let (first, again) = (failure(), failure());
            assert_eq!((&first.what, &first.history), (&again.what, &again.history));
            assert_eq!(first.what, "6 pods were made, at most 5");
            assert!(first.history.last().is_some_and(|last| last.contains("Pod default/")), "{first}");
            let command = format!("cargo run --release -p podium-sim -- --seed {seed} --seeds 1");
            assert!(first.to_string().ends_with(&command), "{first}");
        }
    }

    #[test]
    fn a_seed_replays_exactly() {
        assert_eq!(run(11).unwrap(), run(11).unwrap());
        assert_ne!(run(11).unwrap().digest, run(12).unwrap().digest);
    }
}
