//! `docs/compatibility.md`: its table is made of the list of kinds. With `UPDATE_EXPECT=1` this test writes it.

use std::{fmt::Write as _, path::Path};

use super::{subresource_verbs, verbs};
use crate::{kind::Scope, object::KindRef};

const BEGIN: &str = "<!-- begin: generated from the list of kinds -->\n";
const END: &str = "<!-- end -->\n";

fn row(out: &mut String, kind: &KindRef) {
    let names = kind.names();
    let mut subs = kind.subresources();
    subs.sort_by_key(|s| s.name);
    let subs: Vec<String> = subs.iter().map(|s| format!("{} ({})", s.name, subresource_verbs(s).join(" "))).collect();
    let all = verbs(kind);
    let verbs = match all.len() {
        8 => "all".to_owned(),
        7 if !all.contains(&"deletecollection") => "all but deletecollection".to_owned(),
        _ => all.join(" "),
    };
    let scope = if kind.scope() == Scope::Namespaced { "namespaced" } else { "cluster" };
    let categories: Vec<String> = names.categories.iter().map(|c| format!("({c})")).collect();
    let short: Vec<&str> = names.short.iter().copied().chain(categories.iter().map(String::as_str)).collect();
    let (short, subs) = (short.join(" "), subs.join(", "));
    let _ = writeln!(
        out,
        "| {} | {} | {} | {scope} | {verbs} | {subs} | {short} |",
        names.api_version(),
        names.kind,
        names.plural
    );
}

fn table() -> String {
    let kinds = crate::kinds::served();
    let mut out = String::from(
        "| apiVersion | kind | resource | scope | verbs | subresources | short names (categories) |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (group, versions) in std::iter::once(("", vec!["v1"])).chain(super::groups(&kinds)) {
        for version in versions {
            for kind in super::kinds_of(&kinds, group, version) {
                row(&mut out, kind);
            }
        }
    }
    out
}

#[test]
fn the_document_tells_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();
    let wanted = table();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, [head, BEGIN, &wanted, END, tail].concat()).unwrap();
    } else {
        assert_eq!(found, wanted, "docs/compatibility.md is out of date: run this test with UPDATE_EXPECT=1");
    }
}
