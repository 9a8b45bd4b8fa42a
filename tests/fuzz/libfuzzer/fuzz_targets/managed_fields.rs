//! cargo-fuzz's way into `podium_fuzz::managed_fields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| podium_fuzz::managed_fields(data));
