//! Label and field selectors: what they read, print, match and refuse.

//! Label and field selectors against objects: tables, and properties of parsing and printing.

use proptest::prelude::*;

use super::*;
use crate::{k8s_openapi::api::core::v1::ConfigMap, kind_of};

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn string_form_and_matching() {
    for (text, printed, yes, no) in [
        ("", "", "a=b", "-"),
        ("a=b", "a=b", "a=b,c=d", "a=c"),
        ("a==b", "a=b", "a=b", ""),
        ("a = b , c != d", "a=b,c!=d", "a=b", "a=b,c=d"),
        ("e in (y,x)", "e in (x,y)", "e=x", "e=z"),
        ("e in (x)", "e in (x)", "e=x", ""),
        ("g notin (z)", "g notin (z)", "h=1", "g=z"),
        ("!f", "!f", "a=b", "f=1"),
        ("f", "f", "f=", "a=b"),
        ("b,a", "a,b", "a=1,b=2", "a=1"),
        ("a in ()", "a in ()", "a=", "a=b"),
        ("a in (,x)", "a in (,x)", "a=", "a=b"),
        ("a=", "a=", "a=", "a=b"),
        ("in in (in)", "in in (in)", "in=in", "in=x"),
        ("n>5", "n>5", "n=6", "n=5"),
        ("n<5", "n<5", "n=-1", "n=x"),
        ("app.kubernetes.io/name=x", "app.kubernetes.io/name=x", "app.kubernetes.io/name=x", "name=x"),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.to_string(), printed);
        assert_eq!(Selector::parse(printed).unwrap(), selector, "{text}");
        assert!(selector.matches(&labels(yes)), "{text} should match {yes}");
        assert!(no == "-" || !selector.matches(&labels(no)), "{text} should not match {no}");
    }
}

#[test]
fn errors_say_what_was_found() {
    for (text, error) in [
        ("a=b,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("/x", "unable to parse requirement: key: Invalid value: \"/x\": prefix part must be non-empty"),
    ] {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), error, "{text}");
    }
    assert!(Selector::parse("a=-b").is_err());
}

#[test]
fn label_selectors() {
    let read = |json: serde_json::Value| serde_json::from_value::<LabelSelector>(json).unwrap();
    let selector = read(serde_json::json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "x", "operator": "Exists"}],
    }));
    assert_eq!(label_selector_string(Some(&selector)).unwrap(), "app=web,tier notin (db),x");
    assert!(label_selector_matches(Some(&selector), Some(&labels("app=web,x=1"))));
    assert!(!label_selector_matches(Some(&selector), Some(&labels("app=web,x=1,tier=db"))));
    assert!(label_selector_matches(Some(&LabelSelector::default()), None));
    assert!(!label_selector_matches(None, Some(&labels("a=b"))));
    let wrong = read(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}));
    let error = Selector::from_label_selector(Some(&wrong)).unwrap_err();
    assert_eq!(error.to_string(), "\"Near\" is not a valid label selector operator");
    let empty = read(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "In"}]}));
    assert!(Selector::from_label_selector(Some(&empty)).unwrap_err().to_string().contains("values set can't be empty"));
}

#[test]
fn field_selectors() {
    let map = |name: &str| {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("ns".to_owned());
        map
    };
    let kind = kind_of::<ConfigMap>();
    for (text, printed, yes, no) in [
        ("", "", "a", None),
        ("metadata.name=a", "metadata.name=a", "a", Some("b")),
        ("metadata.name==a,metadata.namespace=ns", "metadata.name=a,metadata.namespace=ns", "a", Some("b")),
        ("metadata.name!=a", "metadata.name!=a", "b", Some("a")),
        (r"metadata.name=a\,b", r"metadata.name=a\,b", "a,b", Some("a")),
        (r"metadata.name=a\=\\", r"metadata.name=a\=\\", "a=\\", Some("a")),
    ] {
        let selector = FieldSelector::parse(text).unwrap();
        assert_eq!(selector.to_string(), printed);
        assert!(selector.check(&*kind).is_ok());
        assert!(selector.matches(&*kind, &map(yes)), "{text}");
        assert!(no.is_none_or(|no| !selector.matches(&*kind, &map(no))), "{text}");
    }
    assert_eq!(FieldSelector::parse("spec.nodeName=n1").unwrap().exact("spec.nodeName"), Some("n1"));
    for (text, error) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        (r"a=b=c", "invalid field selector: unescaped character in value: ="),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), error);
    }
    let unknown = FieldSelector::parse("spec.foo=1").unwrap().check(&*kind).unwrap_err();
    assert_eq!(unknown.message, "field label not supported: spec.foo");
}

proptest! {
    #[test]
    fn parsing_never_panics_and_prints_what_it_reads(text in "[a-c!=<>(), ]{0,20}|\\PC{0,20}|([a-c](=|!=| in | notin )?[(]?[a-c,]{0,4}[)]?,?){0,4}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }

    #[test]
    fn field_selectors_never_panic(text in "[a-c!=,\\\\]{0,20}|\\PC{0,20}") {
        if let Ok(selector) = FieldSelector::parse(&text) {
            let again = FieldSelector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(again, selector);
        }
    }
}
