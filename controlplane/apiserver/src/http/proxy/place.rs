//! Where a request is passed on to: the address that a pod or a Service is reached at, from the name in the path.
//!
//! Names are `NAME`, `NAME:PORT` and `SCHEME:NAME:PORT`. Only addresses of pods come of it: neither loopback nor link-local
//! ones, nor what somebody else wrote into an EndpointSlice.
//!
//! # Source
//! Kubernetes `pkg/registry/core/pod/strategy.go` and `pkg/registry/core/service/storage/storage.go` (`ResourceLocation`),
//! `staging/src/k8s.io/apimachinery/pkg/util/net/port_split.go`.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use podium_api::{ApiError, Kind, Reason};
use rand::seq::SliceRandom as _;

use crate::registry::{Registry, cache::Filter};

/// A name in a path, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// As it stands in the path.
    pub(super) id: &'a str,
    /// `http`, `https` or empty.
    pub(super) scheme: &'a str,
    pub(super) name: &'a str,
    /// A number, a name, or empty.
    pub(super) port: &'a str,
}

impl<'a> Named<'a> {
    /// Takes a name apart. `kind`: what it names, for the message.
    ///
    /// # Errors
    /// 400 in Kubernetes' words.
    pub(super) fn read(id: &'a str, kind: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!("invalid {kind} request {id:?}")));
        }
        Ok(Self { id, scheme, name, port })
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Over TLS.
    pub(super) secure: bool,
    pub(super) address: SocketAddr,
    /// Host and port as they stand in URLs of whoever answers.
    pub(super) host: String,
}

impl Place {
    fn new(scheme: &str, ip: IpAddr, port: &str) -> Result<Self, ApiError> {
        let secure = scheme == "https";
        let bare = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let number = match port {
            "" if secure => 443,
            "" => 80,
            text => text.parse().map_err(|_| unreachable(&no_port(text)))?,
        };
        let host = if port.is_empty() { bare } else { format!("{bare}:{port}") };
        Ok(Self { secure, address: SocketAddr::new(ip, number), host })
    }
}

fn no_port(text: &str) -> String {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("dial tcp: address {text}: invalid port"),
        false => format!("dial tcp: lookup tcp/{text}: unknown port"),
    }
}

/// 503 in Kubernetes' words.
pub(super) fn unreachable(why: &str) -> ApiError {
    unavailable(format!("error trying to reach service: {why}"))
}

fn unavailable(message: String) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, message)
}

/// Where a pod is reached: at the port that is named, or the first that any of its containers has.
///
/// # Errors
/// 400 when it has no address that may be reached; 503 when the port is none.
pub(super) fn of_pod(pod: &Pod, named: Named<'_>) -> Result<Place, ApiError> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let first = containers.filter_map(|c| c.ports.as_ref()?.first()).map(|p| p.container_port.to_string()).next();
    let port = if named.port.is_empty() { first.unwrap_or_default() } else { named.port.to_owned() };
    let status = pod.status.as_ref();
    let ip = status.and_then(|s| s.pod_ips.as_ref()?.first().map(|ip| ip.ip.as_str()).or(s.pod_ip.as_deref()));
    let ip = ip.and_then(|ip| ip.parse().ok()).filter(is_global);
    let ip = ip.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    Place::new(named.scheme, ip, &port)
}

/// What Go's `IsGlobalUnicast` says.
fn is_global(ip: &IpAddr) -> bool {
    let local = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(local || ip.is_unspecified() || ip.to_canonical().is_loopback() || ip.is_multicast())
}

/// Where a Service is reached: at one of its ready pods, chosen by chance.
///
/// # Errors
/// 404 when there is no such Service, 503 when it has no such port or no pod that is ready.
pub(super) fn of_service(registry: &Registry, namespace: &str, named: Named<'_>) -> Result<Place, ApiError> {
    let services = registry.of(&Service::NAMES)?;
    let found = services.cache.get(namespace, named.name);
    let service = found.as_ref().and_then(|entry| entry.object.downcast_ref::<Service>());
    let number: Option<i64> = named.port.parse().ok();
    let Some(service) = service else {
        let asked = if number.is_some() { &Service::NAMES } else { &Endpoints::NAMES };
        return Err(ApiError::not_found(asked, named.name));
    };
    let port = match number {
        Some(number) => port_name(service, number)
            .ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", named.name)))?,
        None => named.port,
    };
    let mut ready = ready(registry, (namespace, named.name, port))?;
    if ready.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {:?}", named.id)));
    }
    ready.shuffle(&mut rand::rng());
    let own = ready.into_iter().find(|at| is_of_pod(registry, namespace, at));
    let none = || unavailable(format!("no endpoints available for service {:?}", named.id));
    let Ready { ip, port, .. } = own.ok_or_else(none)?;
    Place::new(named.scheme, ip, &port.to_string())
}

fn port_name(service: &Service, number: i64) -> Option<&str> {
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = ports.find(|port| i64::from(port.port) == number)?;
    Some(port.name.as_deref().unwrap_or_default())
}

/// A ready endpoint.
struct Ready {
    ip: IpAddr,
    port: u16,
    pod: String,
}

/// The pods behind a Service's port that are ready.
fn ready(registry: &Registry, (namespace, service, port): (&str, &str, &str)) -> Result<Vec<Ready>, ApiError> {
    let slices = registry.of(&EndpointSlice::NAMES)?;
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let entries = slices.cache.list(&filter).entries;
    let slices = entries.iter().filter_map(|entry| entry.object.downcast_ref::<EndpointSlice>());
    let of = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|l| l.get("kubernetes.io/service-name")).is_some_and(|of| of == service)
    };
    Ok(slices.filter(of).flat_map(|slice| ready_in(slice, namespace, port)).collect())
}

fn ready_in(slice: &EndpointSlice, namespace: &str, port: &str) -> Vec<Ready> {
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|p| p.name.as_deref().unwrap_or_default() == port).and_then(|p| p.port);
    let Some(number) = found.and_then(|number| u16::try_from(number).ok()) else { return Vec::new() };
    let is_ready = |e: &&Endpoint| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
    let one = |endpoint: &Endpoint| {
        let target = endpoint.target_ref.as_ref()?;
        let own = target.namespace.as_deref() == Some(namespace) && target.kind.as_deref() == Some("Pod");
        let ip = endpoint.addresses.first()?.parse().ok().filter(is_global)?;
        own.then(|| Ready { ip, port: number, pod: target.name.clone().unwrap_or_default() })
    };
    slice.endpoints.iter().flatten().filter(is_ready).filter_map(one).collect()
}

/// Whether the pod that an endpoint names has its address.
fn is_of_pod(registry: &Registry, namespace: &str, at: &Ready) -> bool {
    let Some(entry) = registry.of(&Pod::NAMES).ok().and_then(|pods| pods.cache.get(namespace, &at.pod)) else {
        return false;
    };
    let status = entry.object.downcast_ref::<Pod>().and_then(|pod| pod.status.as_ref());
    let ips = status.into_iter().flat_map(|s| {
        let all = s.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
        all.chain(s.pod_ip.as_deref())
    });
    ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).any(|ip| ip == at.ip)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        for (id, wanted) in [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("web:http", Some(("", "web", "http"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("http:web:", Some(("http", "web", ""))),
            (":web:8080", Some(("", "web", "8080"))),
            ("ftp:web:21", None),
            ("https::443", None),
            ("a:b:c:d", None),
            ("", None),
        ] {
            let read = Named::read(id, "pod");
            assert_eq!(read.as_ref().ok().map(|n| (n.scheme, n.name, n.port)), wanted, "{id}");
            if let Err(error) = read {
                assert_eq!(error.message, format!("invalid pod request {id:?}"));
            }
        }
    }

    fn pod(ports: &[i32], ip: &str) -> Pod {
        let ports: Vec<_> = ports.iter().map(|p| json!({"containerPort": p})).collect();
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "ports": ports}]});
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods() {
        for (id, ports, ip, wanted) in [
            ("p", &[8080, 9][..], "10.244.0.7", Ok((false, "10.244.0.7:8080", "10.244.0.7:8080"))),
            ("p:9", &[8080], "10.244.0.7", Ok((false, "10.244.0.7:9", "10.244.0.7:9"))),
            ("p", &[], "10.244.0.7", Ok((false, "10.244.0.7:80", "10.244.0.7"))),
            ("https:p:", &[], "fd00::7", Ok((true, "[fd00::7]:443", "[fd00::7]"))),
            ("https:p:4", &[], "fd00::7", Ok((true, "[fd00::7]:4", "[fd00::7]:4"))),
            ("p", &[80], "127.0.0.1", Err("address not allowed")),
            ("p", &[80], "169.254.169.254", Err("address not allowed")),
            ("p", &[80], "::ffff:127.0.0.1", Err("address not allowed")),
            ("p", &[80], "", Err("address not allowed")),
            (
                "p:http",
                &[80],
                "10.1.1.1",
                Err("error trying to reach service: dial tcp: lookup tcp/http: unknown port"),
            ),
            ("p:99999", &[80], "10.1.1.1", Err("error trying to reach service: dial tcp: address 99999: invalid port")),
        ] {
            let found = of_pod(&pod(ports, ip), Named::read(id, "pod").unwrap());
            let found = found.map(|p| (p.secure, p.address.to_string(), p.host)).map_err(|e| e.message);
            let wanted = wanted.map(|(s, a, h)| (s, a.to_owned(), h.to_owned())).map_err(str::to_owned);
            assert_eq!(found, wanted, "{id} {ip}");
        }
    }
}
