//! Tests of the store backends: one contract over all, sled against the reference model, damaged and held folders.
#![allow(clippy::unwrap_used, clippy::panic)]

mod contract;
mod disk;
mod model;
mod support;
