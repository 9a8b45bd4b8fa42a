//! The truth tables of Kubernetes' e2e tests for NetworkPolicies: pods `a`, `b`, `c` of the namespaces `x`, `y`, `z`, each
//! labelled `pod: NAME`, with the named ports `serve-80-tcp`, `serve-81-tcp`, `serve-80-udp`, `serve-81-udp`.
//!
//! # Source
//! Kubernetes `test/e2e/network/netpol/network_policy.go`; each case is named as there.

use std::fmt::Write as _;

use super::*;
use crate::policy::{Operator, Requirement, Selector};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const TCP: Protocol = Protocol::Tcp;

fn ip(namespace: &str, pod: &str) -> IpAddr {
    let of = |all: &[&str], one: &str| u8::try_from(all.iter().position(|known| *known == one).unwrap()).unwrap();
    IpAddr::from([10, 244, of(&NAMESPACES, namespace), 10 + of(&PODS, pod)])
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn pod(namespace: &str, name: &str, extra: &[(&str, &str)]) -> PodFacts {
    let named = [("tcp", TCP), ("udp", Protocol::Udp)].into_iter().flat_map(|(word, protocol)| {
        [80, 81].map(|port| NamedPort { name: format!("serve-{port}-{word}"), protocol, port })
    });
    let pairs: Vec<_> = [("pod", name)].iter().chain(extra).copied().collect();
    let (labels, ports) = (labels(&pairs), named.collect());
    PodFacts { name: Name::new(namespace, name), ips: vec![ip(namespace, name)], labels, ports }
}

fn world() -> PolicyTable {
    let mut table = PolicyTable::default();
    for namespace in NAMESPACES {
        table.put_namespace(namespace, labels(&[(NAMESPACE_NAME, namespace)]));
        for name in PODS {
            table.put_pod(pod(namespace, name, &[]));
        }
    }
    table
}

/// Who may not: `x/b>x/a` for each pair that is refused; loops are left out, as there.
fn refused(table: &PolicyTable, port: u16, protocol: Protocol) -> String {
    let all: Vec<_> = NAMESPACES.iter().flat_map(|n| PODS.iter().map(move |p| (*n, *p))).collect();
    let mut out = String::new();
    for (from_n, from_p) in &all {
        for (to_n, to_p) in all.iter().filter(|to| **to != (*from_n, *from_p)) {
            let to = SocketAddr::new(ip(to_n, to_p), port);
            if !table.decide(Source::Ip(ip(from_n, from_p)), to, protocol).allowed() {
                let _ = write!(out, "{from_n}/{from_p}>{to_n}/{to_p} ");
            }
        }
    }
    out
}

/// What the tables expect: all pairs that some pattern such as `x/*>y/a` takes and no pattern with `!` does.
fn expected(patterns: &str) -> String {
    let all: Vec<_> = NAMESPACES.iter().flat_map(|n| PODS.iter().map(move |p| format!("{n}/{p}"))).collect();
    let side = |pattern: &str, pod: &str| match pattern.split_once('/') {
        Some((namespace, name)) => {
            let (n, p) = pod.split_once('/').unwrap();
            (namespace == "*" || namespace == n) && (name == "*" || name == p)
        }
        None => pattern == "*",
    };
    let takes = |pattern: &str, from: &str, to: &str| {
        let (f, t) = pattern.split_once('>').unwrap();
        side(f, from) && side(t, to)
    };
    let mut out = String::new();
    for from in &all {
        for to in all.iter().filter(|to| *to != from) {
            let mut denied = false;
            for pattern in patterns.split_whitespace() {
                match pattern.strip_prefix('!') {
                    Some(not) => denied &= !takes(not, from, to),
                    None => denied |= takes(pattern, from, to),
                }
            }
            if denied {
                let _ = write!(out, "{from}>{to} ");
            }
        }
    }
    out
}

fn label(key: &str, value: &str) -> Selector {
    Selector::label(key, value)
}

fn pod_is(name: &str) -> Selector {
    label("pod", name)
}

fn any() -> Selector {
    Selector::default()
}

fn expression(key: &str, operator: Operator, values: &[&str]) -> Selector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Selector(vec![Requirement { key: key.to_owned(), operator, values }])
}

fn namespace_is(name: &str) -> Selector {
    label(NAMESPACE_NAME, name)
}

fn namespace_is_not(name: &str) -> Selector {
    expression(NAMESPACE_NAME, Operator::NotIn, &[name])
}

fn peer(namespaces: Option<Selector>, pods: Selector) -> PolicyPeer {
    PolicyPeer::Pods { namespaces, pods }
}

fn block(range: &str, except: &[&str]) -> PolicyPeer {
    let except = except.iter().map(|range| range.parse().unwrap()).collect();
    PolicyPeer::Block { range: range.parse().unwrap(), except }
}

fn port(protocol: Option<Protocol>, port: PortMatch) -> PolicyPort {
    PolicyPort { protocol, port }
}

fn tcp(number: u16) -> PolicyPort {
    port(Some(TCP), PortMatch::Range(number, number))
}

fn named(name: &str) -> PolicyPort {
    port(Some(TCP), PortMatch::Named(name.to_owned()))
}

fn rule(peers: Vec<PolicyPeer>, ports: Vec<PolicyPort>) -> PolicyRule {
    PolicyRule { peers, ports }
}

type Rules = Option<Vec<PolicyRule>>;

fn policy(namespace: &str, name: &str, pods: Selector, ingress: Rules, egress: Rules) -> NetworkPolicy {
    NetworkPolicy { name: Name::new(namespace, name), pods, ingress, egress }
}

/// One policy in `x` that lets these in to `x/a`, or to all pods.
fn lets_in(pods: Selector, rules: Vec<PolicyRule>) -> Vec<NetworkPolicy> {
    vec![policy("x", "in", pods, Some(rules), None)]
}

fn lets_out(pods: Selector, rules: Vec<PolicyRule>) -> Vec<NetworkPolicy> {
    vec![policy("x", "out", pods, None, Some(rules))]
}

fn check(case: &str, policies: Vec<NetworkPolicy>, port: u16, protocol: Protocol, patterns: &str) {
    let mut table = world();
    for policy in policies {
        table.put_policy(policy);
    }
    assert_eq!(refused(&table, port, protocol), expected(patterns), "{case}, port {port}");
}

#[test]
fn the_table_of_expectations_can_fail() {
    assert_eq!(expected("y/b>x/a"), "y/b>x/a ");
    assert_eq!(expected("*>x/a !x/*>x/a !z/*>x/a !y/a>x/a"), "y/b>x/a y/c>x/a ");
    assert_eq!(refused(&world(), 80, TCP), "");
}

#[test]
fn default_deny() {
    check("default-deny-ingress", lets_in(any(), vec![]), 80, TCP, "*>x/*");
    let all = vec![policy("x", "deny-all", any(), Some(vec![]), Some(vec![]))];
    check("default-deny-all", all, 80, TCP, "*>x/* x/*>*");
    check("deny egress from all pods in a namespace", lets_out(any(), vec![]), 80, TCP, "x/*>*");
    check("deny egress from pods based on PodSelector", lets_out(pod_is("a"), vec![]), 80, TCP, "x/a>*");
}

#[test]
fn peers_are_selected() {
    let a = |peers: Vec<PolicyPeer>| lets_in(pod_is("a"), vec![rule(peers, vec![])]);
    let not_x = || Some(namespace_is_not("x"));
    let b_or_c = expression("pod", Operator::In, &["b", "c"]);
    let is_y = expression(NAMESPACE_NAME, Operator::In, &["y"]);
    let is_b = expression("pod", Operator::In, &["b"]);
    for (case, peers, patterns) in [
        ("within server namespace based on PodSelector", vec![peer(None, pod_is("b"))], "*>x/a !x/b>x/a"),
        ("from pods in all namespaces", vec![peer(Some(any()), any())], ""),
        ("different namespace by NamespaceSelector", vec![peer(Some(namespace_is("y")), any())], "*>x/a !y/*>x/a"),
        ("PodSelector with MatchExpressions", vec![peer(None, is_b)], "*>x/a !x/b>x/a"),
        ("NamespaceSelector with MatchExpressions", vec![peer(Some(is_y), any())], "*>x/a !y/*>x/a"),
        ("PodSelector or NamespaceSelector", vec![peer(not_x(), any()), peer(None, pod_is("b"))], "x/c>x/a"),
        ("PodSelector and NamespaceSelector", vec![peer(not_x(), pod_is("b"))], "*>x/a !y/b>x/a !z/b>x/a"),
        ("Multiple PodSelectors and NamespaceSelectors", vec![peer(not_x(), b_or_c)], "x/*>x/a y/a>x/a z/a>x/a"),
        ("any PodSelectors", vec![peer(None, pod_is("b")), peer(None, pod_is("c"))], "*>x/a !x/*>x/a"),
        ("a pod in a different namespace", vec![peer(Some(namespace_is("y")), pod_is("a"))], "*>x/a !y/a>x/a"),
    ] {
        check(case, a(peers), 80, TCP, patterns);
    }
    let own = lets_in(any(), vec![rule(vec![peer(None, any())], vec![])]);
    check("deny ingress from pods on other namespaces", own, 80, TCP, "y/*>x/* z/*>x/*");
    let to = |peers| lets_out(pod_is("a"), vec![rule(peers, vec![])]);
    let y_a = || peer(Some(namespace_is("y")), pod_is("a"));
    check("egress to a server in a different namespace", to(vec![y_a()]), 80, TCP, "x/a>* !x/a>y/a");
}

#[test]
fn ports_of_the_target() {
    let y_81 = || rule(vec![peer(Some(namespace_is("y")), any())], vec![tcp(81)]);
    check("based on Ports", lets_in(pod_is("a"), vec![y_81()]), 81, TCP, "*>x/a !y/*>x/a");
    check("based on Ports", lets_in(pod_is("a"), vec![y_81()]), 80, TCP, "*>x/a");
    let named_81 = || lets_in(any(), vec![rule(vec![], vec![named("serve-81-tcp")])]);
    check("ingress on one named port", named_81(), 81, TCP, "");
    check("ingress on one named port", named_81(), 80, TCP, "*>x/*");
    let from_y = || vec![rule(vec![peer(Some(namespace_is("y")), any())], vec![named("serve-80-tcp")])];
    check("from namespace on one named port", lets_in(pod_is("a"), from_y()), 80, TCP, "*>x/a !y/*>x/a");
    check("from namespace on one named port", lets_in(pod_is("a"), from_y()), 81, TCP, "*>x/a");
    let out_80 = || lets_out(any(), vec![rule(vec![], vec![named("serve-80-tcp")])]);
    check("egress on one named port", out_80(), 80, TCP, "");
    check("egress on one named port", out_80(), 81, TCP, "x/*>*");
    let range = || lets_out(pod_is("a"), vec![rule(vec![], vec![port(Some(TCP), PortMatch::Range(81, 90))])]);
    check("endPort", range(), 90, TCP, "");
    check("endPort", range(), 80, TCP, "x/a>*");
    check("endPort", range(), 91, TCP, "x/a>*");
    let only_tcp = || lets_in(pod_is("a"), vec![rule(vec![], vec![port(Some(TCP), PortMatch::Any)])]);
    check("any port on a specific protocol", only_tcp(), 80, TCP, "");
    check("any port on a specific protocol", only_tcp(), 80, Protocol::Udp, "*>x/a");
    let sctp = || vec![rule(vec![], vec![port(None, PortMatch::Range(81, 81))])];
    let mut both = lets_in(any(), vec![]);
    both.push(policy("x", "sctp", pod_is("a"), Some(sctp()), None));
    check("SCTP is not TCP", both, 81, TCP, "*>x/*");
    check("SCTP isolates", lets_in(pod_is("a"), sctp()), 81, TCP, "*>x/a");
    check("SCTP isolates", lets_in(pod_is("a"), sctp()), 80, Protocol::Udp, "*>x/a");
}

#[test]
fn datagrams_are_judged_as_connections_are() {
    const UDP: Protocol = Protocol::Udp;
    check("default-deny-ingress, UDP", lets_in(any(), vec![]), 80, UDP, "*>x/*");
    let y_a = || vec![peer(Some(namespace_is("y")), pod_is("a"))];
    let from = || lets_in(pod_is("a"), vec![rule(y_a(), vec![])]);
    check("a pod in a different namespace, UDP", from(), 80, UDP, "*>x/a !y/a>x/a");
    let by_port = || {
        let udp_81 = port(Some(UDP), PortMatch::Range(81, 81));
        lets_in(pod_is("a"), vec![rule(vec![peer(Some(namespace_is("y")), any())], vec![udp_81])])
    };
    check("based on Ports, UDP", by_port(), 81, UDP, "*>x/a !y/*>x/a");
    check("based on Ports, UDP", by_port(), 80, UDP, "*>x/a");
    check("TCP where only UDP is allowed", by_port(), 81, TCP, "*>x/a");
    let named_udp = lets_in(any(), vec![rule(vec![], vec![port(Some(UDP), PortMatch::Named("serve-81-udp".into()))])]);
    check("named port, UDP", named_udp, 81, UDP, "");
}

#[test]
fn policies_add_up() {
    let y = |number| vec![rule(vec![peer(Some(namespace_is("y")), any())], vec![tcp(number)])];
    let mut stacked = lets_in(pod_is("a"), y(81));
    check("stacked policies", stacked.clone(), 80, TCP, "*>x/a");
    stacked.push(policy("x", "in-80", pod_is("a"), Some(y(80)), None));
    check("stacked policies", stacked, 80, TCP, "*>x/a !y/*>x/a");
    let everything = || vec![rule(vec![], vec![])];
    check("allow-all policy", lets_in(any(), everything()), 80, TCP, "");
    let only_80 = || vec![rule(vec![], vec![tcp(80)])];
    let mut ingress = lets_in(any(), only_80());
    check("ingress allow-all takes precedence", ingress.clone(), 81, TCP, "*>x/*");
    ingress.push(policy("x", "all", any(), Some(everything()), None));
    check("ingress allow-all takes precedence", ingress, 81, TCP, "");
    let mut egress = lets_out(any(), only_80());
    check("egress allow-all takes precedence", egress.clone(), 81, TCP, "x/*>*");
    egress.push(policy("x", "all", any(), None, Some(everything())));
    check("egress allow-all takes precedence", egress, 81, TCP, "");
    let mut target = lets_in(any(), vec![]);
    target.push(policy("x", "a", pod_is("a"), Some(vec![rule(vec![peer(Some(any()), any())], vec![])]), None));
    check("ingress traffic for a target", target, 80, TCP, "*>x/b *>x/c");
}

#[test]
fn both_directions() {
    let from_b = Some(vec![rule(vec![peer(None, pod_is("b"))], vec![])]);
    let both = || vec![policy("x", "both", pod_is("a"), from_b.clone(), Some(vec![rule(vec![], vec![tcp(80)])]))];
    check("Ingress, Egress specified together", both(), 80, TCP, "*>x/a !x/b>x/a");
    check("Ingress, Egress specified together", both(), 81, TCP, "*>x/a !x/b>x/a x/a>*");
    let to_ya = vec![rule(vec![peer(Some(namespace_is("y")), pod_is("a"))], vec![])];
    let from_xa = || Some(vec![rule(vec![peer(Some(namespace_is("x")), pod_is("a"))], vec![])]);
    let mut client = lets_out(pod_is("a"), to_ya);
    client.push(policy("y", "a", pod_is("a"), from_xa(), None));
    client.push(policy("y", "b", pod_is("b"), from_xa(), None));
    check("egress denied on the client side", client, 80, TCP, "x/a>* !x/a>y/a *>y/a !x/a>y/a *>y/b");
    let mut apart = lets_out(pod_is("a"), vec![rule(vec![], vec![])]);
    check("controlled independently", apart.clone(), 80, TCP, "");
    apart.extend(lets_in(pod_is("a"), vec![]));
    check("controlled independently", apart, 80, TCP, "*>x/a");
}

#[test]
fn addresses() {
    let to = |peers| lets_out(pod_is("a"), vec![rule(peers, vec![])]);
    let y_b = format!("{}/32", ip("y", "b"));
    check("egress to server in CIDR block", to(vec![block(&y_b, &[])]), 80, TCP, "x/a>* !x/a>y/b");
    let x_b = format!("{}/32", ip("x", "b"));
    let except = || block("10.244.0.0/24", &[&x_b]);
    check("except clause", to(vec![except()]), 80, TCP, "x/a>* !x/a>x/c");
    let overlap = to(vec![except(), block(&x_b, &[])]);
    check("overlapping both IPBlock.CIDR and IPBlock.Except", overlap, 80, TCP, "x/a>* !x/a>x/c !x/a>x/b");
}

#[test]
fn changes_of_policies_labels_and_pods() {
    let mut table = world();
    let see = |table: &PolicyTable| refused(table, 80, TCP);
    table.put_policy(policy("x", "p", any(), Some(vec![rule(vec![], vec![])]), None));
    assert_eq!(see(&table), "", "enforce updated policy");
    assert!(table.put_policy(policy("x", "p", any(), Some(vec![]), None)));
    assert!(!table.put_policy(policy("x", "p", any(), Some(vec![]), None)), "nothing new");
    assert_eq!(see(&table), expected("*>x/*"), "enforce updated policy");
    assert!(table.remove_policy(&Name::new("x", "p")));
    assert_eq!(see(&table), "", "stop enforcing policies after they are deleted");
    assert!(!table.has_policies());
    let from = |peer| policy("x", "p", pod_is("a"), Some(vec![rule(vec![peer], vec![])]), None);
    table.put_policy(from(peer(Some(label("ns2", "updated")), any())));
    assert_eq!(see(&table), expected("*>x/a"));
    table.put_namespace("y", labels(&[("ns2", "updated")]));
    assert_eq!(see(&table), expected("*>x/a !y/*>x/a"), "ingress from updated namespace");
    table.put_policy(from(peer(None, label("pod2", "updated"))));
    assert_eq!(see(&table), expected("*>x/a"));
    assert_eq!(table.put_pod(pod("x", "b", &[("pod2", "updated")])).len(), 2);
    assert_eq!(see(&table), expected("*>x/a !x/b>x/a"), "ingress from updated pod");
    table.put_policy(policy("x", "p", label("target", "isolated"), Some(vec![]), None));
    assert_eq!(see(&table), "");
    table.put_pod(pod("x", "a", &[("target", "isolated")]));
    assert_eq!(see(&table), expected("*>x/a"), "deny ingress access to updated pod");
    table.put_pod(PodFacts { name: Name::new("z", "late"), ..pod("x", "a", &[]) });
    table.remove_pod(&Name::new("x", "a"));
    assert_eq!(see(&table), "", "the address is another's by now");
}

#[test]
fn the_node_a_pod_itself_and_hosts_outside() {
    let mut table = world();
    table.put_policy(policy("x", "deny", any(), Some(vec![]), Some(vec![])));
    let to = |at: IpAddr| SocketAddr::new(at, 80);
    let allowed = |table: &PolicyTable, from, at| table.decide(from, to(at), TCP).allowed();
    let (x_a, outside) = (ip("x", "a"), IpAddr::from([203, 0, 113, 7]));
    assert!(allowed(&table, Source::Node, x_a), "probes");
    assert!(allowed(&table, Source::Ip(x_a), x_a), "a pod reaches itself");
    assert!(!allowed(&table, Source::Ip(outside), x_a));
    assert!(!allowed(&table, Source::Ip(x_a), outside));
    assert!(allowed(&table, Source::Ip(outside), ip("y", "a")));
    table.put_policy(policy("x", "in", any(), Some(vec![rule(vec![block("203.0.113.0/24", &[])], vec![])]), None));
    assert!(allowed(&table, Source::Ip(outside), x_a), "a client outside, by its address");
    assert!(!allowed(&table, Source::Ip([198, 51, 100, 1].into()), x_a));
    table.put_policy(policy("x", "all", any(), Some(vec![rule(vec![peer(Some(any()), any())], vec![])]), None));
    assert!(!allowed(&table, Source::Ip([198, 51, 100, 1].into()), x_a), "all namespaces are not the world");
    let out = vec![rule(vec![block("0.0.0.0/0", &["203.0.113.0/24"])], vec![tcp(80)])];
    table.put_policy(policy("x", "out", any(), None, Some(out)));
    assert!(!allowed(&table, Source::Ip(x_a), outside));
    assert!(allowed(&table, Source::Ip(x_a), [198, 51, 100, 1].into()));
    let judged = table.decide(Source::Ip(x_a), to(outside), TCP).egress.unwrap();
    assert_eq!(judged.policies, ["deny", "out"]);
}

#[test]
fn names_are_looked_up_where_dns_could_be() {
    let udp_53 = || vec![port(Some(Protocol::Udp), PortMatch::Range(53, 53))];
    let system = || peer(Some(namespace_is("kube-system")), label("k8s-app", "kube-dns"));
    for (case, egress, expected) in [
        ("nothing", vec![], false),
        ("everything", vec![rule(vec![], vec![])], true),
        ("the port to anybody", vec![rule(vec![], udp_53())], true),
        ("the pods of the DNS", vec![rule(vec![system()], udp_53())], true),
        ("its named port", vec![rule(vec![system()], vec![named("dns-tcp")])], true),
        ("its namespace", vec![rule(vec![peer(Some(namespace_is("kube-system")), any())], vec![])], true),
        ("another namespace", vec![rule(vec![peer(Some(namespace_is("y")), any())], vec![])], false),
        ("another port", vec![rule(vec![system()], vec![tcp(80)])], false),
        ("the world", vec![rule(vec![block("0.0.0.0/0", &[])], vec![])], true),
        ("a part of the world", vec![rule(vec![block("203.0.113.0/24", &[])], vec![])], false),
    ] {
        let mut table = world();
        table.put_policy(policy("x", "p", any(), None, Some(egress)));
        let decide = |namespace| table.decide_names(Source::Ip(ip(namespace, "a")), None).allowed();
        assert_eq!((decide("x"), decide("y")), (expected, true), "{case}");
    }
}
