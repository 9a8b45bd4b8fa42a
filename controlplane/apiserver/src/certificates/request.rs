//! [`Asked`]: a request that has been read and checked against what its signer signs.
//!
//! # Source
//! Kubernetes `pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer/signer.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _};

/// For client certificates of nodes.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// For those that nodes serve with.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const SIGN: &str = "digital signature";
const ENCIPHER: &str = "key encipherment";

/// What a certificate is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) params: CertificateSigningRequestParams,
    pub(super) usages: BTreeSet<String>,
    pub(super) expiration_seconds: Option<i32>,
}

impl Asked {
    /// Whether its signer is one of those here.
    pub(super) fn is_ours(csr: &Csr) -> bool {
        [KUBELET_CLIENT, KUBELET_SERVING, CLIENT].contains(&csr.spec.signer_name.as_str())
    }

    /// Reads and checks a request.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' words.
    pub(super) fn of(csr: &Csr) -> Result<Self, String> {
        let text = std::str::from_utf8(&csr.spec.request.0).map_err(|e| format!("the request is no PEM: {e}"))?;
        refuse_repeated_names(text.as_bytes())?;
        let params = CertificateSigningRequestParams::from_pem(text).map_err(|e| e.to_string())?;
        let usages = csr.spec.usages.iter().flatten().cloned().collect();
        let asked = Self { params, usages, expiration_seconds: csr.spec.expiration_seconds };
        match csr.spec.signer_name.as_str() {
            CLIENT => asked.check_client()?,
            KUBELET_CLIENT => asked.check_node("client auth")?,
            KUBELET_SERVING => asked.check_node("server auth")?,
            other => return Err(format!("unrecognized signerName: {other:?}")),
        }
        Ok(asked)
    }

    /// The common name of its subject.
    pub(super) fn common_name(&self) -> Option<&str> {
        self.subject(&DnType::CommonName)
    }

    /// The DNS name that it is for; nothing when there are others, or addresses.
    pub(super) fn only_name(&self) -> Option<&str> {
        match self.params.params.subject_alt_names.as_slice() {
            [SanType::DnsName(name)] => Some(name.as_str()),
            _ => None,
        }
    }

    fn subject(&self, part: &DnType) -> Option<&str> {
        match self.params.params.distinguished_name.get(part)? {
            DnValue::Utf8String(text) => Some(text),
            DnValue::PrintableString(text) => Some(text.as_str()),
            DnValue::Ia5String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    fn check_client(&self) -> Result<(), String> {
        const WANTED: &str = "client auth";
        if let Some(usage) = self.usages.iter().find(|usage| ![SIGN, ENCIPHER, WANTED].contains(&usage.as_str())) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
        match self.usages.contains(WANTED) {
            true => Ok(()),
            false => Err(format!("missing required usage for client certificate: {WANTED}")),
        }
    }

    fn check_node(&self, auth: &str) -> Result<(), String> {
        let refuse = |why: &str| Err(why.to_owned());
        let names = &self.params.params.subject_alt_names;
        let any = |is: fn(&SanType) -> bool| names.iter().any(is);
        if self.subject(&DnType::OrganizationName) != Some(NODES) {
            return refuse("subject organization is not system:nodes");
        }
        let (dns, ips) = (any(|n| matches!(n, SanType::DnsName(_))), any(|n| matches!(n, SanType::IpAddress(_))));
        if auth == "server auth" && !dns && !ips {
            return refuse("DNS or IP subjectAltName is required");
        }
        if auth == "client auth" && dns {
            return refuse("DNS subjectAltNames are not allowed");
        }
        if any(|n| matches!(n, SanType::Rfc822Name(_))) {
            return refuse("Email subjectAltNames are not allowed");
        }
        if auth == "client auth" && ips {
            return refuse("IP subjectAltNames are not allowed");
        }
        if any(|n| matches!(n, SanType::URI(_) | SanType::OtherName(_))) {
            return refuse("URI subjectAltNames are not allowed");
        }
        if !self.common_name().is_some_and(|name| name.starts_with(NODE_PREFIX)) {
            return refuse("subject common name does not begin with system:node:");
        }
        let of = |usages: &[&str]| -> BTreeSet<String> { usages.iter().map(|usage| (*usage).to_owned()).collect() };
        let mut wanted = [SIGN, ENCIPHER, auth];
        if self.usages != of(&wanted) && self.usages != of(&[SIGN, auth]) {
            wanted.sort_unstable();
            return Err(format!("usages did not match [{}]", wanted.join(" ")));
        }
        Ok(())
    }
}

/// A subject of which a part is there several times (groups, say) would be signed with one of them only.
fn refuse_repeated_names(pem: &[u8]) -> Result<(), String> {
    let unread = || "the request cannot be read".to_owned();
    let (_, pem) = parse_x509_pem(pem).map_err(|_| unread())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| unread())?;
    let mut seen = BTreeSet::new();
    for part in request.certification_request_info.subject.iter_attributes() {
        let kind = part.attr_type().to_id_string();
        if !seen.insert(kind.clone()) {
            return Err(format!("the subject has more than one attribute {kind}; that is not signed"));
        }
    }
    Ok(())
}
