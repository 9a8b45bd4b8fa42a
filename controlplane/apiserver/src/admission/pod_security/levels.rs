//! What the labels of a namespace say: a level and a version for each of three modes.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/pod-security-admission/api/helpers.go`.

use std::{collections::BTreeMap, fmt};

use podium_api::{FieldErrors, FieldPath};

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";
/// What `latest` means, and the newest version that differs from those before it.
const MINOR_MAX: u32 = 36;

/// How much pods may ask of their nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Anything.
    Privileged,
    /// Nothing by which privileges are known to be gained.
    Baseline,
    /// Only what hardened pods need.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A level as of a version of Kubernetes; `None`: of the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Option<u32>,
}

impl Standard {
    const NONE: Self = Self { level: Level::Privileged, version: None };

    /// The minor version whose checks are meant.
    pub(super) fn minor(&self) -> u32 {
        self.version.map_or(MINOR_MAX, |minor| minor.min(MINOR_MAX))
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.as_str())?;
        match self.version {
            None => f.write_str(":latest"),
            Some(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

fn version(text: &str) -> Result<Option<u32>, &'static str> {
    const WRONG: &str = "must be \"latest\" or \"v1.x\"";
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").ok_or(WRONG)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| plain).map(Some).ok_or(WRONG)
}

/// The standards of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standards {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Standards {
    /// Reads labels. What cannot be read counts as the strictest where pods are refused, as nothing where they are told of.
    pub(super) fn of(labels: Option<&BTreeMap<String, String>>) -> (Self, FieldErrors) {
        let mut reader = Reader { labels, errs: FieldErrors::new() };
        let (enforce, enforces) = reader.mode("enforce", Level::Restricted);
        let (audit, _) = reader.mode("audit", Level::Privileged);
        let (mut warn, _) = reader.mode("warn", Level::Privileged);
        // Who refuses pods warns of what makes them, unless told otherwise.
        if enforces && reader.label("warn").is_none() && enforce.level > warn.level {
            warn.level = enforce.level;
            if reader.label("warn-version").is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, reader.errs)
    }

    pub(super) fn are_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|s| s.level == Level::Privileged)
    }
}

struct Reader<'a> {
    labels: Option<&'a BTreeMap<String, String>>,
    errs: FieldErrors,
}

impl<'a> Reader<'a> {
    fn label(&self, name: &str) -> Option<&'a str> {
        // Most namespaces have few labels, and none of these.
        let found = self.labels?.iter().find(|(key, _)| key.strip_prefix(PREFIX) == Some(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A mode, and whether its level is named well.
    fn mode(&mut self, name: &str, fallback: Level) -> (Standard, bool) {
        let mut standard = Standard::NONE;
        let mut named = false;
        if let Some(text) = self.label(name) {
            let level = Level::parse(text);
            named = level.is_ok();
            standard.level = level.unwrap_or_else(|why| {
                self.wrong(name, text, why);
                fallback
            });
        }
        let versioned = format!("{name}-version");
        if let Some(text) = self.label(&versioned) {
            standard.version = version(text).unwrap_or_else(|why| {
                self.wrong(&versioned, text, why);
                None
            });
        }
        (standard, named)
    }

    fn wrong(&mut self, name: &str, value: &str, why: &str) {
        let path = FieldPath::new("metadata.labels").key(&format!("{PREFIX}{name}"));
        self.errs.invalid(&path, value, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect();
        let (standards, errs) = Standards::of(Some(&labels));
        let Standards { enforce, audit, warn } = standards;
        (format!("{enforce} {audit} {warn}"), errs.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_labels_say() {
        for (labels, wanted) in [
            (&[][..], "privileged:latest privileged:latest privileged:latest"),
            (&[("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest"),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25")],
                "restricted:v1.25 privileged:latest restricted:v1.25",
            ),
            (
                &[("enforce", "baseline"), ("warn", "privileged"), ("audit", "restricted")],
                "baseline:latest restricted:latest privileged:latest",
            ),
            (
                &[("enforce", "baseline"), ("enforce-version", "v1.20"), ("warn-version", "v1.22")],
                "baseline:v1.20 privileged:latest baseline:v1.22",
            ),
        ] {
            assert_eq!(read(labels), (wanted.to_owned(), Vec::new()), "{labels:?}");
        }
        let (read, wrong) = read(&[("enforce", "strict"), ("audit-version", "v1.01"), ("warn", "all")]);
        assert_eq!(read, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(
            wrong,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of \
                 privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \"latest\" \
                 or \"v1.x\"",
                "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"all\": must be one of privileged, \
                 baseline, restricted",
            ]
        );
    }
}
