//! Keeps the network's Ingresses as the API has them, with the certificates of the Secrets that they name, and tells where
//! they are served.
//!
//! Served are those that name no class and those whose class names Podium's controller; others are somebody else's, and
//! their statuses too. One node of a cluster writes statuses.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::Secret,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass},
};
use podium_api::{ObjectKey, Reason, kind_of};
use podium_client::{Delta, Mirror, MirrorScope, Patch};
use podium_network::{
    Certificate,
    table::{self, Backend, BackendPort, IngressTls, Name, PathMatch, Rule},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Shared,
    translate::{self, name_of},
};
use crate::gateway;

/// Who serves: the name in IngressClasses.
const CONTROLLER: &str = "podium.dev/ingress";
/// The old place of an Ingress's class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// How long until a status that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Follows the mirror until it has ended.
pub(crate) async fn follow(shared: Arc<Shared>, ingresses: Arc<dyn Mirror>) {
    let mut deltas = ingresses.subscribe();
    let classes = shared.api.mirror(&kind_of::<IngressClass>(), MirrorScope::default()).await;
    let unseen =
        |error: &_| tracing::warn!(%error, "IngressClasses cannot be seen: Ingresses that name one are not served");
    let classes = classes.inspect_err(unseen).ok();
    let mut of_classes = classes.as_ref().map(|classes| classes.subscribe());
    let mut of_secrets: Option<UnboundedReceiver<Delta>> = None;
    let shown = shared.config.gateways.then(|| address(&shared));
    let mut driver = Driver { shared, ingresses, classes, secrets: None, shown, untold: BTreeSet::new() };
    loop {
        tokio::select! {
            Some(delta) = deltas.recv() => {
                let wants = matches!(&delta, Delta::Put { new, .. }
                    if new.downcast_ref().is_some_and(|ingress| secrets(ingress).next().is_some()));
                if wants && driver.secrets.is_none() {
                    of_secrets = driver.see_secrets().await;
                }
                driver.apply(&delta).await;
            }
            Some(delta) = next(&mut of_secrets) => driver.secret_changed(&name_of(delta.object().meta())),
            Some(_) = next(&mut of_classes) => driver.all().await,
            () = tokio::time::sleep(AGAIN), if !driver.untold.is_empty() => driver.tell_again().await,
            else => return,
        }
    }
}

async fn next(deltas: &mut Option<UnboundedReceiver<Delta>>) -> Option<Delta> {
    match deltas {
        Some(deltas) => deltas.recv().await,
        None => None,
    }
}

/// Where clients reach what is served here.
fn address(shared: &Shared) -> IpAddr {
    let listen = shared.network.node_port_address();
    if listen.is_unspecified() { shared.config.node_ip } else { listen }
}

struct Driver {
    shared: Arc<Shared>,
    ingresses: Arc<dyn Mirror>,
    /// `None`: they may not be seen.
    classes: Option<Arc<dyn Mirror>>,
    /// Looked at once an Ingress names one.
    secrets: Option<Arc<dyn Mirror>>,
    /// What statuses say; `None`: another node says it.
    shown: Option<IpAddr>,
    /// Whose statuses could not be written.
    untold: BTreeSet<Name>,
}

impl Driver {
    async fn see_secrets(&mut self) -> Option<UnboundedReceiver<Delta>> {
        self.secrets = self.shared.api.mirror(&kind_of::<Secret>(), MirrorScope::default()).await.ok();
        self.secrets.as_ref().map(|secrets| secrets.subscribe())
    }

    async fn apply(&mut self, delta: &Delta) {
        match delta {
            Delta::Put { old, new } => match new.downcast_ref::<Ingress>() {
                Some(object) => {
                    let old = old.as_ref().and_then(|old| old.downcast_ref::<Ingress>());
                    let same = old.is_some_and(|old| old.spec == object.spec && class_of(old) == class_of(object));
                    // What changed is its status, most likely.
                    if !same {
                        self.serve(object);
                    }
                    self.tell(object).await;
                }
                None => self.shared.network.remove_ingress(&name_of(new.meta())),
            },
            Delta::Delete { old, .. } => {
                let name = name_of(old.meta());
                self.untold.remove(&name);
                self.shared.network.remove_ingress(&name);
            }
        }
    }

    /// Looks at all of them again, since classes have changed.
    async fn all(&mut self) {
        for object in self.ingresses.list(None) {
            if let Some(object) = object.downcast_ref() {
                self.serve(object);
                self.tell(object).await;
            }
        }
    }

    fn serve(&self, object: &Ingress) {
        let network = &self.shared.network;
        match self.is_ours(object) {
            true => network.put_ingress(ingress(object, |secret| self.certificate(secret))),
            false => network.remove_ingress(&name_of(&object.metadata)),
        }
    }

    fn is_ours(&self, object: &Ingress) -> bool {
        let Some(name) = class_of(object) else { return true };
        let class = self.classes.as_ref().and_then(|classes| classes.get(&ObjectKey::new("", name)));
        let class = class.as_ref().and_then(|class| class.downcast_ref::<IngressClass>());
        let controller = class.and_then(|class| class.spec.as_ref()?.controller.as_deref());
        controller == Some(CONTROLLER)
    }

    /// Writes where an Ingress is served, unless it says so.
    async fn tell(&mut self, object: &Ingress) {
        let Some(shown) = self.shown else { return };
        let name = name_of(&object.metadata);
        let Some(wanted) = addresses(object, self.is_ours(object), shown) else {
            self.untold.remove(&name);
            return;
        };
        let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": wanted } } }));
        let key = ObjectKey::of(&object.metadata);
        match self.shared.api.patch(&kind_of::<Ingress>(), &key, patch, Some("status")).await {
            Err(error) if error.reason != Reason::NotFound => {
                if self.untold.insert(name.clone()) {
                    tracing::warn!(ingress = %name, %error, "the status of an Ingress was not written");
                }
            }
            _ => drop(self.untold.remove(&name)),
        }
    }

    async fn tell_again(&mut self) {
        for name in self.untold.clone() {
            let object = self.ingresses.get(&ObjectKey::new(name.namespace.as_str(), name.name.as_str()));
            match object.as_ref().and_then(|object| object.downcast_ref()) {
                Some(object) => self.tell(object).await,
                None => drop(self.untold.remove(&name)),
            }
        }
    }

    /// Those that show a certificate show what it is now.
    fn secret_changed(&self, secret: &Name) {
        for object in self.ingresses.list(Some(&secret.namespace)) {
            if let Some(object) = object.downcast_ref()
                && secrets(object).any(|(_, named)| named == *secret)
            {
                self.serve(object);
            }
        }
    }

    fn certificate(&self, secret: &Name) -> Option<Certificate> {
        let object = self.secrets.as_ref()?.get(&ObjectKey::new(secret.namespace.as_str(), secret.name.as_str()))?;
        let read = gateway::certificate(&*object);
        read.inspect_err(|error| tracing::warn!(%secret, error, "an Ingress cannot show the certificate of its Secret"))
            .ok()
    }
}

/// The class that an Ingress names.
fn class_of(ingress: &Ingress) -> Option<&str> {
    let named = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let annotated = || ingress.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION).map(String::as_str);
    named.or_else(annotated)
}

/// What has to be written of where an Ingress is; `None`: nothing. What somebody else wrote of one that is not ours stays.
fn addresses(object: &Ingress, ours: bool, shown: IpAddr) -> Option<Value> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
    let said =
        matches!(status, Some([one]) if one.hostname.is_none() && one.ip.as_deref() == Some(&*shown.to_string()));
    match (ours, said) {
        (true, false) => Some(json!([{ "ip": shown }])),
        // None is written as no list, not as an empty one.
        (false, true) => Some(Value::Null),
        _ => None,
    }
}

/// The Secrets that an Ingress names, and for which hosts.
fn secrets(ingress: &Ingress) -> impl Iterator<Item = (&[String], Name)> {
    let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
    let all = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    all.filter_map(move |tls| {
        let name = tls.secret_name.as_deref().filter(|name| !name.is_empty())?;
        Some((tls.hosts.as_deref().unwrap_or_default(), Name::new(namespace.as_str(), name)))
    })
}

/// `certificate`: that of a Secret, if there is one.
fn ingress(ingress: &Ingress, certificate: impl Fn(&Name) -> Option<Certificate>) -> table::Ingress {
    let spec = ingress.spec.clone().unwrap_or_default();
    let rules = spec.rules.iter().flatten().flat_map(|rule| {
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        paths.filter_map(|path| self::rule(rule.host.as_deref(), path))
    });
    table::Ingress {
        name: name_of(&ingress.metadata),
        default_backend: spec.default_backend.as_ref().and_then(backend),
        rules: rules.collect(),
        tls: secrets(ingress)
            .filter_map(|(hosts, secret)| {
                Some(IngressTls { hosts: hosts.to_vec(), certificate: certificate(&secret)? })
            })
            .collect(),
    }
}

fn rule(host: Option<&str>, path: &HTTPIngressPath) -> Option<Rule> {
    let text = path.path.clone().unwrap_or_else(|| "/".to_owned());
    // `ImplementationSpecific` means prefix here.
    let matched = if path.path_type == "Exact" { PathMatch::Exact(text) } else { PathMatch::Prefix(text) };
    let host = host.filter(|h| !h.is_empty()).map(str::to_owned);
    Some(Rule { host, path: matched, backend: backend(&path.backend)? })
}

fn backend(backend: &IngressBackend) -> Option<Backend> {
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref()?;
    let by_name = || port.name.clone().filter(|n| !n.is_empty()).map(BackendPort::Name);
    let port = port.number.and_then(translate::port).map(BackendPort::Number).or_else(by_name)?;
    Some(Backend { service: service.name.clone(), port })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ingresses() {
        let web = |port| json!({ "service": { "name": "web", "port": port } });
        let json = json!({
            "metadata": { "namespace": "a", "name": "i" },
            "spec": {
                "ingressClassName": "any",
                "tls": [{ "secretName": "shown" }, { "hosts": ["x.example"] }],
                "defaultBackend": web(json!({ "name": "http" })),
                "rules": [{ "host": "x.example", "http": { "paths": [
                    { "path": "/a", "pathType": "Exact", "backend": web(json!({ "number": 80 })) },
                    { "pathType": "Prefix", "backend": web(json!({ "number": 81 })) },
                    { "pathType": "Prefix", "backend": { "resource": { "kind": "X", "name": "y" } } },
                ] } }],
            },
        });
        let object: Ingress = serde_json::from_value(json).unwrap();
        let found = ingress(&object, |_| None);
        let named: Vec<_> = secrets(&object).map(|(hosts, name)| format!("{name} {hosts:?}")).collect();
        assert_eq!(named, ["a/shown []"]);
        assert!(found.tls.is_empty(), "the Secret is not there");
        let backend = |port| Backend { service: "web".to_owned(), port };
        assert_eq!(found.default_backend, Some(backend(BackendPort::Name("http".to_owned()))));
        let host = Some("x.example".to_owned());
        let rule = |path, port| Rule { host: host.clone(), path, backend: backend(BackendPort::Number(port)) };
        let expected = [rule(PathMatch::Exact("/a".to_owned()), 80), rule(PathMatch::Prefix("/".to_owned()), 81)];
        assert_eq!(found.rules, expected);
    }

    #[test]
    fn statuses_are_written_of_our_own_only() {
        let shown = IpAddr::from([192, 0, 2, 1]);
        let (own, other) = (json!([{ "ip": "192.0.2.1" }]), json!([{ "ip": "192.0.2.2" }]));
        for (status, ours, expected) in [
            (json!(null), true, Some(own.clone())),
            (own.clone(), true, None),
            (other.clone(), true, Some(own.clone())),
            (json!([{ "hostname": "x.example" }]), true, Some(own.clone())),
            (json!(null), false, None),
            (own, false, Some(Value::Null)),
            (other, false, None),
        ] {
            let object = json!({ "metadata": {}, "status": { "loadBalancer": { "ingress": status } } });
            let object: Ingress = serde_json::from_value(object).unwrap();
            assert_eq!(addresses(&object, ours, shown), expected, "{object:?} {ours}");
        }
    }

    #[test]
    fn classes_are_named_in_two_places() {
        let check = |annotation: Value, field: Value, expected: Option<&str>| {
            let annotations = json!({ CLASS_ANNOTATION: annotation });
            let annotations = if annotation.is_null() { json!({}) } else { annotations };
            let object = json!({ "metadata": { "annotations": annotations }, "spec": { "ingressClassName": field } });
            let object: Ingress = serde_json::from_value(object).unwrap();
            assert_eq!(class_of(&object), expected);
        };
        check(json!(null), json!(null), None);
        check(json!("old"), json!(null), Some("old"));
        check(json!(null), json!("new"), Some("new"));
    }
}
