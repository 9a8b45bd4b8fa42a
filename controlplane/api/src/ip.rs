//! IP addresses and CIDRs as Kubernetes wants them in new fields: in one spelling only.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/validation/ip.go`.

use std::net::{IpAddr, Ipv6Addr};

/// A network: an address whose bits past the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads a network, with bits past the prefix masked away.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address = sloppy(address)?;
        let prefix = Some(prefix).filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        (prefix <= bits(address)).then(|| Self { address: masked(address, prefix), prefix })
    }

    /// Whether the other network lies in this one and is smaller.
    pub(crate) fn strictly_contains(self, other: Self) -> bool {
        let same_family = self.address.is_ipv4() == other.address.is_ipv4();
        same_family && self.prefix < other.prefix && masked(other.address, self.prefix) == self.address
    }

    pub(crate) fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix.min(32))).unwrap_or_default();
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix.min(128))).unwrap_or_default();
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// An address whose IPv4 octets may have leading zeros, so that these can be named as what is wrong.
fn sloppy(text: &str) -> Option<IpAddr> {
    let octet = |octet: &str| match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let stripped = || text.split('.').map(octet).collect::<Vec<_>>().join(".");
    text.parse().ok().or_else(|| stripped().parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if Ipv6Addr::to_ipv4_mapped(&v6).is_some())
}

/// An IP address in its canonical form.
pub(crate) fn is_canonical_ip(text: &str) -> Vec<String> {
    let Some(address) = sloppy(text) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    };
    if text.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".to_owned()];
    }
    if is_mapped(address) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    match address.to_string() {
        canonical if canonical == text => Vec::new(),
        canonical => vec![format!("must be in canonical form ({canonical:?})")],
    }
}

/// A network with no bits past its prefix; IPv6 addresses in any spelling.
pub(crate) fn is_cidr(text: &str) -> Vec<String> {
    let wrong = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let (Some(cidr), Some((address, prefix))) = (Cidr::parse(text), text.split_once('/')) else { return wrong() };
    let Ok(address) = address.parse::<IpAddr>() else {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    };
    match () {
        () if prefix.len() > 1 && prefix.starts_with('0') => {
            vec!["must not have leading 0s in IP or prefix length".to_owned()]
        }
        () if is_mapped(address) => vec!["must not have an IPv4-mapped IPv6 address".to_owned()],
        () if cidr.address != address => vec!["must not have bits set beyond the prefix length".to_owned()],
        () => Vec::new(),
    }
}

/// A network in its canonical form.
pub(crate) fn is_canonical_cidr(text: &str) -> Vec<String> {
    let messages = is_cidr(text);
    match Cidr::parse(text).map(|cidr| cidr.to_string()) {
        Some(canonical) if messages.is_empty() && canonical != text => {
            vec![format!("must be in canonical form ({canonical:?})")]
        }
        _ => messages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        for (text, wanted) in [
            ("10.0.0.1", ""),
            ("2001:db8::1", ""),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")"),
            ("a", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ] {
            assert_eq!(is_canonical_ip(text).join("; "), wanted, "{text}");
        }
        for (text, wanted) in [
            ("10.0.0.0/8", ""),
            ("0.0.0.0/0", ""),
            ("::/0", ""),
            ("10.0.0.1/32", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.00.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("::ffff:1.2.3.4/128", "must not have an IPv4-mapped IPv6 address"),
            ("FD00::/8", "must be in canonical form (\"fd00::/8\")"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0/+8", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ] {
            assert_eq!(is_canonical_cidr(text).join("; "), wanted, "{text}");
        }
    }

    #[test]
    fn networks_in_networks() {
        for (outer, inner, wanted) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("0.0.0.0/0", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("10.0.0.0/8", "fd00::/16", false),
            ("fd00::/8", "fd00:1::/32", true),
        ] {
            let cidr = |text| Cidr::parse(text).unwrap();
            assert_eq!(cidr(outer).strictly_contains(cidr(inner)), wanted, "{outer} {inner}");
        }
    }
}
