//! API priority and fairness: each request takes a seat of its priority level, or waits for one, or is refused.
//!
//! Invariants: the first FlowSchema by precedence that is about a request decides its level; a level's seats, queues and
//! waits are bounded, those of the level `exempt` too; what other levels do not lend they keep, so that a flood of workloads
//! leaves the system's level alone; objects are read when they change, never for a request.
//! Not done: requests that take more than one seat, as large lists do in Kubernetes. Lists are written from ready bytes.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol` and
//! `staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration, PriorityLevelConfigurationSpec};
use parking_lot::{Mutex, RwLock};
use podium_api::{ApiError, Reason};
use tokio::time::Instant;

use self::{
    level::{Entered, Level},
    matching::Rules,
    metrics::{Counted, Metrics},
    queues::{Refusal, Shape, Ticket},
    shares::{Bounds, Claim},
};
use crate::{
    auth::{Attributes, Identity},
    registry::{Registry, cache::Filter},
};

mod keep;
mod level;
mod matching;
mod metrics;
pub(crate) mod objects;
mod queues;
mod retry;
mod shares;
mod shuffle;
#[cfg(test)]
mod tests;

pub(crate) use self::keep::keep_all;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The most queues that a level gets, whatever its object says: each costs memory.
const QUEUES_MAX: usize = 4096;
/// The most that may wait in one queue.
const LENGTH_MAX: usize = 1000;

/// What flow control is told at start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowLimits {
    /// Seats that limited levels share.
    pub(crate) seats: usize,
    /// Requests of exempt levels under way.
    pub(crate) exempt_max: usize,
    /// How long a request may wait for a seat.
    pub(crate) wait_max: Duration,
}

/// Seats of one server.
pub(crate) struct Flow {
    limits: FlowLimits,
    setup: RwLock<Setup>,
    metrics: Metrics,
    /// Requests under way that read, and that write.
    under_way: [Arc<AtomicUsize>; 2],
    /// What was expected of each level, for the next division of seats.
    expected: Mutex<HashMap<String, f64>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Setup {
    /// By precedence.
    schemas: Vec<Arc<Schema>>,
    levels: HashMap<String, Config>,
}

struct Config {
    level: Arc<Level>,
    uid: HeaderValue,
    bounds: Bounds,
    exempt: bool,
}

/// A FlowSchema that is in force, with its level.
pub(crate) struct Schema {
    name: String,
    rules: Rules,
    by: Distinguisher,
    level: Arc<Level>,
    exempt: bool,
    uids: [HeaderValue; 2],
    counted: Counted,
}

/// What makes requests of one schema different flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

impl Schema {
    /// Tells a client how its request was sorted, without names that are not its business.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        let [schema, level] = &self.uids;
        headers.insert(SCHEMA_UID, schema.clone());
        headers.insert(LEVEL_UID, level.clone());
    }
}

/// A seat, until it is dropped.
pub(crate) struct Seat {
    schema: Arc<Schema>,
    ticket: Ticket,
    under_way: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let counted = &self.schema.counted;
        counted.executing.dec();
        counted.seats.dec();
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.schema.level.finish(self.ticket);
    }
}

impl Flow {
    /// With the objects that are mandatory alone, until [`Flow::load`] is called.
    ///
    /// # Errors
    /// When a metric's name is taken.
    pub(crate) fn new(limits: FlowLimits, metrics: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let made = Self {
            limits,
            setup: RwLock::default(),
            metrics: Metrics::new(metrics)?,
            under_way: Default::default(),
            expected: Mutex::default(),
            hasher: RandomState::new(),
        };
        made.set(Vec::new(), Vec::new());
        Ok(made)
    }

    /// Takes over the objects as they are now.
    pub(crate) fn load(&self, registry: &Registry) {
        self.set(objects_of(registry), objects_of(registry));
    }

    /// What is mandatory is in force even where its object is not there.
    fn set(&self, mut schemas: Vec<FlowSchema>, mut levels: Vec<PriorityLevelConfiguration>) {
        for level in objects::levels(true) {
            if !levels.iter().any(|l| l.metadata.name == level.metadata.name) {
                levels.push(level);
            }
        }
        for schema in objects::schemas(true) {
            if !schemas.iter().any(|s| s.metadata.name == schema.metadata.name) {
                schemas.push(schema);
            }
        }
        schemas.sort_by_cached_key(|s| {
            let precedence = s.spec.as_ref().and_then(|s| s.matching_precedence).unwrap_or(1000);
            (precedence, s.metadata.name.clone())
        });
        let mut setup = self.setup.write();
        let levels = self.levels(&levels, &setup.levels);
        let schemas: Vec<_> = schemas.iter().filter_map(|schema| self.schema(schema, &levels)).collect();
        for old in &setup.schemas {
            if !schemas.iter().any(|s| s.name == old.name && s.level.name == old.level.name) {
                self.metrics.forget(&old.level.name, &old.name);
            }
        }
        for name in setup.levels.keys().filter(|name| !levels.contains_key(*name)) {
            self.metrics.forget_level(name);
        }
        self.expected.lock().retain(|name, _| levels.contains_key(name));
        *setup = Setup { schemas, levels };
        drop(setup);
        self.divide();
    }

    /// A level that there was keeps those who are in it.
    fn levels(&self, objects: &[PriorityLevelConfiguration], old: &HashMap<String, Config>) -> HashMap<String, Config> {
        let specs = || objects.iter().filter_map(|l| Some((l, l.spec.as_ref()?)));
        let sum: usize = specs().map(|(_, spec)| shares::shares(spec)).sum();
        let config = |(object, spec): (&PriorityLevelConfiguration, &PriorityLevelConfigurationSpec)| {
            let name = object.metadata.name.clone().unwrap_or_default();
            let exempt = spec.type_ == "Exempt";
            let bounds = Bounds::of(spec, self.limits.seats, sum);
            let shape = shape(spec);
            let seats = if exempt { self.limits.exempt_max } else { bounds.initial().max(1) };
            let level = match old.get(&name) {
                Some(old) => {
                    let seats = if exempt || old.exempt != exempt { seats } else { old.level.seats() };
                    old.level.reshape(shape, seats);
                    old.level.clone()
                }
                None => Arc::new(Level::new(name.clone(), shape, seats)),
            };
            (name, Config { level, uid: uid(object.metadata.uid.as_deref()), bounds, exempt })
        };
        specs().map(config).collect()
    }

    /// `None` when the level is not there.
    fn schema(&self, object: &FlowSchema, levels: &HashMap<String, Config>) -> Option<Arc<Schema>> {
        let spec = object.spec.as_ref()?;
        let config = levels.get(&spec.priority_level_configuration.name)?;
        let name = object.metadata.name.clone().unwrap_or_default();
        Some(Arc::new(Schema {
            rules: Rules::read(spec),
            by: match spec.distinguisher_method.as_ref().map(|m| m.type_.as_str()) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            level: config.level.clone(),
            exempt: config.exempt,
            uids: [uid(object.metadata.uid.as_deref()), config.uid.clone()],
            counted: self.metrics.of(&config.level.name, &name),
            name,
        }))
    }

    /// Which schema a request belongs to: the first that is about it, or else the last, `catch-all`.
    pub(crate) fn classify(&self, who: &Identity, what: &Attributes<'_>) -> Option<Arc<Schema>> {
        let setup = self.setup.read();
        let found = setup.schemas.iter().find(|schema| schema.rules.matches(who, what));
        found.or_else(|| setup.schemas.iter().find(|schema| schema.name == "catch-all")).cloned()
    }

    /// A seat for a request, at once or after some time.
    ///
    /// # Errors
    /// 429 when the level is full and so is its queue, or the wait was too long.
    pub(crate) async fn seat(
        &self,
        schema: &Arc<Schema>,
        who: &Identity,
        what: &Attributes<'_>,
    ) -> Result<Seat, ApiError> {
        let entered = schema.level.arrive(self.flow(schema, who, what));
        let ticket = match entered {
            Ok(Entered::Seated(ticket)) => Ok(ticket),
            Ok(Entered::Waits(waiter)) => {
                let counted = &schema.counted;
                let _waiting = Raised::new(&counted.waiting);
                let since = Instant::now();
                let outcome = waiter.wait(self.limits.wait_max).await;
                let [served, refused] = &counted.waited;
                let waited = if outcome.is_ok() { served } else { refused };
                waited.observe(since.elapsed().as_secs_f64());
                outcome
            }
            Err(why) => Err(why),
        };
        let ticket = ticket.map_err(|why| refused(schema, why))?;
        let under_way = self.under_way[usize::from(!is_read(what.verb))].clone();
        under_way.fetch_add(1, Ordering::Relaxed);
        schema.counted.dispatched.inc();
        schema.counted.executing.inc();
        schema.counted.seats.inc();
        Ok(Seat { schema: schema.clone(), ticket, under_way })
    }

    fn flow(&self, schema: &Schema, who: &Identity, what: &Attributes<'_>) -> u64 {
        if schema.exempt {
            return 0;
        }
        let distinguisher = match schema.by {
            Distinguisher::Nothing => "",
            Distinguisher::User => who.user.as_str(),
            Distinguisher::Namespace => matching::namespace_of(what),
        };
        self.hasher.hash_one((schema.name.as_str(), distinguisher))
    }

    /// Requests under way that only read, and that write.
    pub(crate) fn under_way(&self) -> [usize; 2] {
        [0, 1].map(|i| self.under_way[i].load(Ordering::Relaxed))
    }

    /// Gives each level as many seats as it may have by what was asked of all.
    fn divide(&self) {
        let setup = self.setup.read();
        let mut expected = self.expected.lock();
        let configs: Vec<(&String, &Config)> = setup.levels.iter().collect();
        let claims: Vec<Claim> = configs
            .iter()
            .map(|(name, config)| {
                let demand = config.level.take_demand();
                let smoothed = expected.entry((*name).clone()).or_default();
                *smoothed = demand.smoothed(*smoothed);
                Claim { bounds: config.bounds, highest: demand.highest(), smoothed: *smoothed, exempt: config.exempt }
            })
            .collect();
        for ((name, config), seats) in configs.into_iter().zip(shares::divide(&claims)) {
            self.metrics.limits(name, config.bounds, seats);
            if !config.exempt {
                config.level.set_seats(seats);
            }
        }
    }
}

fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch")
}

fn refused(schema: &Schema, why: Refusal) -> ApiError {
    schema.counted.rejected[why as usize].inc();
    too_many().retry_after(schema.level.retry_after())
}

/// 429 in Kubernetes' words, to come again after a second.
pub(crate) fn too_many() -> ApiError {
    ApiError::new(Reason::TooManyRequests, "Too many requests, please try again later.").retry_after(1)
}

/// Counts for as long as it lives.
struct Raised<'a>(&'a prometheus::IntGauge);

impl<'a> Raised<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn uid(uid: Option<&str>) -> HeaderValue {
    uid.and_then(|uid| HeaderValue::from_str(uid).ok()).unwrap_or(HeaderValue::from_static(""))
}

fn objects_of<T: podium_api::Kind + Clone>(registry: &Registry) -> Vec<T> {
    let Ok(resource) = registry.of(&T::NAMES) else { return Vec::new() };
    let all = resource.cache.list(&Filter::default()).entries;
    all.iter().filter_map(|e| e.object.downcast_ref::<T>().cloned()).collect()
}

/// How requests of a level wait.
fn shape(spec: &PriorityLevelConfigurationSpec) -> Shape {
    let response = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref());
    let Some(queuing) = response.filter(|r| r.type_ == "Queue").and_then(|r| r.queuing.as_ref()) else {
        return Shape::default();
    };
    let number = |n: Option<i32>, default: usize| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(default).max(1);
    let queues = number(queuing.queues, 64).min(QUEUES_MAX);
    Shape {
        queues,
        hand: number(queuing.hand_size, 8).min(queues),
        length_max: number(queuing.queue_length_limit, 50).min(LENGTH_MAX),
    }
}
