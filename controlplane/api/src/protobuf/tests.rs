//! All kinds there and back, real bodies, and bytes that mean harm.

use proptest::prelude::*;

use super::{
    encode::{bytes, nested},
    table::Table,
    *,
};
use crate::kinds::tests::{examples, read};

fn message_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    nested(&mut out, 1, |out| {
        bytes(out, 1, version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

fn encode(object: &Value) -> Vec<u8> {
    super::encode(object).unwrap_or_else(|| panic!("{object} is not in the table"))
}

/// Metrics are told as JSON alone: no client asks for anything else.
const WITHOUT_MESSAGES: &str = "metrics.k8s.io";

fn with_messages() -> Vec<Value> {
    let has = |e: &Value| !e["apiVersion"].as_str().is_some_and(|v| v.starts_with(WITHOUT_MESSAGES));
    examples::all().into_iter().filter(has).collect()
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let mut kinds = std::collections::BTreeSet::new();
    for example in with_messages() {
        let (kind, object) = read(&example);
        let wanted = object.to_value().unwrap();
        let (_, got) = read(&decode(&encode(&wanted)).unwrap());
        assert_eq!(got.to_value().unwrap(), wanted);
        kinds.insert((kind.names().group, kind.names().kind));
    }
    for kind in crate::kinds::tests::every().into_iter().filter(|kind| kind.names().group != WITHOUT_MESSAGES) {
        assert!(kinds.contains(&(kind.names().group, kind.names().kind)), "{:?} has no example", kind.names());
    }
}

#[test]
fn lists_and_events() {
    let examples = with_messages();
    let pods: Vec<&Value> = examples.iter().filter(|e| e["kind"] == "Pod").collect();
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7", "remainingItemCount": 0},
        "items": pods,
    });
    let bytes = encode(&list);
    let root = TABLE.root("v1", "Pod").unwrap();
    let mut reader = Reader::new(Envelope::read(&bytes[4..]).unwrap().raw);
    let (mut meta, mut items) = (Map::new(), Vec::new());
    while let Some((number, wire)) = reader.field().unwrap() {
        let (index, into) = if number == 1 { (TABLE.list_meta(), &mut meta) } else { (root, &mut Map::new()) };
        Decoder::new(&TABLE).message(index, wire.bytes().unwrap(), into).unwrap();
        if number == 2 {
            items.push(into["metadata"]["name"].clone());
        }
    }
    assert_eq!(Value::Object(meta), list["metadata"]);
    assert_eq!(items, ["web"]);
    assert_eq!(super::encode(&serde_json::json!({"apiVersion": "a.b/v1", "kind": "C"})), None);
    assert_eq!(super::encode(&serde_json::json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})), None);
    assert_eq!(encode_event("ADDED", b"xy").unwrap(), b"\0\0\0\x0d\x0a\x05ADDED\x12\x04\x0a\x02xy");
}

#[test]
fn other_bodies_come_back_as_they_were() {
    for text in [
        "{apiVersion: v1, kind: DeleteOptions, gracePeriodSeconds: 0, orphanDependents: false, dryRun: [All],
          propagationPolicy: Foreground, preconditions: {uid: a}}",
        "{apiVersion: apps/v1, kind: DeleteOptions}",
        "{apiVersion: policy/v1, kind: Eviction, metadata: {name: a}, deleteOptions: {gracePeriodSeconds: 3}}",
        "{apiVersion: v1, kind: Binding, metadata: {name: a}, target: {kind: Node, name: n}}",
        "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: a}, spec: {replicas: 0}}",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: 0, revisionHistoryLimit: 0}}",
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {a: ''}, managedFields: [{fieldsV1: {'f:a': {}}}]},
          spec: {priority: -5, securityContext: {runAsUser: 0, supplementalGroups: [1, 2]}, volumes:
          [{name: v, emptyDir: {}}, {name: c, configMap: {name: m, optional: false, defaultMode: 0}}], containers:
          [{name: c, livenessProbe: {httpGet: {port: http}, periodSeconds: 1}, resources: {limits: {cpu: 100m}}},
           {name: d, envFrom: [{configMapRef: {name: m}}], readinessProbe: {tcpSocket: {port: 80}}}]}}",
    ] {
        let wanted: Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(decode(&encode(&wanted)).unwrap(), wanted, "{text}");
    }
}

#[test]
fn what_is_not_there_is_not_written() {
    // `deletionTimestamp` above all: Go's is a pointer, so an empty one says that the object is being deleted.
    let bytes = encode(&serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    assert_eq!(Envelope::read(&bytes[4..]).unwrap().raw, [0x0a, 3, 0x0a, 1, b'a']);
}

/// The value of one field of one message, from its bytes.
fn field_of(kind: &str, raw: &[u8]) -> Result<Value, String> {
    decode(&body("v1", kind, raw))
}

#[test]
fn values() {
    for (kind, raw, wanted) in [
        // A repeated message is merged, a repeated scalar counts once, unknown fields are skipped.
        (
            "Namespace",
            &[0x0a, 3, 0x0a, 1, b'a', 0x0a, 3, 0x1a, 1, b'n', 0x0a, 3, 0x0a, 1, b'b', 0xfa, 1, 1, 0][..],
            Ok(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b","namespace":"n"}}"#),
        ),
        // creationTimestamp: nothing, 1970, a second with nanos.
        ("Namespace", &[0x0a, 2, 0x42, 0], Ok(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{}}"#)),
        (
            "Namespace",
            &[0x0a, 6, 0x42, 4, 8, 0, 16, 0],
            Ok(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"creationTimestamp":"1970-01-01T00:00:00Z"}}"#),
        ),
        (
            "Namespace",
            &[0x0a, 6, 0x42, 4, 8, 1, 16, 1],
            Ok(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"creationTimestamp":"1970-01-01T00:00:01Z"}}"#),
        ),
        // An entry of a map without a value.
        ("ConfigMap", &[0x12, 3, 0x0a, 1, b'k'], Ok(r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"k":""}}"#)),
        ("ConfigMap", &[0x12, 7, 0x0a, 1, b'k', 0x12, 2, 0xff, 0xff], Err("data.k: the text is not UTF-8")),
        ("Namespace", &[0x0a, 3, 0x0a, 9, b'a'], Err("metadata: it ends in the middle of a field")),
        ("Namespace", &[0x0a, 3, 0x0a, 1, 0xff], Err("metadata.name: the text is not UTF-8")),
        ("Namespace", &[0x08, 1], Err("metadata: the wire has a varint where a length and bytes must stand")),
        (
            "Nonsense",
            &[],
            Err("no kind \"Nonsense\" of version \"v1\" can be read from protobuf: send JSON or YAML instead"),
        ),
    ] {
        let wanted = wanted.map(|t| serde_json::from_str::<Value>(t).unwrap()).map_err(str::to_owned);
        assert_eq!(field_of(kind, raw), wanted, "{raw:?}");
    }
}

#[test]
fn envelopes() {
    let compressed = {
        let mut out = MAGIC.to_vec();
        bytes(&mut out, 3, b"gzip");
        out
    };
    for (body, message) in [
        (b"{}".to_vec(), "it does not begin with the magic bytes of Kubernetes' protobuf"),
        (vec![], "it does not begin with the magic bytes of Kubernetes' protobuf"),
        (MAGIC.to_vec(), "no kind \"\" of version \"\" can be read from protobuf: send JSON or YAML instead"),
        (compressed, "the object in it is \"\" in the encoding \"gzip\": only plain protobuf can be read"),
    ] {
        assert_eq!(decode(&body).unwrap_err(), message);
    }
}

#[test]
fn depth_is_bounded() {
    let looped = Table::with_loop();
    let deep = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| message_of(|out| bytes(out, 1, &inner)));
    let read = |depth| Decoder::new(&looped).message(0, &deep(depth), &mut Map::new());
    assert_eq!(read(63), Ok(()));
    assert!(read(64).unwrap_err().to_string().ends_with("messages stand in each other more than 64 deep"));
    assert!(read(10_000).is_err());
}

#[test]
fn truncated_bodies_are_refused_or_read() {
    for example in with_messages() {
        let body = encode(&read(&example).1.to_value().unwrap());
        for end in 0..body.len() {
            if let Ok(value) = decode(&body[..end]) {
                assert!(value.is_object());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_safe(raw in prop::collection::vec(any::<u8>(), 0..200), kind in 0..TABLE.len()) {
        let _ = Decoder::new(&TABLE).message(kind, &raw, &mut Map::new());
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&raw);
        let _ = decode(&body);
    }

    #[test]
    fn changed_bodies_are_safe(
        example in 0..with_messages().len(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = encode(&read(&with_messages()[example]).1.to_value().unwrap());
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(value) = decode(&body) {
            prop_assert!(value.is_object());
        }
    }
}
