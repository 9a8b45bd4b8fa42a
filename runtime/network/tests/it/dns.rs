//! The DNS listener over real sockets: UDP, TCP, other servers.

use std::{net::IpAddr, time::Duration};

use domain::{
    base::{
        Message, MessageBuilder, Name as DomainName, Rtype,
        iana::{OptRcode, Rcode},
    },
    rdata::{A, Cname},
};
use podium_network::{DnsConfig, Membership, Network};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::{
    egress::{Names, Outside, ask as ask_guest, outside},
    *,
};

fn question(name: &str, kind: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(4711);
    builder.header_mut().set_rd(true);
    let mut section = builder.question();
    section.push((DomainName::vec_from_str(name).unwrap(), kind)).unwrap();
    section.finish()
}

/// Asks by UDP; what is answered, with its addresses.
async fn ask(server: SocketAddr, name: &str) -> (OptRcode, Vec<IpAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, Rtype::A), server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(from, server);
    read(&buffer[..count])
}

fn read(answer: &[u8]) -> (OptRcode, Vec<IpAddr>) {
    let answer = Message::from_octets(answer).unwrap();
    assert_eq!((answer.header().id(), answer.header().qr()), (4711, true));
    let addresses = answer.answer().unwrap().limit_to::<A>().map(|a| IpAddr::V4(a.unwrap().data().addr()));
    (answer.opt_rcode(), addresses.collect())
}

async fn ask_by_stream(stream: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    stream.write_u16(question.len() as u16).await.unwrap();
    stream.write_all(question).await.unwrap();
    let count = stream.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(count)];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

async fn listen(network: &Network, upstreams: Vec<SocketAddr>) -> SocketAddr {
    network.listen_dns(DnsConfig { listen: at("127.0.0.1:0"), upstreams }).await.unwrap()
}

#[tokio::test]
async fn clients_outside_ask_for_what_guests_know() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let server = listen(&network, Vec::new()).await;
    let ip = IpAddr::from([10, 96, 0, 10]);
    assert_eq!(ask(server, "web.default.svc.cluster.local").await, (OptRcode::NOERROR, vec![ip]));
    assert_eq!(ask(server, "WEB.default.SVC.cluster.local").await, (OptRcode::NOERROR, vec![ip]));
    assert_eq!(ask(server, "nope.default.svc.cluster.local").await, (OptRcode::NXDOMAIN, vec![]));
    assert_eq!(ask(server, "example.com").await, (OptRcode::REFUSED, vec![]));
    network.put_service(Service { cluster_ip: None, ..service(None) });
    let pods = vec![super::ip(1)];
    assert_eq!(ask(server, "web.default.svc.cluster.local").await, (OptRcode::NOERROR, pods.clone()));
    let by_guest = pod(&network, 9).lookup("10-244-0-1.web").await;
    assert_eq!(by_guest, Ok(pods), "guests and clients outside know the same names");
}

#[tokio::test]
async fn several_questions_go_over_one_connection() {
    let network = network();
    network.put_service(service(None));
    let server = listen(&network, Vec::new()).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    for name in ["web.default.svc.cluster.local", "web.default.svc.cluster.local"] {
        let answer = ask_by_stream(&mut stream, &question(name, Rtype::A)).await;
        assert_eq!(read(&answer), (OptRcode::NOERROR, vec![[10, 96, 0, 10].into()]));
    }
    // Nonsense ends the connection, and only that.
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    let mut long = TcpStream::connect(server).await.unwrap();
    long.write_u16(u16::MAX).await.unwrap();
    assert_eq!(long.read(&mut [0; 8]).await.unwrap_or(0), 0, "a question that is far too long");
    assert_eq!(ask(server, "web.default.svc.cluster.local").await.0, OptRcode::NOERROR);
}

#[tokio::test]
async fn datagrams_that_are_no_questions_are_not_answered() {
    let network = network();
    network.put_service(service(None));
    let server = listen(&network, Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = question("web.default.svc.cluster.local", Rtype::A);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    for datagram in [&b""[..], b"short", &answer] {
        socket.send_to(datagram, server).await.unwrap();
    }
    socket.send_to(&good, server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let count = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(read(&buffer[..count]).0, OptRcode::NOERROR, "the first answer is that to the question");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let network = network();
    let server = listen(&network, Vec::new()).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[0]).await.unwrap();
    // Every timer is over at once when there is nothing else to do.
    tokio::time::pause();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// A server that answers every question with one address, after `wrong` answers that are not to it.
async fn elsewhere(wrong: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((count, client)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_octets(&buffer[..count]).unwrap();
            let name = asked.sole_question().unwrap().into_qname();
            let mut section = MessageBuilder::new_vec().start_answer(&asked, Rcode::NOERROR).unwrap();
            section.push((name, 60, A::from_octets(192, 0, 2, 7))).unwrap();
            let answer = section.finish();
            for n in 0..wrong {
                let mut guess = answer.clone();
                guess[n % 2] ^= 1;
                socket.send_to(&guess, client).await.unwrap();
            }
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn others_are_asked_where_that_is_wanted() {
    let network = network();
    network.put_service(service(None));
    let far = Service {
        name: podium_network::table::Name::new("default", "far"),
        external_name: Some("far.example.com".into()),
        cluster_ip: None,
        ..service(None)
    };
    network.put_service(far);
    let upstream = elsewhere(3).await;
    // Nobody is at the first one.
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = listen(&network, vec![nobody, upstream]).await;
    let there = IpAddr::from([192, 0, 2, 7]);
    assert_eq!(ask(server, "example.com").await, (OptRcode::NOERROR, vec![there]));
    assert_eq!(ask(server, "web.default.svc.cluster.local").await.1, [IpAddr::from([10, 96, 0, 10])]);
    assert_eq!(ask(server, "nope.default.svc.cluster.local").await, (OptRcode::NXDOMAIN, vec![]), "never passed on");
    let mut stream = TcpStream::connect(server).await.unwrap();
    let answer = ask_by_stream(&mut stream, &question("far.default.svc.cluster.local", Rtype::A)).await;
    assert_eq!(read(&answer), (OptRcode::NOERROR, vec![there]));
    let answer = Message::from_octets(answer).unwrap();
    let alias = answer.answer().unwrap().limit_to::<Cname<_>>().next().unwrap().unwrap();
    assert_eq!(alias.data().cname().to_string(), "far.example.com");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_said_to_have_failed() {
    let network = network();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = listen(&network, vec![silent.local_addr().unwrap()]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&question("example.com", Rtype::A), server).await.unwrap();
    let mut buffer = vec![0; 4096];
    silent.recv(&mut buffer).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    let count = client.recv(&mut buffer).await.unwrap();
    assert_eq!(read(&buffer[..count]), (OptRcode::SERVFAIL, vec![]));
}

#[tokio::test]
async fn a_port_by_its_name_is_called_at_its_number() {
    let network = network();
    let ports = vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8000, node_port: None }];
    network.put_service(Service { ports, ..service(None) });
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    for uri in ["http://_http._tcp.web/", "http://_http._tcp.web.default.svc.cluster.local/", "http://web:8000/"] {
        assert_eq!(get(&network, uri).await.as_deref(), Ok("one"), "{uri}");
    }
    assert!(get(&network, "http://_nope._tcp.web/").await.is_err());
    assert_eq!(pod(&network, 9).lookup("_http._tcp.web").await, Ok(vec![[10, 96, 0, 10].into()]));
}

#[tokio::test]
async fn hosts_outside_are_found_in_search_domains_that_are_granted() {
    let server = Outside::http().await;
    let here: &[&[&str]] = &[&["127.0.0.1"]];
    let names = Names::of(&[("db.corp.example", here), ("db.lab.example", here), ("mail.lab.example", here)]);
    let network = Network::new(outside(names));
    network.put_service(service(None));
    let port = server.port();
    let member = Membership {
        searches: ["corp.example", "svc.cluster.local", "lab.example"].map(str::to_owned).to_vec(),
        egress: Some(format!("db.lab.example:{port}, db.corp.example:1").parse().unwrap()),
        ..Membership::default()
    };
    let dialer = network.join(Caller { ip: Some(ip(9)), ..caller() }, member);
    let local = vec![IpAddr::from([127, 0, 0, 1])];
    assert_eq!(dialer.lookup("db").await, Ok(local), "the first domain that has it and is granted");
    assert!(dialer.lookup("mail").await.is_err(), "one that is not granted is not asked for");
    assert!(dialer.lookup("web").await.is_ok(), "the cluster's own come first");
    assert!(ask_guest(&dialer, &format!("http://db.lab.example:{port}/")).await.is_ok());
    let a_b_c = dialer.lookup("a.b.c.d.e.f").await;
    assert!(a_b_c.is_err(), "many dots: not searched for");
}
