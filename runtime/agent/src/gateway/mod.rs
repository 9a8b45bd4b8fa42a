//! Gateway API: Gateways and their routes, compiled for the network, and what their statuses say.
//!
//! `compile` decides, from what `seen` holds; here it is followed: mirrors in, ports and statuses out. Every change compiles
//! everything anew, which is pure and quick; what comes out the same is not written. The kinds are custom resources: as long as
//! one is not served it has no objects.

mod compile;
mod conditions;
#[cfg(test)]
mod conformance;
mod kinds;
mod listeners;
mod rules;
mod seen;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Secret, Service};
use podium_api::{ApiError, Kind, KindRef, Object, ObjectKey, kind_of};
use podium_client::{ApiRef, Delta, Mirror, MirrorScope, Patch};
use podium_network::{Certificate, Network, table::Name};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use self::{
    kinds::{GRPCRoute, Gateway, GatewayClass, HTTPRoute, ReferenceGrant, TLSRoute, read},
    seen::{Backend, CONTROLLER, Here, Seen},
    status::Write,
};
use crate::driver::{Shared, policies::name_of};

/// The class that is there from the start.
const CLASS: &str = "podium";
/// How long until a kind that is not served is looked for again, and what failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long at most, the more often it was not there.
const SELDOM: Duration = Duration::from_secs(60);

/// Where a change comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Classes,
    Gateways,
    Http,
    Grpc,
    Tls,
    Grants,
    Namespaces,
    Services,
    Secrets,
}

const ALL: [Source; 9] = [
    Source::Classes,
    Source::Gateways,
    Source::Http,
    Source::Grpc,
    Source::Tls,
    Source::Grants,
    Source::Namespaces,
    Source::Services,
    Source::Secrets,
];

/// A change, or the end of changes: the kind is not served any more.
type Change = (Source, Option<Delta>);

/// Follows the mirrors for as long as the agent runs.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let (to, mut changes) = unbounded_channel();
    let here = Here { listen: shared.network.node_port_address(), shown: shared.config.node_ip };
    let pool = shared.config.load_balancer.as_ref().map(|pool| pool.addresses().to_vec()).unwrap_or_default();
    let seen = Seen { pool, ..Seen::default() };
    let mut driver = Driver {
        api: shared.api.clone(),
        network: shared.network.clone(),
        shared,
        here,
        seen,
        secrets: None,
        read: BTreeMap::new(),
        mirrored: BTreeSet::new(),
        to,
        class_made: false,
        failed: BTreeSet::new(),
    };
    let (mut wait, mut next) = (AGAIN, Instant::now());
    loop {
        if next <= Instant::now() {
            let missing = driver.mirror_missing().await;
            // A node that may not look at Gateways does not ask without end.
            wait = if missing { (wait * 2).min(SELDOM) } else { AGAIN };
            next = Instant::now() + wait;
        }
        let again = driver.mirrored.len() < ALL.len() || !driver.failed.is_empty();
        let mut relevant = tokio::select! {
            Some(change) = changes.recv() => driver.hear(change),
            () = tokio::time::sleep_until(next), if again => !driver.failed.is_empty(),
        };
        while let Ok(change) = changes.try_recv() {
            relevant |= driver.hear(change);
        }
        if relevant {
            driver.act().await;
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    api: ApiRef,
    network: Network,
    here: Here,
    seen: Seen,
    secrets: Option<Arc<dyn Mirror>>,
    /// Certificates by their Secret and its revision.
    read: BTreeMap<Name, (String, Result<Certificate, String>)>,
    mirrored: BTreeSet<Source>,
    to: UnboundedSender<Change>,
    class_made: bool,
    /// What went wrong, to be said once and tried again.
    failed: BTreeSet<String>,
}

impl Driver {
    /// Mirrors what is not mirrored; returns whether something still is not.
    async fn mirror_missing(&mut self) -> bool {
        for source in ALL {
            if self.mirrored.contains(&source) {
                continue;
            }
            let Ok(mirror) = self.mirror(source).await else { continue };
            if source == Source::Secrets {
                self.secrets = Some(mirror.clone());
            }
            self.mirrored.insert(source);
            tokio::spawn(forward(source, mirror.subscribe(), self.to.clone()));
            if source == Source::Classes && !self.class_made {
                self.class_made = self.make_class().await;
            }
        }
        self.mirrored.len() < ALL.len()
    }

    async fn mirror(&self, source: Source) -> Result<Arc<dyn Mirror>, ApiError> {
        let kind = match source {
            Source::Classes => kind_of::<GatewayClass>(),
            Source::Gateways => kind_of::<Gateway>(),
            Source::Http => kind_of::<HTTPRoute>(),
            Source::Grpc => kind_of::<GRPCRoute>(),
            Source::Tls => kind_of::<TLSRoute>(),
            Source::Grants => kind_of::<ReferenceGrant>(),
            Source::Namespaces => return Ok(self.shared.namespaces.clone()),
            Source::Services => return Ok(self.shared.services.clone()),
            Source::Secrets => kind_of::<Secret>(),
        };
        self.api.mirror(&kind, MirrorScope::default()).await
    }

    /// Makes the class that every cluster has, unless there is one of that name.
    async fn make_class(&self) -> bool {
        let names = GatewayClass::NAMES;
        let served = self.api.kinds().into_iter().find(|kind| {
            let known = kind.names();
            (known.group, known.kind) == (names.group, names.kind)
        });
        let object = json!({
            "apiVersion": names.api_version(), "kind": names.kind, "metadata": { "name": CLASS },
            "spec": { "controllerName": CONTROLLER, "description": "Gateways served by Podium's nodes" },
        });
        let decoded = served.unwrap_or_else(kind_of::<GatewayClass>).decode_value(object);
        let made = match decoded {
            Ok(decoded) => self.api.create(decoded.object).await,
            Err(error) => Err(error),
        };
        match made {
            Err(error) if error.reason != podium_api::Reason::AlreadyExists => {
                tracing::debug!(%error, "the GatewayClass cannot be made yet");
                false
            }
            _ => true,
        }
    }

    /// Takes a change in; returns whether it may change what is served.
    fn hear(&mut self, (source, delta): Change) -> bool {
        let Some(delta) = delta else {
            self.mirrored.remove(&source);
            return self.forget_all(source);
        };
        let (name, seen) = (name_of(delta.object().meta()), &mut self.seen);
        let new = match &delta {
            Delta::Put { new, .. } => Some(&**new),
            Delta::Delete { .. } => None,
        };
        match source {
            Source::Classes => take(&mut seen.classes, name, new),
            Source::Gateways => take(&mut seen.gateways, name, new),
            Source::Http => take(&mut seen.http, name, new),
            Source::Grpc => take(&mut seen.grpc, name, new),
            Source::Tls => take(&mut seen.tls, name, new),
            Source::Grants => take(&mut seen.grants, name, new),
            Source::Namespaces => {
                let labels = new.map(|new| new.meta().labels.clone().unwrap_or_default());
                change(&mut seen.namespaces, name.name, labels) && !seen.gateways.is_empty()
            }
            Source::Services => {
                let ports = new.and_then(|new| new.downcast_ref()).map(backend_of);
                change(&mut seen.services, name, ports) && !seen.gateways.is_empty()
            }
            Source::Secrets => seen.wanted_secrets().contains(&name),
        }
    }

    /// A kind is not served any more.
    fn forget_all(&mut self, source: Source) -> bool {
        match source {
            Source::Classes => self.seen.classes.clear(),
            Source::Gateways => self.seen.gateways.clear(),
            Source::Http => self.seen.http.clear(),
            Source::Grpc => self.seen.grpc.clear(),
            Source::Tls => self.seen.tls.clear(),
            Source::Grants => self.seen.grants.clear(),
            Source::Namespaces => self.seen.namespaces.clear(),
            Source::Services => self.seen.services.clear(),
            Source::Secrets => self.secrets = None,
        }
        true
    }

    /// Compiles, listens, and writes what is to be said of it.
    async fn act(&mut self) {
        self.read_secrets();
        let mut plan = compile::compile(&self.seen, self.here);
        let opened = self.network.set_gateways(std::mem::take(&mut plan.ports)).await;
        let writes = status::writes(&self.seen, &plan, &opened, self.here, self.shared.clock.now());
        let mut failed: BTreeSet<String> =
            opened.iter().filter_map(|port| port.bound.as_ref().err()).map(ToString::to_string).collect();
        for write in writes {
            let (kind, key) = (write.kind, write.key.clone());
            if let Err(error) = self.write(write).await
                && !error.is_not_found()
            {
                failed.insert(format!("the status of {kind} {key} cannot be written: {error}"));
            }
        }
        for why in failed.difference(&self.failed) {
            tracing::warn!("{why}");
        }
        self.failed = failed;
    }

    async fn write(&self, Write { kind, key, mut status }: Write) -> Result<(), ApiError> {
        let kind = kind_named(kind);
        if status.get("listeners").is_some() && status.get("addresses").is_none() {
            // What is left out of a merge stays.
            status["addresses"] = Value::Null;
        }
        self.api.patch(&kind, &key, Patch::Merge(json!({ "status": status })), Some("status")).await.map(drop)
    }

    /// Reads the certificates that are wanted, and those again that have changed.
    fn read_secrets(&mut self) {
        let wanted = self.seen.wanted_secrets();
        self.read.retain(|name, _| wanted.contains(name));
        self.seen.secrets.clear();
        for name in wanted {
            let key = ObjectKey::new(name.namespace.as_str(), name.name.as_str());
            let Some(object) = self.secrets.as_ref().and_then(|secrets| secrets.get(&key)) else { continue };
            let revision = object.meta().resource_version.clone().unwrap_or_default();
            let known = self.read.get(&name).filter(|(read, _)| *read == revision).map(|(_, known)| known.clone());
            let certificate = known.unwrap_or_else(|| certificate(&*object));
            self.read.insert(name.clone(), (revision, certificate.clone()));
            self.seen.secrets.insert(name, certificate);
        }
    }
}

fn kind_named(name: &str) -> KindRef {
    match name {
        "GatewayClass" => kind_of::<GatewayClass>(),
        "Gateway" => kind_of::<Gateway>(),
        "HTTPRoute" => kind_of::<HTTPRoute>(),
        "GRPCRoute" => kind_of::<GRPCRoute>(),
        _ => kind_of::<TLSRoute>(),
    }
}

/// Passes changes on, and tells when there are no more.
async fn forward(source: Source, mut deltas: UnboundedReceiver<Delta>, to: UnboundedSender<Change>) {
    while let Some(delta) = deltas.recv().await {
        if to.send((source, Some(delta))).is_err() {
            return;
        }
    }
    // Nobody listens any more when the agent ends.
    let _nobody = to.send((source, None));
}

/// Takes an object in, or away; returns whether anything but its status is another now.
fn take<K>(objects: &mut BTreeMap<Name, Arc<K>>, name: Name, new: Option<&dyn Object>) -> bool
where
    K: Kind + Clone + for<'de> serde::Deserialize<'de>,
{
    let read = new.and_then(|new| match read::<K>(new) {
        Ok(read) => Some(Arc::new(read)),
        Err(error) => {
            tracing::warn!(kind = K::NAMES.kind, %name, %error, "an object cannot be read");
            None
        }
    });
    match read {
        Some(read) => drop(objects.insert(name, read)),
        None => drop(objects.remove(&name)),
    }
    true
}

fn change<K: Ord, V: PartialEq>(all: &mut BTreeMap<K, V>, key: K, new: Option<V>) -> bool {
    let differs = all.get(&key) != new.as_ref();
    match new {
        Some(new) => drop(all.insert(key, new)),
        None => drop(all.remove(&key)),
    }
    differs
}

fn backend_of(service: &Service) -> Backend {
    if service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")) {
        return Backend::External;
    }
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    Backend::Ports(tcp.filter_map(|port| u16::try_from(port.port).ok()).collect())
}

/// The certificate in a Secret.
pub(crate) fn certificate(object: &dyn Object) -> Result<Certificate, String> {
    let secret: &Secret = object.downcast_ref().ok_or("it cannot be read")?;
    let data = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| bytes.0.as_slice()).ok_or_else(|| format!("it has no {key}"))
    };
    Certificate::from_pem(data("tls.crt")?, data("tls.key")?).map_err(|error| error.to_string())
}

/// The address that is shown for one that is listened at.
fn shown(here: Here, ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { here.shown } else { ip }
}
