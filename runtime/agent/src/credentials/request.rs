//! Asking the cluster for a certificate, and waiting for it.

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest as Csr, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::ObjectKey;
use podium_client::{Api, ApiExt as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio::time::{Instant, sleep};

use super::{CredentialsError, Pem, Purpose};

/// How long somebody may take to approve a request; as long as a kubelet waits before it asks anew.
const APPROVED_WITHIN: Duration = Duration::from_secs(900);
/// Where approval is not by itself, the log says so after this time.
const SLOW: Duration = Duration::from_secs(10);
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Makes a key and has a certificate for it signed.
pub(super) async fn signed(api: &dyn Api, node: &str, purpose: Purpose) -> Result<Pem, CredentialsError> {
    let (key, asked) = ask(node, purpose).map_err(|error| CredentialsError::Unusable(error.to_string()))?;
    let created = api.create(Box::new(asked)).await.map_err(CredentialsError::Api)?;
    let name = created.meta().name.clone().unwrap_or_default();
    let certificate = wait(api, &name).await?;
    Ok(Pem { certificate, key: key.serialize_pem() })
}

fn ask(node: &str, purpose: Purpose) -> Result<(KeyPair, Csr), rcgen::Error> {
    let (auth, names) = match purpose {
        Purpose::Client => ("client auth", Vec::new()),
        // Its name alone: whoever connects knows which node it wants, and addresses may be anybody's.
        Purpose::Serving => ("server auth", vec![node.to_owned()]),
    };
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let pem = params.serialize_request(&key)?.pem()?;
    let metadata = ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() };
    let spec = CertificateSigningRequestSpec {
        request: ByteString(pem.into_bytes()),
        signer_name: purpose.signer().to_owned(),
        usages: Some(vec!["digital signature".to_owned(), auth.to_owned()]),
        ..CertificateSigningRequestSpec::default()
    };
    Ok((key, Csr { metadata, spec, status: None }))
}

async fn wait(api: &dyn Api, name: &str) -> Result<String, CredentialsError> {
    let refused = |why: String| CredentialsError::Refused { name: name.to_owned(), why };
    let (since, mut pause, mut told) = (Instant::now(), LOOK_MIN, false);
    loop {
        let csr = api.get_typed::<Csr>(&ObjectKey::cluster(name)).await.map_err(CredentialsError::Api)?;
        match outcome(&csr) {
            Some(Ok(certificate)) => return Ok(certificate),
            Some(Err(why)) => return Err(refused(why)),
            None if since.elapsed() > APPROVED_WITHIN => {
                let minutes = APPROVED_WITHIN.as_secs() / 60;
                return Err(refused(format!("was not approved within {minutes} minutes")));
            }
            None => {}
        }
        if !told && since.elapsed() > SLOW {
            told = true;
            tracing::warn!(name, "a request for a certificate waits: kubectl certificate approve {name}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// The certificate, or why there will be none.
fn outcome(csr: &Csr) -> Option<Result<String, String>> {
    let status = csr.status.as_ref()?;
    if let Some(certificate) = &status.certificate {
        let text = String::from_utf8(certificate.0.clone());
        return Some(text.map_err(|_| "was answered with what is no PEM".to_owned()));
    }
    let no = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    no.map(|c| {
        let why = c.message.as_deref().or(c.reason.as_deref()).unwrap_or_default();
        Err(format!("is {}: {why}", c.type_.to_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_becomes_of_a_request() {
        let csr = |status| -> Csr {
            let spec = json!({ "request": "", "signerName": "x" });
            serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap()
        };
        for (status, wanted) in [
            (json!({}), None),
            (json!({ "conditions": [{ "type": "Approved", "status": "True" }] }), None),
            (json!({ "certificate": "cGVt" }), Some(Ok("pem"))),
            (
                json!({ "conditions": [{ "type": "Denied", "status": "True", "reason": "No" }] }),
                Some(Err("is denied: No")),
            ),
            (
                json!({ "conditions": [{ "type": "Failed", "status": "True", "message": "bad usage" }] }),
                Some(Err("is failed: bad usage")),
            ),
        ] {
            let found = outcome(&csr(status.clone()));
            let wanted = wanted.map(|w: Result<&str, &str>| w.map(str::to_owned).map_err(str::to_owned));
            assert_eq!(found, wanted, "{status}");
        }
    }
}
