//! What a cluster tells others of its network: names by DNS, spans of requests by OTLP.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use domain::{
    base::{Message, MessageBuilder, Name, Rtype, iana::Rcode},
    rdata::{A, Cname, Ptr, Srv},
};
use libtest_mimic::Trial;
use podium_e2e::Cluster;
use serde_json::Value;

use crate::{
    life::{apply, json, until},
    trial,
};

/// How long an answer may take. Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("names_of_the_cluster_are_answered_by_dns", names_of_the_cluster_are_answered_by_dns),
        trial("spans_reach_a_collector", spans_reach_a_collector),
    ]
}

/// A client of DNS.
struct Names(SocketAddr);

impl Names {
    fn by_udp(&self, name: &str, kind: Rtype) -> Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&question(name, kind)?, self.0)?;
        let mut answer = vec![0; 4096];
        let count = socket.recv(&mut answer).with_context(|| format!("ask for {name}"))?;
        answer.truncate(count);
        Ok(answer)
    }

    fn by_tcp(&self, name: &str, kind: Rtype) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let question = question(name, kind)?;
        stream.write_all(&u16::try_from(question.len())?.to_be_bytes())?;
        stream.write_all(&question)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Code and records of an answer, in words; both ways of asking give the same.
    fn ask(&self, name: &str, kind: Rtype) -> Result<String> {
        let (by_udp, by_tcp) = (said(&self.by_udp(name, kind)?)?, said(&self.by_tcp(name, kind)?)?);
        ensure!(by_udp == by_tcp, "{name}: {by_udp} by UDP, {by_tcp} by TCP");
        Ok(by_udp)
    }
}

fn question(name: &str, kind: Rtype) -> Result<Vec<u8>> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut section = builder.question();
    section.push((Name::<Vec<u8>>::vec_from_str(name)?, kind))?;
    Ok(section.finish())
}

/// An answer as `CODE record record`.
fn said(answer: &[u8]) -> Result<String> {
    let answer = Message::from_octets(answer)?;
    ensure!(answer.header().id() == 4711 && answer.header().qr(), "it is no answer to the question");
    let mut words = vec![answer.header().rcode().to_string()];
    for record in answer.answer()?.limit_to::<Cname<_>>() {
        words.push(format!("CNAME {}", record?.data().cname()));
    }
    let addresses = answer.answer()?.limit_to::<A>().map(|record| Ok(record?.data().addr().to_string()));
    let mut addresses = addresses.collect::<Result<Vec<_>>>()?;
    addresses.sort_unstable();
    words.extend(addresses);
    for record in answer.answer()?.limit_to::<Srv<_>>() {
        let record = record?;
        words.push(format!("SRV {} {}", record.data().port(), record.data().target()));
    }
    for record in answer.answer()?.limit_to::<Ptr<_>>() {
        words.push(format!("PTR {}", record?.data().ptrdname()));
    }
    Ok(words.join(" "))
}

const NAMED: &str = "
apiVersion: v1
kind: Service
metadata: {name: pods}
spec: {clusterIP: None, selector: {app: hello}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: hello.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: ExternalName, externalName: far.example.com}
";

/// A server of names that says 192.0.2.7, whatever it is asked.
fn elsewhere() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let answer = move |asked: &[u8]| -> Result<Vec<u8>> {
        let asked = Message::from_octets(asked)?;
        let name = asked.sole_question()?.into_qname();
        let mut section = MessageBuilder::new_vec().start_answer(&asked, Rcode::NOERROR)?;
        section.push((name, 60, A::from_octets(192, 0, 2, 7)))?;
        Ok(section.finish())
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            // Who does not hear asks again.
            let _ = answer(&buffer[..count]).map(|answer| socket.send_to(&answer, client));
        }
    });
    Ok(address)
}

fn names_of_the_cluster_are_answered_by_dns() -> Result<()> {
    let upstream = elsewhere()?.to_string();
    let args = ["--dns", "127.0.0.1:0", "--dns-upstream", &upstream];
    let cluster = Cluster::start_with(&["examples/hello"], &args)?;
    let line = cluster.podium.stdout.lines().find(|line| line.trim_start().starts_with("dns "));
    let address = line.and_then(|line| line.split_whitespace().nth(1)).context("up says where names are answered")?;
    let names = Names(address.parse()?);
    apply(&cluster, NAMED)?;

    let hello = json(&cluster, &["get", "service", "hello"])?["spec"]["clusterIP"].clone();
    let hello: IpAddr = hello.as_str().context("a Service has an address")?.parse()?;
    let pods = json(&cluster, &["get", "pods", "-l", "app=hello"])?;
    let pods = pods["items"].as_array().context("a list has items")?;
    let mut pods: Vec<_> = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    pods.sort_unstable();
    let all_pods = format!("NOERROR {}", pods.join(" "));
    let zone = "default.svc.cluster.local";
    until("the new Services have names", || {
        let headless = names.ask(&format!("pods.{zone}"), Rtype::A)?;
        Ok(headless == all_pods && names.ask(&format!("far.{zone}"), Rtype::A)?.starts_with("NOERROR CNAME"))
    })?;
    let reverse = match hello {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => bail!("{ip} is none of the range of Services"),
    };
    for (name, kind, wanted) in [
        (format!("hello.{zone}"), Rtype::A, format!("NOERROR {hello}")),
        (format!("HELLO.{zone}"), Rtype::A, format!("NOERROR {hello}")),
        (format!("hello.{zone}"), Rtype::AAAA, "NOERROR".to_owned()),
        (format!("_http._tcp.hello.{zone}"), Rtype::SRV, format!("NOERROR SRV 80 hello.{zone}")),
        (reverse, Rtype::PTR, format!("NOERROR PTR hello.{zone}")),
        (format!("alias.{zone}"), Rtype::A, format!("NOERROR CNAME hello.{zone} {hello}")),
        (format!("far.{zone}"), Rtype::A, "NOERROR CNAME far.example.com 192.0.2.7".to_owned()),
        (format!("nobody.{zone}"), Rtype::A, "NXDOMAIN".to_owned()),
    ] {
        let found = names.ask(&name, kind)?;
        ensure!(found == wanted, "{name} {kind}: {found}, not {wanted}");
    }
    // Passed on as it came: that server knows no TCP.
    let passed_on = said(&names.by_udp("example.com", Rtype::A)?)?;
    ensure!(passed_on == "NOERROR 192.0.2.7", "{passed_on}");
    let ended = cluster.podium.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    Ok(())
}

/// Takes what is posted, one connection after the other; each body is handed on.
fn collector() -> Result<(String, mpsc::Receiver<Value>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (to, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let to = to.clone();
            std::thread::spawn(move || while matches!(posted(&stream, &to), Ok(true)) {});
        }
    });
    Ok((endpoint, bodies))
}

/// Reads one request of a connection; whether there was one.
fn posted(mut stream: &TcpStream, to: &mpsc::Sender<Value>) -> Result<bool> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    if reader.read_line(&mut first)? == 0 {
        return Ok(false);
    }
    ensure!(first.starts_with("POST /v1/traces HTTP/1.1"), "{first}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    to.send(serde_json::from_slice(&body)?)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")?;
    Ok(true)
}

/// Asks the Ingress as somebody who has begun a trace.
fn traced(cluster: &Cluster, trace: &str) -> Result<String> {
    let address = cluster.podium.url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{parent}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The value of an attribute, as text.
fn attribute<'a>(of: &'a Value, key: &str) -> &'a str {
    let found = of["attributes"].as_array().and_then(|all| all.iter().find(|a| a["key"] == key));
    let value = found.map(|a| &a["value"]);
    value.and_then(|value| value["stringValue"].as_str().or(value["intValue"].as_str())).unwrap_or_default()
}

fn spans_reach_a_collector() -> Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (endpoint, bodies) = collector()?;
    // None but those that somebody else has begun.
    let args = ["--otlp-endpoint", &endpoint, "--otlp-sample-ratio", "0"];
    let cluster = Cluster::start_with(&["examples/hello"], &args)?;
    let answer = traced(&cluster, TRACE)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let batch = bodies.recv_timeout(PATIENCE).context("the collector got too few spans")?;
        let of = &batch["resourceSpans"][0];
        ensure!(attribute(&of["resource"], "service.name") == "podium", "{of}");
        ensure!(attribute(&of["resource"], "k8s.node.name") == "node-1", "{of}");
        spans.extend(of["scopeSpans"][0]["spans"].as_array().context("a batch has spans")?.clone());
    }
    let of_kind = |kind: u8| spans.iter().find(|span| span["kind"] == kind).with_context(|| format!("{spans:?}"));
    let (server, client) = (of_kind(2)?, of_kind(3)?);
    ensure!(server["traceId"] == TRACE && client["traceId"] == TRACE, "{spans:?}");
    ensure!(server["parentSpanId"] == "00f067aa0ba902b7" && client["parentSpanId"] == server["spanId"], "{spans:?}");
    ensure!(attribute(server, "http.response.status_code") == "200", "{server}");
    ensure!(attribute(client, "podium.service") == "default/hello", "{client}");
    cluster.podium.stop().map(drop)
}
