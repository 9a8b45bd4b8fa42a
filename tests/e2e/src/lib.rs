//! What the end-to-end tests stand on: the real binary as a child process, and transcripts of real clients.

pub mod cluster;
pub mod http;
pub mod kubectl;
pub mod transcript;
pub mod wire;

pub use cluster::{Cluster, Podium};
