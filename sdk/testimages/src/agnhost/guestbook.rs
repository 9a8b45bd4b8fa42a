//! `agnhost guestbook`: a frontend, and a store that keeps replicas of itself.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use podium_tools::Code;
use serde_json::{Map, Value, json};

use super::{log, netexec::get, serve};
use crate::{
    flags::Flags,
    http::{self, Request, Response},
    net::{Datagrams, lookup},
    tasks::{sleep, spawn},
};

/// How often a replica looks for its primary, once in a second.
const TRIES: u32 = 15;

#[derive(Default)]
struct Book {
    store: Map<String, Value>,
    replicas: Vec<String>,
}

type Shared = Rc<RefCell<Book>>;

pub fn run(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let (Some(port), Some(backend)) = (flags.port("http-port", 80), flags.port("backend-port", 6379)) else { return 1 };
    let primary = flags.text("replicaof", "").to_owned();
    let book = Shared::default();
    if !primary.is_empty() {
        spawn(register(primary, backend, book.clone()));
    }
    serve(http::serve(port, move |request: Request| {
        let book = book.clone();
        async move { answer(&request, backend, &book).await }
    }))
}

async fn answer(request: &Request, backend: u16, book: &Shared) -> Response {
    let (key, value) = (request.field("key"), request.field("value"));
    match request.path.as_str() {
        "/register" => {
            let host = request.field("host");
            log(format_args!("GET /register?host={host}"));
            let said = json!({ "data": book.borrow().store });
            log(format_args!("Node '{host}' registered."));
            book.borrow_mut().replicas.push(host);
            Response::text(said.to_string())
        }
        "/get" => {
            log(format_args!("GET /get?key={key}"));
            let book = book.borrow();
            let found = book.store.get(&key).cloned().unwrap_or_else(|| "".into());
            Response::text(
                json!({ "data": if key.is_empty() { book.store.clone().into() } else { found } }).to_string(),
            )
        }
        "/set" => {
            log(format_args!("GET /set?key={key}&value={value}"));
            if key.is_empty() {
                return Response::error(400, "cannot set with empty key.");
            }
            book.borrow_mut().store.insert(key.clone(), value.clone().into());
            let replicas = book.borrow().replicas.clone();
            for replica in replicas {
                let why = match replica.parse() {
                    Ok(ip) => get(SocketAddr::new(ip, backend), &query("set", &key, &value)).await.err(),
                    Err(_) => Some("not an address".to_owned()),
                };
                if let Some(why) = why {
                    let text = format!("encountered error while propagating to replica '{replica}': {why}");
                    return Response::error(417, text);
                }
            }
            Response::text(json!({ "message": "Updated" }).to_string())
        }
        "/guestbook" => ask(&request.field("cmd").to_lowercase(), &key, &value, backend).await,
        "/" => Response::error(404, "404 page not found"),
        _ => Response::error(404, "404 page not found"),
    }
}

fn query(command: &str, key: &str, value: &str) -> String {
    let escaped = |text: &str| {
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'~');
        text.bytes().map(|c| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") }).collect::<String>()
    };
    format!("{command}?key={}&value={}", escaped(key), escaped(value))
}

/// Hands a request of the frontend to the store.
async fn ask(command: &str, key: &str, value: &str, backend: u16) -> Response {
    log(format_args!("GET /guestbook?cmd={command}&key={key}&value={value}"));
    let host = match command {
        "get" => "agnhost-replica",
        "set" if key.is_empty() => return Response::error(400, "cannot set with empty key."),
        "set" => "agnhost-primary",
        _ => return Response::error(400, format_args!("unsupported cmd: '{command}'")),
    };
    let found = match lookup(host).await {
        Ok(found) => found[0],
        Err(why) => {
            return Response::error(400, format_args!("host and/or port param are invalid. lookup {host}: {why}"));
        }
    };
    match get(SocketAddr::new(found, backend), &query(command, key, value)).await {
        Ok(text) => Response::text(text),
        Err(why) => Response::error(417, format_args!("encountered error: {why}")),
    }
}

/// Tells the primary that this replica is there, and takes what it has.
async fn register(primary: String, backend: u16, book: Shared) {
    for _ in 0..TRIES {
        match try_register(&primary, backend).await {
            Ok(store) => {
                book.borrow_mut().store = store;
                log(format_args!("Registered to node: {primary}"));
                return;
            }
            Err(why) => log(format_args!("encountered error while registering to primary: {why}. Retrying in 1s.")),
        }
        sleep(Duration::from_secs(1)).await;
    }
    log("Timed out while registering to primary.");
    crate::exit(1);
}

async fn try_register(primary: &str, backend: u16) -> Result<Map<String, Value>, String> {
    let found = lookup(primary).await.map_err(|why| format!("lookup {primary}: {why}"))?;
    let address = SocketAddr::new(found[0], backend);
    let socket = Datagrams::bind(0, Some(address)).await.map_err(|code| code.name().to_owned())?;
    let own = socket.local().map(|local| local.ip().to_string()).unwrap_or_default();
    let request = format!("register?host={own}");
    log(format_args!("Registering to primary: {primary}:{backend}/{request}"));
    let said = get(address, &request).await?;
    let said: Value = serde_json::from_str(&said).map_err(|why| why.to_string())?;
    said["data"].as_object().cloned().ok_or_else(|| "no data".to_owned())
}
