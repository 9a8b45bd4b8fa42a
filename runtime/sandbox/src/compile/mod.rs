//! Compiling strangers' modules without letting one of them stall the node.
//!
//! A compile waits for its turn (`queue`), has its shape looked at (`shape`), and runs in a process of its own with limits
//! on time, memory and output (`child` is this side, `worker` the other). Without a [`crate::CompilerCommand`] it runs in
//! this process, where it cannot be stopped: only its shape and its turn bound it then.

mod child;
mod queue;
mod shape;
mod worker;

pub(crate) use self::{
    child::{Work, run},
    queue::{Lane, Queue},
    shape::{check, check_bodies},
};
pub use worker::compile_worker_main;
