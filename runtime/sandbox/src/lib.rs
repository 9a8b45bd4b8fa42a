//! Runs WebAssembly that nobody trusts: compile once, grant little, limit everything, meter always.
//!
//! Embeddable on its own: this crate knows nothing of Kubernetes.

mod adapt;
mod answer;
mod cache;
mod command;
mod compile;
mod config;
mod container;
mod cpu;
mod dump;
mod engine;
mod error;
mod exec;
mod failure;
mod grants;
mod group;
mod hidden;
mod host;
mod http;
mod image;
mod inspect;
mod invoke;
mod load;
mod log;
mod memory;
mod mounts;
mod net;
mod sandbox;
mod seats;
mod serve;
mod shared;
mod sockets;
pub mod spec;
mod stdin;
mod stores;
mod task;
mod ticker;
mod tls;

pub use command::CommandContainer;
pub use compile::compile_worker_main;
pub use config::{CompileLimits, CompilerCommand, SandboxConfig};
pub use error::{CallFailure, LoadError, SandboxError, StartError};
pub use exec::{Exec, ExecSpec};
pub use grants::Grants;
pub use group::{Group, GroupLimits};
pub use http::HttpContainer;
pub use image::Image;
pub use load::LoadOptions;
pub use net::{ByteStream, SocketError, Sockets, TcpConnection, TcpListener, TcpPort, UdpSocket};
pub use sandbox::Sandbox;
pub use sockets::SocketLimits;
pub use spec::{
    Body, BoxError, ContainerSpec, CoreDumps, CpuLimit, Ending, ImageKind, Instances, Limits, LogSink, Mount,
    MountSource, Observer, Outgoing, OutgoingError, OutgoingTimeouts, RequestTimeout, Reuse, Stream, Usage,
};
pub use stdin::Stdin;
pub use stores::{FileStore, MemoryStore, Store, StoreError, StoreSet, Stores};
pub use tls::Tls;
