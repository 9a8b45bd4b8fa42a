//! The way out of the cluster: names looked up by the system, sockets of the kernel.
//!
//! Invariant: an address is judged after its name was resolved, and that very address is connected to; so no name can
//! be bent to the host itself.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    SocketError,
    egress::{Host, HostPatterns, Way},
    ranges::host_business,
    stream::{Held, PodStream},
};

/// How long one address may keep the next one waiting.
///
/// # Source
/// RFC 8305, section 5.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Names looked up at once; each takes a thread while it lasts.
const LOOKUPS_MAX: usize = 64;
/// Names that lead to a cloud's metadata wherever they are asked for.
const METADATA_NAMES: [&str; 5] =
    ["metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"];

/// Looks up names of hosts outside.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a name.
    ///
    /// # Errors
    /// `NotFound` when there is no such name; anything else when asking again may help.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// As the host's programs do it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match tokio::net::lookup_host((name, 0)).await {
            Ok(found) => Ok(found.map(|address| address.ip()).collect()),
            // The system's library tells the cases apart in its words only.
            Err(error) if error.to_string().contains("not known") || error.to_string().contains("No address") => {
                Err(io::Error::new(io::ErrorKind::NotFound, error))
            }
            Err(error) => Err(error),
        }
    }
}

/// What leads out of this node.
pub(crate) struct Outside {
    resolver: Arc<dyn Resolver>,
    /// What the operator has granted of the host's own.
    host_targets: HostPatterns,
    /// What pods may reach at most.
    max_hosts: Option<HostPatterns>,
    lookups: Semaphore,
    sockets: Arc<Semaphore>,
    connect_timeout: Duration,
    lookup_timeout: Duration,
}

impl Outside {
    pub(crate) fn new(config: &crate::NetworkConfig) -> Self {
        Self {
            resolver: config.resolver.clone(),
            host_targets: config.host_targets.clone(),
            max_hosts: config.max_hosts.clone(),
            lookups: Semaphore::new(LOOKUPS_MAX),
            sockets: Arc::new(Semaphore::new(config.outside_connections_max)),
            connect_timeout: config.connect_timeout,
            lookup_timeout: config.lookup_timeout,
        }
    }

    /// The addresses of a name; none of them has been judged.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, SocketError> {
        let failed = |reason: String| SocketError::ResolverFailed { name: name.to_owned(), reason };
        let looked_up = async {
            let _turn = self.lookups.acquire().await;
            self.resolver.resolve(name).await
        };
        let found = time::timeout(self.lookup_timeout, looked_up).await;
        let found = found.map_err(|_| failed(format!("no answer within {:?}", self.lookup_timeout)))?;
        let mut addresses: Vec<IpAddr> = match found {
            Ok(addresses) => addresses.into_iter().map(|ip| ip.to_canonical()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error.to_string())),
        };
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|ip| seen.insert(*ip));
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(SocketError::NameNotFound(name.to_owned()));
        }
        Ok(addresses)
    }

    /// What the operator lets pods reach at most; `None`: whatever they are granted.
    pub(crate) fn max_hosts(&self) -> Option<&HostPatterns> {
        self.max_hosts.as_ref()
    }

    /// Why nobody may go to an address, whatever is granted to it: it is the host's own, and the operator has not said
    /// that pods may.
    pub(crate) fn judge(&self, way: Way, to: SocketAddr) -> Result<(), String> {
        let Some(what) = host_business(to.ip()).or_else(|| is_own(to.ip()).then_some("an address of the host itself"))
        else {
            return Ok(());
        };
        match self.host_targets.allow(way, Host::Ip(to.ip().to_canonical()), to.port()) {
            true => Ok(()),
            false => Err(format!(
                "{to} is {what}: only the operator can grant it, with podium up --allow-host-network-targets"
            )),
        }
    }

    /// Whether an address is the host's own: its loopback, or one that can be bound here.
    pub(crate) fn is_host(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || is_own(ip)
    }

    /// Why nobody may ask for a name.
    pub(crate) fn judge_name(&self, name: &str) -> Result<(), String> {
        match METADATA_NAMES.contains(&name) && !self.host_targets.name(name) {
            true => Err(format!(
                "{name} leads to a cloud's metadata: only the operator can grant it, with podium up --allow-host-network-targets"
            )),
            false => Ok(()),
        }
    }

    /// Counts one more socket of the kernel.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, SocketError> {
        let full = |_| SocketError::Failed("the node has too many connections outside".to_owned());
        self.sockets.clone().try_acquire_owned().map_err(full)
    }

    /// Connects to the first of several addresses that answers, IPv6 and IPv4 in turns.
    pub(crate) async fn connect<G: Send + Unpin + 'static>(
        &self,
        addresses: Vec<SocketAddr>,
        held: G,
    ) -> Result<(SocketAddr, SocketAddr, PodStream), SocketError> {
        let socket = self.permit()?;
        let names = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        let limit = self.connect_timeout;
        let connected = time::timeout(limit, race(in_turns(addresses))).await;
        let late = |_| SocketError::TimedOut(format!("{names} did not answer within {limit:?}"));
        let stream = connected.map_err(late)??;
        let failed = |e: io::Error| SocketError::Failed(e.to_string());
        let (local, remote) = (stream.local_addr().map_err(failed)?, stream.peer_addr().map_err(failed)?);
        // Small messages are sent at once.
        let _ = stream.set_nodelay(true);
        Ok((local, remote, Box::new(Held::new(stream, (socket, held)))))
    }
}

/// Families alternate, the first one's first.
fn in_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut all = VecDeque::new();
    while !first.is_empty() || !second.is_empty() {
        all.extend(first.pop_front());
        all.extend(second.pop_front());
    }
    all
}

/// The first connection that stands; the others are given up.
async fn race(mut waiting: VecDeque<SocketAddr>) -> Result<TcpStream, SocketError> {
    let mut tries = FuturesUnordered::new();
    let mut last = SocketError::Failed("there is no address to connect to".to_owned());
    while let Some(next) = waiting.pop_front() {
        tries.push(attempt(next));
        tokio::select! {
            Some(tried) = tries.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = time::sleep(NEXT_ADDRESS_AFTER) => {}
        }
    }
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn attempt(to: SocketAddr) -> Result<TcpStream, SocketError> {
    TcpStream::connect(to).await.map_err(|error| said(to, &error))
}

/// What the system says of an address.
fn said(to: SocketAddr, error: &io::Error) -> SocketError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => SocketError::Refused(format!("nobody listens at {to}")),
        io::ErrorKind::TimedOut => SocketError::TimedOut(format!("{to} did not answer")),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            SocketError::Unreachable(to)
        }
        _ => SocketError::Failed(format!("cannot connect to {to}: {error}")),
    }
}

/// Whether an address is one of this host's: only those can be bound. What cannot be told counts as the host's.
fn is_own(ip: IpAddr) -> bool {
    match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable && !no_such_family(&error),
    }
}

/// The host has no addresses of this family at all.
fn no_such_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(EAFNOSUPPORT)
}

const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let of = |text: &str| text.split(' ').map(|a| a.parse::<SocketAddr>().unwrap()).collect::<Vec<_>>();
        let turns = in_turns(of("[2001:db8::1]:1 [2001:db8::2]:1 [2001:db8::3]:1 192.0.2.1:1 192.0.2.2:1"));
        let expected = of("[2001:db8::1]:1 192.0.2.1:1 [2001:db8::2]:1 192.0.2.2:1 [2001:db8::3]:1");
        assert_eq!(turns, expected);
        assert!(in_turns(Vec::new()).is_empty());
    }

    #[test]
    fn the_hosts_own_addresses_are_known() {
        assert!(is_own([127, 0, 0, 1].into()));
        assert!(!is_own([192, 0, 2, 1].into()));
        assert!(!is_own("2001:db8::1".parse().unwrap()));
    }
}
