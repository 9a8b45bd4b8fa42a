//! `wasi:sockets` 0.2: the network, and what makes sockets.

mod lookup;
pub(super) mod streams;
mod tcp;
mod udp;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::{
    SocketError, SocketResult,
    bindings::sockets::{
        instance_network, ip_name_lookup,
        network::{self, ErrorCode, IpAddressFamily, Network as WasiNetwork},
        tcp as tcp_interface, tcp_create_socket, udp as udp_interface, udp_create_socket,
    },
};

use super::{Code, Family, HasSockets, SocketsHost, SocketsView, handle, udp::UdpSocket};

/// The one network. What it allows is asked for with each call.
struct Network;

pub(super) fn link<T: SocketsHost>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    instance_network::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    network::add_to_linker::<T, HasSockets>(linker, &network::LinkOptions::default(), T::sockets)?;
    tcp_create_socket::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    tcp_interface::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    udp_create_socket::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    udp_interface::add_to_linker::<T, HasSockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, HasSockets>(linker, T::sockets)
}

impl From<Code> for SocketError {
    fn from(code: Code) -> Self {
        ErrorCode::from(code).into()
    }
}

impl SocketsView<'_> {
    /// Whether the guest holds the network that it names.
    fn check_network(&self, network: &Resource<WasiNetwork>) -> SocketResult<()> {
        self.table.get::<Network>(&handle(network))?;
        Ok(())
    }
}

impl instance_network::Host for SocketsView<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<WasiNetwork>> {
        Ok(handle(&self.table.push(Network)?))
    }
}

impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<ErrorCode>().copied())
    }
}

impl network::HostNetwork for SocketsView<'_> {
    fn drop(&mut self, network: Resource<WasiNetwork>) -> wasmtime::Result<()> {
        self.table.delete::<Network>(handle(&network))?;
        Ok(())
    }
}

impl tcp_create_socket::Host for SocketsView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<tcp_interface::TcpSocket>> {
        let socket = tcp::Socket::new(super::tcp::TcpSocket::new(self.instance, family.into())?);
        Ok(handle(&self.table.push(socket)?))
    }
}

impl udp_create_socket::Host for SocketsView<'_> {
    async fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<udp_interface::UdpSocket>> {
        let socket = udp::Socket::new(UdpSocket::new(self.instance, family.into())?);
        Ok(handle(&self.table.push(socket)?))
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
