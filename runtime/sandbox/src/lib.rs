//! Runs WebAssembly that nobody trusts: compile once, grant little, limit everything, meter always.
//!
//! Embeddable on its own: this crate knows nothing of Kubernetes.

pub mod spec;

pub use spec::{
    Body, BoxError, ContainerSpec, CpuLimit, Ending, ImageKind, Limits, LogSink, Outgoing, OutgoingError, Stream, Usage,
};
