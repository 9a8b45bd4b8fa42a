//! Talks TLS by `wasi:tls` 0.3 to an address, for the sandbox's tests: `tls IPV4 PORT SERVER-NAME`. Sends `ping`, prints what
//! comes back.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "tls", generate_all });
}

use bindings::wasi::tls::client::Connector;
use wasip3::{
    sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket},
    wit_stream,
};

wasip3::cli::command::export!(Guest);

struct Guest;

impl wasip3::exports::cli::run::Guest for Guest {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        match talk(&args[1], args[2].parse().unwrap(), &args[3]).await {
            Ok(answer) => println!("{answer}"),
            Err(reason) => println!("failed: {reason}"),
        }
        Ok(())
    }
}

async fn talk(ip: &str, port: u16, name: &str) -> Result<String, String> {
    let octets: Vec<u8> = ip.split('.').map(|part| part.parse().unwrap()).collect();
    let address = (octets[0], octets[1], octets[2], octets[3]);
    let failed = |code| format!("{code:?}");
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(failed)?;
    socket.connect(IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })).await.map_err(failed)?;

    let connector = Connector::new();
    let (mut outgoing, cleartext) = wit_stream::new();
    let (ciphertext, _sealed) = connector.send(cleartext);
    let (incoming, _received) = socket.receive();
    let (decrypted, _opened) = connector.receive(incoming);
    let sent = socket.send(ciphertext);
    let talking = async {
        Connector::connect(connector, name.to_owned()).await.map_err(|error| error.to_debug_string())?;
        outgoing.write_all(b"ping".to_vec()).await;
        let answer = decrypted.collect().await;
        drop(outgoing);
        String::from_utf8(answer).map_err(|error| error.to_string())
    };
    let (answer, _) = futures::join!(talking, sent.into_future());
    answer
}
