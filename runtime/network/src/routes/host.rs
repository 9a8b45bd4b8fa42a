//! Names of hosts as routes and listeners say them, with wildcards.

use std::cmp::Ordering;

/// Which hosts are meant. Ordered from the most exact to the least.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Host {
    /// This one, in small letters.
    Exact(String),
    /// `.example.com`: one label before it, as Ingresses have it.
    OneLabelBelow(String),
    /// `.example.com`: any number of labels before it, as Gateways have it.
    Below(String),
    /// All.
    #[default]
    Any,
}

impl Host {
    /// What an Ingress means by a host.
    pub fn of_ingress(name: Option<&str>) -> Self {
        Self::read(name, Self::OneLabelBelow)
    }

    /// What a Gateway or one of its routes means by a host name.
    pub fn of_gateway(name: Option<&str>) -> Self {
        Self::read(name, Self::Below)
    }

    fn read(name: Option<&str>, below: fn(String) -> Self) -> Self {
        match name.map(str::to_ascii_lowercase) {
            None => Self::Any,
            Some(name) if name.is_empty() || name == "*" => Self::Any,
            Some(name) => match name.strip_prefix('*') {
                Some(rest) => below(rest.to_owned()),
                None => Self::Exact(name),
            },
        }
    }

    /// Whether a host, in small letters and without a port, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Below(rest) => host.len() > rest.len() && host.ends_with(rest.as_str()),
            Self::OneLabelBelow(rest) => {
                host.strip_suffix(rest.as_str()).is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
        }
    }

    /// The hosts that both mean, if there are any. One of the two, always: names are a tree.
    pub fn both(&self, other: &Self) -> Option<Self> {
        let within = |narrow: &Self, wide: &Self| match (narrow, wide) {
            (_, Self::Any) => true,
            (Self::Any, _) => false,
            (Self::Exact(name), wide) => wide.matches(name),
            (Self::Below(narrow) | Self::OneLabelBelow(narrow), Self::Below(wide) | Self::OneLabelBelow(wide)) => {
                narrow.ends_with(wide.as_str())
            }
            (Self::Below(_) | Self::OneLabelBelow(_), Self::Exact(_)) => false,
        };
        if within(self, other) {
            Some(self.clone())
        } else if within(other, self) {
            Some(other.clone())
        } else {
            None
        }
    }

    /// The more exact first: exact names, then the longer of wildcards, then all.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |host: &Self| match host {
            Self::Exact(name) => (0, usize::MAX - name.len()),
            Self::OneLabelBelow(rest) | Self::Below(rest) => (1, usize::MAX - rest.len()),
            Self::Any => (2, 0),
        };
        rank(self).cmp(&rank(other))
    }
}

/// A host without its port and the dot that may end it.
pub(crate) fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host::of_gateway(Some(name))
    }

    #[test]
    fn wildcards() {
        let ingress = Host::of_ingress(Some("*.B.com"));
        for (name, gateway_means, ingress_means) in
            [("a.b.com", true, true), ("x.a.b.com", true, false), ("b.com", false, false), (".b.com", false, false)]
        {
            assert_eq!(host("*.b.com").matches(name), gateway_means, "{name}");
            assert_eq!(ingress.matches(name), ingress_means, "{name}");
        }
        assert!(host("").matches("anything") && Host::of_gateway(None) == Host::Any);
    }

    #[test]
    fn what_both_mean() {
        for (one, other, both) in [
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("*.a.com", "x.a.com", Some("x.a.com")),
            ("*.a.com", "a.com", None),
            ("*.a.com", "*.x.a.com", Some("*.x.a.com")),
            ("*.a.com", "y.x.a.com", Some("y.x.a.com")),
            ("*.a.com", "*.b.com", None),
            ("", "*.b.com", Some("*.b.com")),
            ("", "", Some("")),
        ] {
            let expected = both.map(host);
            assert_eq!((host(one).both(&host(other)), host(other).both(&host(one))), (expected.clone(), expected));
        }
    }

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (text, name) in
            [("a.b:80", "a.b"), ("a.b", "a.b"), ("a.b.", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(text), name);
        }
    }
}
