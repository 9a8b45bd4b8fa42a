//! Tests of the store backends: one contract over all, sled against the reference model, crashes, full and damaged disks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod contract;
mod crash;
mod disk;
mod model;
mod support;
