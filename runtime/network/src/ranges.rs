//! Ranges of IP addresses, and which addresses are the host's own business rather than hosts outside. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses such as `10.1.0.0/16`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    base: IpAddr,
    prefix: u8,
}

/// A string that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses such as 10.1.0.0/16")]
pub struct BadRange(String);

impl IpRange {
    /// Whether an address lies in it. An IPv4 address within IPv6 counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => (u32::from(base) ^ u32::from(ip)) & mask4(self.prefix) == 0,
            (IpAddr::V6(base), IpAddr::V6(ip)) => (u128::from(base) ^ u128::from(ip)) & mask6(self.prefix) == 0,
            _ => false,
        }
    }

    /// Whether every address of its family lies in it.
    pub fn is_all(&self) -> bool {
        self.prefix == 0
    }

    /// The range's own address, and how many bits of it count.
    pub(crate) fn key(&self) -> (IpAddr, u8) {
        (Self::around(self.base, self.prefix).unwrap_or(self.base), self.prefix)
    }

    /// The own address of the range of this size that an address lies in; `None` when it has not so many bits.
    pub(crate) fn around(ip: IpAddr, prefix: u8) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(ip) if prefix <= 32 => Some(IpAddr::V4((u32::from(ip) & mask4(prefix)).into())),
            IpAddr::V6(ip) if prefix <= 128 => Some(IpAddr::V6((u128::from(ip) & mask6(prefix)).into())),
            _ => None,
        }
    }

    /// The first address after the range's own.
    pub fn first(&self) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) & mask4(self.prefix) | 1).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) & mask6(self.prefix) | 1).into()),
        }
    }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for IpRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(text.to_owned());
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(bad());
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Why no pod may connect to an address unless the operator says so: what it is. `None` for the addresses of other
/// hosts. The host's own addresses in other ranges are not known here.
pub(crate) fn host_business(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => host_business4(ip),
        IpAddr::V6(ip) => host_business6(ip),
    }
}

fn host_business4(ip: Ipv4Addr) -> Option<&'static str> {
    let is = |range: [u8; 4], prefix: u8| (u32::from(Ipv4Addr::from(range)) ^ u32::from(ip)) & mask4(prefix) == 0;
    match () {
        // Amazon, Google, Azure, Oracle and others; Alibaba; Oracle's second; Azure's agent.
        () if METADATA4.contains(&ip.octets()) => Some("a cloud's metadata address"),
        () if ip.is_loopback() => Some("the host's loopback"),
        () if is([0, 0, 0, 0], 8) => Some("an unspecified address"),
        () if ip.is_link_local() => Some("a link-local address"),
        () if ip.is_multicast() => Some("a multicast address"),
        () if ip.is_broadcast() => Some("a broadcast address"),
        () if is([240, 0, 0, 0], 4) => Some("a reserved address"),
        () => None,
    }
}

const METADATA4: [[u8; 4]; 4] = [[169, 254, 169, 254], [100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]];

fn host_business6(ip: Ipv6Addr) -> Option<&'static str> {
    let segments = ip.segments();
    match () {
        () if METADATA6.contains(&segments) => Some("a cloud's metadata address"),
        () if ip.is_loopback() => Some("the host's loopback"),
        () if ip.is_unspecified() => Some("an unspecified address"),
        () if segments[0] & 0xffc0 == 0xfe80 => Some("a link-local address"),
        () if segments[0] & 0xffc0 == 0xfec0 => Some("a site-local address"),
        () if ip.is_multicast() => Some("a multicast address"),
        () => embedded4(segments).and_then(host_business4),
    }
}

/// `fd00:ec2::254` of Amazon, `fd20:ce::254` of Google.
const METADATA6: [[u16; 8]; 2] = [[0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]];

/// The IPv4 address that a gateway would make of this one: IPv4-compatible, NAT64, 6to4.
fn embedded4(segments: [u16; 8]) -> Option<Ipv4Addr> {
    let [a, b, ..] = segments;
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x64, 0xff9b, 1, .., high, low] => of(high, low),
        _ if a == 0x2002 => of(b, segments[2]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_they_say() {
        let has = |range: &str, ip: &str| range.parse::<IpRange>().unwrap().contains(ip.parse().unwrap());
        assert!(has("10.1.0.0/16", "10.1.255.3"));
        assert!(has("10.1.0.0/16", "::ffff:10.1.2.3"));
        assert!(!has("10.1.0.0/16", "10.2.0.1"));
        assert!(has("0.0.0.0/0", "8.8.8.8"));
        assert!(!has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:9::1"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.8"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/"] {
            assert!(bad.parse::<IpRange>().is_err(), "{bad}");
        }
        assert_eq!("10.244.3.0/16".parse::<IpRange>().unwrap().first(), IpAddr::from([10, 244, 0, 1]));
    }

    #[test]
    fn what_belongs_to_the_host_is_known_in_every_disguise() {
        for (ip, expected) in [
            ("127.0.0.1", Some("the host's loopback")),
            ("127.255.0.9", Some("the host's loopback")),
            ("::1", Some("the host's loopback")),
            ("::ffff:127.0.0.1", Some("the host's loopback")),
            ("::127.0.0.1", Some("the host's loopback")),
            ("64:ff9b::7f00:1", Some("the host's loopback")),
            ("2002:7f00:1::1", Some("the host's loopback")),
            ("0.0.0.0", Some("an unspecified address")),
            ("0.1.2.3", Some("an unspecified address")),
            ("::", Some("an unspecified address")),
            ("169.254.169.254", Some("a cloud's metadata address")),
            ("::ffff:169.254.169.254", Some("a cloud's metadata address")),
            ("64:ff9b::a9fe:a9fe", Some("a cloud's metadata address")),
            ("64:ff9b:1::a9fe:a9fe", Some("a cloud's metadata address")),
            ("fd00:ec2::254", Some("a cloud's metadata address")),
            ("100.100.100.200", Some("a cloud's metadata address")),
            ("169.254.1.1", Some("a link-local address")),
            ("fe80::1", Some("a link-local address")),
            ("febf::1", Some("a link-local address")),
            ("fec0::1", Some("a site-local address")),
            ("224.0.0.1", Some("a multicast address")),
            ("ff02::1", Some("a multicast address")),
            ("255.255.255.255", Some("a broadcast address")),
            ("240.0.0.1", Some("a reserved address")),
            ("10.0.0.1", None),
            ("192.168.1.1", None),
            ("8.8.8.8", None),
            ("2001:4860:4860::8888", None),
            ("64:ff9b::808:808", None),
            ("fd00::1", None),
        ] {
            assert_eq!(host_business(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
