//! What the network of a node takes and waits for at most, as flags. Their defaults are the network's own.

use std::time::Duration;

use podium_network::NetworkConfig;

/// For clients outside, and for what pods open.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LimitArgs {
    /// Connections of clients outside at once; more wait in the kernel's queue
    #[arg(long, value_name = "COUNT", default_value_t = 16_384, value_parser = counts())]
    max_client_connections: u64,
    /// Bytes that the head of a client's request may have; past it 431
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 10, value_parser = clap::value_parser!(u64).range(8192..=16 << 20))]
    max_request_head: u64,
    /// Seconds until the head of a client's request has to be there
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = seconds())]
    request_head_timeout: u64,
    /// Seconds that a client's connection may be open without a request
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = seconds())]
    client_idle_timeout: u64,
    /// Seconds in which something more of a client's request has to come, and be taken of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = seconds())]
    client_stall_timeout: u64,
    /// Sockets of one pod at once, its ends of connections included
    #[arg(long, value_name = "COUNT", default_value_t = 4096, value_parser = counts())]
    max_pod_sockets: u64,
    /// Connections outside the cluster of all pods at once
    #[arg(long, value_name = "COUNT", default_value_t = 8192, value_parser = counts())]
    max_outside_connections: u64,
    /// Seconds until a pod's connection has to stand
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    connect_timeout: u64,
    /// Seconds until the name of a host outside has to be looked up
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    lookup_timeout: u64,
}

fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=86_400)
}

fn counts() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1 << 20)
}

impl LimitArgs {
    /// Tells the network.
    pub(crate) fn apply(&self, config: &mut NetworkConfig) {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        config.connections_max = count(self.max_client_connections);
        config.header_bytes_max = count(self.max_request_head);
        config.header_timeout = Duration::from_secs(self.request_head_timeout);
        config.idle_timeout = Duration::from_secs(self.client_idle_timeout);
        config.stall_timeout = Duration::from_secs(self.client_stall_timeout);
        config.sockets_per_pod_max = count(self.max_pod_sockets);
        config.outside_connections_max = count(self.max_outside_connections);
        config.connect_timeout = Duration::from_secs(self.connect_timeout);
        config.lookup_timeout = Duration::from_secs(self.lookup_timeout);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn config(flags: &[&str]) -> Result<NetworkConfig, clap::Error> {
        let flags = Flags::try_parse_from(["podium"].iter().chain(flags))?;
        // None of it is what the network has by itself.
        let nothing = Duration::ZERO;
        let mut config = NetworkConfig {
            connections_max: 0,
            header_bytes_max: 0,
            header_timeout: nothing,
            idle_timeout: nothing,
            stall_timeout: nothing,
            sockets_per_pod_max: 0,
            outside_connections_max: 0,
            connect_timeout: nothing,
            lookup_timeout: nothing,
            ..NetworkConfig::default()
        };
        flags.limits.apply(&mut config);
        Ok(config)
    }

    fn counts(of: &NetworkConfig) -> [usize; 4] {
        [of.connections_max, of.header_bytes_max, of.sockets_per_pod_max, of.outside_connections_max]
    }

    fn times(of: &NetworkConfig) -> [Duration; 5] {
        [of.header_timeout, of.idle_timeout, of.stall_timeout, of.connect_timeout, of.lookup_timeout]
    }

    #[test]
    fn the_defaults_are_the_networks() {
        let (said, own) = (config(&[]).unwrap(), NetworkConfig::default());
        assert_eq!((counts(&said), times(&said)), (counts(&own), times(&own)));
    }

    #[test]
    fn flags_change_what_they_say() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(Duration::from_secs);
        let times_of = ["--request-head-timeout=1", "--client-idle-timeout=2", "--client-stall-timeout=3"];
        let said = config(&[&times_of[..], &["--connect-timeout=4", "--lookup-timeout=5"]].concat()).unwrap();
        assert_eq!(times(&said), [a, b, c, d, e]);
        let counts_of = ["--max-client-connections=6", "--max-request-head=8192", "--max-pod-sockets=7"];
        let said = config(&[&counts_of[..], &["--max-outside-connections=8"]].concat()).unwrap();
        assert_eq!(counts(&said), [6, 8192, 7, 8]);
        for bad in ["--connect-timeout=0", "--max-request-head=100", "--client-idle-timeout=forever"] {
            assert!(config(&[bad]).is_err(), "{bad}");
        }
    }
}
