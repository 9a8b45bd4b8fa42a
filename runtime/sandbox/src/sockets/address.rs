//! Which addresses a call may name: by family, direction and kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Code;

/// Of a socket. An IPv6 socket sees IPv6 only, as `wasi:sockets` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Any address, any port.
    pub(crate) fn unspecified(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Self::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// Whether a socket of this family may use the address at all: no IPv4 in IPv6's clothes either.
    fn takes(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4, IpAddr::V4(_)) => true,
            (Self::V6, IpAddr::V6(v6)) => v6.to_ipv4_mapped().is_none() && !is_ipv4_compatible(v6),
            _ => false,
        }
    }

    /// An address to bind to.
    pub(crate) fn check_local(self, address: SocketAddr) -> Result<(), Code> {
        if self.takes(address.ip()) { Ok(()) } else { Err(Code::InvalidArgument) }
    }

    /// An address to send to.
    pub(crate) fn check_remote(self, address: SocketAddr) -> Result<(), Code> {
        let fits = self.takes(address.ip()) && !address.ip().is_unspecified() && address.port() != 0;
        if fits { Ok(()) } else { Err(Code::InvalidArgument) }
    }
}

/// TCP knows neither multicast nor broadcast.
pub(crate) fn check_unicast(address: SocketAddr) -> Result<(), Code> {
    let several = match address.ip() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    if several { Err(Code::InvalidArgument) } else { Ok(()) }
}

fn is_ipv4_compatible(v6: Ipv6Addr) -> bool {
    matches!(v6.segments(), [0, 0, 0, 0, 0, 0, _, _]) && !v6.is_unspecified() && !v6.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let cases = [
            (Family::V4, "10.0.0.1:80", true, true),
            (Family::V4, "0.0.0.0:80", true, false),
            (Family::V4, "10.0.0.1:0", true, false),
            (Family::V4, "[::1]:80", false, false),
            (Family::V6, "10.0.0.1:80", false, false),
            (Family::V6, "[::1]:80", true, true),
            (Family::V6, "[::]:80", true, false),
            (Family::V6, "[::ffff:10.0.0.1]:80", false, false),
            (Family::V6, "[::10.0.0.1]:80", false, false),
        ];
        for (family, address, local, remote) in cases {
            let parsed = address.parse().unwrap();
            let got = (family.check_local(parsed).is_ok(), family.check_remote(parsed).is_ok());
            assert_eq!(got, (local, remote), "{family:?} {address}");
        }
        for (address, one) in
            [("224.0.0.1:1", false), ("255.255.255.255:1", false), ("[ff02::1]:1", false), ("10.0.0.1:1", true)]
        {
            assert_eq!(check_unicast(address.parse().unwrap()).is_ok(), one, "{address}");
        }
    }
}
