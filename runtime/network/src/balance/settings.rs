//! How a Service's requests are treated, from annotations of the Service. Pure.

use std::{fmt, time::Duration};

/// What all annotations begin with.
const PREFIX: &str = "podium.dev/";

/// Settings of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a request may take until the head of its answer, tries and waiting included.
    pub request_timeout: Option<Duration>,
    /// How long one try may take.
    pub try_timeout: Option<Duration>,
    /// Tries beyond the first, for requests that are safe to send again.
    pub retries: u32,
    /// Share of the requests that may be sent again, in percent; beside a few each second.
    pub retry_budget_percent: u32,
    /// Requests under way at once.
    pub requests_max: Option<u32>,
    /// Requests that wait when so many are under way.
    pub pending_max: u32,
    /// When endpoints are passed over.
    pub outliers: Outliers,
    /// How long until an endpoint that joins others has its full share.
    pub slow_start: Duration,
}

/// When endpoints are passed over, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outliers {
    /// Failures one after the other until it is; 0: never.
    pub failures_max: u32,
    /// For how long the first time; so much longer each time.
    pub ejection: Duration,
    /// For how long at most.
    pub ejection_max: Duration,
    /// Share of the endpoints that may be, in percent.
    pub share_max_percent: u8,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            failures_max: 5,
            ejection: Duration::from_secs(10),
            ejection_max: Duration::from_secs(300),
            share_max_percent: 50,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: None,
            try_timeout: None,
            retries: 2,
            retry_budget_percent: 20,
            requests_max: None,
            pending_max: 1024,
            outliers: Outliers::default(),
            slow_start: Duration::ZERO,
        }
    }
}

/// An annotation that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is not {wanted}; the default holds")]
pub struct BadSetting {
    /// Its name.
    pub annotation: String,
    /// Its value.
    pub value: String,
    /// What would be one.
    pub wanted: &'static str,
}

/// A setting: its annotation without the prefix, what a value is, and what it sets; `None` when the value is none.
struct Setting {
    name: &'static str,
    wanted: &'static str,
    set: fn(&mut Settings, &str) -> Option<()>,
}

const TIME: &str = "a time such as 250ms, 10s or 1m30s, at most 24h";
const COUNT: &str = "a number from 0 to 1000000";
const PERCENT: &str = "a share from 0 to 100, in percent";

/// Every annotation of a Service that is known here.
const SETTINGS: &[Setting] = &[
    Setting { name: "request-timeout", wanted: TIME, set: |s, v| set(&mut s.request_timeout, positive(v).map(Some)) },
    Setting { name: "try-timeout", wanted: TIME, set: |s, v| set(&mut s.try_timeout, positive(v).map(Some)) },
    Setting { name: "retries", wanted: "a number from 0 to 10", set: |s, v| set(&mut s.retries, number(v, 10)) },
    Setting { name: "retry-budget", wanted: PERCENT, set: |s, v| set(&mut s.retry_budget_percent, number(v, 100)) },
    Setting {
        name: "max-requests",
        wanted: "a number from 1 to 1000000",
        set: |s, v| set(&mut s.requests_max, number(v, 1_000_000).filter(|n| *n > 0).map(Some)),
    },
    Setting { name: "max-pending-requests", wanted: COUNT, set: |s, v| set(&mut s.pending_max, number(v, 1_000_000)) },
    Setting {
        name: "outlier-failures",
        wanted: COUNT,
        set: |s, v| set(&mut s.outliers.failures_max, number(v, 1_000_000)),
    },
    Setting { name: "outlier-ejection", wanted: TIME, set: |s, v| set(&mut s.outliers.ejection, positive(v)) },
    Setting { name: "outlier-max-ejection", wanted: TIME, set: |s, v| set(&mut s.outliers.ejection_max, positive(v)) },
    Setting {
        name: "outlier-max-share",
        wanted: PERCENT,
        set: |s, v| set(&mut s.outliers.share_max_percent, number(v, 100).and_then(|n| u8::try_from(n).ok())),
    },
    Setting { name: "slow-start", wanted: TIME, set: |s, v| set(&mut s.slow_start, time(v)) },
];

impl Settings {
    /// Reads the annotations of a Service; what cannot be read is said, and the default holds.
    pub fn read<'a>(annotations: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<BadSetting>) {
        let (mut settings, mut bad) = (Self::default(), Vec::new());
        for setting in SETTINGS {
            let name = format!("{PREFIX}{}", setting.name);
            let Some(value) = annotations(&name) else { continue };
            if (setting.set)(&mut settings, value.trim()).is_none() {
                let (value, wanted) = (shown(value), setting.wanted);
                bad.push(BadSetting { annotation: name, value, wanted });
            }
        }
        (settings, bad)
    }
}

fn shown(value: &str) -> String {
    value.chars().take(64).collect()
}

fn set<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn number(text: &str, max: u32) -> Option<u32> {
    text.parse().ok().filter(|n| *n <= max)
}

fn positive(text: &str) -> Option<Duration> {
    time(text).filter(|time| !time.is_zero())
}

/// `1m30s`, `250ms`; at most a day.
fn time(text: &str) -> Option<Duration> {
    const MAX: Duration = Duration::from_secs(24 * 3600);
    let (mut total, mut rest) = (Duration::ZERO, text);
    if text == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let one = match &rest[digits..unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(one.checked_mul(number)?)?;
        rest = &rest[unit..];
    }
    Some(total).filter(|total| !text.is_empty() && *total <= MAX)
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<BadSetting>) {
        let all: BTreeMap<String, &str> =
            pairs.iter().map(|(name, value)| (format!("{PREFIX}{name}"), *value)).collect();
        Settings::read(|name| all.get(name).copied())
    }

    #[test]
    fn times_are_those_of_go() {
        let ms = |n| Some(Duration::from_millis(n));
        for (text, expected) in [
            ("250ms", ms(250)),
            ("10s", ms(10_000)),
            ("1m30s", ms(90_000)),
            ("24h", ms(24 * 3_600_000)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("24h1s", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("", None),
            ("99999999999s", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn annotations_set_what_they_name() {
        let (settings, bad) = read(&[
            ("request-timeout", "15s"),
            ("try-timeout", "2s"),
            ("retries", "1"),
            ("retry-budget", "50"),
            ("max-requests", "100"),
            ("max-pending-requests", "0"),
            ("outlier-failures", "3"),
            ("outlier-ejection", "30s"),
            ("outlier-max-ejection", "2m"),
            ("outlier-max-share", "10"),
            ("slow-start", " 20s "),
        ]);
        let outliers = Outliers {
            failures_max: 3,
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(120),
            share_max_percent: 10,
        };
        let expected = Settings {
            request_timeout: Some(Duration::from_secs(15)),
            try_timeout: Some(Duration::from_secs(2)),
            retries: 1,
            retry_budget_percent: 50,
            requests_max: Some(100),
            pending_max: 0,
            outliers,
            slow_start: Duration::from_secs(20),
        };
        assert_eq!((settings, bad), (expected, Vec::new()));
        assert_eq!(read(&[]), (Settings::default(), Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_the_default_holds() {
        let all: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, "nonsense")).collect();
        let (settings, bad) = read(&all);
        assert_eq!((settings, bad.len()), (Settings::default(), SETTINGS.len()));
        let (_, bad) = read(&[("max-requests", "0")]);
        let expected = "annotation podium.dev/max-requests: \"0\" is not a number from 1 to 1000000; the default holds";
        assert_eq!(bad[0].to_string(), expected);
    }
}
