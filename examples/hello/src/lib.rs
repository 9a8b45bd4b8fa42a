//! Says who answered, what the ConfigMap says, and how often this instance has been asked.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use podium_guest::{Request, Response};

podium_guest::serve!(hello);

/// Lives as long as the instance: see `podium.dev/instance-reuse` in the manifest.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn hello(request: &Request) -> Response {
    match request.path() {
        "/healthz" => Response::text("ok\n"),
        _ => greet(),
    }
}

fn greet() -> Response {
    let pod = env::var("POD_NAME").unwrap_or_else(|_| "an unnamed pod".to_owned());
    let greeting = env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("request {count}");
    Response::text(format!("{greeting} from {pod}, request {count}\n"))
}
