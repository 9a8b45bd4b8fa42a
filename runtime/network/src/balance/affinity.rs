//! Which endpoint a client came to last: session affinity by the client's address. Pure but for the time that is handed in.
//!
//! # Source
//! Kubernetes' `sessionAffinity: ClientIP`: an entry lives as long as its client comes again before the timeout.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use parking_lot::Mutex;

use super::Moment;

/// Clients remembered for one port.
const CLIENTS_MAX: usize = 65_536;

/// The clients of one port of a Service. Survives changes of its endpoints.
#[derive(Debug, Default)]
pub(crate) struct Affinity(Mutex<HashMap<IpAddr, (SocketAddr, Moment)>>);

impl Affinity {
    /// Where a client went before, if that is not too long ago.
    pub(crate) fn get(&self, client: IpAddr, timeout: Duration, now: Moment) -> Option<SocketAddr> {
        let clients = self.0.lock();
        let (endpoint, at) = clients.get(&client)?;
        (now.since(*at) < timeout).then_some(*endpoint)
    }

    /// A client goes somewhere.
    pub(crate) fn note(&self, client: IpAddr, endpoint: SocketAddr, timeout: Duration, now: Moment) {
        let mut clients = self.0.lock();
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, (_, at)| now.since(*at) < timeout);
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
        }
        clients.insert(client, (endpoint, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_comes_back_until_it_stays_away_too_long() {
        let (affinity, timeout) = (Affinity::default(), Duration::from_secs(10));
        let client = IpAddr::from([10, 0, 0, 1]);
        let endpoint = SocketAddr::from(([10, 0, 1, 1], 80));
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        assert_eq!(affinity.get(client, timeout, at(0)), None);
        affinity.note(client, endpoint, timeout, at(0));
        assert_eq!(affinity.get(client, timeout, at(9)), Some(endpoint));
        affinity.note(client, endpoint, timeout, at(9));
        assert_eq!(affinity.get(client, timeout, at(18)), Some(endpoint));
        assert_eq!(affinity.get(client, timeout, at(19)), None);
        assert_eq!(affinity.get([10, 0, 0, 2].into(), timeout, at(9)), None);
        for n in 0..CLIENTS_MAX as u32 + 10 {
            affinity.note(IpAddr::from(n.to_be_bytes()), endpoint, timeout, at(20));
        }
        assert!(affinity.0.lock().len() <= CLIENTS_MAX);
    }
}
