//! Does nothing until it is ended: a module of a few hundred bytes with one page of memory.
//!
//! Not even the standard library is here: what a program has at its start is what a pod of it costs.

#![no_std]
#![no_main]

/// What is waited for: a clock (the monotonic one), and when it should ring.
#[repr(C)]
struct Subscription {
    user_data: u64,
    /// 0: a clock.
    kind: u64,
    clock: u64,
    timeout_nanos: u64,
    precision_nanos: u64,
    /// 0: counted from now.
    flags: u64,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn poll_oneoff(subscriptions: *const Subscription, events: *mut [u64; 4], count: u32, rung: *mut u32) -> u32;
}

const FOREVER: Subscription =
    Subscription { user_data: 0, kind: 0, clock: 1, timeout_nanos: 1 << 62, precision_nanos: 0, flags: 0 };

/// Where the host begins.
#[unsafe(no_mangle)]
pub extern "C" fn _start() {
    let (mut event, mut rung) = ([0; 4], 0);
    // SAFETY: one subscription and room for one event, as the count says.
    while unsafe { poll_oneoff(&FOREVER, &mut event, 1, &mut rung) } == 0 {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
