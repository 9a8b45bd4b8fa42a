//! Certificates that are asked for, kept, taken up again and renewed, with a cluster that signs whatever it is asked for.

use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest as Csr};
use podium_api::kind_of;
use podium_client::{Clock, Delta, MirrorScope, ModelApi, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};

use super::*;

/// Signs every request for an hour from the year 2026 on.
async fn sign_all(api: Arc<ModelApi>) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, key);
    let mut requests = api.mirror(&kind_of::<Csr>(), MirrorScope::default()).await.unwrap().subscribe();
    while let Some(delta) = requests.recv().await {
        let Delta::Put { new, old: None } = delta else { continue };
        let mut csr = Csr::clone(&new.downcast_arc().unwrap());
        let asked = std::str::from_utf8(&csr.spec.request.0).unwrap();
        let mut asked = CertificateSigningRequestParams::from_pem(asked).unwrap();
        asked.params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        asked.params.not_after = rcgen::date_time_ymd(2026, 1, 2);
        let pem = asked.signed_by(&issuer).unwrap().pem();
        csr.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
        api.update(Box::new(csr), Some("status")).await.unwrap();
    }
}

#[derive(Debug)]
struct Fixed(&'static str);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0.parse().unwrap()
    }
}

fn open(dir: &Path, node: &str, now: &'static str) -> Credentials {
    Credentials::open(dir.join("pki"), node, Arc::new(Fixed(now))).unwrap()
}

#[tokio::test]
async fn made_once_kept_for_their_owner_and_renewed_before_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let api = Arc::new(ModelApi::new(Arc::new(SystemClock)));
    let signing = tokio::spawn(sign_all(api.clone()));
    let first = open(dir.path(), "n1", "2026-01-01T01:00:00Z");
    assert!(first.client_pem().is_none() && first.server().is_none());
    for purpose in Purpose::ALL {
        assert!(first.ensure(&*api, purpose).await.unwrap());
        assert!(!first.ensure(&*api, purpose).await.unwrap(), "it is fresh");
        let mode = fs::metadata(dir.path().join("pki").join(purpose.file())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(first.client().is_some() && first.server().is_some() && first.api_server().is_none());
    let of = |credentials: &Credentials| credentials.client_pem().map(|pem| pem.joined());
    assert_eq!(of(&open(dir.path(), "n1", "2026-01-01T12:00:00Z")), of(&first), "taken up again");
    assert_eq!(of(&open(dir.path(), "n2", "2026-01-01T12:00:00Z")), None, "of another node");
    assert_eq!(of(&open(dir.path(), "n1", "2026-01-02T00:00:00Z")), None, "it has ended");
    let late = open(dir.path(), "n1", "2026-01-01T20:00:00Z");
    assert_eq!(of(&late), of(&first), "still good");
    assert_eq!(late.rest(), RETRY);
    assert!(late.ensure(&*api, Purpose::Client).await.unwrap(), "but to be renewed");
    assert_ne!(of(&late), of(&first));
    signing.abort();
}
