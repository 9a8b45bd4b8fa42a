//! [`Cluster`]: the parts of a cluster, each on a host of its own, and what happens to the hosts.
//!
//! A part is stopped at once, in the middle of whatever it does, and starts again knowing nothing.

use std::{sync::Arc, time::Duration};

use podium_client::{ApiRef, ClockRef, ModelApi};
use podium_drivers::{ControllerManager, Handle, ManagerConfig, Scheduler, SchedulerConfig};
use rand::{RngExt, rngs::SmallRng};

use crate::{
    clocks::{JumpyClock, OFF_SECONDS_MAX},
    faults::{Fault, Faults, FaultyApi, Wire},
    machines::{Machine, Surroundings},
    running::Running,
};

/// How many machines a cluster has.
const MACHINES: usize = 4;
/// Controllers and scheduler are never cut off for longer: what they know is then at most as old as the invariants allow.
const PARTITION_MILLIS_MAX: u64 = 30_000;
/// Machines may be cut off until they are thought lost.
const LONG_PARTITION_MILLIS_MAX: u64 = 600_000;

/// What a host is for.
#[derive(Clone, Copy)]
enum Role {
    Controllers,
    Scheduler,
}

/// One host of the control plane, with the part on it.
struct Part {
    role: Role,
    seed: u64,
    wire: Arc<Wire>,
    clock: Arc<JumpyClock>,
    /// `None`: it has crashed.
    running: Option<Handle>,
}

/// Everything that runs.
pub(crate) struct Cluster {
    model: Arc<ModelApi>,
    faults: Arc<Faults>,
    server_clock: Arc<JumpyClock>,
    machines: Vec<Machine>,
    running: Arc<Running>,
    parts: [Part; 2],
}

impl Cluster {
    /// Starts it.
    pub(crate) fn start(
        model: &Arc<ModelApi>,
        faults: &Arc<Faults>,
        clocks: (&ClockRef, Arc<JumpyClock>),
        seed: u64,
    ) -> Self {
        let (right, server_clock) = clocks;
        let running = Arc::<Running>::default();
        let machine = |n: usize| {
            let (wire, clock) = (Arc::<Wire>::default(), JumpyClock::new(right));
            let api = Arc::new(FaultyApi::new(Arc::clone(model), Arc::clone(faults), Arc::clone(&wire)));
            let around = Surroundings { wire, clock, running: Arc::clone(&running) };
            Machine::start(format!("n{n}"), api, around, seed ^ n as u64)
        };
        let machines = (0..MACHINES).map(machine).collect();
        let part = |role| {
            let (wire, clock) = (Arc::<Wire>::default(), JumpyClock::new(right));
            Part { role, seed, wire, clock, running: None }
        };
        let parts = [part(Role::Controllers), part(Role::Scheduler)];
        let (model, faults) = (Arc::clone(model), Arc::clone(faults));
        let mut cluster = Self { model, faults, server_clock, machines, running, parts };
        cluster.start_parts();
        cluster
    }

    pub(crate) fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// # Errors
    /// Something runs twice.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.running.check()
    }

    /// What has crashed of the control plane starts again.
    pub(crate) fn start_parts(&mut self) {
        for part in self.parts.iter_mut().filter(|part| part.running.is_none()) {
            let (model, faults) = (Arc::clone(&self.model), Arc::clone(&self.faults));
            part.start(Arc::new(FaultyApi::new(model, faults, Arc::clone(&part.wire))));
        }
    }

    /// Something happens to a host; says what.
    pub(crate) fn suffer(&mut self, random: &mut SmallRng) -> String {
        let machine = &self.machines[random.random_range(0..self.machines.len())];
        match random.random_range(0..10) {
            0 => {
                self.faults.count(Fault::MachineCrash);
                machine.crash();
                format!("machine {} crashes", machine.name())
            }
            1 | 2 => {
                self.recover_machines();
                "all machines are back".to_owned()
            }
            3 => {
                machine.evict();
                format!("machine {} evicts a pod", machine.name())
            }
            4 => {
                self.faults.count(Fault::Partition);
                let time = Duration::from_millis(random.random_range(1_000..LONG_PARTITION_MILLIS_MAX));
                machine.wire().cut_for(time);
                format!("machine {} is cut off for {} s", machine.name(), time.as_secs())
            }
            5 => self.cut_part(random),
            6 | 7 => self.crash_part(random),
            _ => self.set_clock(random),
        }
    }

    fn cut_part(&mut self, random: &mut SmallRng) -> String {
        self.faults.count(Fault::Partition);
        let part = &self.parts[random.random_range(0..self.parts.len())];
        let time = Duration::from_millis(random.random_range(1_000..PARTITION_MILLIS_MAX));
        part.wire.cut_for(time);
        format!("{} is cut off for {} s", part.role.name(), time.as_secs())
    }

    fn crash_part(&mut self, random: &mut SmallRng) -> String {
        let at = random.random_range(0..self.parts.len());
        let part = &mut self.parts[at];
        if let Some(running) = part.running.take() {
            self.faults.count(Fault::PartCrash);
            running.crash();
        }
        format!("{} crashes", part.role.name())
    }

    fn set_clock(&self, random: &mut SmallRng) -> String {
        self.faults.count(Fault::ClockJump);
        let seconds = random.random_range(-OFF_SECONDS_MAX..=OFF_SECONDS_MAX);
        let hosts = self.machines.len() + self.parts.len() + 1;
        let at = random.random_range(0..hosts);
        let (name, clock) = match at.checked_sub(self.machines.len()) {
            None => (self.machines[at].name(), self.machines[at].clock()),
            Some(at) => match self.parts.get(at) {
                Some(part) => (part.role.name(), &*part.clock),
                None => ("the API", &*self.server_clock),
            },
        };
        clock.set_off(seconds);
        format!("the clock of {name} is off by {seconds} s")
    }

    fn recover_machines(&self) {
        for machine in &self.machines {
            machine.recover();
            machine.wire().mend();
        }
    }

    /// Nothing is broken any more. Clocks stay as they are.
    pub(crate) fn mend(&mut self) {
        self.recover_machines();
        self.parts.iter().for_each(|part| part.wire.mend());
        self.start_parts();
    }

    /// Stops in order.
    pub(crate) async fn shutdown(self) {
        for part in self.parts {
            if let Some(running) = part.running {
                running.shutdown().await;
            }
        }
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Controllers => "the host of the controllers",
            Self::Scheduler => "the host of the scheduler",
        }
    }
}

impl Part {
    fn start(&mut self, api: ApiRef) {
        let clock: ClockRef = self.clock.clone();
        self.running = Some(match self.role {
            Role::Controllers => ControllerManager::start(api, ManagerConfig { clock, ..ManagerConfig::default() }),
            Role::Scheduler => {
                let config = SchedulerConfig { clock, seed: self.seed, ..SchedulerConfig::default() };
                Scheduler::start(api, config)
            }
        });
    }
}
