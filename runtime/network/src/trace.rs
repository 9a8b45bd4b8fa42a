//! W3C trace context of requests that come from outside: passed on as it is; where there is none, or one that is none, a new
//! one is begun, so that all that follows from a request can be told to belong together. Pure but for chance.
//!
//! # Source
//! <https://www.w3.org/TR/trace-context/>

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// Sees to it that a request has a trace; whether it was begun just now.
pub(crate) fn pass_on(headers: &mut HeaderMap) -> bool {
    let mut parents = headers.get_all(PARENT).iter();
    if let (Some(parent), None) = (parents.next(), parents.next())
        && is_parent(parent.as_bytes())
    {
        return false;
    }
    headers.remove(STATE);
    headers.remove(PARENT);
    if let Ok(parent) = HeaderValue::from_str(&begin()) {
        headers.insert(PARENT, parent);
    }
    true
}

/// What a request says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// Whether the trace is recorded.
    pub(crate) sampled: bool,
}

/// Reads a trace that was passed on.
pub(crate) fn parent(headers: &HeaderMap) -> Option<Parent> {
    let text = headers.get(PARENT)?.to_str().ok().filter(|text| is_parent(text.as_bytes()))?;
    let mut parts = text.split('-').skip(1);
    Some(Parent {
        trace: u128::from_str_radix(parts.next()?, 16).ok()?,
        span: u64::from_str_radix(parts.next()?, 16).ok()?,
        sampled: u8::from_str_radix(parts.next()?, 16).ok()? & 1 == 1,
    })
}

/// A trace that nobody has decided to record yet.
fn begin() -> String {
    let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
    format!("00-{trace:032x}-{span:016x}-00")
}

/// `00-TRACE-SPAN-FLAGS`, or a later version, which may say more.
fn is_parent(text: &[u8]) -> bool {
    let hex = |part: &[u8], length: usize| {
        part.len() == length && part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let mut parts = text.split(|b| *b == b'-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let more = parts.next().is_some();
    hex(version, 2)
        && version != b"ff"
        && !(more && version == b"00")
        && (hex(trace, 32) && !zero(trace))
        && (hex(span, 16) && !zero(span))
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_says_whether_it_is_recorded() {
        for (flags, sampled) in [("00", false), ("01", true), ("03", true), ("02", false)] {
            let text = format!("{}{flags}", &GOOD[..GOOD.len() - 2]);
            let headers = HeaderMap::from_iter([(PARENT, text.parse().unwrap())]);
            let (trace, span) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7);
            assert_eq!(parent(&headers), Some(Parent { trace, span, sampled }), "{text}");
        }
        assert_eq!(parent(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_a_trace_is_passed_on_and_what_is_none_is_begun_anew() {
        let later = format!("cc-{}-what-else", &GOOD[3..]);
        for (parents, kept) in [
            (vec![GOOD], true),
            (vec![later.as_str()], true),
            (vec![], false),
            (vec![GOOD, GOOD], false),
            (vec!["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"], false),
            (vec!["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], false),
            (vec!["00-00000000000000000000000000000000-00f067aa0ba902b7-01"], false),
            (vec!["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"], false),
            (vec!["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"], false),
            (vec!["nonsense"], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(STATE, HeaderValue::from_static("a=b"));
            for parent in &parents {
                headers.append(PARENT, parent.parse().unwrap());
            }
            assert_eq!(pass_on(&mut headers), !kept, "{parents:?}");
            assert!(super::parent(&headers).is_some(), "{parents:?}");
            let parent = headers.get(PARENT).unwrap().to_str().unwrap();
            assert_eq!((parents.first() == Some(&parent), headers.contains_key(STATE)), (kept, kept), "{parents:?}");
            assert!(is_parent(parent.as_bytes()), "{parent}");
        }
    }
}
