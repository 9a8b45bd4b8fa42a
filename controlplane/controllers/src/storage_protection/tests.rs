//! Plans of the protection of storage.

use super::*;
use crate::test_support::World;

fn claim(world: &str) -> String {
    World::of(world).plan(&ClaimProtection, &PersistentVolumeClaim::NAMES, "data")
}

const GOING: &str = "claim data deleting finalizers=kubernetes.io/pvc-protection,other";

#[test]
fn a_claim_goes_when_no_pod_has_it() {
    let goes = r#"patch persistentvolumeclaim data {"metadata":{"finalizers":["other"]}}"#;
    for (pod, wanted) in [
        ("", goes),
        ("; pod a node=n claim=data", ""),
        ("; pod a node=n claim=other", goes),
        ("; pod a claim=data", goes),
    ] {
        assert_eq!(claim(&format!("{GOING}{pod}")), wanted, "{pod}");
    }
    assert_eq!(claim("claim data finalizers=kubernetes.io/pvc-protection"), "");
    assert_eq!(claim("claim data deleting finalizers=other"), "");
}

#[test]
fn a_volume_goes_when_it_is_not_bound() {
    let going = "volume disk deleting finalizers=kubernetes.io/pv-protection";
    let goes = r#"patch persistentvolume disk {"metadata":{"finalizers":[]}}"#;
    for (phase, wanted) in [("Bound", ""), ("Released", goes), ("Available", goes)] {
        let world = World::of(&format!("{going} phase={phase}"));
        assert_eq!(world.plan(&VolumeProtection, &PersistentVolume::NAMES, "disk"), wanted, "{phase}");
    }
}

#[test]
fn pods_wake_the_claims_that_wait_for_them() {
    let world = World::of(&format!("{GOING}; claim stays"));
    assert_eq!(world.keys(&ClaimProtection, "pod a node=n claim=data"), "persistentvolumeclaims d/data");
    assert_eq!(world.keys(&ClaimProtection, "pod a node=n claim=stays"), "");
    assert_eq!(world.keys(&ClaimProtection, GOING), "persistentvolumeclaims d/data");
}
