//! JSON for people: indented for those who ask for it, for browsers and for command line tools.
//!
//! Streams and other encodings are never changed.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go` (`isPrettyPrint`) and
//! `responsewriters/writers.go` (`WriteRawJSON`).

use bytes::Bytes;
use http::header;

use super::{Call, body::Body, path::Route, respond::Answer};

/// User agents of people: command line tools and browsers.
const PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// The answer as whoever asked wants to read it.
pub(super) fn arranged(answer: Answer, route: &Route<'_>, call: &Call<'_>) -> Answer {
    let wanted = match route {
        Route::Version | Route::Root => true,
        Route::OpenApi(_) | Route::OpenApiV2 | Route::OpenIdConfiguration | Route::OpenIdKeys | Route::Images => false,
        _ => is_wanted(call.query.get("pretty"), call.header(header::USER_AGENT), call.accept()),
    };
    let kind = answer.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |k| k.as_bytes());
    if !wanted || !kind.starts_with(b"application/json") {
        return answer;
    }
    match answer.body().whole(usize::MAX) {
        Some(json) if !json.is_empty() => answer.map(|_| Body::Full(Bytes::from(indented(&json)))),
        _ => answer,
    }
}

fn is_wanted(parameter: &str, agent: Option<&str>, accept: Option<&str>) -> bool {
    let asked = accept.is_some_and(|a| a.split([',', ';']).any(|part| part.trim() == "pretty=1"));
    let person = || PEOPLE.iter().any(|known| agent.unwrap_or_default().starts_with(known));
    asked || if parameter.is_empty() { person() } else { is_true(parameter) }
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// JSON with two spaces for each level, as Go's `json.MarshalIndent` writes it. Compact JSON comes in.
fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 3 / 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut opened = false;
    for &byte in json.trim_ascii_end() {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // What is empty stays on its line.
        if opened != closes && (opened || closes) {
            line(&mut out, depth);
        }
        out.push(byte);
        opened = matches!(byte, b'{' | b'[');
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => in_text = true,
            _ => {}
        }
    }
    out
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting() {
        for value in [
            serde_json::json!({}),
            serde_json::json!([]),
            serde_json::json!({"a": [], "b": {}, "c": [1, [2, {"d": null}]], "e": "{\"x\\\": [1,2]}\\", "f": [{}, [[]]]}),
            serde_json::json!("text: with, signs"),
        ] {
            let compact = format!("{value}\n");
            let wanted = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(String::from_utf8(indented(compact.as_bytes())).unwrap(), wanted);
        }
    }

    #[test]
    fn who_wants_it() {
        for (parameter, agent, accept, wanted) in [
            ("", None, None, false),
            ("", Some("kubectl/v1.32"), Some("application/json"), false),
            ("", Some("curl/8.5.0"), None, true),
            ("", Some("Mozilla/5.0 (X11)"), None, true),
            ("false", Some("curl/8.5.0"), None, false),
            ("nonsense", Some("curl/8.5.0"), None, false),
            ("true", None, None, true),
            ("1", Some("kubectl/v1.32"), None, true),
            ("false", None, Some("application/json;pretty=1"), true),
        ] {
            assert_eq!(is_wanted(parameter, agent, accept), wanted, "{parameter} {agent:?} {accept:?}");
        }
    }
}
