//! Runs WebAssembly that nobody trusts: compile once, grant little, limit everything, meter always.
//!
//! Embeddable on its own: this crate knows nothing of Kubernetes.

mod command;
mod config;
mod error;
mod http;
mod image;
mod sandbox;
pub mod spec;

pub use command::CommandContainer;
pub use config::SandboxConfig;
pub use error::{CallFailure, LoadError, SandboxError, StartError};
pub use http::HttpContainer;
pub use image::Image;
pub use sandbox::Sandbox;
pub use spec::{
    Body, BoxError, ContainerSpec, CpuLimit, Ending, ImageKind, Limits, LogSink, Outgoing, OutgoingError, Stream, Usage,
};
