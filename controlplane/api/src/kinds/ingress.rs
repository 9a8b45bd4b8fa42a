//! Ingress: HTTP rules from outside to Services.
//!
//! # Source
//! Kubernetes `pkg/apis/networking/validation/validation.go`, `pkg/registry/networking/ingress/strategy.go`,
//! `pkg/printers/internalversion/printers.go` (`printIngress`).

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressStatus,
    IngressTLS,
};

use super::pod::validate_port;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    names,
};

/// So many hosts are shown in a column.
const HOSTS_SHOWN_MAX: usize = 3;
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

impl Kind for Ingress {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress").short(&["ing"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Class", |i, _| {
            let class = i.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
            Cell::from(class.unwrap_or("<none>"))
        })
        .help("The name of the IngressClass resource that should be used for additional configuration"),
        Column::<Self>::text("Hosts", |i, _| Cell::from(hosts(i)))
            .help("Hosts that incoming requests are matched against before the ingress rule"),
        Column::<Self>::text("Address", |i, _| Cell::from(addresses(i)))
            .help("Address is a list containing ingress points for the load-balancer"),
        Column::<Self>::text("Ports", |i, _| {
            let tls = i.spec.as_ref().and_then(|s| s.tls.as_ref()).is_some_and(|t| !t.is_empty());
            Cell::from(if tls { "80, 443" } else { "80" })
        })
        .help("Ports of TLS configurations that open"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(IngressStatus { load_balancer: Some(Default::default()) });
    }

    crate::kind::status_kept!();

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = IngressSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_create(&self, errs: &mut FieldErrors) {
        let annotation = self.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
        let class = self.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            let path = FieldPath::new("annotations").child(CLASS_ANNOTATION);
            errs.invalid(&path, annotation.as_str(), "must match `ingressClassName` when both are specified");
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let path = FieldPath::new("status").child("loadBalancer").child("ingress");
        for (i, ingress) in balancer.into_iter().flat_map(|b| b.ingress.iter().flatten()).enumerate() {
            if let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) {
                errs.invalid_each(&path.index(i).child("ip"), ip, names::is_ip(ip));
            }
            if let Some(host) = ingress.hostname.as_deref().filter(|h| !h.is_empty()) {
                errs.invalid_each(&path.index(i).child("hostname"), host, names::is_dns1123_subdomain(host));
                if host.parse::<std::net::IpAddr>().is_ok() {
                    errs.invalid(&path.index(i).child("hostname"), host, "must be a DNS name, not an IP address");
                }
            }
        }
    }
}

fn validate_spec(spec: &IngressSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    match &spec.default_backend {
        None if rules.is_empty() => {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errs.invalid(path, Cell::Null, detail);
        }
        None => {}
        Some(backend) => validate_backend(backend, &path.child("defaultBackend"), errs),
    }
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(rule, &path.child("rules").index(i), errs);
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        validate_tls(tls, &path.child("tls").index(i), errs);
    }
    if let Some(class) = spec.ingress_class_name.as_deref() {
        errs.invalid_each(&path.child("ingressClassName"), class, names::is_dns1123_subdomain(class));
    }
}

fn validate_host(host: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let messages =
        if host.contains('*') { names::is_wildcard_dns1123_subdomain(host) } else { names::is_dns1123_subdomain(host) };
    errs.invalid_each(path, host, messages);
}

fn validate_rule(rule: &IngressRule, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
        let at = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errs.invalid(&at, host, "must be a DNS name, not an IP address");
        }
        validate_host(host, &at, errs);
    }
    let Some(http) = &rule.http else { return };
    let at = path.child("http").child("paths");
    if http.paths.is_empty() {
        errs.required(&at, "");
    }
    for (i, one) in http.paths.iter().enumerate() {
        validate_path(one, &at.index(i), errs);
        validate_backend(&one.backend, &at.index(i).child("backend"), errs);
    }
}

fn validate_path(path: &HTTPIngressPath, at: &FieldPath, errs: &mut FieldErrors) {
    let text = path.path.as_deref().unwrap_or_default();
    let at_path = at.child("path");
    let absolute = text.starts_with('/');
    match path.path_type.as_str() {
        "" => errs.required(&at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !absolute {
                errs.invalid(&at_path, text, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                errs.invalid(&at_path, text, &format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                errs.invalid(&at_path, text, &format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && !absolute => {
            errs.invalid(&at_path, text, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        other => errs.not_supported(&at.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
}

fn validate_backend(backend: &IngressBackend, path: &FieldPath, errs: &mut FieldErrors) {
    match (&backend.service, &backend.resource) {
        (None, None) => errs.invalid(path, "", "resource or service backend is required"),
        (Some(_), Some(_)) => errs.invalid(path, "", "cannot set both resource and service backends"),
        (None, Some(resource)) => {
            let group = resource.api_group.as_deref();
            validate_reference(group, &resource.kind, &resource.name, &path.child("resource"), errs);
        }
        (Some(service), None) => validate_service(service, path, errs),
    }
}

/// Checks what names an object of any kind.
pub(super) fn validate_reference(
    group: Option<&str>,
    kind: &str,
    name: &str,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    if let Some(group) = group {
        errs.invalid_each(&path.child("apiGroup"), group, names::is_dns1123_subdomain(group));
    }
    for (field, text) in [("kind", kind), ("name", name)] {
        if text.is_empty() {
            errs.required(&path.child(field), &format!("{field} is required"));
        } else {
            errs.invalid_each(&path.child(field), text, names::is_path_segment(text));
        }
    }
}

fn validate_service(service: &IngressServiceBackend, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("service");
    match service.name.as_str() {
        "" => errs.required(&at.child("name"), ""),
        name => errs.invalid_each(&at.child("name"), name, names::is_dns1035_label(name)),
    }
    let port = service.port.clone().unwrap_or_default();
    let name = port.name.as_deref().unwrap_or_default();
    match (name, port.number.unwrap_or_default()) {
        ("", 0) => errs.required(path, "port name or number is required"),
        ("", number) => validate_port(number, &at.child("port").child("number"), errs),
        (name, 0) => errs.invalid_each(&at.child("port").child("name"), name, names::is_port_name(name)),
        _ => errs.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn validate_tls(tls: &IngressTLS, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, host) in tls.hosts.iter().flatten().enumerate() {
        validate_host(host, &path.child("hosts").index(i), errs);
    }
    if let Some(name) = tls.secret_name.as_deref().filter(|n| !n.is_empty()) {
        errs.invalid_each(&path.child("secretName"), name, names::is_dns1123_subdomain(name));
    }
}

fn hosts(ingress: &Ingress) -> String {
    let rules = ingress.spec.as_ref().and_then(|s| s.rules.as_deref()).unwrap_or_default();
    let named = rules.iter().filter_map(|r| r.host.as_deref()).filter(|h| !h.is_empty());
    let shown: Vec<_> = named.clone().take(HOSTS_SHOWN_MAX).collect();
    match named.count().saturating_sub(HOSTS_SHOWN_MAX) {
        0 if shown.is_empty() => "*".to_owned(),
        0 => shown.join(","),
        _ => format!("{} + {} more...", shown.join(","), rules.len() - HOSTS_SHOWN_MAX),
    }
}

fn addresses(ingress: &Ingress) -> String {
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
    let one = |i: &k8s_openapi::api::networking::v1::IngressLoadBalancerIngress| {
        i.ip.clone().filter(|ip| !ip.is_empty()).or_else(|| i.hostname.clone())
    };
    ingress.iter().filter_map(one).collect::<Vec<_>>().join(",")
}
