//! `wasi:sockets` 0.3: calls that wait, streams of bytes and of connections.

mod lookup;
mod streams;
mod tcp;
mod udp;

use wasmtime::component::Linker;
use wasmtime_wasi::{
    TrappableError,
    p3::{
        bindings::sockets::{
            ip_name_lookup,
            types::{self, ErrorCode, Host, IpAddressFamily},
        },
        sockets::SocketError,
    },
};

use super::{Code, Family, HasSockets, SocketsHost, SocketsView};

pub(super) fn link<T: SocketsHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, HasSockets>(linker, T::sockets)
}

impl From<Code> for SocketError {
    fn from(code: Code) -> Self {
        ErrorCode::from(code).into()
    }
}

fn trap(error: impl Into<wasmtime::Error>) -> SocketError {
    TrappableError::trap(error)
}

impl Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl From<IpAddressFamily> for Family {
    fn from(family: IpAddressFamily) -> Self {
        match family {
            IpAddressFamily::Ipv4 => Self::V4,
            IpAddressFamily::Ipv6 => Self::V6,
        }
    }
}

impl From<Family> for IpAddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }
}
