//! Traps a few frames below its start, without the standard library: small even with names and lines.

#![no_std]

use core::hint::black_box;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

#[inline(never)]
fn divide(by: u32) -> u32 {
    if by == 0 { core::arch::wasm32::unreachable() } else { 100 / by }
}

mod orders {
    #[inline(never)]
    pub(crate) fn price(count: u32) -> u32 {
        super::divide(core::hint::black_box(count)) + 1
    }
}

/// The command.
#[unsafe(no_mangle)]
pub extern "C" fn _start() {
    black_box(orders::price(black_box(0)));
}
