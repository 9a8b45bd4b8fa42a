//! Patterns as Go reads them, for the `regex` crate.
//!
//! The two differ where they look the same: `\d`, `\w` and `\s` are ASCII in Go; `[`, `&` and `~` are nothing special inside
//! brackets there; a `{` that begins no repetition is itself; `\Q...\E` quotes.
//!
//! # Source
//! Go `regexp/syntax`.

/// The pattern for the `regex` crate.
pub(super) fn from_go(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => escape(after, in_class, &mut out),
            '[' if !in_class => {
                in_class = true;
                open_class(after, &mut out)
            }
            '[' => match after.strip_prefix(':').and_then(|name| name.find(":]")) {
                Some(end) => {
                    out.push_str(&rest[..end + 4]);
                    &rest[end + 4..]
                }
                None => {
                    out.push_str("\\[");
                    after
                }
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
                after
            }
            '&' | '~' if in_class => {
                out.extend(['\\', c]);
                after
            }
            '{' if !in_class && !is_repetition(after) => {
                out.push_str("\\{");
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    out
}

/// What follows a backslash.
fn escape<'t>(after: &'t str, in_class: bool, out: &mut String) -> &'t str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'Q' if !in_class => {
            let end = rest.find("\\E").unwrap_or(rest.len());
            out.push_str(&regex::escape(&rest[..end]));
            return rest[end..].strip_prefix("\\E").unwrap_or("");
        }
        c => out.extend(['\\', c]),
    }
    rest
}

/// The beginning of a class: there a `]` is itself.
fn open_class<'t>(after: &'t str, out: &mut String) -> &'t str {
    out.push('[');
    let mut rest = after;
    if let Some(tail) = rest.strip_prefix('^') {
        out.push('^');
        rest = tail;
    }
    if let Some(tail) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = tail;
    }
    rest
}

/// `2}`, `2,}`, `2,3}`
fn is_repetition(after: &str) -> bool {
    let Some((inner, _)) = after.split_once('}') else { return false };
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_go_reads_them() {
        for (pattern, fits, not) in [
            (r"^\d+$", "123", "١٢٣"),
            (r"^\w$", "a", "ä"),
            (r"^[\w.-]+$", "a.b-c", "a b"),
            (r"^[^\s]$", "a", " "),
            (r"^[a[]$", "[", "b"),
            (r"^[]a]$", "]", "b"),
            (r"^[a&&b]$", "&", "c"),
            (r"^[[:alpha:]]$", "x", "1"),
            (r"^a{b$", "a{b", "a"),
            (r"^a{2}$", "aa", "a"),
            (r"^a{2,}$", "aaa", "a"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^\.$", ".", "a"),
            (r"\bx\b", "a x b", "axb"),
            (r"^\{\}$", "{}", ""),
        ] {
            let regex = regex::Regex::new(&from_go(pattern)).unwrap();
            assert!(regex.is_match(fits), "{pattern}: {fits}");
            assert!(!regex.is_match(not), "{pattern}: {not}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,30}", odd in r"[\[\]{}\\:^QEdw,0-9]{0,20}") {
            let _ = regex::Regex::new(&from_go(&text));
            let _ = regex::Regex::new(&from_go(&odd));
        }
    }
}
