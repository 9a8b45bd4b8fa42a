//! The whole control plane in one thread and in virtual time, with faults that a seed decides.
//!
//! Real parts: controllers, scheduler, their drivers, the event recorder and the kinds. Around them: the reference model
//! of the API, an API in between that fails as networks fail ([`faults`]), machines that run pods and crash ([`machines`])
//! and two users: one of Deployments ([`user`]), one of StatefulSets and DaemonSets. After every step the invariants are checked on every change in order ([`invariants`]); at
//! the end, without faults, everything must become what the user asked for.
//!
//! Equal seeds make equal runs, down to the last revision: a failure prints its seed, and the seed replays it.

mod changes;
pub mod faults;
pub mod invariants;
pub mod jobs;
pub mod machines;
pub mod many;
mod objects;
mod sets;
pub mod user;

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_client::{ApiRef, ClockRef, ModelApi, TokioClock};
use podium_drivers::{ControllerManager, ManagerConfig, Scheduler, SchedulerConfig};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::sleep;

use crate::{
    faults::{Faults, FaultyApi},
    invariants::Invariants,
    jobs::Jobs,
    machines::Machine,
    sets::SetUser,
    user::User,
};

/// How many machines a cluster has.
const MACHINES: usize = 4;
/// How many things the user does (or happen to machines) in one run.
const STEPS: usize = 25;
/// The time between two looks at the invariants.
const SLICE: Duration = Duration::from_millis(200);
/// How long everything may take to become what was asked for, once nothing fails any more.
const SETTLE_SECONDS: u64 = 1_200;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Changes to objects.
    pub revision: u64,
    /// Requests that failed on purpose.
    pub faults: u64,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(simulate(seed))
}

async fn simulate(seed: u64) -> Result<Report, Failure> {
    let mut random = SmallRng::seed_from_u64(seed);
    let start = Timestamp::from_second(1_800_000_000).expect("a valid time");
    let clock: ClockRef = Arc::new(TokioClock::starting_at(start));
    let model = Arc::new(ModelApi::new(Arc::clone(&clock)));
    let faults = Arc::new(Faults::new(random.random()));
    let mut invariants = Invariants::open(&model, Arc::clone(&faults)).await;
    let mut jobs = Jobs::open(Arc::clone(&model)).await;
    let client = || Arc::new(FaultyApi::new(Arc::clone(&model), Arc::clone(&faults))) as ApiRef;

    let machine = |n: usize| Machine::start(format!("n{n}"), client(), Arc::clone(&clock), seed ^ n as u64);
    let machines: Vec<Machine> = (0..MACHINES).map(machine).collect();
    let manager = ManagerConfig { clock: Arc::clone(&clock), ..ManagerConfig::default() };
    let manager = ControllerManager::start(client(), manager);
    let scheduler = SchedulerConfig { clock: Arc::clone(&clock), seed, ..SchedulerConfig::default() };
    let scheduler = Scheduler::start(client(), scheduler);

    let mut users = (User::new(Arc::clone(&model)), SetUser::new(Arc::clone(&model)));
    let fail = |what: String, invariants: &Invariants| Failure { seed, what, history: invariants.history() };
    for _ in 0..STEPS {
        let did = act(&mut random, &mut users, &mut jobs, &machines).await;
        invariants.note(did);
        let pause = random.random_range(1..300);
        for _ in 0..pause {
            sleep(SLICE).await;
            invariants.check().and_then(|()| jobs.check()).map_err(|what| fail(what, &invariants))?;
        }
    }
    faults.stop();
    machines.iter().for_each(Machine::recover);
    jobs.release().await;
    invariants.note("no more faults".to_owned());
    let settled_seconds =
        settle(&users, &mut jobs, &model, &mut invariants).await.map_err(|what| fail(what, &invariants))?;
    manager.shutdown().await;
    scheduler.shutdown().await;
    let (pods, digest) = (invariants.pods_made(), invariants.digest());
    Ok(Report { revision: model.revision().0, faults: faults.count(), pods, digest, settled_seconds })
}

/// One thing happens; says what.
async fn act(random: &mut SmallRng, users: &mut (User, SetUser), jobs: &mut Jobs, machines: &[Machine]) -> String {
    let machine = &machines[random.random_range(0..machines.len())];
    match random.random_range(0..13) {
        0 => {
            machine.crash();
            format!("machine {} crashes", machine.name())
        }
        1 | 2 => {
            machines.iter().for_each(Machine::recover);
            "all machines are back".to_owned()
        }
        3 => {
            machine.evict();
            format!("machine {} evicts a pod", machine.name())
        }
        4..7 => users.1.act(random).await,
        10.. => jobs.act(random).await,
        _ => users.0.act(random).await,
    }
}

async fn settle(
    users: &(User, SetUser),
    jobs: &mut Jobs,
    model: &ModelApi,
    invariants: &mut Invariants,
) -> Result<u64, String> {
    let mut missing = String::new();
    for second in 0..SETTLE_SECONDS {
        sleep(Duration::from_secs(1)).await;
        invariants.check()?;
        jobs.check()?;
        match users.0.missing(model).or_else(|| users.1.missing(model)).or_else(|| jobs.missing()) {
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
        let faults = AtomicU64::new(0);
        let seen = |seed: u64, report: &Report| {
            assert!(report.pods > 0 && report.revision > 100, "seed {seed} does next to nothing: {report:?}");
            faults.fetch_add(report.faults, Relaxed);
        };
        many::run_many(0..1_000, many::cores(), seen).unwrap_or_else(|failure| panic!("{failure}"));
        let faults = faults.into_inner();
        assert!(faults > 10_000, "only {faults} faults");
    }

    #[test]
    fn a_seed_replays_exactly() {
        assert_eq!(run(11).unwrap(), run(11).unwrap());
        assert_ne!(run(11).unwrap().digest, run(12).unwrap().digest);
    }
}
