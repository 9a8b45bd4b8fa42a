//! TCP, UDP and names for guests, over what an embedder's [`crate::Sockets`] offers: no socket of the host is opened here.
//!
//! `tcp`, `udp` and `lookup` hold the states and rules; `p2`, `p3` and `p1` speak `wasi:sockets` 0.2, 0.3 and preview 1 over
//! them. Nothing here waits on its own: a guest's call polls, so the guest pays. The exception is what a guest has written
//! and left behind: it goes out in a task of its own, whose CPU time and memory the container pays as well.
//!
//! Bounds: counts in [`SocketLimits`]; memory (states, read-ahead, what waits to be written, and the buffers that the
//! network says a connection has) is charged to the container, and what does not fit fails with `out-of-memory`.

mod address;
mod code;
mod connection;
mod limits;
mod lookup;
mod options;
mod p1;
mod p2;
mod p3;
mod quota;
mod ready;
mod tcp;
mod udp;

pub use limits::SocketLimits;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

pub(crate) use p1::{Preview1, link as link_preview1};
pub(crate) use quota::{Instance, SocketQuota};

use address::{Family, check_unicast};
use code::Code;
pub(crate) use connection::Metered;
use options::Options;
use ready::{Ready, once};

/// The package.
pub(crate) const GROUP: &str = "wasi:sockets";

/// What the interfaces need of a store.
pub(crate) struct SocketsView<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) instance: &'a Instance,
}

/// Names [`SocketsView`] to linkers.
struct HasSockets;

impl HasData for HasSockets {
    type Data<'a> = SocketsView<'a>;
}

/// A store with sockets.
pub(crate) trait SocketsHost: Send + 'static {
    fn sockets(&mut self) -> SocketsView<'_>;
}

/// Links `wasi:sockets`, in place of what is linked already: the linker has to allow shadowing.
pub(crate) fn link<T: SocketsHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    p2::link(linker)?;
    p3::link(linker)
}

/// The same handle for another type: interfaces name the resource types of `wasmtime-wasi`, the table holds ours.
fn handle<From: 'static, To: 'static>(resource: &Resource<From>) -> Resource<To> {
    if resource.owned() { Resource::new_own(resource.rep()) } else { Resource::new_borrow(resource.rep()) }
}
