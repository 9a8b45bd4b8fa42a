//! Keeps the network's Ingresses as the API has them, with the certificates of the Secrets that they name.
//!
//! Every Ingress is served, whatever its class: there is no other Ingress controller for guests.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::Secret,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend},
};
use podium_api::{ObjectKey, kind_of};
use podium_client::{ApiRef, Delta, Mirror, MirrorScope};
use podium_network::{
    Certificate, Network,
    table::{self, Backend, BackendPort, IngressTls, Name, PathMatch, Rule},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::translate::{self, name_of};
use crate::gateway;

/// Follows the mirror until it has ended.
pub(crate) async fn follow(network: Network, api: ApiRef, ingresses: Arc<dyn Mirror>) {
    let mut deltas = ingresses.subscribe();
    let mut driver = Driver { network, secrets: None };
    let mut changes: Option<UnboundedReceiver<Delta>> = None;
    loop {
        tokio::select! {
            Some(delta) = deltas.recv() => {
                let wants = matches!(&delta, Delta::Put { new, .. }
                    if new.downcast_ref().is_some_and(|ingress| secrets(ingress).next().is_some()));
                if wants && driver.secrets.is_none() {
                    driver.secrets = api.mirror(&kind_of::<Secret>(), MirrorScope::default()).await.ok();
                    changes = driver.secrets.as_ref().map(|secrets| secrets.subscribe());
                }
                driver.apply(&delta);
            }
            Some(delta) = next(&mut changes) => driver.secret_changed(&*ingresses, &name_of(delta.object().meta())),
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

struct Driver {
    network: Network,
    /// Looked at once an Ingress names one.
    secrets: Option<Arc<dyn Mirror>>,
}

impl Driver {
    fn apply(&self, delta: &Delta) {
        match delta {
            Delta::Put { new, .. } => match new.downcast_ref() {
                Some(object) => self.network.put_ingress(ingress(object, |secret| self.certificate(secret))),
                None => self.network.remove_ingress(&name_of(new.meta())),
            },
            Delta::Delete { old, .. } => self.network.remove_ingress(&name_of(old.meta())),
        }
    }

    /// Those that show a certificate show what it is now.
    fn secret_changed(&self, ingresses: &dyn Mirror, secret: &Name) {
        for object in ingresses.list(Some(&secret.namespace)) {
            if let Some(object) = object.downcast_ref()
                && secrets(object).any(|(_, named)| named == *secret)
            {
                self.network.put_ingress(ingress(object, |secret| self.certificate(secret)));
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
}
