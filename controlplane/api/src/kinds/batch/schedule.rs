//! Schedules in cron's notation, as far as their form goes: five fields, or one of the words with an `@`.
//!
//! # Source
//! `github.com/robfig/cron/v3` `parser.go`, which Kubernetes reads them with.

/// The fields: their bounds, and the names that some of their values have.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Checks a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    if let Some(every) = schedule.strip_prefix("@every ") {
        let digits = every.trim_end_matches(['h', 'm', 's']);
        let good = digits.len() < every.len() && digits.bytes().next().is_some_and(|b| b.is_ascii_digit());
        return if good { Ok(()) } else { Err(format!("failed to parse duration {schedule}")) };
    }
    if schedule.starts_with('@') {
        return if WORDS.contains(&schedule) { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    parts.iter().zip(FIELDS).try_for_each(|(part, (_, min, max, names))| {
        part.split(',').try_for_each(|range| check_range(range, min, max, names))
    })
}

fn check_range(text: &str, min: u32, max: u32, names: &[&str]) -> Result<(), String> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(number(step, &[], 0)?)),
        None => (text, None),
    };
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let (start, end) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (min, max),
        Some((start, end)) => (number(start, names, min)?, number(end, names, min)?),
        None => {
            let start = number(range, names, min)?;
            (start, if step.is_some() { max } else { start })
        }
    };
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

fn number(text: &str, names: &[&str], first: u32) -> Result<u32, String> {
    if let Some(at) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(first + u32::try_from(at).unwrap_or_default());
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "@hourly", "@every 1h30m", "0 0 ? * 0", "5/15 * * * *"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4"),
            ("60 * * * *", "end of range (60) above maximum (59)"),
            ("* * 0 * *", "beginning of range (0) below minimum (1)"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1)"),
            ("*/0 * * * *", "step of range should be a positive number"),
            ("x * * * *", "failed to parse int from x"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every", "unrecognized descriptor"),
        ] {
            let got = check(bad).unwrap_err();
            assert!(got.starts_with(why), "{bad}: {got}");
        }
    }
}
