//! cargo-fuzz's way into `podium_fuzz::pods`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podium_fuzz::pods(data));
