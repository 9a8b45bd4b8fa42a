//! [`Recorder`]: turns notes into core/v1 Events, without ever holding up who notes.
//!
//! Bounds: a queue of [`QUEUE_MAX`] notes (more are dropped), [`BURST`] events at once and then one in
//! [`REFILL_SECONDS`] about one object from one component, [`KNOWN_MAX`] events remembered. Equal notes within
//! [`WINDOW_SECONDS`] raise the count of the one Event; many different ones with one reason are combined. Events are
//! best effort: one that cannot be written is dropped.
//!
//! # Source
//! client-go `tools/record/events_cache.go` (limits and words) and `event.go` (names).

use std::{
    collections::{BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use podium_api::{
    KindRef, ObjectKey,
    k8s_openapi::{
        api::core::v1::{Event, EventSource, ObjectReference},
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
    kind_of,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Api, ApiRef, ClockRef, Patch};

/// Notes that may wait, over all lanes.
pub const QUEUE_MAX: usize = 4096;
/// Events at once about one object.
pub const BURST: f64 = 25.0;
/// After the burst, one event in so many seconds.
pub const REFILL_SECONDS: f64 = 300.0;
/// How long equal notes are counted on one Event.
pub const WINDOW_SECONDS: i64 = 3600;
/// How many events, and how many objects, are remembered.
pub const KNOWN_MAX: usize = 4096;
/// So many different messages with one reason about one object within [`SIMILAR_SECONDS`] are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_SECONDS: i64 = 600;
/// Notes about one object go through one lane, in order; lanes write at the same time.
const LANES: usize = 4;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Something to tell the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Warning rather than Normal.
    pub warning: bool,
    /// One word, for example `Scheduled`.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// Writes Events in the background. Cloning shares the queue; it ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Recorder {
    lanes: Arc<[mpsc::Sender<Note>]>,
}

impl Recorder {
    /// Starts writing Events of `component` on `host` (may be empty) on the current tokio runtime.
    pub fn start(api: ApiRef, clock: ClockRef, component: &str, host: &str) -> Self {
        let lane = |_| {
            let (sender, notes) = mpsc::channel(QUEUE_MAX / LANES);
            let correlator = Correlator::new(component, host);
            tokio::spawn(write_all(Arc::clone(&api), Arc::clone(&clock), correlator, notes));
            sender
        };
        Self { lanes: (0..LANES).map(lane).collect() }
    }

    /// Notes something; returns at once. When too much waits the note is dropped, and that is logged.
    pub fn note(&self, note: Note) {
        let mut hasher = DefaultHasher::new();
        note.regarding.uid.hash(&mut hasher);
        note.regarding.name.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or_default();
        if let Err(error) = self.lanes[lane].try_send(note) {
            tracing::debug!(%error, "an event was dropped");
        }
    }
}

async fn write_all(api: ApiRef, clock: ClockRef, mut correlator: Correlator, mut notes: mpsc::Receiver<Note>) {
    while let Some(note) = notes.recv().await {
        let Some(decision) = correlator.observe(note, clock.now()) else { continue };
        match tokio::time::timeout(WRITE_TIMEOUT, write(&*api, decision)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an event could not be written"),
            Err(_) => tracing::debug!("an event was not written within {} s", WRITE_TIMEOUT.as_secs()),
        }
    }
}

async fn write(api: &dyn Api, decision: Decision) -> Result<(), podium_api::ApiError> {
    let event = match decision {
        Decision::Create(event) => event,
        Decision::Count(event) => {
            let kind: KindRef = kind_of::<Event>();
            let patch = json!({
                "count": event.count,
                "message": event.message,
                "lastTimestamp": event.last_timestamp,
            });
            match api.patch(&kind, &ObjectKey::of(&event.metadata), Patch::Merge(patch), None).await {
                // It has expired, or went with its namespace: written anew.
                Err(error) if error.is_not_found() => event,
                result => return result.map(drop),
            }
        }
    };
    api.create(event).await.map(drop)
}

/// What becomes of a note.
#[derive(Debug)]
enum Decision {
    Create(Box<Event>),
    Count(Box<Event>),
}

/// The memory behind the recorder: no I/O, no clock.
struct Correlator {
    component: String,
    host: String,
    known: HashMap<String, Known>,
    similar: HashMap<String, Similar>,
    budgets: HashMap<String, Budget>,
    /// The newest time in a name: no two names have the same, however coarse the clock is.
    newest: Timestamp,
}

struct Known {
    name: String,
    first: Timestamp,
    last: Timestamp,
    count: i32,
}

struct Similar {
    messages: BTreeSet<u64>,
    last: Timestamp,
}

struct Budget {
    tokens: f64,
    last: Timestamp,
}

impl Correlator {
    fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            known: HashMap::new(),
            similar: HashMap::new(),
            budgets: HashMap::new(),
            newest: Timestamp::MIN,
        }
    }

    fn name_time(&mut self, now: Timestamp) -> Timestamp {
        let next = self.newest.checked_add(SignedDuration::from_nanos(1)).unwrap_or(now);
        self.newest = now.max(next);
        self.newest
    }

    /// `None`: there are too many events about this object.
    fn observe(&mut self, mut note: Note, now: Timestamp) -> Option<Decision> {
        let object = object_key(&note.regarding);
        let group = format!("{object}/{}/{}", note.warning, note.reason);
        let mut exact = format!("{group}/{}", note.message);
        if self.is_one_of_many(&group, &note.message, now) {
            note.message = format!("(combined from similar events): {}", note.message);
            exact = group;
        }
        if !self.spend(object, now) {
            return None;
        }
        trim(&mut self.known, now, |known| known.last);
        if self.known.get(&exact).is_none_or(|known| seconds(known.last, now) > WINDOW_SECONDS) {
            let name = event_name(&note.regarding, self.name_time(now));
            self.known.insert(exact.clone(), Known { name, first: now, last: now, count: 0 });
        }
        let known = self.known.get_mut(&exact)?;
        known.count = known.count.saturating_add(1);
        known.last = now;
        let event = Box::new(event(known, note, &self.component, &self.host));
        Some(if event.count == Some(1) { Decision::Create(event) } else { Decision::Count(event) })
    }

    fn is_one_of_many(&mut self, group: &str, message: &str, now: Timestamp) -> bool {
        trim(&mut self.similar, now, |similar| similar.last);
        let similar = self.similar.entry(group.to_owned()).or_insert(Similar { messages: BTreeSet::new(), last: now });
        if seconds(similar.last, now) > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR_MAX {
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            similar.messages.insert(hasher.finish());
        }
        similar.messages.len() >= SIMILAR_MAX
    }

    fn spend(&mut self, object: String, now: Timestamp) -> bool {
        trim(&mut self.budgets, now, |budget| budget.last);
        let budget = self.budgets.entry(object).or_insert(Budget { tokens: BURST, last: now });
        let elapsed = now.duration_since(budget.last).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + elapsed / REFILL_SECONDS).min(BURST);
        budget.last = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

/// Keeps a map below [`KNOWN_MAX`] by forgetting its older half.
fn trim<T>(map: &mut HashMap<String, T>, now: Timestamp, last: impl Fn(&T) -> Timestamp) {
    if map.len() < KNOWN_MAX {
        return;
    }
    let mut ages: Vec<_> = map.values().map(&last).collect();
    ages.sort_unstable();
    let middle = ages[ages.len() / 2].min(now);
    map.retain(|_, value| last(value) > middle);
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

fn object_key(regarding: &ObjectReference) -> String {
    let part = |field: &Option<String>| field.clone().unwrap_or_default();
    let ObjectReference { kind, namespace, name, uid, field_path, .. } = regarding;
    [kind, namespace, name, uid, field_path].map(part).join("/")
}

/// `web-1.18a3f…`: the object's name and the time in hexadecimal nanoseconds.
fn event_name(regarding: &ObjectReference, now: Timestamp) -> String {
    // Room for the suffix within the 253 bytes of a name.
    let name: String = regarding.name.as_deref().unwrap_or("unknown").chars().take(230).collect();
    format!("{name}.{:x}", now.as_nanosecond())
}

fn event(known: &Known, note: Note, component: &str, host: &str) -> Event {
    let namespace = note.regarding.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    Event {
        metadata: ObjectMeta { name: Some(known.name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: note.regarding,
        reason: Some(note.reason),
        message: Some(note.message),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: Some(host.to_owned()).filter(|h| !h.is_empty()),
        }),
        first_timestamp: Some(Time(whole_seconds(known.first))),
        last_timestamp: Some(Time(whole_seconds(known.last))),
        count: Some(known.count),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(host.to_owned()),
        ..Event::default()
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(object: &str, reason: &str, message: &str) -> Note {
        let regarding = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("d".to_owned()),
            name: Some(object.to_owned()),
            ..ObjectReference::default()
        };
        Note { regarding, warning: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn show(decision: Option<Decision>) -> String {
        match decision {
            None => "dropped".to_owned(),
            Some(Decision::Create(e)) => format!("create {}", e.message.unwrap()),
            Some(Decision::Count(e)) => format!("count {} {}", e.count.unwrap(), e.message.unwrap()),
        }
    }

    #[test]
    fn equal_notes_are_counted_on_one_event() {
        let mut correlator = Correlator::new("kubelet", "n1");
        assert_eq!(show(correlator.observe(note("a", "Pulled", "x"), at(10))), "create x");
        assert_eq!(show(correlator.observe(note("a", "Pulled", "x"), at(20))), "count 2 x");
        assert_eq!(show(correlator.observe(note("b", "Pulled", "x"), at(20))), "create x");
        let Some(Decision::Count(event)) = correlator.observe(note("a", "Pulled", "x"), at(30)) else {
            panic!("not counted")
        };
        assert_eq!(event.metadata.name.as_deref(), Some("a.2540be400"));
        assert_eq!((event.first_timestamp.unwrap().0, event.last_timestamp.unwrap().0), (at(10), at(30)));
        assert_eq!(show(correlator.observe(note("a", "Pulled", "x"), at(31 + WINDOW_SECONDS))), "create x");
    }

    #[test]
    fn no_two_events_have_one_name() {
        let mut correlator = Correlator::new("kubelet", "n1");
        let names =
            ["Created", "Started", "Killing"].map(|reason| match correlator.observe(note("a", reason, "x"), at(10)) {
                Some(Decision::Create(event)) => event.metadata.name.unwrap(),
                other => panic!("{other:?}"),
            });
        assert_eq!(names, ["a.2540be400", "a.2540be401", "a.2540be402"]);
    }

    #[test]
    fn many_different_messages_with_one_reason_are_combined() {
        let mut correlator = Correlator::new("kubelet", "n1");
        for n in 1..10 {
            assert_eq!(show(correlator.observe(note("a", "Failed", &n.to_string()), at(n))), format!("create {n}"));
        }
        let seen = [10, 11].map(|n| show(correlator.observe(note("a", "Failed", &n.to_string()), at(n))));
        let combined = "(combined from similar events):";
        assert_eq!(seen, [format!("create {combined} 10"), format!("count 2 {combined} 11")]);
    }

    #[test]
    fn one_object_cannot_flood_and_memory_is_bounded() {
        let mut correlator = Correlator::new("kubelet", "n1");
        let flood = (0..100).filter(|_| correlator.observe(note("a", "BackOff", "x"), at(0)).is_some());
        assert_eq!(flood.count(), 25);
        assert!(correlator.observe(note("a", "BackOff", "x"), at(299)).is_none());
        assert!(correlator.observe(note("a", "BackOff", "x"), at(601)).is_some());
        for n in 0..20_000 {
            correlator.observe(note(&format!("pod-{n}"), "Scheduled", "x"), at(1_000 + n / 100));
        }
        assert!(correlator.known.len() <= KNOWN_MAX && correlator.budgets.len() <= KNOWN_MAX);
    }
}
