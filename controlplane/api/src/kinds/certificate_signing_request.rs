//! CertificateSigningRequest: somebody asks for a certificate, somebody else approves, a signer issues it.
//!
//! The three write three parts of it: what is asked for is never changed, the approval only through `approval`, the
//! certificate only through `status`. Who asks is filled in by the API server. Of the request itself only its PEM
//! envelope is checked here; the API server, which has the cryptography, checks its signature.
//!
//! # Source
//! Kubernetes `pkg/apis/certificates/validation/validation.go`, `pkg/registry/certificates/certificates/strategy.go`,
//! `pkg/printers/internalversion/printers.go` (`printCertificateSigningRequest`).

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, human_duration},
    names::{self, NameRule},
};

const EXPIRATION_SECONDS_MIN: i32 = 600;
const SIGNER_BYTES_MAX: usize = 571;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Kind for CertificateSigningRequest {
    const NAMES: Names = Names::new(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
    )
    .short(&["csr"])
    .name_rule(NameRule::Any);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] =
        &[Sub::part("approval", prepare_approval, validate_approval), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] = &[Field { path: "spec.signerName", value: |c| c.spec.signer_name.clone() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::AGE,
        Column::<Self>::text("SignerName", |c, _| {
            Cell::from(Some(c.spec.signer_name.as_str()).filter(|s| !s.is_empty()).unwrap_or("<none>"))
        })
        .field::<CertificateSigningRequestSpec>("signerName"),
        Column::<Self>::text("Requestor", |c, _| Cell::from(c.spec.username.clone().unwrap_or_default()))
            .field::<CertificateSigningRequestSpec>("request"),
        Column::<Self>::text("RequestedDuration", |c, _| {
            let seconds = c.spec.expiration_seconds;
            Cell::from(seconds.map_or_else(|| "<none>".to_owned(), |s| human_duration(s.into())))
        })
        .field::<CertificateSigningRequestSpec>("expirationSeconds"),
        Column::<Self>::text("Condition", |c, _| Cell::from(state(c)))
            .field::<CertificateSigningRequestStatus>("conditions"),
    ];

    fn prepare_create(&mut self) {
        self.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        validate_spec(&self.spec, &FieldPath::new("spec"), errs);
        validate_conditions(self, errs);
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        self.validate(errs);
        validate_certificate(self, errs);
        validate_kept(self, old, errs);
        for kind in ["Approved", "Denied"] {
            let (new, before) = (of(self, kind), of(old, kind));
            if new.len() > before.len() {
                errs.forbidden(&conditions_path(), &format!("updates may not add a condition of type {kind:?}"));
            } else if new.len() == before.len() && new != before {
                errs.forbidden(&conditions_path(), &format!("updates may not modify a condition of type {kind:?}"));
            }
        }
        let before = certificate(old);
        if !before.is_empty() && certificate(self) != before {
            let path = FieldPath::new("status").child("certificate");
            errs.forbidden(&path, "updates may not modify existing certificate content");
        }
    }
}

fn conditions(csr: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn of<'a>(csr: &'a CertificateSigningRequest, kind: &str) -> Vec<&'a CertificateSigningRequestCondition> {
    conditions(csr).iter().filter(|c| c.type_ == kind).collect()
}

fn certificate(csr: &CertificateSigningRequest) -> &[u8] {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).map(|c| c.0.as_slice()).unwrap_or_default()
}

fn conditions_path() -> FieldPath {
    FieldPath::new("status").child("conditions")
}

/// Of an approval only the conditions count.
fn prepare_approval(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let conditions = new.status.take().and_then(|s| s.conditions);
    new.spec.clone_from(&old.spec);
    new.status.clone_from(&old.status);
    new.status.get_or_insert_default().conditions = conditions;
}

fn validate_approval(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errs: &mut FieldErrors) {
    new.validate(errs);
    validate_kept(new, old, errs);
}

/// What was once decided stays.
fn validate_kept(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errs: &mut FieldErrors) {
    for kind in ["Approved", "Denied", "Failed"] {
        if of(new, kind).len() < of(old, kind).len() {
            errs.forbidden(&conditions_path(), &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
}

fn validate_spec(spec: &CertificateSigningRequestSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let is_request = |kinds: Vec<String>| kinds.first().is_some_and(|kind| kind == "CERTIFICATE REQUEST");
    if !pem_kinds(&spec.request.0).is_ok_and(is_request) {
        let value = BASE64_STANDARD.encode(&spec.request.0);
        errs.invalid(&path.child("request"), value, "PEM block type must be CERTIFICATE REQUEST");
    }
    let (usages, at) = (spec.usages.as_deref().unwrap_or_default(), path.child("usages"));
    if usages.is_empty() {
        errs.required(&at, "");
    }
    for (i, usage) in usages.iter().enumerate().filter(|(_, u)| !USAGES.contains(&u.as_str())) {
        errs.not_supported(&at.index(i), usage, USAGES);
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        if !seen.insert(usage) {
            errs.duplicate(&at.index(i), usage.as_str());
        }
    }
    validate_signer(&spec.signer_name, &path.child("signerName"), errs);
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < EXPIRATION_SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errs.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
}

/// `example.com/name`.
///
/// # Source
/// Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateSignerName`.
fn validate_signer(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name == "kubernetes.io/legacy-unknown" {
        return errs.invalid(path, name, "the legacy signerName is not allowed via this API version");
    }
    if name.is_empty() {
        return errs.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        return errs.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    let messages = names::is_dns1123_subdomain(domain);
    let domain_is_right = messages.is_empty();
    errs.invalid_each(path, domain, messages);
    if domain_is_right && !domain.contains('.') {
        errs.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    for part in rest.split('.') {
        for message in names::is_dns1123_subdomain(part) {
            errs.invalid(path, rest, &format!("validating label {part:?}: {message}"));
        }
    }
    if name.len() > SIGNER_BYTES_MAX {
        errs.too_long(path, SIGNER_BYTES_MAX);
    }
}

fn validate_conditions(csr: &CertificateSigningRequest, errs: &mut FieldErrors) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, condition) in conditions(csr).iter().enumerate() {
        let (at, kind) = (conditions_path().index(i), condition.type_.as_str());
        if kind.is_empty() {
            errs.required(&at.child("type"), "");
        }
        let decides = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if decides { &["True"] } else { &["False", "True", "Unknown"] };
        match condition.status.as_str() {
            "" => errs.required(&at.child("status"), ""),
            status if !allowed.contains(&status) => errs.not_supported(&at.child("status"), status, allowed),
            _ => {}
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && seen.contains(opposite) {
            errs.invalid(&conditions_path(), kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            errs.duplicate(&at.child("type"), kind);
        }
    }
}

fn validate_certificate(csr: &CertificateSigningRequest, errs: &mut FieldErrors) {
    let pem = certificate(csr);
    if pem.is_empty() {
        return;
    }
    let path = FieldPath::new("status").child("certificate");
    let wrong = match pem_kinds(pem) {
        Ok(kinds) if kinds.is_empty() => "must contain at least one CERTIFICATE PEM block".to_owned(),
        Ok(kinds) => match kinds.into_iter().find(|kind| kind != "CERTIFICATE") {
            Some(kind) => format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}"),
            None => return,
        },
        Err(message) => message.to_owned(),
    };
    errs.invalid(&path, "<certificate data>", &wrong);
}

/// The types of the blocks of a PEM text, whose contents must be base64.
fn pem_kinds(pem: &[u8]) -> Result<Vec<String>, &'static str> {
    let text = std::str::from_utf8(pem).map_err(|_| "the PEM text is not UTF-8")?;
    let (mut kinds, mut body) = (Vec::new(), None::<String>);
    for line in text.lines().map(str::trim) {
        let end = |start: &str| line.strip_prefix(start).and_then(|rest| rest.strip_suffix("-----"));
        if let Some(kind) = end("-----BEGIN ") {
            kinds.push(kind.to_owned());
            body = Some(String::new());
        } else if let Some(kind) = end("-----END ") {
            let body = body.take().filter(|_| kinds.last().is_some_and(|last| last == kind));
            let content = body.and_then(|body| BASE64_STANDARD.decode(body).ok());
            content.filter(|c| !c.is_empty()).ok_or("a PEM block is not well-formed")?;
        } else if let Some(body) = &mut body {
            if line.contains(':') {
                return Err("no PEM block headers are permitted");
            }
            body.push_str(line);
        }
    }
    if body.is_some() { Err("a PEM block has no end") } else { Ok(kinds) }
}

fn state(csr: &CertificateSigningRequest) -> String {
    let has = |kind: &str| conditions(csr).iter().any(|c| c.type_ == kind);
    let decided = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if certificate(csr).is_empty() { "" } else { ",Issued" };
    format!("{decided}{failed}{issued}")
}
