//! Ranges of bytes: what a download asks for, what a chunk of an upload says it is.

/// What of a blob is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    All,
    /// From the first to the last of these bytes.
    Part(u64, u64),
    /// None of it is there.
    Unsatisfiable,
}

/// Reads a `Range` header. What cannot be read, and several ranges at once, mean all of it, as RFC 9110 allows.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header.and_then(|h| h.strip_prefix("bytes=")).and_then(|r| r.split_once('-')) else {
        return Wanted::All;
    };
    let (first, last) = (first.trim(), last.trim());
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Wanted::All,
        (Ok(first), _) if first >= size => Wanted::Unsatisfiable,
        (Ok(first), Ok(last)) => Wanted::Part(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part(first, size - 1),
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Unsatisfiable,
        (Err(_), Ok(count)) if first.is_empty() && size > 0 => Wanted::Part(size.saturating_sub(count), size - 1),
        _ => Wanted::All,
    }
}

/// Reads a `Content-Range` header of an upload, `0-1023`, or as HTTP has it, `bytes 0-1023/*`: first and last byte.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let range = header.strip_prefix("bytes ").unwrap_or(header);
    let (first, last) = range.split('/').next()?.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, size, expected) in [
            (None, 10, Wanted::All),
            (Some("bytes=0-3"), 10, Wanted::Part(0, 3)),
            (Some("bytes=4-"), 10, Wanted::Part(4, 9)),
            (Some("bytes=4-99"), 10, Wanted::Part(4, 9)),
            (Some("bytes=-3"), 10, Wanted::Part(7, 9)),
            (Some("bytes=-30"), 10, Wanted::Part(0, 9)),
            (Some("bytes=10-"), 10, Wanted::Unsatisfiable),
            (Some("bytes=-0"), 10, Wanted::Unsatisfiable),
            (Some("bytes=0-"), 0, Wanted::Unsatisfiable),
            (Some("bytes=5-2"), 10, Wanted::All),
            (Some("bytes=0-1,3-4"), 10, Wanted::All),
            (Some("lines=0-1"), 10, Wanted::All),
            (Some("bytes=x-y"), 10, Wanted::All),
        ] {
            assert_eq!(wanted(header, size), expected, "{header:?}");
        }
        for (header, expected) in [
            ("0-9", Some((0, 9))),
            ("bytes 5-6/*", Some((5, 6))),
            ("9-0", None),
            ("", None),
            ("-5", None),
            ("a-b", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }
}
