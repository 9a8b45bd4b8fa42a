//! An encoder guided by the same table, real bodies, and bytes that mean harm.

use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    table::{Field, Kind, Message, Shape, Table},
    *,
};
use crate::kinds::tests::{examples, read};

/// A key and a varint.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    varint(out, field << 3);
    varint(out, value.cast_unsigned());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn message_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Writes an object the way Go does: all that is there, zeros for what is no pointer, unset times as nothing.
fn message(message: &Message, object: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for field in &message.fields {
        let value = if field.shape == Shape::Embedded { None } else { object.get(field.name) };
        match (field.shape, value) {
            (Shape::Embedded, _) => {
                let Kind::Message(index) = field.kind else { panic!("field {} embeds a scalar", field.number) };
                bytes(&mut out, field.number, &self::message(&TABLE.messages()[index], object));
            }
            (Shape::One, None) => zero(&mut out, field),
            (_, None) => {}
            (Shape::One, Some(value)) => one(&mut out, field.number, field.kind, value),
            (Shape::List, Some(list)) => {
                list.as_array().unwrap().iter().for_each(|v| one(&mut out, field.number, field.kind, v));
            }
            (Shape::Map, Some(map)) => map.as_object().unwrap().iter().for_each(|(key, value)| {
                let entry = message_of(|out| {
                    bytes(out, 1, key.as_bytes());
                    one(out, 2, field.kind, value);
                });
                bytes(&mut out, field.number, &entry);
            }),
        }
    }
    out
}

fn zero(out: &mut Vec<u8>, field: &Field) {
    match field.kind {
        _ if field.zero_is_meant => {}
        Kind::String | Kind::Time => bytes(out, field.number, b""),
        Kind::Bool | Kind::Int32 | Kind::Int64 => number(out, field.number, 0),
        _ => {}
    }
}

fn one(out: &mut Vec<u8>, field: u64, kind: Kind, value: &Value) {
    let text = || value.as_str().unwrap().as_bytes();
    match kind {
        Kind::String => bytes(out, field, text()),
        Kind::Bytes => bytes(out, field, &base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text()).unwrap()),
        Kind::Bool => number(out, field, i64::from(value.as_bool().unwrap())),
        Kind::Int32 | Kind::Int64 => number(out, field, value.as_i64().unwrap()),
        Kind::Double => {
            varint(out, field << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap().to_le_bytes());
        }
        Kind::Quantity => bytes(out, field, &message_of(|out| bytes(out, 1, text()))),
        Kind::Json => bytes(out, field, &message_of(|out| bytes(out, 1, value.to_string().as_bytes()))),
        Kind::Time | Kind::MicroTime => {
            let when: Timestamp = value.as_str().unwrap().parse().unwrap();
            let inner = message_of(|out| {
                number(out, 1, when.as_second());
                number(out, 2, when.subsec_nanosecond().into());
            });
            bytes(out, field, &inner);
        }
        Kind::IntOrString => {
            let inner = message_of(|out| {
                number(out, 1, i64::from(value.is_string()));
                number(out, 2, value.as_i64().unwrap_or_default());
                bytes(out, 3, value.as_str().unwrap_or_default().as_bytes());
            });
            bytes(out, field, &inner);
        }
        Kind::Message(index) => bytes(out, field, &message(&TABLE.messages()[index], value.as_object().unwrap())),
    }
}

fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    bytes(
        &mut out,
        1,
        &message_of(|out| {
            bytes(out, 1, version.as_bytes());
            bytes(out, 2, kind.as_bytes());
        }),
    );
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

/// An object as a body.
fn encode(object: &Value) -> Vec<u8> {
    let text = |field: &str| object[field].as_str().unwrap();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let root = TABLE.root(version, kind).unwrap_or_else(|| panic!("{version} {kind} is not in the table"));
    body(version, kind, &message(&TABLE.messages()[root], object.as_object().unwrap()))
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let mut kinds = std::collections::BTreeSet::new();
    for example in examples::all() {
        let (kind, object) = read(&example);
        let wanted = object.to_value().unwrap();
        let (_, got) = read(&decode(&encode(&wanted)).unwrap());
        assert_eq!(got.to_value().unwrap(), wanted);
        kinds.insert(kind.names().kind);
    }
    for kind in crate::kinds::all() {
        assert!(kinds.contains(kind.names().kind), "{:?} has no example", kind.names());
    }
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
    let nested = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| message_of(|out| bytes(out, 1, &inner)));
    let read = |depth| Decoder::new(&looped).message(0, &nested(depth), &mut Map::new());
    assert_eq!(read(63), Ok(()));
    assert!(read(64).unwrap_err().to_string().ends_with("messages stand in each other more than 64 deep"));
    assert!(read(10_000).is_err());
}

#[test]
fn truncated_bodies_are_refused_or_read() {
    for example in examples::all() {
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
    fn any_bytes_are_safe(raw in prop::collection::vec(any::<u8>(), 0..200), kind in 0..TABLE.messages().len()) {
        let _ = Decoder::new(&TABLE).message(kind, &raw, &mut Map::new());
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&raw);
        let _ = decode(&body);
    }

    #[test]
    fn changed_bodies_are_safe(
        example in 0..examples::all().len(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = encode(&read(&examples::all()[example]).1.to_value().unwrap());
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(value) = decode(&body) {
            prop_assert!(value.is_object());
        }
    }
}
