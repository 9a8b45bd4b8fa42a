//! `podium up --test-images`: Wasm in place of the Linux images that Kubernetes' own tests and many manifests name.
//!
//! The modules are part of this program. They are put into the cluster's registry as container images (`test-images/...`, with
//! a tag that follows from what is in them), and the agent takes them where a pod names what they stand in for, whatever its tag.
//! Only when it is asked for: nobody's `nginx` becomes another without their knowing.

use anyhow::{Context, Result, bail};
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use podium_agent::{Registries, Rewrite};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

/// agnhost, and busybox with commands that have sockets.
const BOX: &[u8] = include_bytes!("../../../sdk/testimages/box.wasm");
/// The pages of web servers.
const WEB: &[u8] = include_bytes!("../../../sdk/testimages/web.wasm");
const PAUSE: &[u8] = include_bytes!("../../../sdk/testimages/pause.wasm");

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer: one module, and the other names that it has.
struct Layer {
    path: &'static str,
    module: &'static [u8],
    links: &'static [&'static str],
}

const BUSYBOX: Layer = Layer {
    path: "bin/busybox",
    module: BOX,
    links: &["agnhost", "agnhost-2", "bin/ash", "bin/curl", "bin/nc", "bin/nslookup", "bin/sh", "bin/wget"],
};
const SERVER: Layer = Layer {
    path: "usr/local/bin/web",
    module: WEB,
    links: &["usr/local/bin/httpd-foreground", "usr/local/bin/nautilus", "usr/local/bin/kitten", "usr/sbin/nginx"],
};
const NOTHING: Layer = Layer { path: "pause", module: PAUSE, links: &[] };

/// An image, and what it stands in for.
struct Image {
    name: &'static str,
    stands_for: &'static [&'static str],
    layers: &'static [Layer],
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
    port: Option<u16>,
    /// Folders that it writes to.
    volumes: &'static [&'static str],
}

const IMAGES: &[Image] = &[
    Image {
        name: "agnhost",
        stands_for: &["registry.k8s.io/e2e-test-images/agnhost"],
        layers: &[BUSYBOX],
        entrypoint: &["/agnhost"],
        cmd: &["pause"],
        port: None,
        volumes: &[],
    },
    Image {
        name: "busybox",
        stands_for: &["registry.k8s.io/e2e-test-images/busybox", "docker.io/library/busybox"],
        layers: &[BUSYBOX],
        entrypoint: &[],
        cmd: &["sh"],
        port: None,
        volumes: &[],
    },
    Image {
        name: "pause",
        stands_for: &["registry.k8s.io/pause"],
        layers: &[NOTHING],
        entrypoint: &["/pause"],
        cmd: &[],
        port: None,
        volumes: &[],
    },
    Image {
        name: "httpd",
        stands_for: &["registry.k8s.io/e2e-test-images/httpd", "docker.io/library/httpd"],
        layers: &[BUSYBOX, SERVER],
        entrypoint: &[],
        cmd: &["httpd-foreground"],
        port: Some(80),
        volumes: &["/tmp", "/usr/local/apache2/htdocs"],
    },
    Image {
        name: "nginx",
        stands_for: &["registry.k8s.io/e2e-test-images/nginx", "docker.io/library/nginx"],
        layers: &[BUSYBOX, SERVER],
        entrypoint: &[],
        cmd: &["nginx", "-g", "daemon off;"],
        port: Some(80),
        volumes: &["/tmp", "/usr/share/nginx/html"],
    },
    Image {
        name: "nautilus",
        stands_for: &["registry.k8s.io/e2e-test-images/nautilus"],
        layers: &[SERVER],
        entrypoint: &["nautilus"],
        cmd: &[],
        port: Some(80),
        volumes: &[],
    },
    Image {
        name: "kitten",
        stands_for: &["registry.k8s.io/e2e-test-images/kitten"],
        layers: &[SERVER],
        entrypoint: &["kitten"],
        cmd: &[],
        port: Some(80),
        volumes: &[],
    },
];

/// An image as a registry keeps it.
struct Packed {
    manifest: Bytes,
    /// Its config and layers.
    blobs: Vec<Bytes>,
}

impl Image {
    fn pack(&self) -> Result<Packed> {
        let layers = self.layers.iter().map(Layer::archive).collect::<Result<Vec<_>>>()?;
        let ports: serde_json::Map<_, _> = self.port.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let volumes: serde_json::Map<_, _> = self.volumes.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
        let config = json!({
            "architecture": "wasm",
            "os": "wasip2",
            "config": { "Entrypoint": self.entrypoint, "Cmd": self.cmd, "ExposedPorts": ports, "Volumes": volumes },
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>() },
        });
        let config = Bytes::from(config.to_string());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        Ok(Packed { manifest: manifest.to_string().into(), blobs: layers.into_iter().chain([config]).collect() })
    }

    fn repository(&self) -> String {
        format!("test-images/{}", self.name)
    }
}

impl Layer {
    fn archive(&self) -> Result<Bytes> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut head = tar::Header::new_ustar();
        head.set_mode(0o755);
        head.set_size(self.module.len() as u64);
        archive.append_data(&mut head, self.path, self.module).context("pack a module")?;
        for link in self.links {
            let mut head = tar::Header::new_ustar();
            head.set_entry_type(tar::EntryType::Symlink);
            head.set_mode(0o777);
            head.set_size(0);
            archive.append_link(&mut head, link, format!("/{}", self.path)).context("pack a link")?;
        }
        Ok(archive.into_inner().context("pack a layer")?.into())
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(kind: &str, bytes: &Bytes) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

/// What stands behind the colon: another content has another tag, so that nodes do not keep an older one.
fn tag(packed: &Packed) -> String {
    digest(&packed.manifest).chars().skip("sha256:".len()).take(12).collect()
}

/// Puts all of them into the registry.
///
/// # Errors
/// When the registry does not take them.
pub(crate) async fn publish(registry: &axum::Router) -> Result<()> {
    for image in IMAGES {
        let packed = image.pack()?;
        let (repository, tag) = (image.repository(), tag(&packed));
        let put = put(registry, &repository, &tag, &packed).await;
        put.with_context(|| format!("put {repository}:{tag} into the registry"))?;
    }
    Ok(())
}

async fn put(registry: &axum::Router, repository: &str, tag: &str, packed: &Packed) -> Result<()> {
    let place = format!("/v2/{repository}/manifests/{tag}");
    if send(registry, Request::head(&place), Bytes::new()).await?.status() == StatusCode::OK {
        return Ok(());
    }
    for blob in &packed.blobs {
        let begun = send(registry, Request::post(format!("/v2/{repository}/blobs/uploads/")), Bytes::new()).await?;
        let upload = begun.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let upload = upload.context("an upload has no place")?;
        let mark = if upload.contains('?') { '&' } else { '?' };
        let end = Request::put(format!("{upload}{mark}digest={}", digest(blob)));
        expect(send(registry, end, blob.clone()).await?)?;
    }
    let request = Request::put(place).header(header::CONTENT_TYPE, MANIFEST);
    expect(send(registry, request, packed.manifest.clone()).await?)
}

async fn send(registry: &axum::Router, request: http::request::Builder, body: Bytes) -> Result<http::Response<Body>> {
    let request =
        request.header(header::CONTENT_LENGTH, body.len()).body(Body::from(body)).context("make a request")?;
    Ok(registry.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
}

fn expect(response: http::Response<Body>) -> Result<()> {
    match response.status() {
        StatusCode::CREATED => Ok(()),
        other => bail!("it answered {other}"),
    }
}

/// Makes pods take them. What the operator rewrites goes before.
///
/// # Errors
/// When an image cannot be packed.
pub(crate) fn stand_in(registries: &mut Registries, registry: std::net::SocketAddr) -> Result<()> {
    // Names without a host are the cluster's, unless the operator says otherwise.
    let host = registries.default_registry.as_ref().map(|_| format!("{registry}/")).unwrap_or_default();
    let mut rewrites = Vec::new();
    for image in IMAGES {
        let to = format!("{host}{}:{}", image.repository(), tag(&image.pack()?));
        rewrites.extend(image.stands_for.iter().map(|from| Rewrite { from: (*from).to_owned(), to: to.clone() }));
    }
    let own = std::mem::take(&mut registries.rewrites);
    let is_own = |name: &str| own.iter().any(|rule| rule.from == name);
    rewrites.retain(|rewrite| !is_own(&rewrite.from));
    registries.rewrites = rewrites.into_iter().chain(own.iter().cloned()).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podium_registry::{Anonymous, Registry, RegistryConfig};

    use super::*;

    #[tokio::test]
    async fn images_are_put_there_once_and_stand_in() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(RegistryConfig::new(folder.path())).unwrap().router(Arc::new(Anonymous));
        publish(&registry).await.unwrap();
        publish(&registry).await.unwrap();
        let mut registries = Registries::default();
        let own = Rewrite { from: "docker.io/library/nginx".to_owned(), to: "demo/nginx".to_owned() };
        registries.rewrites.push(own.clone());
        stand_in(&mut registries, "127.0.0.1:5000".parse().unwrap()).unwrap();
        registries.check().unwrap();
        assert_eq!(registries.rewrites.iter().filter(|rule| rule.from == own.from).collect::<Vec<_>>(), [&own]);
        for rule in registries.rewrites.iter().filter(|rule| rule.from != own.from) {
            let (repository, tag) = rule.to.split_once(':').unwrap();
            let request = Request::get(format!("/v2/{repository}/manifests/{tag}"));
            let found = send(&registry, request, Bytes::new()).await.unwrap();
            assert_eq!(found.status(), StatusCode::OK, "{rule:?}");
        }
    }
}
