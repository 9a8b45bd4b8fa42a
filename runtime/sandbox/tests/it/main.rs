//! The sandbox with real guests: every format, every limit, every ending.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod billing;
mod commands;
mod compile;
mod core_dumps;
mod cpu;
mod density;
mod exec;
mod files;
mod grants;
mod hostile;
mod http;
mod images;
mod initialise;
mod instances;
mod interfaces;
mod network;
mod plugins;
mod sockets;
mod speed;
mod support;
mod tls;
