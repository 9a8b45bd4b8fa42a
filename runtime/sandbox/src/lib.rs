//! Runs WebAssembly that nobody trusts: compile once, grant little, limit everything, meter always.
//!
//! Embeddable on its own: this crate knows nothing of Kubernetes. An embedder loads an [`Image`], says in a [`ContainerSpec`]
//! what it may have, and starts it as what it is: an [`HttpContainer`] answers requests, a [`CommandContainer`] runs to its
//! end, a [`Plugin`] has functions to call. All of it is bounded by [`Limits`] and tells its [`Usage`].
//!
//! ```
//! use podium_sandbox::{ContainerSpec, Limits, Sandbox, SandboxConfig, Value};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let wasm: &[u8] = br#"(component
//! #     (core module $m (func (export "f") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))
//! #     (core instance $i (instantiate $m))
//! #     (func (export "double") (param "x" u32) (result u32) (canon lift (core func $i "f"))))"#;
//! let sandbox = Sandbox::new(SandboxConfig { instances_max: 16, ..SandboxConfig::default() })?;
//! let image = sandbox.load(wasm.into()).await?;
//! let limits = Limits { memory_bytes_max: 16 << 20, ..Limits::default() };
//! let plugin = sandbox.plugin(&image, ContainerSpec { limits, ..ContainerSpec::new("double") })?;
//! assert_eq!(plugin.call("double", &[Value::U32(21)]).await?, [Value::U32(42)]);
//! println!("{:?} of CPU", plugin.usage().cpu);
//! # Ok(())
//! # }
//! ```
//!
//! A handler of `wasi:http` is called with requests of the crate `http`, and calls others only through what it was given
//! ([`Outgoing`], [`Sockets`]):
//!
//! ```
//! use http_body_util::BodyExt as _;
//! use podium_sandbox::{ContainerSpec, Sandbox, SandboxConfig};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), podium_sandbox::BoxError> {
//! # let wasm: &[u8] = include_bytes!("../tests/guests/http-p2.wasm");
//! let sandbox = Sandbox::new(SandboxConfig { instances_max: 16, ..SandboxConfig::default() })?;
//! let image = sandbox.load(wasm.into()).await?;
//! let web = sandbox.http(&image, ContainerSpec::new("web"))?;
//! let nothing = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
//! let response = web.call(http::Request::get("http://web/").body(nothing)?).await?;
//! println!("{}: {:?}", response.status(), response.into_body().collect().await?.to_bytes());
//! # Ok(())
//! # }
//! ```

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
mod initialise;
mod inspect;
mod invoke;
mod load;
mod log;
mod memory;
mod meter;
mod mounts;
mod net;
mod plugin;
mod remove;
mod resident;
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
mod traffic;
mod turns;

pub use command::CommandContainer;
pub use compile::compile_worker_main;
pub use config::{CompileLimits, CompilerCommand, SandboxConfig};
pub use error::{CallFailure, LoadError, SandboxError, StartError};
pub use exec::{Exec, ExecSpec};
pub use grants::{BadInterface, Grants, Refusal};
pub use group::{Group, GroupLimits};
pub use http::HttpContainer;
pub use image::Image;
pub use load::{Initialise, LoadOptions};
pub use net::{ByteStream, SocketError, Sockets, TcpConnection, TcpListener, TcpPort, UdpSocket};
pub use plugin::{Plugin, Value};
pub use remove::remove_tree;
pub use resident::release_idle_code;
pub use sandbox::Sandbox;
pub use sockets::SocketLimits;
pub use spec::{
    Body, BoxError, ContainerSpec, CoreDumps, CpuLimit, Ending, ImageKind, Instances, Limits, LogSink, Mount,
    MountSource, Observer, Outgoing, OutgoingError, OutgoingTimeouts, RequestTimeout, Reuse, Stream, Usage,
};
pub use stdin::Stdin;
pub use stores::{FileStore, MemoryStore, Store, StoreError, StoreSet, Stores};
pub use tls::Tls;
