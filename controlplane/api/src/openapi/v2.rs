//! OpenAPI v2, as little of it as there can be: no paths, no definitions.
//!
//! kubectl falls back to it, for example when it meets a kind that OpenAPI v3 does not tell of; with no answer it
//! would speak of a failed download instead of the kind.
//!
//! # Source
//! gnostic `openapiv2/OpenAPIv2.proto`; client-go `discovery/discovery_client.go`.

use serde_json::{Value, json};

const TITLE: &str = "Kubernetes";
const VERSION: &str = concat!("podium-", env!("CARGO_PKG_VERSION"));

/// The media type of [`protobuf`], as clients ask for it.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

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
    fn both_forms_say_the_same() {
        let info = format!("\n\n{TITLE}\x12{}{VERSION}", char::from(u8::try_from(VERSION.len()).unwrap()));
        let wanted = format!("\n\x032.0\x12{}{info}B\0", char::from(u8::try_from(info.len()).unwrap()));
        assert_eq!(protobuf(), wanted.as_bytes());
        assert_eq!(json()["info"], json!({"title": TITLE, "version": VERSION}));
    }
}
