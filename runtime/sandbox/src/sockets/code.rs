//! Why a socket call failed, in words that all three interfaces know, each in its own spelling.

use std::io;

use wasmtime_wasi::{
    p1::types::Errno,
    p2::bindings::sockets::network::ErrorCode as P2,
    p3::bindings::sockets::{ip_name_lookup::ErrorCode as P3Lookup, types::ErrorCode as P3},
};

use crate::SocketError;

/// A failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    AccessDenied,
    InvalidArgument,
    OutOfMemory,
    Timeout,
    InvalidState,
    NotSupported,
    NewSocketLimit,
    AddressNotBindable,
    AddressInUse,
    RemoteUnreachable,
    ConnectionRefused,
    ConnectionBroken,
    ConnectionReset,
    ConnectionAborted,
    DatagramTooLarge,
    NameUnresolvable,
    TemporaryResolverFailure,
    Other,
}

impl Code {
    /// In words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::AccessDenied => "access denied",
            Self::InvalidArgument => "not an address to use for this",
            Self::OutOfMemory => "out of memory",
            Self::Timeout => "timed out",
            Self::InvalidState => "not possible in the state of the socket",
            Self::NotSupported => "not supported",
            Self::NewSocketLimit => "too many sockets",
            Self::AddressNotBindable => "not an address of this pod",
            Self::AddressInUse => "address in use",
            Self::RemoteUnreachable => "unreachable",
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionBroken => "connection broken",
            Self::ConnectionReset => "connection reset",
            Self::ConnectionAborted => "connection aborted",
            Self::DatagramTooLarge => "datagram too large",
            Self::NameUnresolvable => "name not found",
            Self::TemporaryResolverFailure => "names cannot be looked up now",
            Self::Other => "the network failed",
        }
    }
}

impl From<Code> for Errno {
    fn from(code: Code) -> Self {
        match code {
            Code::AccessDenied => Self::Acces,
            Code::InvalidArgument | Code::InvalidState => Self::Inval,
            Code::OutOfMemory => Self::Nobufs,
            Code::Timeout => Self::Timedout,
            Code::NotSupported => Self::Notsup,
            Code::NewSocketLimit => Self::Nfile,
            Code::AddressNotBindable => Self::Addrnotavail,
            Code::AddressInUse => Self::Addrinuse,
            Code::RemoteUnreachable => Self::Hostunreach,
            Code::ConnectionRefused => Self::Connrefused,
            Code::ConnectionBroken => Self::Pipe,
            Code::ConnectionReset => Self::Connreset,
            Code::ConnectionAborted => Self::Connaborted,
            Code::DatagramTooLarge => Self::Msgsize,
            Code::NameUnresolvable | Code::TemporaryResolverFailure | Code::Other => Self::Io,
        }
    }
}

impl From<SocketError> for Code {
    fn from(error: SocketError) -> Self {
        tracing::debug!(%error, "socket");
        match error {
            SocketError::AccessDenied(_) => Self::AccessDenied,
            SocketError::AddressInUse(_) => Self::AddressInUse,
            SocketError::AddressNotBindable(_) => Self::AddressNotBindable,
            SocketError::ConnectionRefused(_) => Self::ConnectionRefused,
            SocketError::ConnectionReset => Self::ConnectionReset,
            SocketError::RemoteUnreachable(_) => Self::RemoteUnreachable,
            SocketError::TimedOut => Self::Timeout,
            SocketError::NameUnresolvable(_) => Self::NameUnresolvable,
            SocketError::ResolverFailed(_) => Self::TemporaryResolverFailure,
            SocketError::TooManySockets { .. } => Self::NewSocketLimit,
            SocketError::DatagramTooLarge { .. } => Self::DatagramTooLarge,
            SocketError::Other(_) => Self::Other,
        }
    }
}

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => Self::ConnectionBroken,
            io::ErrorKind::ConnectionReset => Self::ConnectionReset,
            io::ErrorKind::ConnectionAborted => Self::ConnectionAborted,
            io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::RemoteUnreachable,
            io::ErrorKind::PermissionDenied => Self::AccessDenied,
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => {
                tracing::debug!(%error, "connection");
                Self::Other
            }
        }
    }
}

impl From<Code> for P2 {
    fn from(code: Code) -> Self {
        match code {
            Code::AccessDenied => Self::AccessDenied,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::OutOfMemory => Self::OutOfMemory,
            Code::Timeout => Self::Timeout,
            Code::InvalidState => Self::InvalidState,
            Code::NotSupported => Self::NotSupported,
            Code::NewSocketLimit => Self::NewSocketLimit,
            Code::AddressNotBindable => Self::AddressNotBindable,
            Code::AddressInUse => Self::AddressInUse,
            Code::RemoteUnreachable => Self::RemoteUnreachable,
            Code::ConnectionRefused => Self::ConnectionRefused,
            Code::ConnectionReset => Self::ConnectionReset,
            Code::ConnectionAborted => Self::ConnectionAborted,
            Code::DatagramTooLarge => Self::DatagramTooLarge,
            Code::NameUnresolvable => Self::NameUnresolvable,
            Code::TemporaryResolverFailure => Self::TemporaryResolverFailure,
            Code::ConnectionBroken | Code::Other => Self::Unknown,
        }
    }
}

impl From<Code> for P3 {
    fn from(code: Code) -> Self {
        match code {
            Code::AccessDenied => Self::AccessDenied,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::OutOfMemory => Self::OutOfMemory,
            Code::Timeout => Self::Timeout,
            Code::InvalidState => Self::InvalidState,
            Code::NotSupported => Self::NotSupported,
            Code::NewSocketLimit => Self::Other(Some("too many sockets".to_owned())),
            Code::AddressNotBindable => Self::AddressNotBindable,
            Code::AddressInUse => Self::AddressInUse,
            Code::RemoteUnreachable => Self::RemoteUnreachable,
            Code::ConnectionRefused => Self::ConnectionRefused,
            Code::ConnectionBroken => Self::ConnectionBroken,
            Code::ConnectionReset => Self::ConnectionReset,
            Code::ConnectionAborted => Self::ConnectionAborted,
            Code::DatagramTooLarge => Self::DatagramTooLarge,
            Code::NameUnresolvable | Code::TemporaryResolverFailure | Code::Other => Self::Other(None),
        }
    }
}

impl From<Code> for P3Lookup {
    fn from(code: Code) -> Self {
        match code {
            Code::AccessDenied => Self::AccessDenied,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::NameUnresolvable => Self::NameUnresolvable,
            Code::TemporaryResolverFailure | Code::Timeout | Code::OutOfMemory => Self::TemporaryResolverFailure,
            _ => Self::Other(None),
        }
    }
}
