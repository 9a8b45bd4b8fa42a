//! TCP, UDP and names for guests, over what an embedder's [`crate::Sockets`] offers: no socket of the host is opened here.

mod limits;

pub use limits::SocketLimits;
