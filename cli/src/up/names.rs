//! The DNS listener of `podium up`, and its flags.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use podium_network::{DnsConfig, Network};

const DNS_PORT: u16 = 53;

/// What is told of names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NameArgs {
    /// Where names of the cluster are answered for clients outside it, by UDP and TCP; port 0 picks a free one
    /// [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    dns: Option<SocketAddr>,
    /// Server that is asked for names that are not the cluster's, ADDRESS or ADDRESS:PORT; without one they are refused.
    /// Repeatable: the next one is asked when one does not answer
    #[arg(long, value_name = "SERVER", requires = "dns", value_parser = server)]
    dns_upstream: Vec<SocketAddr>,
}

impl NameArgs {
    /// Listens, where that is wanted.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub(crate) async fn listen(&self, network: &Network) -> Result<Option<SocketAddr>> {
        let Some(listen) = self.dns else { return Ok(None) };
        let config = DnsConfig { listen, upstreams: self.dns_upstream.clone() };
        network.listen_dns(config).await.map(Some).context("name another address with --dns")
    }
}

fn server(text: &str) -> Result<SocketAddr, String> {
    let address = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    text.parse().or_else(|_| address()).map_err(|_| "it is no address such as 9.9.9.9 or 10.0.0.2:53".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_with_or_without_a_port() {
        for (text, expected) in [
            ("9.9.9.9", Some("9.9.9.9:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("::1", Some("[::1]:53")),
            ("[::1]:5353", Some("[::1]:5353")),
            ("dns.example", None),
            ("", None),
        ] {
            assert_eq!(server(text).ok(), expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
