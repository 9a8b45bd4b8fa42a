//! Why a call or a socket does not do what was asked.

use std::net::SocketAddr;

/// Why a call has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The handler takes no new requests (it is ending, or its queue is full); the request was not begun.
    #[error("not accepted: {0}")]
    NotAccepted(String),
    /// The handler began and failed.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The name means nothing here.
    #[error("no such host: {0}")]
    NameNotFound(String),
    /// The Service exists but nobody is behind it, or nobody listens at the address.
    #[error("connection refused: {0}")]
    Refused(String),
    /// Policy forbids it.
    #[error("not allowed: {0}")]
    Denied(String),
}

/// Why a socket operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// Policy forbids it.
    #[error("not allowed: {0}")]
    Denied(String),
    /// Somebody else has the port.
    #[error("address in use: {0}")]
    AddressInUse(SocketAddr),
    /// The address is not one of the pod's.
    #[error("not an address of this pod: {0}")]
    NotOwn(SocketAddr),
    /// Nobody listens there.
    #[error("connection refused: {0}")]
    Refused(String),
    /// The address cannot be reached.
    #[error("unreachable: {0}")]
    Unreachable(SocketAddr),
    /// It took too long.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The name means nothing here.
    #[error("no such host: {0}")]
    NameNotFound(String),
    /// The name could not be looked up now.
    #[error("cannot look up {name} now: {reason}")]
    ResolverFailed {
        /// Which name.
        name: String,
        /// What the resolver says.
        reason: String,
    },
    /// The pod has as many sockets as it may have.
    #[error("too many sockets: a pod may have {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The datagram is larger than the network takes.
    #[error("a datagram of {bytes} bytes is too large")]
    DatagramTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The network is going down, or the system failed.
    #[error("{0}")]
    Failed(String),
}

impl From<SocketError> for CallError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Denied(what) => Self::Denied(what),
            SocketError::Refused(what) => Self::Refused(what),
            SocketError::TimedOut(what) => Self::TimedOut(what),
            SocketError::NameNotFound(what) => Self::NameNotFound(what),
            SocketError::Unreachable(_) => Self::Refused(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}
