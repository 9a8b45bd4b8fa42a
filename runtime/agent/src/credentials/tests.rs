//! Certificates that are asked for, kept, taken up again and renewed, with a cluster that signs whatever it is asked for.

use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest as Csr};
use podium_api::kind_of;
use podium_client::{Clock, Delta, MirrorScope, ModelApi, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};

use super::*;

/// From when on a certificate is good, and until when.
type Life = [Timestamp; 2];

/// Signs every request for a time that `life` says.
async fn sign_all(api: Arc<ModelApi>, life: impl Fn() -> Life) {
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
        let date =
            |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
        [asked.params.not_before, asked.params.not_after] = life().map(date);
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
    let day = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"].map(|at| at.parse().unwrap());
    let signing = tokio::spawn(sign_all(api.clone(), move || day));
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

/// When the certificate ends that a node shows.
fn ends(key: &CertifiedKey) -> Timestamp {
    let (_, certificate) = x509_parser::parse_x509_certificate(&key.cert[0]).unwrap();
    Timestamp::from_second(certificate.validity().not_after.timestamp()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn certificates_that_live_for_minutes_are_renewed_while_the_node_runs() {
    const LIFE: SignedDuration = SignedDuration::from_mins(10);
    let dir = tempfile::tempdir().unwrap();
    let clock: ClockRef = Arc::new(podium_client::TokioClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()));
    let api = Arc::new(ModelApi::new(clock.clone()));
    let of = clock.clone();
    let signing = tokio::spawn(sign_all(api.clone(), move || [of.now(), of.now().checked_add(LIFE).unwrap()]));
    let credentials = Credentials::open(dir.path().join("pki"), "n1", clock.clone()).unwrap();
    for purpose in Purpose::ALL {
        credentials.ensure(&*api, purpose).await.unwrap();
    }
    let told = parking_lot::Mutex::new(0);
    let renewed = |pem: Pem| {
        assert_eq!(
            Held::certified(&pem).unwrap().cert,
            credentials.client().unwrap().cert,
            "what is told is what is shown"
        );
        *told.lock() += 1;
    };
    let watched = async {
        for _ in 0..360 {
            // What the tunnel shows at any moment is good for some time yet.
            for shown in [credentials.client(), credentials.server()] {
                let left = ends(&shown.unwrap()).duration_since(clock.now());
                assert!(left >= LIFE / 5 - SignedDuration::from_secs(60), "{left:?}");
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::select! {
        () = credentials.keep(&*api, renewed) => {}
        () = watched => {}
    }
    assert_eq!(*told.lock(), 7, "once in eight minutes, for an hour");
    let again = Credentials::open(dir.path().join("pki"), "n1", clock).unwrap();
    assert_eq!(again.client().unwrap().cert, credentials.client().unwrap().cert, "they are kept");
    signing.abort();
}
