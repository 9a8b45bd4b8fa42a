//! Addresses and ports of Services, networks of Nodes.
//!
//! # Source
//! Kubernetes `pkg/registry/core/service/storage/alloc.go`.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use podium_api::{
    ApiError, FieldErrors, FieldPath, Kind as _,
    k8s_openapi::api::core::v1::{Node, Service, ServiceSpec},
    kinds::service::{keeps_own_endpoints, needs_health_check},
};

use super::alloc::{Claim, Pool};
use crate::config::Ipv4Range;

/// ClusterIPs and NodePorts.
pub(crate) struct ServiceAllocator {
    range: Ipv4Range,
    addresses: Arc<Pool>,
    first_port: u16,
    ports: Arc<Pool>,
}

impl ServiceAllocator {
    pub(crate) fn new(range: Ipv4Range, ports: &RangeInclusive<u16>) -> Self {
        let dynamic = (range.size() / 16).clamp(16, 256);
        let addresses = Pool::new(range.size(), dynamic);
        // Neither the address of the network nor the broadcast address.
        addresses.take(0, "-");
        addresses.take(range.size() - 1, "-");
        let count = u64::from(ports.end().saturating_sub(*ports.start())) + 1;
        let dynamic = (count / 32).clamp(16, 128);
        // Node ports are the machine's: another cluster on it should not begin with the same.
        Self { range, addresses, first_port: *ports.start(), ports: Pool::from_anywhere(count, dynamic) }
    }

    /// Notes what a stored Service has.
    pub(crate) fn rebuild(&self, service: &Service) {
        let owner = owner(service);
        for number in self.addresses_of(service) {
            if !self.addresses.take(number, &owner) {
                tracing::warn!(service = %owner, "its ClusterIP belongs to another service as well");
            }
        }
        for number in self.ports_of(service) {
            self.ports.take(number, &owner);
        }
    }

    /// Gives back what a deleted Service had.
    pub(crate) fn release(&self, service: &Service) {
        let owner = owner(service);
        self.addresses_of(service).into_iter().for_each(|n| self.addresses.give_back(n, &owner));
        self.ports_of(service).into_iter().for_each(|n| self.ports.give_back(n, &owner));
    }

    fn addresses_of(&self, service: &Service) -> Vec<u64> {
        let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
        ip.parse().ok().and_then(|ip| self.range.offset(ip)).into_iter().collect()
    }

    fn ports_of(&self, service: &Service) -> Vec<u64> {
        let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
        let health = service.spec.as_ref().and_then(|s| s.health_check_node_port);
        let numbers = ports.filter_map(|p| p.node_port).chain(health).filter(|p| *p != 0);
        numbers.filter_map(|p| u64::try_from(p).ok()?.checked_sub(u64::from(self.first_port))).collect()
    }

    /// Gives a Service what it needs and has not, and takes what it asks for.
    ///
    /// # Errors
    /// 422 when what it asks for is taken or out of range; 500 when nothing is left.
    pub(crate) fn assign(&self, service: &mut Service, old: Option<&Service>) -> Result<Claim, ApiError> {
        let mut claim = Claim::new(owner(service));
        let mut errs = FieldErrors::new();
        let (had_addresses, had_ports) =
            old.map(|old| (self.addresses_of(old), self.ports_of(old))).unwrap_or_default();
        let kind = service.spec.as_ref().and_then(|s| s.type_.clone()).unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        let spec = service.spec.get_or_insert_default();
        if kind != "ExternalName" {
            check_families(spec, &mut errs);
            self.assign_address(spec, &had_addresses, &mut claim, &mut errs)?;
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            self.assign_ports(spec, &had_ports, &mut claim, &mut errs)?;
        }
        if needs_health_check(spec) {
            self.assign_health_port(spec, &had_ports, &mut claim)?;
        }
        if !errs.is_empty() {
            return Err(ApiError::invalid(&Service::NAMES, &name, errs));
        }
        let (addresses, ports) = (self.addresses_of(service), self.ports_of(service));
        had_addresses.iter().filter(|n| !addresses.contains(n)).for_each(|n| claim.free(&self.addresses, *n));
        had_ports.iter().filter(|n| !ports.contains(n)).for_each(|n| claim.free(&self.ports, *n));
        Ok(claim)
    }

    fn assign_address(
        &self,
        spec: &mut ServiceSpec,
        had: &[u64],
        claim: &mut Claim,
        errs: &mut FieldErrors,
    ) -> Result<(), ApiError> {
        let path = FieldPath::new("spec.clusterIPs");
        match spec.cluster_ip.as_deref().unwrap_or_default() {
            "None" => {}
            "" => {
                let number = claim.take_any(&self.addresses).ok_or_else(|| {
                    ApiError::internal(format!("failed to allocate a serviceIP: range {} is full", self.range))
                })?;
                let ip = self.range.nth(number).map(|ip| ip.to_string()).unwrap_or_default();
                spec.cluster_ips = Some(vec![ip.clone()]);
                spec.cluster_ip = Some(ip);
            }
            asked => {
                let number = asked.parse().ok().and_then(|ip| self.range.offset(ip));
                let shown = vec![asked.to_owned()];
                let Some(number) = number else {
                    let range = self.range;
                    let why = format!(
                        "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range \
                         of valid IPs is {range}"
                    );
                    errs.invalid(&path, shown, &why);
                    return Ok(());
                };
                if !claim.take(&self.addresses, number, had.contains(&number)) {
                    let why = format!("failed to allocate IP {asked}: provided IP is already allocated");
                    errs.invalid(&path, shown, &why);
                }
            }
        }
        Ok(())
    }

    fn assign_ports(
        &self,
        spec: &mut ServiceSpec,
        had: &[u64],
        claim: &mut Claim,
        errs: &mut FieldErrors,
    ) -> Result<(), ApiError> {
        let wants =
            spec.type_.as_deref() != Some("LoadBalancer") || spec.allocate_load_balancer_node_ports != Some(false);
        let first = i32::from(self.first_port);
        // TCP and UDP of one port number share a NodePort.
        let mut by_port: BTreeMap<i32, (i32, String)> = BTreeMap::new();
        for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let path = FieldPath::new("spec.ports").index(i).child("nodePort");
            match port.node_port.unwrap_or_default() {
                0 if !wants => {}
                0 => {
                    let shared = by_port.get(&port.port).filter(|(_, other)| *other != protocol).map(|(p, _)| *p);
                    port.node_port = match shared {
                        Some(number) => Some(number),
                        None => {
                            let number = claim
                                .take_any(&self.ports)
                                .ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))?;
                            Some(first + i32::try_from(number).unwrap_or_default())
                        }
                    };
                }
                asked => {
                    let number = u64::try_from(asked - first).unwrap_or(u64::MAX);
                    if !self.holds(number) {
                        let why = format!(
                            "provided port is not in the valid range. The range of valid ports is {}",
                            self.valid_ports()
                        );
                        errs.invalid(&path, asked, &why);
                    } else if !claim.take(&self.ports, number, had.contains(&number)) {
                        errs.invalid(&path, asked, "provided port is already allocated");
                    }
                }
            }
            by_port.entry(port.port).or_insert((port.node_port.unwrap_or_default(), protocol));
        }
        Ok(())
    }

    fn assign_health_port(&self, spec: &mut ServiceSpec, had: &[u64], claim: &mut Claim) -> Result<(), ApiError> {
        let first = i32::from(self.first_port);
        match spec.health_check_node_port.unwrap_or_default() {
            0 => {
                let number = claim.take_any(&self.ports).and_then(|number| i32::try_from(number).ok());
                let full = || ApiError::internal("failed to allocate a HealthCheck NodePort: range is full");
                spec.health_check_node_port = Some(first + number.ok_or_else(full)?);
                Ok(())
            }
            asked => {
                let number = u64::try_from(asked - first).unwrap_or(u64::MAX);
                let refuse = |why: String| {
                    let message = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
                    Err(ApiError::internal(message))
                };
                if !self.holds(number) {
                    let ports = self.valid_ports();
                    return refuse(format!(
                        "provided port is not in the valid range. The range of valid ports is {ports}"
                    ));
                }
                match claim.take(&self.ports, number, had.contains(&number)) {
                    true => Ok(()),
                    false => refuse("provided port is already allocated".to_owned()),
                }
            }
        }
    }

    fn holds(&self, number: u64) -> bool {
        number < self.ports.size()
    }

    fn valid_ports(&self) -> String {
        format!("{}-{}", self.first_port, u64::from(self.first_port) + self.ports.size() - 1)
    }
}

/// There is one family; who keeps the endpoints of a headless Service may name others.
fn check_families(spec: &ServiceSpec, errs: &mut FieldErrors) {
    if keeps_own_endpoints(spec) {
        return;
    }
    let path = FieldPath::new("spec");
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|policy| *policy == "RequireDualStack") {
        let why = "this cluster is not configured for dual-stack services";
        errs.invalid(&path.child("ipFamilyPolicy"), policy, why);
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, family)| *family != "IPv4") {
        let at = path.child("ipFamilies").index(i);
        errs.invalid(&at, family.as_str(), "not configured on this cluster");
    }
}

fn owner(service: &Service) -> String {
    let meta = &service.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// A part of the cluster's range for each node.
pub(crate) struct NodeNetworks {
    range: Ipv4Range,
    pool: Arc<Pool>,
}

/// 16,384 addresses: a node of Wasm pods holds a hundred times as many as one of containers.
const NODE_PREFIX: u8 = 18;

impl NodeNetworks {
    pub(crate) fn new(range: Ipv4Range) -> Self {
        let count = 1 << NODE_PREFIX.saturating_sub(range.prefix());
        Self { range, pool: Pool::new(count, 0) }
    }

    /// The parts that a Node's own addresses lie in; one that brings a larger range has several.
    fn numbers(&self, node: &Node) -> Option<Range<u64>> {
        let cidr = node.spec.as_ref()?.pod_cidr.as_deref()?;
        let (address, prefix) = cidr.split_once('/')?;
        let first = self.range.offset(address.parse().ok()?)? >> (32 - NODE_PREFIX);
        let prefix = prefix.parse::<u8>().ok()?.clamp(self.range.prefix(), NODE_PREFIX.max(self.range.prefix()));
        Some(first..first + (1 << (NODE_PREFIX.saturating_sub(prefix))))
    }

    /// Notes what a stored Node has, or what a new one asks for.
    pub(crate) fn rebuild(&self, node: &Node) {
        for number in self.numbers(node).into_iter().flatten() {
            self.pool.take(number, node.metadata.name.as_deref().unwrap_or_default());
        }
    }

    /// Gives back what a deleted Node had.
    pub(crate) fn release(&self, node: &Node) {
        for number in self.numbers(node).into_iter().flatten() {
            self.pool.give_back(number, node.metadata.name.as_deref().unwrap_or_default());
        }
    }

    /// Gives a new Node its network.
    pub(crate) fn assign(&self, node: &mut Node) -> Claim {
        let mut claim = Claim::new(node.metadata.name.clone().unwrap_or_default());
        if let Some(numbers) = self.numbers(node) {
            for number in numbers {
                claim.take(&self.pool, number, false);
            }
            return claim;
        }
        let number = claim.take_any(&self.pool);
        let Some(base) = number.and_then(|n| self.range.nth(n << (32 - NODE_PREFIX))) else {
            tracing::warn!(range = %self.range, "no network is left for another node");
            return claim;
        };
        let cidr = format!("{base}/{NODE_PREFIX}");
        let spec = node.spec.get_or_insert_default();
        spec.pod_cidrs = Some(vec![cidr.clone()]);
        spec.pod_cidr = Some(cidr);
        claim
    }
}

#[cfg(test)]
mod tests {
    use podium_api::k8s_openapi::serde_json::{from_value, json};

    use super::*;

    fn service(name: &str, spec: podium_api::k8s_openapi::serde_json::Value) -> Service {
        from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
    }

    fn allocator() -> ServiceAllocator {
        ServiceAllocator::new("10.96.0.0/24".parse().unwrap(), &(30_000..=30_063))
    }

    #[test]
    fn addresses() {
        let all = allocator();
        let mut a = service("a", json!({"type": "ClusterIP"}));
        all.assign(&mut a, None).unwrap().keep();
        let ip = a.spec.as_ref().unwrap().cluster_ip.clone().unwrap();
        assert_eq!(ip, "10.96.0.16");
        let mut b = service("b", json!({"type": "ClusterIP", "clusterIP": ip}));
        let error = all.assign(&mut b, None).unwrap_err();
        assert!(error.message.contains("provided IP is already allocated"), "{error}");
        let mut c = service("c", json!({"type": "ClusterIP", "clusterIP": "1.2.3.4"}));
        assert!(all.assign(&mut c, None).unwrap_err().message.contains("not in the valid range"));
        let mut headless = service("d", json!({"type": "ClusterIP", "clusterIP": "None"}));
        all.assign(&mut headless, None).unwrap().keep();
        all.release(&a);
        all.assign(&mut b, None).unwrap().keep();
        let mut external = b.clone();
        external.spec = Some(from_value(json!({"type": "ExternalName"})).unwrap());
        all.assign(&mut external, Some(&b)).unwrap().keep();
        all.assign(&mut a, None).unwrap().keep();
    }

    #[test]
    fn ports() {
        let all = allocator();
        let mut a = service(
            "a",
            json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "nodePort": 30001}]}),
        );
        all.assign(&mut a, None).unwrap().keep();
        let numbers = |s: &Service| -> Vec<i32> {
            s.spec.iter().flat_map(|s| s.ports.iter().flatten()).filter_map(|p| p.node_port).collect()
        };
        // One for both protocols of a port, and none of those that are left to who asks for them.
        let given = numbers(&a);
        assert!((30_016..=30_063).contains(&given[0]), "{given:?}");
        assert_eq!(given, [given[0], given[0], 30_001]);
        for (port, message) in [(30_001, "already allocated"), (80, "not in the valid range")] {
            let mut b = service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}));
            assert!(all.assign(&mut b, None).unwrap_err().message.contains(message), "{port}");
        }
        let mut again = a.clone();
        all.assign(&mut again, Some(&a)).unwrap().keep();
        all.release(&a);
        let mut b = service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}));
        all.assign(&mut b, None).unwrap().keep();
    }

    #[test]
    fn ports_of_health_checks() {
        let all = allocator();
        let spec = |port: i32| {
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port,
                "ports": [{"port": 80}]})
        };
        let mut a = service("a", spec(0));
        all.assign(&mut a, None).unwrap().keep();
        let given = a.spec.as_ref().unwrap().health_check_node_port.unwrap();
        assert_ne!(Some(given), a.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port);
        for (port, message) in [(given, "already allocated"), (80, "not in the valid range")] {
            let error = all.assign(&mut service("b", spec(port)), None).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
        let mut cluster = a.clone();
        let of = cluster.spec.as_mut().unwrap();
        (of.external_traffic_policy, of.health_check_node_port) = (None, None);
        all.assign(&mut cluster, Some(&a)).unwrap().keep();
        all.assign(&mut service("b", spec(given)), None).unwrap().keep();
    }

    #[test]
    fn families() {
        let all = allocator();
        for (spec, refused) in [
            (json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}), None),
            (json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]}), None),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                Some("this cluster is not configured for dual-stack services"),
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                Some("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
            ),
            (json!({"ipFamilies": ["IPv4", "IPv6"]}), Some("spec.ipFamilies[1]")),
            (json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"]}), None),
            (
                json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None", "selector": {"a": "b"}}),
                Some("dual-stack"),
            ),
        ] {
            let answer = all.assign(&mut service("a", spec.clone()), None).map(drop);
            match refused {
                None => assert!(answer.is_ok(), "{spec}"),
                Some(why) => assert!(answer.unwrap_err().message.contains(why), "{spec}"),
            }
        }
    }

    #[test]
    fn nodes() {
        let networks = NodeNetworks::new("10.244.0.0/16".parse().unwrap());
        let mut cidrs = Vec::new();
        for name in ["a", "b"] {
            let mut node: Node = from_value(json!({"metadata": {"name": name}})).unwrap();
            networks.assign(&mut node).keep();
            cidrs.push(node.spec.unwrap().pod_cidr.unwrap());
        }
        assert_eq!(cidrs, ["10.244.0.0/18", "10.244.64.0/18"]);
        let networks = NodeNetworks::new("10.240.0.0/12".parse().unwrap());
        let mut large: Node =
            from_value(json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.240.0.0/16"}})).unwrap();
        networks.assign(&mut large).keep();
        let given = |count: usize| {
            let one = |i| {
                let mut node: Node = from_value(json!({"metadata": {"name": format!("n{i}")}})).unwrap();
                networks.assign(&mut node).keep();
                node.spec.and_then(|spec| spec.pod_cidr)
            };
            (0..count).filter_map(one).collect::<Vec<String>>()
        };
        let all = given(64);
        assert_eq!(all.len(), 60, "what a node brings is nobody else's");
        assert!(!all.iter().any(|cidr| cidr.starts_with("10.240.")), "{all:?}");
        networks.release(&large);
        assert_eq!(given(1), ["10.240.0.0/18"]);
    }
}
