//! What every cluster has: the first namespaces, the `kubernetes` Service with its endpoints, and in each namespace the
//! default service account and the CA's certificate.
//!
//! Made when absent, mended when the server's address changed; what a user made of the rest is left alone.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    api::{
        core::v1::{
            ConfigMap, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServiceAccount,
            ServicePort, ServiceSpec,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice},
        networking::v1::{ServiceCIDR, ServiceCIDRSpec},
        scheduling::v1::PriorityClass,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use podium_api::{
    ApiError, FieldSelector, Kind as _, Object, Reason,
    kinds::{SYSTEM_PRIORITY_CLASSES, SystemPriorityClass},
};
use podium_client::Delta;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Identity,
    config::ServerConfig,
    flow,
    pki::FRONT_PROXY,
    registry::{Part, Registry, Resource, WriteContext, cache::Filter},
    server::StartError,
};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The field manager of what is made here.
const OWN: &str = "kube-apiserver";
const ROOT_CA: &str = "kube-root-ca.crt";

/// Makes what the cluster as a whole has.
pub(crate) async fn cluster(registry: &Registry, config: &ServerConfig, addr: SocketAddr) -> Result<(), StartError> {
    for name in NAMESPACES {
        let namespace = Namespace { metadata: named("", name), ..Namespace::default() };
        ensure(registry, Box::new(namespace), OWN).await.map_err(failed("make the namespace", name))?;
    }
    for class in &SYSTEM_PRIORITY_CLASSES {
        ensure(registry, Box::new(priority(class)), OWN)
            .await
            .map_err(failed("make the priority class", class.name))?;
    }
    flow::keep_all(registry).await.map_err(failed("make the objects of", "flow control"))?;
    ensure(registry, Box::new(service_range(config)), OWN).await.map_err(failed("make the range of", "Services"))?;
    let objects = [Box::new(service(config)) as Box<dyn Object>, Box::new(endpoints(addr)), Box::new(slice(addr))];
    for object in objects {
        let kind = object.names().kind;
        let result = match object.names().kind {
            "Service" => ensure(registry, object, OWN).await,
            _ => ensure_same(registry, object).await,
        };
        result.map_err(failed("make the object kubernetes of kind", kind))?;
    }
    Ok(())
}

fn failed(operation: &str, what: &str) -> impl FnOnce(ApiError) -> StartError {
    let operation = format!("{operation} {what}");
    move |source| StartError::Bootstrap { operation, source }
}

/// Tells other API servers and components whose certificates stand for whom, where they look for it.
///
/// # Source
/// Kubernetes `pkg/controlplane/controller/clusterauthenticationtrust/cluster_authentication_trust_controller.go`.
pub(crate) async fn authentication(registry: &Registry, ca_pem: &str) -> Result<(), StartError> {
    const NAME: &str = "extension-apiserver-authentication";
    let data = [
        ("client-ca-file", ca_pem.to_owned()),
        ("requestheader-allowed-names", format!("[{FRONT_PROXY:?}]")),
        ("requestheader-client-ca-file", ca_pem.to_owned()),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#.to_owned()),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#.to_owned()),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#.to_owned()),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
    ];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let map = ConfigMap { metadata: named("kube-system", NAME), data: Some(data), ..ConfigMap::default() };
    ensure_same(registry, Box::new(map)).await.map_err(failed("make the ConfigMap", NAME))
}

/// Tells whoever is about to join whom it talks to: a kubeconfig without credentials, as kubeadm writes it.
///
/// # Source
/// Kubernetes `cmd/kubeadm/app/phases/bootstraptoken/clusterinfo/clusterinfo.go`.
pub(crate) async fn cluster_info(registry: &Registry, ca_pem: &str, addr: SocketAddr) -> Result<(), StartError> {
    const NAME: &str = "cluster-info";
    let ca = STANDARD.encode(ca_pem);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {ca}\n    \
         server: https://{addr}\ncontexts: null\ncurrent-context: \"\"\npreferences: {{}}\nusers: null\n"
    );
    let data = Some([("kubeconfig".to_owned(), kubeconfig)].into());
    let map = ConfigMap { metadata: named("kube-public", NAME), data, ..ConfigMap::default() };
    ensure_same(registry, Box::new(map)).await.map_err(failed("make the ConfigMap", NAME))
}

/// Gives every namespace its service account and the CA's certificate, for as long as the server runs.
pub(crate) async fn namespaces(registry: Arc<Registry>, ca_pem: String, stop: CancellationToken) {
    let Ok(resource) = registry.of(&Namespace::NAMES) else { return };
    let (Ok(maps), Ok(accounts)) = (registry.of(&ConfigMap::NAMES), registry.of(&ServiceAccount::NAMES)) else {
        return;
    };
    let mut changes = resource.cache.subscribe(Filter::default());
    let mut maps = maps.cache.subscribe(called(ROOT_CA));
    let mut accounts = accounts.cache.subscribe(called("default"));
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change.map(|change| match change {
                Delta::Put { old: None, new } if new.meta().deletion_timestamp.is_none() => new.meta().name.clone(),
                _ => None,
            }),
            change = maps.recv() => change.map(of_changed),
            change = accounts.recv() => change.map(of_changed),
        };
        match change {
            // One that goes is emptied; its things are not made anew.
            Some(Some(namespace)) if lives(&resource, &namespace) => furnish(&registry, &namespace, &ca_pem).await,
            Some(_) => {}
            None => return,
        }
    }
}

fn lives(namespaces: &Resource, name: &str) -> bool {
    namespaces.cache.get("", name).is_some_and(|entry| entry.object.meta().deletion_timestamp.is_none())
}

fn called(name: &str) -> Filter {
    let fields = FieldSelector::parse(&format!("metadata.name={name}")).expect("invariant: a plain name");
    Filter { fields, ..Filter::default() }
}

/// The namespace of what was changed or removed; what is new is as it shall be.
fn of_changed(change: Delta) -> Option<String> {
    match change {
        Delta::Put { old: Some(_), new } => new.meta().namespace.clone(),
        Delta::Delete { old, .. } => old.meta().namespace.clone(),
        Delta::Put { old: None, .. } => None,
    }
}

async fn furnish(registry: &Registry, namespace: &str, ca_pem: &str) {
    let account = ServiceAccount { metadata: named(namespace, "default"), ..ServiceAccount::default() };
    let mut root_ca = ConfigMap {
        metadata: named(namespace, ROOT_CA),
        data: Some(BTreeMap::from([("ca.crt".to_owned(), ca_pem.to_owned())])),
        ..ConfigMap::default()
    };
    root_ca.metadata.annotations = Some(BTreeMap::from([(
        "kubernetes.io/description".to_owned(),
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
         internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
         clusters."
            .to_owned(),
    )]));
    for result in [ensure(registry, Box::new(account), OWN).await, ensure_same(registry, Box::new(root_ca)).await] {
        match result {
            // The namespace may go at any time.
            Err(error) if !matches!(error.reason, Reason::NotFound | Reason::Forbidden) => {
                tracing::warn!(namespace, %error, "cannot furnish a namespace");
            }
            _ => {}
        }
    }
}

/// The server itself.
pub(crate) fn own() -> Identity {
    Identity::new("system:apiserver", &["system:masters"])
}

/// Makes an object unless it is there.
pub(crate) async fn ensure(registry: &Registry, object: Box<dyn Object>, manager: &str) -> Result<(), ApiError> {
    let resource = registry.of(&object.names())?;
    let key = object.key();
    if resource.cache.get(&key.namespace, &key.name).is_some() {
        return Ok(());
    }
    let who = own();
    let context = WriteContext::new(&who, manager).unchecked();
    match registry.create(&resource, &key.namespace, object, &context).await {
        Err(error) if error.reason != Reason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// As [`ensure`], and mends what differs. A write that changes nothing is no write.
async fn ensure_same(registry: &Registry, object: Box<dyn Object>) -> Result<(), ApiError> {
    let resource = registry.of(&object.names())?;
    let key = object.key();
    if resource.cache.get(&key.namespace, &key.name).is_none() {
        return ensure(registry, object, OWN).await;
    }
    let place = (key.namespace.as_str(), key.name.as_str());
    let who = own();
    let context = WriteContext::new(&who, OWN).unchecked();
    registry.update_with(&resource, place, Part::Main, &context, |_| Ok(object.boxed_clone().into())).await.map(|_| ())
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
        ..ObjectMeta::default()
    }
}

fn priority(class: &SystemPriorityClass) -> PriorityClass {
    PriorityClass {
        metadata: named("", class.name),
        value: Some(class.value),
        description: Some(class.description.to_owned()),
        preemption_policy: Some("PreemptLowerPriority".to_owned()),
        ..PriorityClass::default()
    }
}

fn kubernetes(labels: &[(&str, &str)]) -> ObjectMeta {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ObjectMeta { labels: Some(labels), ..named("default", "kubernetes") }
}

/// What the addresses of Services are taken from.
fn service_range(config: &ServerConfig) -> ServiceCIDR {
    ServiceCIDR {
        metadata: named("", "kubernetes"),
        spec: Some(ServiceCIDRSpec { cidrs: Some(vec![config.service_cidr.to_string()]) }),
        ..ServiceCIDR::default()
    }
}

fn service(config: &ServerConfig) -> Service {
    let ip = config.service_cidr.nth(1).map(|ip| ip.to_string());
    let port = ServicePort {
        name: Some("https".to_owned()),
        port: 443,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(6443)),
        ..ServicePort::default()
    };
    Service {
        metadata: kubernetes(&[("component", "apiserver"), ("provider", "kubernetes")]),
        spec: Some(ServiceSpec {
            cluster_ip: ip,
            ports: Some(vec![port]),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn endpoints(addr: SocketAddr) -> Endpoints {
    Endpoints {
        metadata: kubernetes(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![EndpointAddress { ip: addr.ip().to_string(), ..EndpointAddress::default() }]),
            ports: Some(vec![EndpointPort {
                name: Some("https".to_owned()),
                port: addr.port().into(),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

fn slice(addr: SocketAddr) -> EndpointSlice {
    EndpointSlice {
        metadata: kubernetes(&[("kubernetes.io/service-name", "kubernetes")]),
        address_type: if addr.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![addr.ip().to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..Endpoint::default()
        }]),
        ports: Some(vec![SlicePort {
            name: Some("https".to_owned()),
            port: Some(addr.port().into()),
            protocol: Some("TCP".to_owned()),
            ..SlicePort::default()
        }]),
    }
}
