//! Core modules that say which component they are (a `component-type` section, as `wit-bindgen` leaves it) become that component:
//! what `wasm-tools component new --adapt` does by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::LoadError;

/// How the section's name begins: what follows tells apart those of several libraries linked into one module.
const SECTION: &str = "component-type";
/// Bytes of all such sections: interfaces, not code.
const SECTION_BYTES_MAX: usize = 1 << 20;

/// The component that a core module says to be; anything else as it is.
///
/// # Errors
/// When the module is not what its section says.
pub(crate) fn adapted(wasm: Bytes) -> Result<Bytes, LoadError> {
    let invalid = |reason: String| LoadError::Invalid { reason };
    let sections = sections(&wasm).map_err(|error| invalid(error.to_string()))?;
    match sections.bytes {
        0 => return Ok(wasm),
        bytes if bytes > SECTION_BYTES_MAX => {
            return Err(invalid(format!("{SECTION} sections of {bytes} bytes, more than {SECTION_BYTES_MAX}")));
        }
        _ => {}
    }
    // The encoder is not made for hostile input: where it gives up, the image is refused and nothing else happens.
    let encoded = catch_unwind(AssertUnwindSafe(|| encoded(&wasm, sections.starts)));
    let component = encoded.unwrap_or_else(|_| Err("the encoder gave up".to_owned()));
    component
        .map(Bytes::from)
        .map_err(|reason| invalid(format!("a core module that cannot become its component: {reason}")))
}

fn encoded(wasm: &[u8], starts: bool) -> Result<Vec<u8>, String> {
    let adapter = if starts { WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER } else { WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER };
    let encoder = ComponentEncoder::default().validate(true).module(wasm);
    let component = encoder
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|mut encoder| encoder.encode());
    component.map_err(|error| format!("{error:#}"))
}

struct Sections {
    bytes: usize,
    /// Whether the module has a `_start`.
    starts: bool,
}

fn sections(wasm: &[u8]) -> Result<Sections, wasmparser::BinaryReaderError> {
    let mut found = Sections { bytes: 0, starts: false };
    if Parser::is_component(wasm) {
        return Ok(found);
    }
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::CustomSection(section) if section.name().starts_with(SECTION) => {
                found.bytes += section.data().len();
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    found.starts |= export?.name == "_start";
                }
            }
            _ => {}
        }
    }
    Ok(found)
}
