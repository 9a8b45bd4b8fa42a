//! Which names led a pod to which addresses: a guest looks a name up, and connects to what it got.
//!
//! Kept for a while and bounded: what is forgotten has to be looked up again.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

const PAIRS_MAX: usize = 1024;
const KEPT: Duration = Duration::from_secs(600);

/// The newest are at the back.
#[derive(Default)]
pub(crate) struct SeenNames(Mutex<VecDeque<(IpAddr, Arc<str>, Instant)>>);

impl SeenNames {
    /// A name has been looked up.
    pub(crate) fn note(&self, name: &str, addresses: &[IpAddr]) {
        let (name, now): (Arc<str>, _) = (name.into(), Instant::now());
        let mut seen = self.0.lock();
        seen.retain(|(ip, of, at)| now - *at < KEPT && !(**of == *name && addresses.contains(ip)));
        seen.extend(addresses.iter().map(|ip| (*ip, name.clone(), now)));
        let over = seen.len().saturating_sub(PAIRS_MAX);
        seen.drain(..over);
    }

    /// The names that led to an address.
    pub(crate) fn names(&self, ip: IpAddr) -> Vec<Arc<str>> {
        let seen = self.0.lock();
        let of = |(at, _, when): &&(IpAddr, Arc<str>, Instant)| *at == ip && when.elapsed() < KEPT;
        seen.iter().filter(of).map(|(_, name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_known_for_a_while_and_not_without_end() {
        let seen = SeenNames::default();
        let ip = |last: u32| IpAddr::from((0x0a00_0000 + last).to_be_bytes());
        seen.note("a", &[ip(1), ip(2)]);
        seen.note("b", &[ip(1)]);
        seen.note("a", &[ip(1)]);
        let names = |at| seen.names(at).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(ip(1)), ["b", "a"]);
        assert_eq!(names(ip(3)), Vec::<String>::new());
        tokio::time::advance(KEPT).await;
        assert_eq!(names(ip(1)), Vec::<String>::new());
        for i in 0..3000 {
            seen.note("many", &[ip(i)]);
        }
        assert_eq!(seen.0.lock().len(), PAIRS_MAX);
    }
}
