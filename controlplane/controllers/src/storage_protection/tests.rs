//! Plans of the protection of storage.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::World;

fn claim(world: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&ClaimProtection, &PersistentVolumeClaim::NAMES, "data"));
}

const GOING: &str = "claim data deleting finalizers=kubernetes.io/pvc-protection,other";

#[test]
fn a_claim_goes_when_no_pod_has_it() {
    let goes = || {
        expect![[r#"patch persistentvolumeclaim data {"metadata":{"finalizers":["other"]}}"#]"{GOING}; pod a node=n claim=other"), goes());
    claim(&format!("{GOING}; pod a claim=data"), goes());
    claim("claim data finalizers=kubernetes.io/pvc-protection", expect![[""]]);
    claim("claim data deleting finalizers=other", expect![[""]]);
}

#[test]
fn a_volume_goes_when_it_is_not_bound() {
    let plan = |world: &str| World::of(world).plan(&VolumeProtection, &PersistentVolume::NAMES, "disk");
    let going = "volume disk deleting finalizers=kubernetes.io/pv-protection";
    assert_eq!(plan(&format!("{going} phase=Bound")), "");
    expect![[r#"patch persistentvolume disk {"metadata":{"finalizers":[]}}"#]]
    .assert_eq(&plan(&format!("{going} phase=Released")));
}

#[test]
fn pods_wake_the_claims_that_wait_for_them() {
    let world = World::of(&format!("{GOING}; claim stays"));
    assert_eq!(world.keys(&ClaimProtection, "pod a node=n claim=data"), "persistentvolumeclaims d/data");
    assert_eq!(world.keys(&ClaimProtection, "pod a node=n claim=stays"), "");
    assert_eq!(world.keys(&ClaimProtection, GOING), "persistentvolumeclaims d/data");
}
