//! Addresses for pods out of the node's podCIDR: stable for a pod's life, not reused at once.
//!
//! The network's first two addresses and its last one are never given out. Nothing is kept on disk: the pods' status
//! holds their addresses, and the agent reserves those before it gives out new ones.

use std::{collections::HashSet, fmt, net::IpAddr, str::FromStr};

/// A range of addresses, for example `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// A string that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses such as 10.244.0.0/16")]
pub struct BadCidr(String);

impl Cidr {
    /// What Kubernetes installations commonly use for pods.
    pub const DEFAULT: Self = Self { base: IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 0)), prefix: 16 };

    fn host_bits(self) -> u8 {
        if self.base.is_ipv4() { 32 - self.prefix } else { 128 - self.prefix }
    }

    /// How many pods fit; at most 2^24.
    pub fn capacity(self) -> u32 {
        (1u32 << self.host_bits().min(24)).saturating_sub(3)
    }

    fn at(self, offset: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + offset).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + u128::from(offset)).into()),
        }
    }

    fn offset_of(self, ip: IpAddr) -> Option<u32> {
        let offset = match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(u32::from(ip).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        u32::try_from(offset).ok().filter(|o| (2..2 + self.capacity()).contains(o))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (base, prefix) = (base.parse::<IpAddr>().map_err(|_| bad())?, prefix.parse::<u8>().map_err(|_| bad())?);
        let bits = if base.is_ipv4() { 32 } else { 128 };
        // At least a few addresses, and no more than the range has.
        if prefix > bits - 3 || prefix == 0 {
            return Err(bad());
        }
        let base = match base {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & (u32::MAX << (32 - prefix))).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & (u128::MAX << (128 - prefix))).into()),
        };
        Ok(Self { base, prefix })
    }
}

/// Gives out the addresses of one range.
#[derive(Debug)]
pub(crate) struct Ipam {
    cidr: Cidr,
    used: HashSet<u32>,
    next: u32,
}

impl Ipam {
    /// Nothing is given out yet.
    pub(crate) fn new(cidr: Cidr) -> Self {
        Self { cidr, used: HashSet::new(), next: 2 }
    }

    /// Takes a certain address; `false` when it is taken or not in the range.
    pub(crate) fn reserve(&mut self, ip: IpAddr) -> bool {
        self.cidr.offset_of(ip).is_some_and(|offset| self.used.insert(offset))
    }

    /// Takes the next free address; `None` when all are taken.
    pub(crate) fn allocate(&mut self) -> Option<IpAddr> {
        let capacity = self.cidr.capacity();
        if self.used.len() >= capacity as usize {
            return None;
        }
        loop {
            let offset = self.next;
            self.next = if offset + 1 >= 2 + capacity { 2 } else { offset + 1 };
            if self.used.insert(offset) {
                return Some(self.cidr.at(offset));
            }
        }
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, ip: IpAddr) {
        if let Some(offset) = self.cidr.offset_of(ip) {
            self.used.remove(&offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_normalised() {
        assert_eq!("10.244.3.7/16".parse::<Cidr>().unwrap().to_string(), "10.244.0.0/16");
        assert_eq!("fd00::1/64".parse::<Cidr>().unwrap().to_string(), "fd00::/64");
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/30", "x/8", "10.0.0.0/0", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_unique_until_none_is_left_and_released_ones_come_last() {
        let mut ipam = Ipam::new("10.0.0.0/29".parse().unwrap());
        assert!(ipam.reserve([10, 0, 0, 4].into()));
        assert!(!ipam.reserve([10, 0, 0, 4].into()), "taken");
        assert!(!ipam.reserve([10, 0, 1, 4].into()), "outside");
        assert!(!ipam.reserve([10, 0, 0, 7].into()), "broadcast");
        let given: Vec<_> = std::iter::from_fn(|| ipam.allocate()).map(|ip| ip.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]);
        ipam.release([10, 0, 0, 5].into());
        assert_eq!(ipam.allocate(), Some([10, 0, 0, 5].into()));
        assert_eq!(ipam.allocate(), None);
    }
}
