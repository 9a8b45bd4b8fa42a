//! The pages of web servers as their images serve them before anybody has put in others. Which server it is follows from
//! what the program is called. A handler: a pod that nobody asks costs no memory.
//!
//! The first page lies in a folder, where the image has it as a volume: who moves it away (as Kubernetes' tests do, to see
//! what becomes of a pod that is not ready) finds it gone.

use std::fs;

use podium_guest::{Request, Response};

podium_guest::serve!(answer);

const HTTPD: &str = "<html><body><h1>It works!</h1></body></html>\n";
const NGINX: &str = "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n<h1>Welcome to nginx!</h1>\n\
<p>This page stands in for nginx's own: it is served by a WebAssembly component.</p>\n</body>\n</html>\n";

fn answer(request: &Request) -> Response {
    let program = std::env::args().next().unwrap_or_default();
    let path = request.path();
    println!("\"{} {path}\"", request.method());
    let page = match (program.rsplit('/').next().unwrap_or_default(), path) {
        ("nginx", "/" | "/index.html") => index("/usr/share/nginx/html", NGINX),
        ("nautilus", "/data.json") => Some("{\n\"image\": \"nautilus.jpg\"\n}\n".to_owned()),
        ("kitten", "/data.json") => Some("{\n\"image\": \"kitten.jpg\"\n}\n".to_owned()),
        ("nautilus" | "kitten", "/") => Some("<html><body></body></html>\n".to_owned()),
        (_, "/" | "/index.html") => index("/usr/local/apache2/htdocs", HTTPD),
        _ => None,
    };
    let Some(page) = page else { return Response::text("404 Not Found\n").with_status(404) };
    let kind = if path.ends_with(".json") { "application/json" } else { "text/html" };
    Response::new(200).with_header("content-type", kind).with_body(page)
}

/// The page that lies in a folder. The first who asks finds it there; without such a folder it is always there.
fn index(folder: &str, first: &str) -> Option<String> {
    let (page, begun) = (format!("{folder}/index.html"), format!("{folder}/.begun"));
    if fs::metadata(folder).is_err() {
        return Some(first.to_owned());
    }
    if let Ok(text) = fs::read_to_string(&page) {
        return Some(text);
    }
    if fs::metadata(&begun).is_ok() {
        return None;
    }
    let put = fs::write(&page, first).and_then(|()| fs::write(&begun, ""));
    put.is_ok().then(|| first.to_owned())
}
