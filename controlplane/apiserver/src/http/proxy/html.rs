//! [`Rewriter`]: puts other links into HTML as it streams by. Everything else stays as it is, byte for byte.
//!
//! Only what a browser would take for a tag's attribute is looked at: not comments, not scripts and styles. What is held
//! back is bounded: a tag that is longer than [`TAG_BYTES_MAX`] is let pass as it is.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/proxy/transport.go` (`atomsToAttrs`); the tokenizer of the HTML
//! standard.

use std::ops::Range;

/// Bytes of one tag.
const TAG_BYTES_MAX: usize = 64 * 1024;

/// Elements with attributes that are links.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose text is no HTML.
const RAW: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    Comment,
    /// Within an element whose text is no HTML.
    Raw(&'static str),
}

/// Rewrites the links of one document. `F`: the other link, if there is one.
pub(super) struct Rewriter<F> {
    link: F,
    mode: Mode,
    waiting: Vec<u8>,
}

impl<F: Fn(&str) -> Option<String>> Rewriter<F> {
    pub(super) fn new(link: F) -> Self {
        Self { link, mode: Mode::Text, waiting: Vec::new() }
    }

    /// Takes the next bytes; answers with those that are ready.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(waiting.len());
        let mut at = 0;
        while let Some(step) = self.step(&waiting[at..], &mut out) {
            at += step;
        }
        waiting.drain(..at);
        self.waiting = waiting;
        out
    }

    /// The document is over: answers with what was held back.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.waiting)
    }

    /// Handles the beginning of `rest`; how many bytes that was, `None` when there are too few to go on.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        match self.mode {
            Mode::Text => match rest.iter().position(|byte| *byte == b'<') {
                Some(0) => self.markup(rest, out),
                found => copy(rest, found.unwrap_or(rest.len()), out),
            },
            Mode::Comment => match find(rest, b"-->") {
                Some(at) => {
                    self.mode = Mode::Text;
                    copy(rest, at + 3, out)
                }
                None => copy(rest, rest.len().saturating_sub(2), out),
            },
            Mode::Raw(name) => {
                let end = [b"</", name.as_bytes()].concat();
                match find(rest, &end) {
                    Some(at) => {
                        self.mode = Mode::Text;
                        copy(rest, at + end.len(), out)
                    }
                    None => copy(rest, rest.len().saturating_sub(end.len() - 1), out),
                }
            }
        }
    }

    /// What begins with `<`.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        match rest.get(1)? {
            b'!' if rest.len() < 4 => None,
            b'!' if rest.starts_with(b"<!--") => {
                self.mode = Mode::Comment;
                // `<!-->` is a whole one.
                copy(rest, 2, out)
            }
            byte if byte.is_ascii_alphabetic() => {
                let Some(end) = tag_end(rest) else {
                    return if rest.len() > TAG_BYTES_MAX { copy(rest, 1, out) } else { None };
                };
                self.tag(&rest[..end], out);
                Some(end)
            }
            _ => copy(rest, 1, out),
        }
    }

    /// A whole start tag.
    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let length = tag[1..].iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
        let name = tag[1..=length.unwrap_or_default()].to_ascii_lowercase();
        if let Some(raw) = RAW.iter().find(|raw| raw.as_bytes() == name) {
            self.mode = Mode::Raw(raw);
        }
        let Some((_, links)) = LINKS.iter().find(|(element, _)| element.as_bytes() == name) else {
            return out.extend_from_slice(tag);
        };
        let mut written = 0;
        for (attribute, value) in attributes(tag, name.len() + 1) {
            let attribute = tag[attribute].to_ascii_lowercase();
            if !links.iter().any(|link| link.as_bytes() == attribute) {
                continue;
            }
            let link = std::str::from_utf8(&tag[value.clone()]).ok();
            if let Some(other) = link.and_then(|link| (self.link)(link.trim_ascii())) {
                out.extend_from_slice(&tag[written..value.start]);
                out.extend_from_slice(other.as_bytes());
                written = value.end;
            }
        }
        out.extend_from_slice(&tag[written..]);
    }
}

/// `None` when nothing is copied.
fn copy(rest: &[u8], count: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.extend_from_slice(&rest[..count]);
    (count > 0).then_some(count)
}

/// Where a text begins, in letters of either case.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

/// Where the tag that begins here ends; quotes may hold a `>`.
fn tag_end(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut after_equals = false;
    for (i, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'>') => return Some(i + 1),
            (None, b'"' | b'\'') if after_equals => quote = Some(*byte),
            _ => {}
        }
        after_equals = *byte == b'=' || (after_equals && byte.is_ascii_whitespace());
    }
    None
}

/// Names and values of a tag's attributes, as they lie in it. Values without their quotes.
fn attributes(tag: &[u8], mut at: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let mut all = Vec::new();
    let end = tag.len() - 1;
    let skip = |mut at: usize, skipped: fn(u8) -> bool| {
        while at < end && skipped(tag[at]) {
            at += 1;
        }
        at
    };
    loop {
        at = skip(at, |b| b.is_ascii_whitespace() || b == b'/');
        if at >= end {
            return all;
        }
        let name = at..skip(at + 1, |b| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'='));
        at = skip(name.end, |b| b.is_ascii_whitespace());
        if at >= end || tag[at] != b'=' {
            continue;
        }
        at = skip(at + 1, |b| b.is_ascii_whitespace());
        let value = match tag[at] {
            b'"' => at + 1..skip(at + 1, |b| b != b'"'),
            b'\'' => at + 1..skip(at + 1, |b| b != b'\''),
            _ => at..skip(at, |b| !b.is_ascii_whitespace()),
        };
        at = if value.start > at { (value.end + 1).min(end) } else { value.end };
        all.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(html: &str, piece: usize) -> String {
        let mut rewriter = Rewriter::new(|link: &str| link.strip_prefix('/').map(|rest| format!("/P/{rest}")));
        let mut out = Vec::new();
        html.as_bytes().chunks(piece).for_each(|chunk| out.extend(rewriter.push(chunk)));
        out.extend(rewriter.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn links_of_tags_are_rewritten_and_nothing_else() {
        for (html, wanted) in [
            (r#"<a href="/x">t</a>"#, r#"<a href="/P/x">t</a>"#),
            ("<A class=b HREF = '/x' >t</A>", "<A class=b HREF = '/P/x' >t</A>"),
            ("<a href=/x>t", "<a href=/P/x>t"),
            ("<a href=/x/>t", "<a href=/P/x/>t"),
            (r#"<a title="> <a href='/y'>" href="/x">"#, r#"<a title="> <a href='/y'>" href="/P/x">"#),
            (r#"<a href="rel"><a href="">"#, r#"<a href="rel"><a href="">"#),
            (r#"<p href="/x">"#, r#"<p href="/x">"#),
            (r#"<img src="/x" srcset="/y"/>"#, r#"<img src="/P/x" srcset="/y"/>"#),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/P/y">"#),
            (r#"<!--><a href="/y">"#, r#"<!--><a href="/P/y">"#),
            (r#"<!DOCTYPE html><base href="/x">"#, r#"<!DOCTYPE html><base href="/P/x">"#),
            (
                r#"<script src="/x">a<b; "<a href='/y'>"</SCRIPT><a href="/z">"#,
                r#"<script src="/P/x">a<b; "<a href='/y'>"</SCRIPT><a href="/P/z">"#,
            ),
            (r#"<title><a href="/y"></title><link href="/z">"#, r#"<title><a href="/y"></title><link href="/P/z">"#),
            ("a < b <3 </p href='/x'> <a", "a < b <3 </p href='/x'> <a"),
            (
                r#"<form action="/x" method=post><input formaction="/y">"#,
                r#"<form action="/P/x" method=post><input formaction="/P/y">"#,
            ),
            (r#"<a data-x=1/ href="/x">é"#, r#"<a data-x=1/ href="/P/x">é"#),
            ("<a href>", "<a href>"),
            ("<a href=>", "<a href=>"),
            ("<a href=\"/x>", "<a href=\"/x>"),
            ("", ""),
        ] {
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(rewritten(html, piece), wanted, "{piece}: {html}");
            }
        }
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut rewriter = Rewriter::new(|_: &str| None);
        let mut out = rewriter.push(b"<a href=\"").len();
        for _ in 0..1000 {
            out += rewriter.push(&[b'x'; 1000]).len();
            assert!(rewriter.waiting.len() <= TAG_BYTES_MAX + 2000);
        }
        assert_eq!(out + rewriter.finish().len(), 9 + 1_000_000);
    }
}
