//! Plans for claims and volumes.

use podium_api::Kind as _;

use super::*;
use crate::test_support::World;

fn claim(world: &str) -> String {
    World::of(world).plan(&Claims, &PersistentVolumeClaim::NAMES, "data")
}

fn volume(world: &str) -> String {
    World::of(world).plan(&Volumes, &PersistentVolume::NAMES, "disk")
}

const BIND: &str = r#"patch persistentvolume disk {"metadata":{"annotations":{"pv.kubernetes.io/bound-by-controller":"yes"}},"spec":{"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data"}}}
patch persistentvolume/status disk {"status":{"phase":"Bound"}}
patch persistentvolumeclaim data {"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes"}},"spec":{"volumeName":"disk"}}
patch persistentvolumeclaim/status data {"status":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"phase":"Bound"}}"#;

#[test]
fn a_claim_takes_the_smallest_volume_that_suits() {
    let free = "volume disk phase=Available";
    assert_eq!(claim(&format!("claim data phase=Pending; {free}; volume big size=2Gi phase=Available")), BIND);
    for other in [
        "volume small size=1Mi phase=Available",
        "volume other class=x phase=Available",
        "volume taken phase=Bound claim=else claim-uid=claim/else",
        "volume failed phase=Failed",
    ] {
        let nothing =
            "event Normal FailedBinding: no persistent volumes available for this claim and no storage class is set";
        assert_eq!(claim(&format!("claim data phase=Pending; {other}")), nothing, "{other}");
    }
}

#[test]
fn a_claim_of_a_class_is_made_for_its_first_consumer() {
    let class = "class local waits";
    let waiting = "event Normal WaitForFirstConsumer: waiting for first consumer to be created before binding";
    assert_eq!(claim(&format!("claim data class=local phase=Pending; {class}")), waiting);
    // Not even a free volume is taken before somebody wants it, unless it names the claim.
    assert_eq!(
        claim(&format!("claim data class=local phase=Pending; {class}; volume v class=local phase=Available")),
        waiting
    );
    assert_eq!(
        claim(&format!("claim data class=local phase=Pending; {class}; pod a node=n1 claim=data")),
        r#"patch persistentvolumeclaim data {"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"n1"}}}"#
    );
    let chosen = "annotations=volume.kubernetes.io/selected-node:n1";
    assert_eq!(
        claim(&format!("claim data class=local phase=Pending {chosen}; {class}")),
        r#"patch persistentvolumeclaim data {"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-provisioner":"podium.dev/local","volume.kubernetes.io/storage-provisioner":"podium.dev/local"}}}"#
    );
    let missing = claim("claim data class=gone phase=Pending");
    assert_eq!(missing, r#"event Warning ProvisioningFailed: storageclass.storage.k8s.io "gone" not found"#);
}

#[test]
fn a_claim_whose_volume_went_is_lost() {
    let bound = "claim data volume=disk phase=Bound annotations=pv.kubernetes.io/bind-completed:yes";
    assert_eq!(
        claim(bound),
        "event Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!\n\
         patch persistentvolumeclaim/status data {\"status\":{\"phase\":\"Lost\"}}"
    );
    let other = format!("{bound}; volume disk phase=Bound claim=other claim-uid=claim/other");
    assert!(claim(&other).starts_with("event Warning ClaimMisbound"));
}

#[test]
fn a_volume_says_what_has_become_of_its_claim() {
    let bound = "volume disk phase=Bound claim=data claim-uid=claim/data";
    assert_eq!(volume("volume disk"), r#"patch persistentvolume/status disk {"status":{"phase":"Available"}}"#);
    assert_eq!(volume(&format!("{bound}; claim data volume=disk")), "");
    let released = r#"patch persistentvolume/status disk {"status":{"phase":"Released"}}"#;
    assert_eq!(volume(bound), released);
    let ours = format!("{bound} policy=Delete annotations=pv.kubernetes.io/provisioned-by:podium.dev/local");
    assert_eq!(volume(&ours), released, "its provisioner deletes it");
    assert!(volume(&format!("{bound} policy=Delete")).contains("VolumeFailedDelete"));
    assert_eq!(
        volume(&format!("{bound} annotations=pv.kubernetes.io/bound-by-controller:yes; claim data volume=else")),
        r#"patch persistentvolume disk {"metadata":{"annotations":{}},"spec":{}}"#,
        "it is free again"
    );
}
