//! The API server over real sockets, over the memory store, with the clients that users have.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod admission;
mod again;
mod aggregate;
mod answers;
mod audit;
mod certificates;
mod contract;
mod conversion;
mod custom;
mod drain;
mod flow;
mod harness;
mod identity;
mod kubectl;
mod limits;
mod mutating;
mod nodes;
mod objects;
mod plugins;
mod pods;
mod porter;
mod proxy;
mod quota;
mod raw;
mod rbac;
mod reads;
mod reviews;
mod services;
mod slow;
mod streaming;
mod streams;
mod watches;
mod webhook;
