//! From one type to another, and the parts of times and durations.
//!
//! # Source
//! cel-go `common/types`.

use jiff::{SignedDuration, Timestamp};

use super::{
    EvalError,
    eval::{Machine, Result},
    functions::overflow,
    strings, temporal,
    value::Value,
};

/// The first that does not fit into 63 bits.
const TWO_TO_THE_63: f64 = 9_223_372_036_854_775_808.0;

pub(crate) fn to_int<'a>(value: &Value<'a>) -> Result<'a> {
    let parsed = match value {
        Value::Int(n) => Some(*n),
        Value::Uint(n) => i64::try_from(*n).ok(),
        #[expect(clippy::cast_possible_truncation, reason = "in range; cut towards zero as in cel-go")]
        Value::Double(n) if n.abs() < TWO_TO_THE_63 => Some(*n as i64),
        Value::Double(_) => None,
        Value::String(s) => {
            return s
                .parse()
                .map(Value::Int)
                .map_err(|_| EvalError::new(format!("strconv.ParseInt: parsing {:?}: invalid syntax", &**s)));
        }
        Value::Timestamp(t) => Some(t.as_second()),
        Value::Duration(d) => i64::try_from(d.as_nanos()).ok(),
        _ => return Err(EvalError::overload()),
    };
    parsed.map(Value::Int).ok_or_else(overflow)
}

pub(crate) fn to_uint<'a>(value: &Value<'a>) -> Result<'a> {
    let parsed = match value {
        Value::Uint(n) => Some(*n),
        Value::Int(n) => u64::try_from(*n).ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Value::Double(n) if *n >= 0.0 && *n < 2.0 * TWO_TO_THE_63 => Some(*n as u64),
        Value::Double(_) => None,
        Value::String(s) => {
            return s
                .parse()
                .map(Value::Uint)
                .map_err(|_| EvalError::new(format!("strconv.ParseUint: parsing {:?}: invalid syntax", &**s)));
        }
        _ => return Err(EvalError::overload()),
    };
    parsed.map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

#[expect(clippy::cast_precision_loss, reason = "as cel-go converts")]
pub(crate) fn to_double<'a>(value: &Value<'a>) -> Result<'a> {
    Ok(Value::Double(match value {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(s) => {
            s.parse().map_err(|_| EvalError::new(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**s)))?
        }
        _ => return Err(EvalError::overload()),
    }))
}

pub(crate) fn to_bool<'a>(value: &Value<'a>) -> Result<'a> {
    match value {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(s) => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(EvalError::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        _ => Err(EvalError::overload()),
    }
}

pub(crate) fn to_string<'a>(machine: &Machine<'a, '_>, value: &Value<'a>) -> Result<'a> {
    Ok(Value::string(match value {
        Value::String(s) => return Ok(Value::String(s.clone())),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => strings::double(*n),
        Value::Bytes(b) => {
            machine.spend_bytes(b.len())?;
            String::from_utf8(b.to_vec())
                .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?
        }
        Value::Timestamp(t) => temporal::show_timestamp(*t),
        Value::Duration(d) => temporal::show_duration(*d),
        Value::Type(of) => of.to_string(),
        _ => return Err(EvalError::overload()),
    }))
}

pub(crate) fn to_timestamp<'a>(value: &Value<'a>) -> Result<'a> {
    let read = match value {
        Value::Timestamp(t) => Some(*t),
        Value::Int(n) => Timestamp::from_second(*n).ok().filter(|t| temporal::in_range(*t)),
        Value::String(s) => {
            let wrong = || EvalError::new(format!("parsing time {:?} as RFC 3339 failed", &**s));
            return temporal::parse_timestamp(s).map(Value::Timestamp).ok_or_else(wrong);
        }
        _ => return Err(EvalError::overload()),
    };
    read.map(Value::Timestamp).ok_or_else(|| EvalError::new("timestamp overflow"))
}

pub(crate) fn to_duration<'a>(value: &Value<'a>) -> Result<'a> {
    match value {
        Value::Duration(d) => Ok(Value::Duration(*d)),
        Value::Int(n) => Ok(Value::Duration(SignedDuration::from_nanos(*n))),
        Value::String(s) => temporal::parse_duration(s)
            .map(Value::Duration)
            .ok_or_else(|| EvalError::new(format!("time: invalid duration {:?}", &**s))),
        _ => Err(EvalError::overload()),
    }
}

/// `getHours()` and the like.
pub(crate) fn parts<'a>(name: &str, args: &[Value<'a>]) -> Result<'a> {
    let whole = |n: i64| Ok(Value::Int(n));
    if let [Value::Duration(d)] = args {
        return match name {
            "getHours" => whole(d.as_secs() / 3600),
            "getMinutes" => whole(d.as_secs() / 60),
            "getSeconds" => whole(d.as_secs()),
            "getMilliseconds" => whole(i64::from(d.subsec_millis())),
            _ => Err(EvalError::overload()),
        };
    }
    let (t, zone) = match args {
        [Value::Timestamp(t)] => (t, jiff::tz::TimeZone::UTC),
        [Value::Timestamp(t), Value::String(name)] => {
            let wrong = || EvalError::new(format!("unknown time zone {}", &**name));
            (t, temporal::zone(name).ok_or_else(wrong)?)
        }
        _ => return Err(EvalError::overload()),
    };
    let z = t.to_zoned(zone);
    match name {
        "getFullYear" => whole(i64::from(z.year())),
        "getMonth" => whole(i64::from(z.month()) - 1),
        "getDate" => whole(i64::from(z.day())),
        "getDayOfMonth" => whole(i64::from(z.day()) - 1),
        "getDayOfWeek" => whole(i64::from(z.weekday().to_sunday_zero_offset())),
        "getDayOfYear" => whole(i64::from(z.day_of_year()) - 1),
        "getHours" => whole(i64::from(z.hour())),
        "getMinutes" => whole(i64::from(z.minute())),
        "getSeconds" => whole(i64::from(z.second())),
        "getMilliseconds" => whole(i64::from(z.millisecond())),
        _ => Err(EvalError::overload()),
    }
}
