//! The node agent: makes the pods that the API binds to this node run, and says how they are.
//!
//! Two halves. `decide` is pure: what one pod needs is a function of its spec, of what runs here and of the time. `driver`
//! does the I/O: it watches, starts, probes, drains, writes status. The agent knows the cluster only through
//! [`podium_client::Api`], guests only through `podium_sandbox`, and other pods only through `podium_network`.

mod agent;
mod config;
pub mod credentials;
mod decide;
mod driver;
mod dry_run;
mod endpoints;
mod gateway;
mod images;
pub mod ipam;
mod logs;
mod node_access;
mod open_files;
pub mod streams;
mod volumes;

pub use agent::{Agent, StartError};
pub use config::{AgentConfig, TunnelSettings};
pub use credentials::{Credentials, CredentialsError};
pub use decide::balancer::{AddressPool, BadPool};
pub use decide::grants::{InterfaceGroups, InterfacePatterns, InterfacePolicy};
pub use driver::{
    core_dumps::{CoreDump, CoreDumpReader},
    images::garbage::ImageGc,
    nodes::follow_nodes,
};
#[doc(hidden)]
pub use dry_run::dry_run;
pub use endpoints::Endpoints;
pub use images::{
    FileImages, ImageConfig, ImageError, ImageSource, Pulled, PulledImage, Record, Registries, Registry, Rewrite,
};
pub use logs::{LogError, LogOptions, LogReader, LogStream, LogStreams};
pub use node_access::{NodeAccess, RemoteNode};
pub use open_files::raise_open_files_limit;
pub use volumes::PROVISIONER;
