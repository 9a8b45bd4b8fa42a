//! Which route a request takes: the shapes of Gateway API's conformance tests, and Ingress' rules, as tables.

use http::Method;

use super::*;
use crate::routes::Pattern;

/// One route from words: `a.com *.b.com | POST =/exact /prefix ~/regex ::Method h:x=1 q:a=b | ...`, one match each.
fn route(name: &str, text: &str) -> Route {
    let mut parts = text.split('|');
    let hosts = parts.next().unwrap_or_default().split_whitespace().map(|name| Host::of_gateway(Some(name))).collect();
    let matches = parts.map(matched).collect();
    Route { name: name.into(), hosts, matches, action: Arc::default() }
}

fn matched(text: &str) -> Match {
    let mut found = Match::default();
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        let value = match value.strip_prefix('~') {
            Some(pattern) => TextPattern::Regex(Pattern::new(pattern).unwrap()),
            None => TextPattern::Exact(value.to_owned()),
        };
        (name.to_owned(), value)
    };
    for word in text.split_whitespace() {
        match word {
            word if word.starts_with("::") => found.path = PathPattern::GrpcMethod(word[2..].into()),
            word if word.starts_with("h:") => {
                let (name, value) = pair(&word[2..]);
                found.headers.push((name.parse().unwrap(), value));
            }
            word if word.starts_with("q:") => found.query.push(pair(&word[2..])),
            word if word.starts_with('=') => found.path = PathPattern::Exact(word[1..].into()),
            word if word.starts_with('~') => found.path = PathPattern::Regex(Pattern::new(&word[1..]).unwrap()),
            word if word.starts_with('/') => found.path = PathPattern::Prefix(word.into()),
            word => found.method = Some(word.parse().unwrap()),
        }
    }
    found
}

/// Requests are `METHOD host/path?query header=value ...`; what they find is the name of a route.
fn check(routes: &[(&str, &str)], requests: &[(&str, Option<&str>)]) {
    let table = RouteTable::new(routes.iter().map(|(name, text)| route(name, text)));
    for (text, expected) in requests {
        let mut words = text.split_whitespace();
        let method: Method = words.next().unwrap().parse().unwrap();
        let (host, path) = words.next().map(|at| at.split_at(at.find('/').unwrap())).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
            request = request.header(name, value);
        }
        let found = table.find(host, &request.body(()).unwrap()).map(|found| found.route.to_string());
        assert_eq!(found.as_deref(), *expected, "{text}");
    }
}

#[test]
fn matching() {
    // httproute-matching: rules of one route.
    check(
        &[("v1", "| / | h:version=one"), ("v2", "| /v2 | h:version=two")],
        &[
            ("GET x/", Some("v1")),
            ("GET x/example", Some("v1")),
            ("GET x/ version=one", Some("v1")),
            ("GET x/v2", Some("v2")),
            ("GET x/v2/", Some("v2")),
            ("GET x/v2/example", Some("v2")),
            ("GET x/v2example", Some("v1")),
            ("GET x/foo/v2/example", Some("v1")),
            ("GET x/ version=two", Some("v2")),
        ],
    );
}

#[test]
fn matching_across_routes() {
    check(
        &[("one", "example.com example.net | / | h:version=one"), ("two", "example.com | /v2 | h:version=two")],
        &[
            ("GET example.com/", Some("one")),
            ("GET example.com/example", Some("one")),
            ("GET example.net/example", Some("one")),
            ("GET example.com/example version=one", Some("one")),
            ("GET example.com/v2", Some("two")),
            ("GET example.com/v2example", Some("one")),
            ("GET example.com/foo/v2/example", Some("one")),
            ("GET example.com/ version=two", Some("two")),
            ("GET example.net/v2 version=two", Some("one")),
            ("GET example.org/", None),
        ],
    );
}

#[test]
fn order_of_paths() {
    check(
        &[
            ("any", "| /"),
            ("prefix-one", "| /match/prefix/one"),
            ("prefix", "| /match/prefix/"),
            ("match", "| /match"),
            ("exact", "| =/match"),
            ("exact-one", "| =/match/exact/one"),
            ("prefix-exact", "| /match/exact/"),
            ("regex", "| ~/match/[0-9]+"),
        ],
        &[
            ("GET x/match/exact/one", Some("exact-one")),
            ("GET x/match/exact", Some("prefix-exact")),
            ("GET x/match", Some("exact")),
            ("GET x/match/", Some("match")),
            ("GET x/match/prefix/one/any", Some("prefix-one")),
            ("GET x/match/prefix/any", Some("prefix")),
            ("GET x/match/any", Some("match")),
            ("GET x/match/17", Some("regex")),
            ("GET x/match/17x", Some("match")),
            ("GET x/any", Some("any")),
        ],
    );
}

#[test]
fn exact_paths() {
    check(
        &[("one", "| =/one"), ("two", "| =/two")],
        &[
            ("GET x/one", Some("one")),
            ("GET x/two", Some("two")),
            ("GET x/", None),
            ("GET x/one/example", None),
            ("GET x/one/", None),
            ("GET x/Two", None),
        ],
    );
}

#[test]
fn headers() {
    check(
        &[
            ("one", "| h:version=one"),
            ("two", "| h:version=two"),
            ("two-orange", "| h:version=two h:color=orange"),
            ("color", "| h:color=blue | h:color=green"),
            ("color-red", "| h:color=red | h:color=yellow"),
            ("regex", "| h:shape=~s.+e"),
            ("several", "| h:list=a,b"),
        ],
        &[
            ("GET x/ version=one", Some("one")),
            ("GET x/ Version=two", Some("two")),
            ("GET x/ version=two color=orange", Some("two-orange")),
            ("GET x/ version=two color=blue", Some("two")),
            ("GET x/ color=orange", None),
            ("GET x/ some-other-header=one", None),
            ("GET x/ color=green", Some("color")),
            ("GET x/ color=yellow", Some("color-red")),
            ("GET x/ color=purple", None),
            ("GET x/ shape=square", Some("regex")),
            ("GET x/ shape=squared-off", None),
            ("GET x/ list=a list=b", Some("several")),
        ],
    );
}

#[test]
fn queries() {
    check(
        &[
            ("whale", "| q:animal=whale"),
            ("dolphin", "| q:animal=dolphin"),
            ("dolphin-blue", "| q:animal=dolphin q:color=blue"),
            ("path", "| /path1 q:animal=whale"),
            ("path-header", "| /path3 q:animal=shark h:version=one"),
            ("path-header-only", "| /path3 h:version=one"),
            ("ANIMAL", "| q:ANIMAL=Whale"),
        ],
        &[
            ("GET x/?animal=whale", Some("whale")),
            ("GET x/?animal=dolphin", Some("dolphin")),
            ("GET x/?animal=whale&otherparam=irrelevant", Some("whale")),
            ("GET x/?animal=dolphin&color=yellow", Some("dolphin")),
            ("GET x/?color=blue&animal=dolphin", Some("dolphin-blue")),
            ("GET x/?animal=whale&animal=dolphin", Some("whale")),
            ("GET x/?ANIMAL=Whale", Some("ANIMAL")),
            ("GET x/path1?animal=whale", Some("path")),
            ("GET x/path3?animal=shark version=one", Some("path-header")),
            ("GET x/path3?animal=whale version=one", Some("path-header-only")),
            ("GET x/", None),
            ("GET x/?animal=shark", None),
            ("GET x/?animal=whal%65", Some("whale")),
        ],
    );
}

#[test]
fn methods() {
    check(
        &[
            ("post", "| POST"),
            ("get", "| GET"),
            ("path1", "| /path1 GET"),
            ("path2", "| PUT h:version=one /path2"),
            ("path2-post", "| /path2 POST h:version=two"),
            ("path3", "| /path3 PATCH"),
            ("path4", "| /path4 DELETE h:version=three"),
            ("path5-header", "| /path5 h:version=four"),
            ("path5", "| /path5 PATCH"),
        ],
        &[
            ("POST x/", Some("post")),
            ("GET x/", Some("get")),
            ("HEAD x/", None),
            ("GET x/path1", Some("path1")),
            ("PUT x/path2 version=one", Some("path2")),
            ("POST x/path2 version=two", Some("path2-post")),
            ("PATCH x/path5 version=four", Some("path5")),
            ("PUT x/path5 version=four", Some("path5-header")),
            ("PUT x/", None),
        ],
    );
}

#[test]
fn hosts() {
    check(
        &[
            ("wild", "*.example.com | /"),
            ("wilder", "*.com | /"),
            ("narrow", "*.very.example.com | /"),
            ("exact", "very.example.com | /s1"),
            ("any", "| /any"),
        ],
        &[
            ("GET very.example.com/s1", Some("exact")),
            ("GET VERY.Example.com:8080/s1", Some("exact")),
            ("GET very.example.com./s1", Some("exact")),
            ("GET very.example.com/s2", Some("wild")),
            ("GET a.b.example.com/", Some("wild")),
            ("GET a.very.example.com/", Some("narrow")),
            ("GET example.com/", Some("wilder")),
            ("GET .com/", None),
            ("GET com/any", Some("any")),
            ("GET other.org/", None),
        ],
    );
}

#[test]
fn the_first_of_equals_wins_and_more_matches_are_alternatives() {
    check(
        &[("older", "| /a | /b"), ("newer", "| /b | /c")],
        &[("GET x/a", Some("older")), ("GET x/b", Some("older")), ("GET x/c", Some("newer"))],
    );
}

#[test]
fn calls_of_grpc() {
    check(
        &[
            ("any", "| h:version=two"),
            ("method", "| ::Echo"),
            ("service", "| /pkg.Echo/"),
            ("both", "| =/pkg.Echo/EchoTwo"),
        ],
        &[
            ("POST x/pkg.Echo/EchoTwo", Some("both")),
            ("POST x/pkg.Echo/Echo", Some("service")),
            ("POST x/other.Echo/Echo", Some("method")),
            ("POST x/other.Echo/Echos", None),
            ("POST x//Echo", None),
            ("POST x/other/Any version=two", Some("any")),
        ],
    );
}

#[test]
fn a_prefix_tells_its_length() {
    let table = RouteTable::new([route("a", "| /foo/ | =/bar/x | /")]);
    for (path, length) in [("/foo/x", 4), ("/foo", 4), ("/bar/x", 6), ("/other", 0)] {
        let found = table.find("x", &Request::get(path).body(()).unwrap()).unwrap();
        assert_eq!(found.prefix_bytes, length, "{path}");
    }
}

/// What a connection is for that names a host: the shapes of `tlsroute-hostname-intersection`.
#[test]
fn hosts_of_connections() {
    for (routes, hosts) in [
        (
            &[("wild", "*.a.com"), ("exact", "x.a.com")][..],
            &[("x.a.com", "exact"), ("y.a.com", "wild"), ("a.com", "")][..],
        ),
        (
            &[("exact", "abc.example.com"), ("wide", "*.com")],
            &[("abc.example.com", "exact"), ("other.example.com", "wide")],
        ),
        (
            &[("wide", "*.com"), ("narrow", "*.example.com"), ("any", "")],
            &[("abc.example.com", "narrow"), ("x.com", "wide"), ("x.org", "any")],
        ),
    ] {
        let table = RouteTable::new(routes.iter().map(|(name, text)| route(name, text)));
        for (host, expected) in hosts {
            let found = table.find_host(host).map(|found| found.route.to_string()).unwrap_or_default();
            assert_eq!(found, *expected, "{host}");
        }
    }
}
