//! What the API server is told at start: folders, addresses, ranges and bounds. Read once; nothing here changes later.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::audit::AuditConfig;

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Range {
    base: u32,
    prefix: u8,
}

impl Ipv4Range {
    /// The range of `address/prefix`; bits of the address behind the prefix are dropped. `prefix` is at most 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self { base: u32::from(address) & mask, prefix }
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses it holds.
    pub fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address at an offset, if it lies inside.
    pub fn nth(self, offset: u64) -> Option<Ipv4Addr> {
        (offset < self.size()).then(|| Ipv4Addr::from(self.base + u32::try_from(offset).unwrap_or(0)))
    }

    /// The offset of an address, if it lies inside.
    pub fn offset(self, address: Ipv4Addr) -> Option<u64> {
        let offset = u64::from(u32::from(address).checked_sub(self.base)?);
        (offset < self.size()).then_some(offset)
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPv4 range; write it like 10.96.0.0/16")]
pub struct BadRange(String);

impl FromStr for Ipv4Range {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = || BadRange(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        if prefix > 32 { Err(bad()) } else { Ok(Self::new(address, prefix)) }
    }
}

/// Bounds on what clients may ask for at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request body; more is answered with 413.
    pub body_bytes_max: usize,
    /// Requests under way, but for those of the priority level `exempt`: the levels share so many seats. More wait, as
    /// their level says, or are answered with 429. A watch counts until it has begun, a log does not.
    pub requests_in_flight_max: usize,
    /// Requests of the priority level `exempt` under way; more are answered with 429.
    pub exempt_in_flight_max: usize,
    /// How long a request may wait for a seat of its priority level; then it is answered with 429.
    pub queue_timeout: Duration,
    /// Watches and log streams open at once.
    pub streams_max: usize,
    /// Connections open at once; more wait in the listener's queue.
    pub connections_max: usize,
    /// How long a client may take for a TLS handshake, for the headers of a request, or for its body.
    pub read_timeout: Duration,
    /// How long a client may take nothing of what is written to it; then it is cut off.
    pub write_timeout: Duration,
    /// How long a request other than a watch or log may take.
    pub request_timeout: Duration,
    /// How long `/readyz` fails while requests are still served, before a shutdown goes on.
    pub shutdown_delay: Duration,
    /// How long a shutdown waits for connections to drain.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 3 * 1024 * 1024,
            requests_in_flight_max: 600,
            exempt_in_flight_max: 2000,
            queue_timeout: Duration::from_secs(15),
            streams_max: 10_000,
            connections_max: 10_000,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// How an API server is set up.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Folder for keys, certificates and the admin token (in `pki/`); made when absent.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 picks one.
    pub bind: SocketAddr,
    /// Names and addresses beside its own by which clients reach the server: its certificate has them.
    pub extra_names: Vec<String>,
    /// Range of pod addresses; each node gets a /18 of it.
    pub cluster_cidr: Ipv4Range,
    /// Range of ClusterIPs. Its first address is that of the `kubernetes` service.
    pub service_cidr: Ipv4Range,
    /// Ports for services of type NodePort and LoadBalancer.
    pub node_ports: RangeInclusive<u16>,
    /// How long an event is kept after it last happened.
    pub event_ttl: Duration,
    /// The audit log, if one is kept.
    pub audit: Option<AuditConfig>,
    /// Bounds.
    pub limits: Limits,
    /// What `/metrics` shows; other parts of the process may register theirs.
    pub metrics: prometheus::Registry,
}

impl ServerConfig {
    /// The defaults of Kubernetes for everything but the folder, the address and the range of pods, which is larger.
    pub fn new(data_dir: impl Into<PathBuf>, bind: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            bind,
            extra_names: Vec::new(),
            cluster_cidr: Ipv4Range::new(Ipv4Addr::new(10, 128, 0, 0), 9),
            service_cidr: Ipv4Range::new(Ipv4Addr::new(10, 96, 0, 0), 16),
            node_ports: 30_000..=32_767,
            event_ttl: Duration::from_secs(3600),
            audit: None,
            limits: Limits::default(),
            metrics: prometheus::Registry::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Ipv4Range = "10.96.3.7/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.size(), 65_536);
        assert_eq!(range.nth(1), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(range.nth(65_536), None);
        assert_eq!(range.offset(Ipv4Addr::new(10, 96, 1, 0)), Some(256));
        assert_eq!(range.offset(Ipv4Addr::new(10, 97, 0, 0)), None);
        assert_eq!(range.offset(Ipv4Addr::new(10, 95, 0, 0)), None);
        assert_eq!(Ipv4Range::new(Ipv4Addr::LOCALHOST, 32).size(), 1);
        assert_eq!(Ipv4Range::new(Ipv4Addr::LOCALHOST, 0).nth(5), Some(Ipv4Addr::new(0, 0, 0, 5)));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/8"] {
            assert!(bad.parse::<Ipv4Range>().is_err(), "{bad}");
        }
    }
}
