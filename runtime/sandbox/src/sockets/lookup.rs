//! Looks names up: what is written as an address is one, everything else the network is asked for.

use std::{
    future::Future,
    net::{IpAddr, Ipv6Addr},
};

use super::{Code, Instance};
use crate::SocketError;

/// Addresses of one name that a guest is told.
const ADDRESSES_MAX: usize = 64;
/// Longest name and longest part of one, by RFC 1035.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What a lookup costs while it is under way or its answer is kept.
pub(crate) const LOOKUP_BYTES: u64 = 2 << 10;

/// What a guest may ask for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Address(IpAddr),
    Name(String),
}

/// Looks a name up. Fails at once when it is none or when there are too many lookups.
pub(crate) fn lookup(
    instance: &Instance,
    name: &str,
) -> Result<impl Future<Output = Result<Vec<IpAddr>, Code>> + Send + use<>, Code> {
    let net = instance.net()?.clone();
    let asked = parse(name)?;
    let permit = instance.lookup_permit()?;
    let limit = instance.limits().lookup_timeout;
    Ok(async move {
        let _permit = permit;
        let name = match asked {
            Asked::Address(address) => return Ok(vec![address]),
            Asked::Name(name) => name,
        };
        let found = match tokio::time::timeout(limit, net.lookup(&name)).await {
            Ok(Err(SocketError::TimedOut)) | Err(_) => return Err(Code::TemporaryResolverFailure),
            Ok(found) => found?,
        };
        let addresses: Vec<_> = found.into_iter().take(ADDRESSES_MAX).map(|address| address.to_canonical()).collect();
        if addresses.is_empty() { Err(Code::NameUnresolvable) } else { Ok(addresses) }
    })
}

/// Names in other scripts have to come in their ASCII form (`xn--…`).
fn parse(name: &str) -> Result<Asked, Code> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(v6) = bare {
        return v6.parse::<Ipv6Addr>().map(|v6| Asked::Address(v6.into())).map_err(|_| Code::InvalidArgument);
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(Asked::Address(address.to_canonical()));
    }
    let relative = name.strip_suffix('.').unwrap_or(name);
    let fits = !relative.is_empty() && relative.len() <= NAME_BYTES_MAX && relative.split('.').all(is_label);
    if fits { Ok(Asked::Name(name.to_ascii_lowercase())) } else { Err(Code::InvalidArgument) }
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    (1..=LABEL_BYTES_MAX).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let address = |text: &str| Ok(Asked::Address(text.parse().unwrap()));
        let named = |text: &str| Ok(Asked::Name(text.to_owned()));
        let wrong = || Err(Code::InvalidArgument);
        let long = "a".repeat(64);
        let cases = [
            ("127.0.0.1", address("127.0.0.1")),
            ("::1", address("::1")),
            ("[::1]", address("::1")),
            ("::ffff:10.1.2.3", address("10.1.2.3")),
            ("localhost", named("localhost")),
            ("Web.Default.svc.cluster.local.", named("web.default.svc.cluster.local.")),
            ("_grpc._tcp.web", named("_grpc._tcp.web")),
            ("", wrong()),
            (".", wrong()),
            ("a..b", wrong()),
            ("-a", wrong()),
            ("a.b-", wrong()),
            ("a b", wrong()),
            ("example.com:80", wrong()),
            ("http://example.com", wrong()),
            ("[10.0.0.1]", wrong()),
            ("b\u{fc}cher.example", wrong()),
            (long.as_str(), wrong()),
        ];
        for (name, wanted) in cases {
            assert_eq!(parse(name), wanted, "{name:?}");
        }
    }
}
