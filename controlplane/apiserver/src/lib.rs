//! The API server: the real Kubernetes API over HTTPS and, without a socket, to the components in this process.
//!
//! One generic registry serves every kind: decode, unknown fields, defaults, mutating admission, prepare, validate,
//! validating admission, store. Reads and watches are answered from caches by writing ready bytes. The HTTP layer knows
//! no kind; special verbs (`binding`, `log`, `eviction`, `finalize`) are a table of their own.

mod accounts;
mod admission;
mod aggregate;
mod audit;
pub mod auth;
mod bootstrap;
mod bootstrap_tokens;
mod certificates;
mod components;
mod config;
mod connection;
mod custom;
mod expiry;
mod flow;
mod gateway;
mod http;
mod local;
mod node_authorizer;
mod outbound;
mod pki;
mod rbac;
mod registry;
mod server;
mod streaming;
mod token_secrets;
mod usage;
mod webhook;

pub use audit::{AuditConfig, Level as AuditLevel, Policy as AuditPolicy, PolicyError as AuditPolicyError};
pub use auth::{Authorizer, Decision, Identity};
pub use config::{BadRange, Ipv4Range, Limits, ServerConfig};
pub use gateway::{
    AttachOptions, ByteStream, CoreDump, ExecOptions, ImageRegistry, Input, LogOptions, LogStream, LogStreams,
    NodeGateway, Output, PodPorts, Session, SessionEnd, Streams, TerminalSize,
};
pub use local::LocalApi;
pub use outbound::{BoxError, ServiceBody, ServiceDialer};
pub use server::{ApiServer, Door, StartError};
