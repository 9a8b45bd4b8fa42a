//! Revisions as Kubernetes writes them.

use super::*;

/// The template of Kubernetes' own test of compatibility between versions.
fn template() -> PodTemplateSpec {
    let value = json!({
        "metadata": {"annotations": {"test": "value"}, "labels": {"app": "foo"}},
        "spec": {
            "containers": [{
                "image": "test", "imagePullPolicy": "Always", "name": "test",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30,
        },
    });
    serde_json::from_value(value).unwrap()
}

fn revision(name: &str, number: i64, data: Value) -> Arc<ControllerRevision> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Arc::new(ControllerRevision { metadata, data: Some(RawExtension(data)), revision: number })
}

#[test]
fn hashes_are_those_of_kubernetes() {
    let mut data = data_of(&template());
    // Kubernetes 1.34 made test-776999688b of this StatefulSet; 1.33, which wrote another null, test-c77f6d978.
    assert_eq!(hash(&data, 0), "776999688b");
    assert_ne!(hash(&data, 1), "776999688b");
    data["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    assert_eq!(hash(&data, 0), "c77f6d978");
}

#[test]
fn what_older_versions_wrote_means_the_same() {
    let data = data_of(&template());
    let mut older = data.clone();
    older["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    assert!(has_data(&revision("a", 1, older), &data));
    let mut other = template();
    other.metadata.get_or_insert_default().annotations = None;
    assert!(!has_data(&revision("a", 1, data_of(&other)), &data));
    assert!(!has_data(&revision("a", 1, json!({"anything": 1})), &data));
}

#[test]
fn a_template_comes_back_as_it_was() {
    let mut template = template();
    let back = template_in(&revision("a", 1, data_of(&template))).unwrap();
    // Go's empty struct is the one thing that is there in addition.
    template.spec.as_mut().unwrap().containers[0].resources = Some(Default::default());
    assert_eq!(back, template);
    assert_eq!(template_in(&revision("a", 1, json!({"spec": {"template": 5}}))), None);
}

#[test]
fn text_is_written_as_go_writes_it() {
    let mut out = String::new();
    write_go_json(&json!({"b": [1, null, true], "a": "<a>&\u{2028}\"\n"}), &mut out);
    assert_eq!(out, r#"{"a":"\u003ca\u003e\u0026\u2028\"\n","b":[1,null,true]}"#);
}

#[test]
fn names_order_and_limits() {
    assert_eq!(name("web", "5d"), "web-5d");
    assert_eq!(name(&"x".repeat(300), "5d").len(), PREFIX_BYTES_MAX + 3);
    let mut all = vec![revision("b", 2, json!(1)), revision("c", 1, json!(1)), revision("a", 2, json!(1))];
    sort(&mut all);
    let names = |revisions: &[Arc<ControllerRevision>]| -> Vec<String> {
        revisions.iter().filter_map(|r| r.metadata.name.clone()).collect()
    };
    assert_eq!(names(&all), ["c", "a", "b"]);
    assert_eq!((next_number(&all), next_number(&[])), (3, 1));
    assert_eq!(names(surplus(&all, 1)), ["c", "a"]);
    assert_eq!((surplus(&all, 3).len(), surplus(&all, -1).len(), surplus(&all, 0).len()), (0, 0, 3));
}
