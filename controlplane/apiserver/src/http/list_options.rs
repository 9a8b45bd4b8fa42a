//! What a read asks for: `resourceVersion`, `resourceVersionMatch`, `limit`, `continue`, checked as Kubernetes does.
//!
//! Pure: knows neither the cache nor the store. Selectors are not read here.
//!
//! # Source
//! Kubernetes `apimachinery/pkg/apis/meta/internalversion/validation/validation.go` and
//! `apiserver/pkg/storage/interfaces.go` (`ValidateListOptions`).

use std::time::Duration;

use podium_api::{ApiError, FieldErrors, FieldPath, Names, Revision};

use super::path::Query;
use crate::registry::list::Token;

const LIST_OPTIONS: Names = Names::new("meta.k8s.io", "v1", "ListOptions", "listoptions", "listoptions");
const MATCH: &str = "resourceVersionMatch";

/// Which state a list shows, and how much of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// At most so many objects; zero for all.
    pub(crate) limit: usize,
    pub(crate) token: Option<Token>,
    /// The state at exactly this revision.
    pub(crate) exact: Option<Revision>,
    /// The state at this revision or a later one.
    pub(crate) not_older_than: Option<Revision>,
}

/// Reads the query of a list.
///
/// # Errors
/// 422 for options that exclude each other, 400 for texts that cannot be read.
pub(crate) fn list(query: &Query) -> Result<ListOptions, ApiError> {
    let (version, matching) = (query.get("resourceVersion"), query.get(MATCH));
    let continued = query.get("continue");
    check_list(version, matching, continued, query.find("sendInitialEvents").is_some())?;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    if !continued.is_empty() {
        let token = Token::decode(continued)?;
        if !matches!(version, "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        return Ok(ListOptions { limit, token: Some(token), ..ListOptions::default() });
    }
    let wanted = revision(version)?;
    // Kubernetes answers "0" from its cache, which knows no pages.
    let limit = if version == "0" { 0 } else { limit };
    let exact = matching == "Exact" || (matching.is_empty() && limit > 0);
    let (exact, not_older_than) = if exact { (wanted, None) } else { (None, wanted) };
    Ok(ListOptions { limit, token: None, exact, not_older_than })
}

/// Checks the query of a watch.
///
/// # Errors
/// 422 for options that exclude each other.
pub(crate) fn check_watch(query: &Query) -> Result<(), ApiError> {
    let (matching, path) = (query.get(MATCH), FieldPath::new(MATCH));
    let initial = query.find("sendInitialEvents").is_some();
    let mut errs = FieldErrors::new();
    if initial && matching != "NotOlderThan" {
        errs.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if !matching.is_empty() {
        if !initial {
            errs.forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if matching != "NotOlderThan" {
            errs.not_supported(&path, matching, &["NotOlderThan"]);
        }
        if !query.get("continue").is_empty() {
            errs.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    verdict(errs)
}

/// Reads a `resourceVersion`; `None` when any will do.
///
/// # Errors
/// 400.
pub(crate) fn revision(text: &str) -> Result<Option<Revision>, ApiError> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let parsed = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    parsed.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: \
             invalid syntax"
        ))
    })
}

/// Reads `timeout`, a duration as Go writes one; nothing, zero and more than `max` are `max`.
///
/// # Errors
/// 400.
///
/// # Source
/// Kubernetes `apiserver/pkg/endpoints/filters/request_deadline.go`.
pub(crate) fn timeout(text: &str, max: Duration) -> Result<Duration, ApiError> {
    let seconds = match text {
        "" => return Ok(max),
        text => go_seconds(text).ok_or_else(|| {
            let message = "invalid timeout specified in the request URL - time: invalid duration";
            ApiError::bad_request(format!("{message} {text:?}"))
        })?,
    };
    let given = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(if given.is_zero() || given > max { max } else { given })
}

/// Seconds of a duration like `1m30s`, `-5s` or `0.5h`.
fn go_seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, next) =
            behind.split_at(behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len()));
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    Some(sign * seconds)
}

fn check_list(version: &str, matching: &str, continued: &str, initial: bool) -> Result<(), ApiError> {
    let path = FieldPath::new(MATCH);
    let mut errs = FieldErrors::new();
    if !matching.is_empty() {
        if version.is_empty() {
            errs.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !continued.is_empty() {
            errs.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errs.not_supported(&path, matching, &["Exact", "NotOlderThan", ""]);
        }
        if matching == "Exact" && version == "0" {
            errs.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if initial {
        errs.forbidden(&FieldPath::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    verdict(errs)
}

fn verdict(errs: FieldErrors) -> Result<(), ApiError> {
    if errs.is_empty() { Ok(()) } else { Err(ApiError::invalid(&LIST_OPTIONS, "", errs)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: Result<T, ApiError>) -> String {
        result.err().map(|e| format!("{} {}", e.reason.code(), e.message)).unwrap_or_default()
    }

    #[test]
    fn states_of_lists() {
        // limit, exact, not older than
        for (query, limit, exact, not_older_than) in [
            ("", 0, None, None),
            ("limit=5", 5, None, None),
            ("limit=-1", 0, None, None),
            ("resourceVersion=0&limit=5", 0, None, None),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=5", 0, None, None),
            ("resourceVersion=7", 0, None, Some(7)),
            ("resourceVersion=7&limit=5", 5, Some(7), None),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", 5, None, Some(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", 0, Some(7), None),
        ] {
            let (exact, not_older_than) = (exact.map(Revision), not_older_than.map(Revision));
            let wanted = ListOptions { limit, token: None, exact, not_older_than };
            assert_eq!(list(&Query::parse(Some(query))), Ok(wanted), "{query}");
        }
    }

    #[test]
    fn refused_lists() {
        let invalid = "422 ListOptions.meta.k8s.io \"\" is invalid: ";
        for (query, message) in [
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=Foo&resourceVersion=1",
                "resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
            (
                "resourceVersionMatch=Exact&resourceVersion=1&continue=x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
        ] {
            assert_eq!(refusal(list(&Query::parse(Some(query)))), format!("{invalid}{message}"), "{query}");
        }
        for bad in ["x", "-1", "+1", "1.5", "99999999999999999999"] {
            let message = refusal(list(&Query::parse(Some(&format!("resourceVersion={}", bad.replace('+', "%2B"))))));
            assert!(message.starts_with("400 invalid resource version: resourceVersion: Invalid value: "), "{message}");
        }
    }

    #[test]
    fn timeouts() {
        let max = Duration::from_secs(60);
        for (text, seconds) in [
            ("", 60.0),
            ("0", 60.0),
            ("0s", 60.0),
            ("-5s", 60.0),
            ("5s", 5.0),
            ("+5s", 5.0),
            ("1500ms", 1.5),
            ("0.5m", 30.0),
            ("0m7s", 7.0),
            ("1h", 60.0),
            ("99999999999999999999h", 60.0),
        ] {
            assert_eq!(timeout(text, max), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["5", "s", "-", "5x", "1.2.3s", ".s", "5s5", "é"] {
            let message = format!("400 invalid timeout specified in the request URL - time: invalid duration {bad:?}");
            assert_eq!(refusal(timeout(bad, max)), message);
        }
    }

    #[test]
    fn watches() {
        let invalid = "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: ";
        for (query, message) in [
            ("", ""),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", ""),
            (
                "sendInitialEvents=true",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        ] {
            let wanted = if message.is_empty() { String::new() } else { format!("{invalid}{message}") };
            assert_eq!(refusal(check_watch(&Query::parse(Some(query)))), wanted, "{query}");
        }
    }
}
