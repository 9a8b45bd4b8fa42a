//! `podium push`: makes an image of a `.wasm` file and puts it into the cluster's registry, through the API server.
//!
//! The image has the layout that the CNCF gives Wasm artifacts: one layer that is the file, and a config that says what a
//! component imports and exports.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Usage,
    connect::{ConnectOptions, Connection},
    output::print_line,
};

/// Largest file: what a node takes.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes sent with one request.
const CHUNK_BYTES: usize = 4 << 20;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Makes an image of a .wasm file in the cluster's registry
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium push app.wasm demo/app:v1          then, in a pod: image: demo/app:v1
  podium push target/app.wasm demo/app      the tag is latest
  podium push app.wasm demo/app:v1 -o json  digest and size for scripts")]
pub(crate) struct PushArgs {
    /// The component or core module
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image: words in lower case with slashes between them, and perhaps a tag
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// How to print what was made
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "name"])]
    output: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When the file is no WebAssembly, the name no name, or the registry does not take it.
pub(crate) async fn run(args: PushArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let (repository, tag) = name(&args.name)?;
    let image = Image::read(&args.file)?;
    let connection = connect.connect().await?;
    let remote = Remote { connection: &connection, repository, quiet: args.output.is_some() };
    remote.blob("config", image.config.clone()).await?;
    remote.blob("module", image.wasm.clone()).await?;
    let manifest = image.manifest();
    let digest = remote.manifest(tag, &manifest).await?;
    let name = format!("{repository}:{tag}");
    match args.output.as_deref() {
        Some("json") => {
            let said = json!({ "image": name, "digest": digest, "mediaType": MANIFEST, "size": image.wasm.len() });
            print_line(&serde_json::to_string_pretty(&said)?)?;
        }
        Some(_) => print_line(&format!("{repository}@{digest}"))?,
        None => {
            print_line(&format!("{name} pushed, {} bytes", image.wasm.len()))?;
            print_line(&format!("digest: {digest}"))?;
            print_line(&format!("in a pod: image: {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Repository and tag of a name. What is wrong with them otherwise the registry says.
fn name(text: &str) -> Result<(&str, &str)> {
    let wrong = |why: &str| Usage(format!("{text:?} cannot be pushed to: {why}"));
    let first = text.split('/').next().unwrap_or_default();
    if text.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        bail!(wrong("it names a registry; podium push fills the cluster's own: name the image without a host"));
    }
    if text.contains('@') {
        bail!(wrong("a digest follows from the file: name a tag"));
    }
    let (repository, tag) = text.split_once(':').unwrap_or((text, "latest"));
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/');
    if repository.is_empty() || !repository.chars().all(word) {
        bail!(wrong("its words are made of lower-case letters and digits, with '.', '_' or '-' between, and slashes"));
    }
    if tag.is_empty() || !tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        bail!(wrong("a tag is made of letters, digits, '.', '_' and '-'"));
    }
    Ok((repository, tag))
}

/// A file as an image.
struct Image {
    title: String,
    wasm: Bytes,
    config: Bytes,
}

impl Image {
    fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let said = || format!("cannot read {shown}");
        let size = std::fs::metadata(path).with_context(said)?.len();
        if size > FILE_BYTES_MAX {
            bail!("{shown} has {size} bytes; an image may have {FILE_BYTES_MAX} at most");
        }
        let wasm = std::fs::read(path).with_context(said)?;
        let interface = interface(&wasm).with_context(|| format!("{shown} is no WebAssembly"))?;
        let title = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let config = config(&wasm, &interface);
        Ok(Self { title, wasm: wasm.into(), config: config.to_string().into() })
    }

    fn manifest(&self) -> Bytes {
        let descriptor =
            |kind: &str, bytes: &Bytes| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let mut layer = descriptor("application/wasm", &self.wasm);
        layer["annotations"] = json!({ "org.opencontainers.image.title": self.title });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.wasm.config.v0+json", &self.config),
            "layers": [layer],
        });
        manifest.to_string().into()
    }
}

/// What a module talks to.
#[derive(Debug, PartialEq, Eq)]
struct Interface {
    component: bool,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Reads what a module imports and exports, and checks that it is one.
fn interface(wasm: &[u8]) -> Result<Interface> {
    use wasmparser::{Parser, Payload};
    let mut found = Interface { component: Parser::is_component(wasm), imports: Vec::new(), exports: Vec::new() };
    if !wasm.starts_with(b"\0asm") {
        bail!("it does not begin with the bytes \\0asm (compile text with `wasm-tools parse`)");
    }
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// # Source
/// CNCF TAG Runtime, "Wasm OCI Artifact layout": `os` is the WASI version that is needed, `component` is for components. No time of creation: one
/// file gives one digest.
fn config(wasm: &[u8], interface: &Interface) -> Value {
    let os = if interface.component { "wasip2" } else { "wasip1" };
    let mut config = json!({
        "architecture": "wasm",
        "os": os,
        "layerDigests": [digest(wasm)],
    });
    if interface.component {
        config["component"] =
            json!({ "imports": interface.imports, "exports": interface.exports, "target": Value::Null });
    }
    config
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// One repository of the cluster's registry.
struct Remote<'a> {
    connection: &'a Connection,
    repository: &'a str,
    quiet: bool,
}

impl Remote<'_> {
    /// Puts a blob there, unless it is there already.
    async fn blob(&self, what: &str, bytes: Bytes) -> Result<()> {
        let digest = digest(&bytes);
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let found = self.send(Method::HEAD, &path, &[], Bytes::new()).await?;
        if found.status() == StatusCode::OK {
            self.say(&format!("{what}: already there"), true);
            return Ok(());
        }
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let mut place = location(self.expect(Method::POST, &path, &[], Bytes::new(), StatusCode::ACCEPTED).await?)?;
        let (total, mut sent) = (bytes.len(), 0);
        while sent < total {
            let chunk = bytes.slice(sent..total.min(sent + CHUNK_BYTES));
            let range = format!("{sent}-{}", sent + chunk.len() - 1);
            sent += chunk.len();
            let headers = [(header::CONTENT_RANGE, range.as_str()), (header::CONTENT_TYPE, "application/octet-stream")];
            place = location(self.expect(Method::PATCH, &place, &headers, chunk, StatusCode::ACCEPTED).await?)?;
            self.say(&format!("{what}: {sent} of {total} bytes"), sent == total);
        }
        let separator = if place.contains('?') { '&' } else { '?' };
        let end = format!("{place}{separator}digest={digest}");
        self.expect(Method::PUT, &end, &[], Bytes::new(), StatusCode::CREATED).await.map(drop)
    }

    /// Puts the manifest there; its digest.
    async fn manifest(&self, tag: &str, manifest: &Bytes) -> Result<String> {
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let kind = [(header::CONTENT_TYPE, MANIFEST)];
        self.expect(Method::PUT, &path, &kind, manifest.clone(), StatusCode::CREATED).await?;
        Ok(digest(manifest))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        Ok(self.connection.raw(request.body(Body::from(body))?).await?)
    }

    async fn expect(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
        status: StatusCode,
    ) -> Result<Response<Body>> {
        let response = self.send(method, path, headers, body).await?;
        if response.status() == status {
            return Ok(response);
        }
        let code = response.status();
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = said["errors"][0]["message"].as_str().or(said["message"].as_str()).unwrap_or_default();
        if code == StatusCode::NOT_FOUND && said["errors"].is_null() {
            bail!("{} has no image registry: {message}", self.connection.server);
        }
        bail!("the registry of {} refused {}: {code}: {message}", self.connection.server, self.repository)
    }

    /// Progress, on standard error, for people only.
    fn say(&self, line: &str, last: bool) {
        let mut out = std::io::stderr();
        if self.quiet || !out.is_terminal() {
            return;
        }
        // Nobody is kept from pushing by a terminal that went away.
        let _ = write!(out, "\r\x1b[K{line}{}", if last { "\n" } else { "" });
    }
}

fn location(response: Response<Body>) -> Result<String> {
    let place = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
    place.map(str::to_owned).context("the registry does not say where the upload goes on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_host_and_no_digest() {
        for (text, expected) in [
            ("demo/app:v1", Some(("demo/app", "v1"))),
            ("app", Some(("app", "latest"))),
            ("a.b:c", Some(("a.b", "c"))),
            ("ghcr.io/a/b:c", None),
            ("localhost:5000/a", None),
            ("localhost/a", None),
            ("a@sha256:12", None),
            ("UPPER", None),
            ("a:", None),
            ("", None),
        ] {
            assert_eq!(name(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn the_config_says_what_a_component_talks_to() {
        let wasm = wat::parse_str(
            "(component (component $inner (import \"hidden\" (func)))
               (import \"a:b/c@1.0.0\" (instance)) (import \"run-it\" (func $f)) (export \"go\" (func $f)))",
        )
        .unwrap();
        let found = interface(&wasm).unwrap();
        assert_eq!((found.imports.join(" "), found.exports.join(" ")), ("a:b/c@1.0.0 run-it".into(), "go".into()));
        let config = config(&wasm, &found);
        assert_eq!((&config["os"], &config["component"]["exports"]), (&json!("wasip2"), &json!(["go"])));
        let module = wat::parse_str("(module)").unwrap();
        let found = interface(&module).unwrap();
        assert_eq!(super::config(&module, &found)["os"], "wasip1");
        for bad in [&b"(module)"[..], b"", b"\0asm", b"\x7fELF....", &wasm[..wasm.len() - 3]] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }
}
