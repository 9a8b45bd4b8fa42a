//! Conditions as statuses have them, and how new ones take the place of old ones.

use jiff::Timestamp;
use serde_json::{Value, json};

/// One condition. What is not said of it (when it changed) comes with writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    pub(crate) fn is(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, holds: true, reason, message: String::new() }
    }

    pub(crate) fn not(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

/// The conditions to write in place of those that are there: one that holds as it did keeps the time at which it began to.
pub(crate) fn merged(old: &Value, new: &[Condition], generation: i64, now: Timestamp) -> Value {
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let written = new.iter().map(|condition| {
        let status = condition.status();
        let same = old.iter().find(|o| o["type"] == condition.kind && o["status"] == status);
        let since = same.map_or_else(|| json!(format!("{now:.0}")), |same| same["lastTransitionTime"].clone());
        json!({
            "type": condition.kind, "status": status, "reason": condition.reason, "message": condition.message,
            "lastTransitionTime": since, "observedGeneration": generation,
        })
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_as_before_keeps_its_time() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let one = [Condition::is("A", "Fine"), Condition::not("B", "Bad", "why")];
        let first = merged(&Value::Null, &one, 1, time("2026-01-01T00:00:00Z"));
        let two = [Condition::is("A", "Finer"), Condition::is("B", "Good")];
        let then = merged(&first, &two, 2, time("2026-01-02T00:00:00.5Z"));
        let shown = |value: &Value| {
            let one = |c: &Value| {
                let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
                format!(
                    "{}={} {} {} {}",
                    text("type"),
                    text("status"),
                    text("reason"),
                    text("lastTransitionTime"),
                    c["observedGeneration"]
                )
            };
            value.as_array().unwrap().iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(shown(&first), ["A=True Fine 2026-01-01T00:00:00Z 1", "B=False Bad 2026-01-01T00:00:00Z 1"]);
        assert_eq!(shown(&then), ["A=True Finer 2026-01-01T00:00:00Z 2", "B=True Good 2026-01-02T00:00:00Z 2"]);
    }
}
