//! Which requests go.

use podium_api::Kind as _;
use serde_json::json;

use super::*;
use crate::{test_support::World, test_support::ago};

#[test]
fn requests_go_after_their_time() {
    const HOUR: i64 = 3_600;
    for (made, said, issued, wanted) in [
        (24 * HOUR + 1, None, false, "delete certificatesigningrequest r"),
        (23 * HOUR, None, false, "look again after 3601s"),
        (9, Some(("Denied", HOUR + 1)), false, "delete certificatesigningrequest r"),
        (9, Some(("Denied", HOUR - 10)), false, "look again after 11s"),
        (9, Some(("Failed", HOUR + 1)), false, "delete certificatesigningrequest r"),
        (9, Some(("Approved", HOUR + 1)), true, "delete certificatesigningrequest r"),
        (9, Some(("Approved", HOUR + 1)), false, "look again after 82800s"),
        (9, Some(("Approved", 24 * HOUR + 1)), false, "delete certificatesigningrequest r"),
    ] {
        let condition =
            |(kind, since): (&str, i64)| json!([{"type": kind, "status": "True", "lastUpdateTime": ago(since)}]);
        let request = json!({
            "metadata": {"name": "r", "uid": "u", "resourceVersion": "7", "creationTimestamp": ago(made)},
            "spec": {"request": "", "signerName": "example.com/x"},
            "status": {"conditions": said.map(condition), "certificate": issued.then_some("eA==")},
        });
        let key = Key::new(&Request::NAMES, podium_api::ObjectKey::cluster("r"));
        let now = Timestamp::from_second(crate::test_support::NOW).unwrap();
        let world = World::of("").plus::<Request>(request);
        let plan = crate::test_support::show(&CertificateCleaner.reconcile(&key, &world, now));
        assert_eq!(plan, wanted, "made {made} s ago, {said:?}, issued: {issued}");
    }
}
