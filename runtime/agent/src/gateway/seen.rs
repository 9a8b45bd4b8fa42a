//! What the compiler looks at: objects as they are now, and how they may name one another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_network::{Certificate, table::Name};

use super::kinds::{
    GROUP, GRPCRoute, Gateway, GatewayClass, HTTPRoute, Listener, NamespaceLabels, ObjectRef, ReferenceGrant, TLSRoute,
};

/// Who serves: the name in GatewayClasses.
pub(crate) const CONTROLLER: &str = "podium.dev/gateway";

/// Everything, of all namespaces.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) classes: BTreeMap<Name, Arc<GatewayClass>>,
    pub(crate) gateways: BTreeMap<Name, Arc<Gateway>>,
    pub(crate) http: BTreeMap<Name, Arc<HTTPRoute>>,
    pub(crate) grpc: BTreeMap<Name, Arc<GRPCRoute>>,
    pub(crate) tls: BTreeMap<Name, Arc<TLSRoute>>,
    pub(crate) grants: BTreeMap<Name, Arc<ReferenceGrant>>,
    pub(crate) namespaces: NamespaceLabels,
    pub(crate) services: BTreeMap<Name, Backend>,
    /// Addresses that Gateways may have which name none and find another's listener in their way.
    pub(crate) pool: Vec<IpAddr>,
    /// Those that a listener names, as far as they are there.
    pub(crate) secrets: BTreeMap<Name, Result<Certificate, String>>,
}

/// A Service as routes may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Its ports of TCP.
    Ports(BTreeSet<u16>),
    /// It only names a host (`ExternalName`).
    External,
}

/// Where this is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here {
    /// Where Gateways listen that do not say where.
    pub(crate) listen: IpAddr,
    /// What is shown where that is every address.
    pub(crate) shown: IpAddr,
}

/// Why a reference leads nowhere: a reason as conditions have it, and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Who names somebody: kind and namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namer<'a> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'a str,
}

impl Seen {
    /// Whether a class is served here.
    pub(crate) fn serves(&self, class: &str) -> bool {
        self.classes
            .get(&Name::new("", class))
            .is_some_and(|class| class.spec.controller_name == CONTROLLER && class.spec.parameters_ref.is_none())
    }

    /// Gateways that are served here, the oldest first.
    pub(crate) fn served(&self) -> Vec<(&Name, &Gateway)> {
        let served = self.gateways.iter().filter(|(_, gateway)| self.serves(&gateway.spec.gateway_class_name));
        by_age(served.map(|(name, gateway)| (name, &**gateway)), |gateway| &gateway.metadata)
    }

    /// Secrets that listeners of Gateways served here name.
    pub(crate) fn wanted_secrets(&self) -> BTreeSet<Name> {
        let listeners = self.served().into_iter().flat_map(|(name, gateway)| {
            gateway.spec.listeners.iter().map(move |listener| (name.namespace.as_str(), listener))
        });
        listeners.flat_map(|(namespace, listener)| secrets(namespace, listener)).collect()
    }

    /// Whether somebody may name an object of another namespace; of its own everybody may.
    pub(crate) fn may_name(&self, namer: Namer<'_>, (group, kind): (&str, &str), named: &Name) -> bool {
        if namer.namespace == named.namespace {
            return true;
        }
        let granted = |grant: &ReferenceGrant| {
            let from = grant.spec.from.iter();
            let mut from = from.filter(|f| f.group == GROUP && f.kind == namer.kind && f.namespace == namer.namespace);
            let mut to = grant.spec.to.iter().filter(|to| to.group == group && to.kind == kind);
            let names = |name: &Option<String>| name.as_ref().is_none_or(|name| name.is_empty() || *name == named.name);
            from.next().is_some() && to.any(|to| names(&to.name))
        };
        self.grants.iter().any(|(name, grant)| name.namespace == named.namespace && granted(grant))
    }

    /// The Service and port that a reference names.
    ///
    /// # Source
    /// Gateway API, `BackendObjectReference`: implementations should not lead to Services of type ExternalName
    /// (CVE-2021-25740).
    pub(crate) fn service(&self, namer: Namer<'_>, to: &ObjectRef) -> Result<(Name, u16), Unresolved> {
        let unresolved = |reason, message| Err(Unresolved { reason, message });
        let (group, kind) = (to.group.as_deref().unwrap_or_default(), to.kind.as_deref().unwrap_or("Service"));
        if (group, kind) != ("", "Service") {
            return unresolved(
                "InvalidKind",
                format!("{kind:?} of group {group:?} cannot be a backend: only a Service can"),
            );
        }
        let name = Name::new(to.namespace.as_deref().unwrap_or(namer.namespace), to.name.as_str());
        if !self.may_name(namer, (group, kind), &name) {
            let message = format!(
                "Service {name} is in another namespace, and no ReferenceGrant there lets this {} name it",
                namer.kind
            );
            return unresolved("RefNotPermitted", message);
        }
        let ports = match self.services.get(&name) {
            None => return unresolved("BackendNotFound", format!("there is no Service {name}")),
            Some(Backend::External) => {
                let message = format!("Service {name} is of type ExternalName, and routes lead to no such Service");
                return unresolved("UnsupportedValue", message);
            }
            Some(Backend::Ports(ports)) => ports,
        };
        match to.port.filter(|port| ports.contains(port)) {
            Some(port) => Ok((name, port)),
            None => {
                let port = to.port.map_or_else(|| "without a number".to_owned(), |port| port.to_string());
                unresolved("BackendNotFound", format!("Service {name} has no port {port} of TCP"))
            }
        }
    }
}

/// The Secrets that a listener names.
pub(crate) fn secrets<'a>(namespace: &'a str, listener: &'a Listener) -> impl Iterator<Item = Name> + 'a {
    let refs = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    let secrets = refs
        .filter(|r| (r.group.as_deref().unwrap_or_default(), r.kind.as_deref().unwrap_or("Secret")) == ("", "Secret"));
    secrets.map(move |r| Name::new(r.namespace.as_deref().unwrap_or(namespace), r.name.as_str()))
}

/// The oldest first, then by name.
pub(crate) fn by_age<'a, K>(
    objects: impl Iterator<Item = (&'a Name, &'a K)>,
    meta: impl Fn(&K) -> &ObjectMeta,
) -> Vec<(&'a Name, &'a K)> {
    let mut all: Vec<_> = objects.collect();
    all.sort_by_key(|(_, object)| meta(object).creation_timestamp.as_ref().map(|time| time.0));
    all
}
