//! OpenAPI v2, as little of it as there can be: no paths, no definitions.
//!
//! kubectl falls back to it, for example when it meets a kind that OpenAPI v3 does not tell of; with no answer it
//! would speak of a failed download instead of the kind.
//!
//! # Source
//! gnostic `openapiv2/OpenAPIv2.proto`; kube-openapi `pkg/handler/handler.go`.

use serde_json::{Value, json};

const TITLE: &str = "Kubernetes";
const VERSION: &str = concat!("podium-", env!("CARGO_PKG_VERSION"));

/// The media type of [`protobuf`].
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Its older name, that clients still ask for. `@` may not stand in a media type, so no answer is called that.
const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Whether an `Accept` header asks for [`protobuf`].
pub fn wants_protobuf(accept: &str) -> bool {
    let essence = |range: &str| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    accept.split(',').map(essence).any(|range| range == PROTOBUF || range == PROTOBUF_OLD)
}

/// The document as JSON.
pub fn json() -> Value {
    json!({ "swagger": "2.0", "info": { "title": TITLE, "version": VERSION }, "paths": {}, "definitions": {} })
}

/// The document as gnostic's `openapi.v2.Document`.
pub fn protobuf() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b"")].concat()
}

/// One field of bytes; for lengths of one byte, which all of these are.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX).min(0x7f);
    let head = [number << 3 | 2, length];
    head.into_iter().chain(bytes.iter().copied().take(length.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        for (accept, protobuf) in [
            ("", false),
            ("application/json", false),
            ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", true),
            ("application/json;q=0.1, application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=1", true),
            ("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", false),
        ] {
            assert_eq!(wants_protobuf(accept), protobuf, "{accept}");
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let info = format!("\n\n{TITLE}\x12{}{VERSION}", char::from(u8::try_from(VERSION.len()).unwrap()));
        let wanted = format!("\n\x032.0\x12{}{info}B\0", char::from(u8::try_from(info.len()).unwrap()));
        assert_eq!(protobuf(), wanted.as_bytes());
        assert_eq!(json()["info"], json!({"title": TITLE, "version": VERSION}));
    }
}
