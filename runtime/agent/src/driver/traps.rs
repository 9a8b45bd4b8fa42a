//! What a pod is told of traps, by an event with the backtrace, and of interfaces that were used and are not granted, by a line in
//! the container's log. When a single instance trapped the container goes on.
//!
//! Equal traps are one event with a count: the recorder aggregates and limits. Here only what would flood its queue is left
//! out: one trap a second of each container is told.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use podium_client::{Note, Recorder};
use podium_sandbox::Observer;

use super::Shared;
use crate::{decide::local::Slot, logs::writer::ContainerLog};

/// Characters of an event's message, as in Kubernetes.
const MESSAGE_MAX: usize = 1024;
const EVERY: Duration = Duration::from_secs(1);

/// Makes events of one container's traps, and lines of what it was refused.
pub(crate) struct Traps {
    recorder: Recorder,
    regarding: ObjectReference,
    container: String,
    log: Arc<ContainerLog>,
    /// Why a group of interfaces is not granted, until that is told.
    missing: Mutex<BTreeMap<&'static str, String>>,
    told: Mutex<Option<Instant>>,
}

impl Traps {
    /// `missing`: groups of interfaces that are not granted, each with the reason.
    pub(crate) fn new(
        shared: &Shared,
        (pod, slot): (&Pod, Slot),
        log: &Arc<ContainerLog>,
        missing: BTreeMap<&'static str, String>,
    ) -> Self {
        let container = slot.spec(pod).map(|spec| spec.name.clone()).unwrap_or_default();
        Self {
            recorder: shared.recorder.clone(),
            regarding: super::regarding(pod, Some(slot)),
            container,
            log: log.clone(),
            missing: Mutex::new(missing),
            told: Mutex::default(),
        }
    }
}

impl Observer for Traps {
    fn refused(&self, group: &'static str) {
        let why = self.missing.lock().remove(group);
        if let Some(why) = why {
            self.log.note(&format!("not allowed: {group} is not granted: {why}"));
        }
    }

    fn trapped(&self, message: &str, backtrace: &[String]) {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.is_some_and(|before| now.duration_since(before) < EVERY) {
            return;
        }
        *told = Some(now);
        self.recorder.note(Note {
            regarding: self.regarding.clone(),
            warning: true,
            reason: "Trapped".to_owned(),
            message: words(&format!("An instance of container {}", self.container), message, backtrace),
        });
    }
}

/// A frame without addresses, the module's name and the hash that Rust adds to names: the log has all of it.
fn short(frame: &str) -> String {
    let Some((number, name)) = frame.split_once(':').and_then(|(n, rest)| Some((n, rest.split_once(" - ")?.1))) else {
        return frame.to_owned();
    };
    let name = name.split_once('!').map_or(name, |(_, name)| name);
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = name.rsplit_once("::h").filter(|(_, hash)| is_hash(hash)).map_or(name, |(name, _)| name);
    format!("{number}: {name}")
}

/// What is said of a container that ended so.
pub(crate) fn of_container(container: &str, message: &str, backtrace: &[String]) -> String {
    words(&format!("Container {container}"), message, backtrace)
}

/// Whole frames only, as many as fit.
fn words(what: &str, message: &str, backtrace: &[String]) -> String {
    let mut words = format!("{what} trapped: {message}");
    if words.len() > MESSAGE_MAX {
        let end = words.floor_char_boundary(MESSAGE_MAX - 3);
        words.truncate(end);
        words.push_str("...");
        return words;
    }
    for frame in backtrace.iter().map(|frame| short(frame)) {
        if words.len() + frame.len() + 8 > MESSAGE_MAX {
            words.push_str("\n  ...");
            break;
        }
        words.push_str("\n  ");
        words.push_str(&frame);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_whole_frames() {
        let frame = |i| format!("{i}:   0x12 - app.wasm!app::handle::h0123456789abcdef");
        let frames = |count: usize| (0..count).map(frame).collect::<Vec<_>>();
        assert_eq!(
            of_container("app", "unreachable", &frames(2)),
            "Container app trapped: unreachable\n  0: app::handle\n  1: app::handle"
        );
        let long = words("app", "unreachable", &frames(100));
        assert!(long.len() <= MESSAGE_MAX && long.ends_with("app::handle\n  ..."), "{long}");
        for (frame, wanted) in [
            ("12:  0x6ecd - <unknown>!<wasm function 112>", "12: <wasm function 112>"),
            ("at /src/lib.rs:12:3", "at /src/lib.rs:12:3"),
            ("0: 0x1 - m!core::hint", "0: core::hint"),
        ] {
            assert_eq!(short(frame), wanted);
        }
        let long = words("app", &"ä".repeat(2000), &frames(1));
        assert!(long.len() <= MESSAGE_MAX && long.ends_with("ä..."), "{long}");
    }
}
