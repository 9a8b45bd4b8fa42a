//! Talks TLS to an address, for the sandbox's tests: `tls IPV4 PORT SERVER-NAME`. Sends `ping`, prints what comes back.

wit_bindgen::generate!({ path: "wit", world: "tls", features: ["tls"], generate_all });

use wasi::{
    io::streams::{InputStream, StreamError},
    sockets::{
        instance_network::instance_network,
        network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp_create_socket::create_tcp_socket,
    },
    tls::types::{ClientConnection, ClientHandshake},
};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match talk(&args[1], args[2].parse().unwrap(), &args[3]) {
        Ok(answer) => println!("{answer}"),
        Err(reason) => println!("failed: {reason}"),
    }
}

fn talk(ip: &str, port: u16, name: &str) -> Result<String, String> {
    let octets: Vec<u8> = ip.split('.').map(|part| part.parse().unwrap()).collect();
    let address = (octets[0], octets[1], octets[2], octets[3]);
    let failed = |code| format!("{code:?}");
    let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(failed)?;
    let to = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address });
    socket.start_connect(&instance_network(), to).map_err(failed)?;
    socket.subscribe().block();
    let (input, output) = socket.finish_connect().map_err(failed)?;

    let connecting = ClientHandshake::finish(ClientHandshake::new(name, input, output));
    connecting.subscribe().block();
    let connected = connecting.get().unwrap().unwrap();
    let (connection, input, output) = connected.map_err(|error| error.to_debug_string())?;
    output.blocking_write_and_flush(b"ping").map_err(|error| format!("{error:?}"))?;
    read(&connection, &input)
}

fn read(connection: &ClientConnection, input: &InputStream) -> Result<String, String> {
    let mut answer = Vec::new();
    loop {
        match input.blocking_read(1024) {
            Ok(bytes) => answer.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
    connection.close_output();
    String::from_utf8(answer).map_err(|error| error.to_string())
}
