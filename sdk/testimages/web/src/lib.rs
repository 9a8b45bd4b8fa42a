//! The pages of web servers as their images serve them before anybody has put in others. Which server it is follows from
//! what the program is called. A handler: a pod that nobody asks costs no memory.

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
        ("nginx", "/" | "/index.html") => NGINX,
        ("nautilus", "/data.json") => "{\n\"image\": \"nautilus.jpg\"\n}\n",
        ("kitten", "/data.json") => "{\n\"image\": \"kitten.jpg\"\n}\n",
        ("nautilus" | "kitten", "/") => "<html><body></body></html>\n",
        (_, "/" | "/index.html") => HTTPD,
        _ => return Response::text("404 Not Found\n").with_status(404),
    };
    let kind = if path.ends_with(".json") { "application/json" } else { "text/html" };
    Response::new(200).with_header("content-type", kind).with_body(page)
}
