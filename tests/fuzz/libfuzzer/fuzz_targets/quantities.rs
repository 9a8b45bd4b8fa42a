//! cargo-fuzz's way into `podium_fuzz::quantities`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podium_fuzz::quantities(data));
