//! What Podium itself may take away of the pods of a Deployment.
//!
//! - A roll-out leaves at least as many ready as `replicas` less `maxUnavailable`.
//! - An eviction leaves at least as many ready as the budget demands.
//!
//! Pods that others have taken away a short time before (users, nodes in trouble, more important pods) are not held against
//! either: nobody has to know of them yet.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use podium_api::{
    ObjectKey,
    k8s_openapi::{
        api::{
            apps::v1::Deployment,
            core::v1::{Node, Pod},
            policy::v1::PodDisruptionBudget,
        },
        apimachinery::pkg::util::intstr::IntOrString,
    },
};
use tokio::time::Instant;

use super::{LATE_SECONDS, Wanted, placement::is_preempted, trouble::Trouble, uid};
use crate::{
    evictor::{EVICTS, app_of_budget},
    objects::{app_of, is_ready},
};

/// Two statuses stand between a pod and the decision on the next one, each as late as any knowledge.
const CHAIN_SECONDS: u64 = 2 * LATE_SECONDS;
/// The Deployments, by name.
#[derive(Default)]
pub(super) struct Availability {
    apps: BTreeMap<String, App>,
    trouble: Trouble,
    killed: BTreeSet<String>,
    evicted: BTreeSet<String>,
}

struct App {
    gone: bool,
    replicas: i32,
    /// How many a roll-out has to leave.
    floor: Wanted,
    budget: Option<Budget>,
    /// By uid.
    pods: BTreeMap<String, Member>,
    /// Ready pods that went for other reasons than a roll-out.
    lost: VecDeque<Instant>,
    /// Ready pods that went without this budget having counted them.
    uncounted: VecDeque<(Instant, Option<String>)>,
}

struct Budget {
    uid: String,
    demand: Demand,
    floor: Wanted,
}

/// What a budget asks for.
enum Demand {
    Least(IntOrString),
    Most(IntOrString),
}

struct Member {
    well: bool,
    /// Since when it is so.
    since: Instant,
    going: bool,
}

impl Default for App {
    fn default() -> Self {
        let floor = Wanted::within(CHAIN_SECONDS);
        let (pods, lost, uncounted) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { gone: false, replicas: 0, floor, budget: None, pods, lost, uncounted }
    }
}

impl Availability {
    /// Hears what the user did.
    pub(super) fn heard(&mut self, what: &str) {
        self.killed.extend(what.strip_prefix("user kills ").map(str::to_owned));
        let evicted = what.strip_prefix(EVICTS).into_iter().flat_map(str::split_whitespace);
        self.evicted.extend(evicted.map(str::to_owned));
    }

    pub(super) fn node(&mut self, node: &Node, gone: bool) {
        self.trouble.node(node, gone);
    }

    pub(super) fn deployment(&mut self, deployment: &Deployment, gone: bool) {
        let Some(spec) = &deployment.spec else { return };
        let app = self.apps.entry(deployment.metadata.name.clone().unwrap_or_default()).or_default();
        app.gone = gone || deployment.metadata.deletion_timestamp.is_some();
        app.replicas = spec.replicas.unwrap_or(1);
        let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let unavailable = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
            Some(IntOrString::Int(unavailable)) => *unavailable,
            // Recreated: all may go at once.
            _ => app.replicas,
        };
        app.floor.now(app.replicas - unavailable);
        app.raise_budget();
    }

    pub(super) fn budget(&mut self, budget: &PodDisruptionBudget, gone: bool) {
        let Some(app) = app_of_budget(budget).and_then(|app| self.apps.get_mut(app)) else { return };
        if gone {
            app.budget = None;
            return;
        }
        let spec = budget.spec.clone().unwrap_or_default();
        let demand = match (spec.min_available, spec.max_unavailable) {
            (Some(least), _) => Demand::Least(least),
            (None, most) => Demand::Most(most.unwrap_or(IntOrString::Int(0))),
        };
        let new = uid(&budget.metadata);
        if app.budget.as_ref().is_none_or(|known| known.uid != new) {
            app.budget = Some(Budget { uid: new, demand, floor: Wanted::within(CHAIN_SECONDS) });
            app.raise_budget();
        }
    }

    /// # Errors
    /// What does not hold.
    pub(super) fn pod(&mut self, pod: &Pod, gone: bool) -> Result<(), String> {
        let Some(app) = app_of(&pod.metadata).and_then(|app| self.apps.get_mut(app)) else { return Ok(()) };
        let (id, key) = (uid(&pod.metadata), ObjectKey::of(&pod.metadata).to_string());
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let going = gone || pod.metadata.deletion_timestamp.is_some();
        let before = app.pods.remove(&id);
        let mut member = Member { well: !going && is_ready(pod), since: Instant::now(), going };
        if let Some(before) = before.as_ref().filter(|before| before.well == member.well) {
            member.since = before.since;
        }
        let well = member.well;
        if !gone {
            app.pods.insert(id, member);
        }
        let Some(before) = before.filter(|before| before.well && !well) else { return Ok(()) };
        let in_trouble = self.trouble.is_in(node);
        let is_new = going && !before.going;
        let by_others = !is_new || in_trouble || self.killed.remove(&key) || is_preempted(pod);
        let evicted = is_new && self.evicted.remove(&key);
        if app.gone {
            return Ok(());
        }
        if evicted {
            return app.evict(&key);
        }
        app.uncounted.push_back((Instant::now(), None));
        // One that has become ready a short time ago may be thought not to be.
        if by_others || before.since.elapsed() < Duration::from_secs(CHAIN_SECONDS) {
            app.lost.push_back(Instant::now());
            return Ok(());
        }
        app.roll_out(&key)
    }
}

impl App {
    fn well(&self) -> i32 {
        i32::try_from(self.pods.values().filter(|pod| pod.well).count()).unwrap_or(i32::MAX)
    }

    /// What the budget demands follows how many are wanted.
    fn raise_budget(&mut self) {
        let replicas = self.replicas;
        let Some(budget) = &mut self.budget else { return };
        let demanded = match &budget.demand {
            Demand::Least(least) => scaled(least, replicas),
            Demand::Most(most) => replicas - scaled(most, replicas),
        };
        budget.floor.now(demanded);
    }

    fn evict(&mut self, name: &str) -> Result<(), String> {
        let (now, well) = (Instant::now(), self.well());
        self.lost.push_back(now);
        let Some(budget) = &mut self.budget else {
            self.uncounted.push_back((now, None));
            return Ok(());
        };
        let window = Duration::from_secs(CHAIN_SECONDS);
        self.uncounted.retain(|(at, _)| at.elapsed() < window);
        let others = self.uncounted.iter().filter(|(_, by)| by.as_ref() != Some(&budget.uid)).count();
        self.uncounted.push_back((now, Some(budget.uid.clone())));
        let (others, floor) = (i32::try_from(others).unwrap_or(i32::MAX), budget.floor.least());
        if well.saturating_add(others) < floor {
            return Err(format!("pod {name} was evicted: {well} are well, {others} went otherwise, of {floor}"));
        }
        Ok(())
    }

    fn roll_out(&mut self, name: &str) -> Result<(), String> {
        let window = Duration::from_secs(CHAIN_SECONDS);
        self.lost.retain(|at| at.elapsed() < window);
        let (well, floor) = (self.well(), self.floor.least());
        let lost = i32::try_from(self.lost.len()).unwrap_or(i32::MAX);
        if well.saturating_add(lost) < floor {
            return Err(format!("pod {name} was taken away: {well} are well, {lost} were lost, of {floor}"));
        }
        Ok(())
    }
}

/// Rounded up.
fn scaled(amount: &IntOrString, of: i32) -> i32 {
    match amount {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            (of * percent + 99) / 100
        }
    }
}
