//! cargo-fuzz's way into `podium_fuzz::modules`: the bytes choose a valid module.
#![no_main]

use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let config =
        Config { max_imports: 0, min_exports: 1, max_memories: 1, threads_enabled: false, ..Config::default() };
    if let Ok(module) = Module::new(config, &mut Unstructured::new(data)) {
        podium_fuzz::modules(&module.to_bytes());
    }
});
