//! The drivers against the reference model of the API, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic)]

mod controllers;
mod leases;
mod preempting;
mod scheduling;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_client::{ClockRef, TokioClock};

/// A clock that follows tokio's paused one.
fn clock() -> ClockRef {
    Arc::new(TokioClock::starting_at(Timestamp::from_second(1_800_000_000).expect("a valid time")))
}

/// Waits, in virtual time, until something holds.
#[track_caller]
fn eventually(what: &'static str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for _ in 0..100_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{caller}: not so after 1,000 s: {what}");
    }
}
