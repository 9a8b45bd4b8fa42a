//! What a manifest says: which of several platforms to take, what kind of image it is, what is to be fetched.
//!
//! # Source
//! OCI image-spec 1.1; CNCF TAG Runtime "Wasm OCI Artifact layout"; runwasi's and SpinKube's images as they are found.

use serde::Deserialize;

use super::ImageConfig;

/// Kinds of manifests that are asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
const TITLE: &str = "org.opencontainers.image.title";

/// Something to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// A manifest, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// Several platforms; this one is to be taken.
    Index(Descriptor),
    /// Layers that are modules.
    Modules { config: Descriptor, modules: Vec<Module> },
    /// Layers that are archives.
    Container { config: Descriptor, layers: Vec<Layer> },
}

/// A layer that is a module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) descriptor: Descriptor,
    /// Its file's name, if the image says one.
    pub(crate) title: Option<String>,
}

/// A layer that is an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) gzip: bool,
}

/// How many layers an image may have.
const LAYERS_MAX: usize = 128;

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What keeps it from running here.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| format!("its manifest cannot be read: {e}"))?;
        if document.schema_version != 2 {
            return Err(format!("its manifest has the schema version {}; only 2 is known", document.schema_version));
        }
        if let Some(manifests) = document.manifests {
            return choose(manifests).map(Self::Index);
        }
        let config = document.config.ok_or("its manifest names no config")?;
        let layers = document.layers.unwrap_or_default();
        if layers.len() > LAYERS_MAX {
            return Err(format!("it has {} layers, more than {LAYERS_MAX}", layers.len()));
        }
        for descriptor in layers.iter().chain([&config]) {
            if !is_digest(&descriptor.digest) {
                return Err(format!("its manifest names the digest {:?}: only sha256 is known", descriptor.digest));
            }
        }
        if layers.iter().any(|layer| is_wasm(&layer.media_type)) {
            let modules = layers.into_iter().filter(|layer| is_wasm(&layer.media_type));
            let modules = modules.map(|d| Module { title: d.annotations.get(TITLE).cloned(), descriptor: d });
            return Ok(Self::Modules { config, modules: modules.collect() });
        }
        let layers = layers.into_iter().map(archive).collect::<Result<Vec<_>, _>>()?;
        if layers.is_empty() {
            return Err("it has no layers".to_owned());
        }
        Ok(Self::Container { config, layers })
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_prefix("sha256:").is_some_and(hex)
}

/// `application/wasm`, and what was in use before: `application/vnd.module.wasm.content.layer.v1+wasm` and its kin.
fn is_wasm(media_type: &str) -> bool {
    media_type == "application/wasm" || media_type.ends_with("+wasm")
}

fn archive(descriptor: Descriptor) -> Result<Layer, String> {
    let kind = descriptor.media_type.as_str();
    let gzip = kind.ends_with(".tar+gzip") || kind.ends_with(".tar.gzip");
    let tar = kind.ends_with(".tar") || gzip;
    if !tar || kind.contains("foreign") || kind.contains("nondistributable") {
        return Err(format!(
            "it has a layer of the kind {kind:?}; known are application/wasm and archives as tar or tar+gzip"
        ));
    }
    Ok(Layer { descriptor, gzip })
}

/// The platform that runs here: WASI before all, then what names none, then Linux, whose images may hold a module.
fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor, String> {
    let rank = |entry: &Descriptor| {
        let Some(platform) = &entry.platform else { return Some(4) };
        let wasm = platform.architecture.starts_with("wasm");
        match platform.os.as_str() {
            "wasip2" | "wasip3" => Some(0),
            "wasip1" | "wasi" if wasm => Some(1),
            _ if wasm => Some(2),
            "wasi" => Some(3),
            "linux" if platform.architecture == "amd64" => Some(5),
            _ => None,
        }
    };
    let shown = |entry: &Descriptor| {
        entry.platform.as_ref().map_or_else(String::new, |p| format!("{}/{}", p.os, p.architecture))
    };
    let platforms = manifests.iter().map(shown).take(10).collect::<Vec<_>>().join(", ");
    let best = manifests.into_iter().filter(|m| is_digest(&m.digest)).filter_map(|m| Some((rank(&m)?, m)));
    let best = best.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
    best.ok_or_else(|| format!("it is made for {platforms}, and not for WebAssembly (wasi/wasm)"))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    os: String,
    architecture: String,
    config: Option<RunConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    exposed_ports: Option<std::collections::BTreeMap<String, serde_json::Value>>,
    volumes: Option<std::collections::BTreeMap<String, serde_json::Value>>,
}

/// Reads the config of a container image: how it is run.
///
/// # Errors
/// When it cannot be read, or is for Linux and names no module, so that its layers need not be fetched.
pub(crate) fn config(bytes: &[u8]) -> Result<ImageConfig, String> {
    let file: ConfigFile = serde_json::from_slice(bytes).map_err(|e| format!("its config cannot be read: {e}"))?;
    let run = file.config.unwrap_or_default();
    let variable = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let port = |text: &String| text.trim_end_matches("/tcp").parse().ok();
    let config = ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.iter().flatten().filter_map(variable).collect(),
        working_dir: run.working_dir.filter(|dir| !dir.is_empty()),
        exposed_ports: run.exposed_ports.iter().flat_map(|ports| ports.keys()).filter_map(port).collect(),
        volumes: run
            .volumes
            .into_iter()
            .flat_map(|folders| folders.into_keys())
            .filter(|path| is_folder(path))
            .collect(),
    };
    let program = config.entrypoint.iter().chain(&config.cmd).next();
    let module = program.is_none_or(|program| program.split('#').next().unwrap_or_default().ends_with(".wasm"));
    if matches!(file.os.as_str(), "linux" | "windows" | "darwin") && !module {
        return Err(format!(
            "it is made for {}/{}, and not for WebAssembly: it begins with {:?}",
            file.os,
            file.architecture,
            program.map_or("", String::as_str)
        ));
    }
    Ok(config)
}

/// Whether a path is that of a folder below the root, and says so plainly.
fn is_folder(path: &str) -> bool {
    let parts = || path.split('/').skip(1);
    path.starts_with('/') && path.len() > 1 && parts().all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn descriptor(kind: &str) -> Value {
        json!({ "mediaType": kind, "digest": format!("sha256:{}", "a".repeat(64)), "size": 3 })
    }

    fn read(config: &str, layers: &[&str]) -> String {
        let layers: Vec<_> = layers.iter().map(|kind| descriptor(kind)).collect();
        let manifest = json!({ "schemaVersion": 2, "config": descriptor(config), "layers": layers });
        match Manifest::parse(manifest.to_string().as_bytes()) {
            Ok(Manifest::Modules { modules, .. }) => format!("{} modules", modules.len()),
            Ok(Manifest::Container { layers, .. }) => {
                layers.iter().map(|l| if l.gzip { "gzip" } else { "tar" }).collect::<Vec<_>>().join(" ")
            }
            Ok(Manifest::Index(_)) => "index".to_owned(),
            Err(why) => why,
        }
    }

    #[test]
    fn layouts_are_told_apart() {
        for (config, layers, expected) in [
            ("application/vnd.wasm.config.v0+json", vec!["application/wasm"], "1 modules"),
            (
                "application/vnd.module.wasm.config.v1+json",
                vec!["application/vnd.module.wasm.content.layer.v1+wasm"],
                "1 modules",
            ),
            ("application/vnd.wasm.config.v1+json", vec!["application/vnd.wasm.content.layer.v1+wasm"], "1 modules"),
            (
                "application/vnd.oci.image.config.v1+json",
                vec!["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"],
                "tar gzip",
            ),
            (
                "application/vnd.docker.container.image.v1+json",
                vec!["application/vnd.docker.image.rootfs.diff.tar.gzip"],
                "gzip",
            ),
            (
                "application/vnd.oci.image.config.v1+json",
                vec!["application/vnd.oci.image.layer.v1.tar+zstd"],
                "it has a layer",
            ),
            ("application/vnd.oci.image.config.v1+json", vec![], "it has no layers"),
        ] {
            let found = read(config, &layers);
            assert!(found.starts_with(expected), "{found}");
        }
        assert!(Manifest::parse(b"{\"schemaVersion\":1}").unwrap_err().contains("schema version 1"));
        assert!(Manifest::parse(b"[]").is_err());
    }

    #[test]
    fn wasm_is_chosen_before_linux() {
        let entry = |n: u8, platform: Option<(&str, &str)>| {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json");
            entry["digest"] = json!(format!("sha256:{}", n.to_string().repeat(64)));
            if let Some((os, architecture)) = platform {
                entry["platform"] = json!({ "os": os, "architecture": architecture });
            }
            entry
        };
        let chosen = |entries: &[Value]| {
            let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
            match Manifest::parse(index.as_bytes()) {
                Ok(Manifest::Index(found)) => found.digest[7..8].to_owned(),
                Ok(_) => "no index".to_owned(),
                Err(why) => why,
            }
        };
        let linux = entry(1, Some(("linux", "amd64")));
        assert_eq!(chosen(&[linux.clone(), entry(2, Some(("wasi", "wasm32")))]), "2");
        assert_eq!(
            chosen(&[linux.clone(), entry(2, Some(("wasip1", "wasm"))), entry(3, Some(("wasip2", "wasm")))]),
            "3"
        );
        assert_eq!(chosen(&[entry(1, None), linux.clone()]), "1");
        assert_eq!(chosen(std::slice::from_ref(&linux)), "1");
        assert!(chosen(&[entry(1, Some(("linux", "arm64")))]).contains("made for linux/arm64"));
    }

    #[test]
    fn what_is_made_for_linux_is_refused_before_its_layers_are_fetched() {
        let of = |os: &str, entrypoint: &[&str]| {
            let text = json!({ "os": os, "architecture": "amd64", "config": {
                "Entrypoint": entrypoint, "Env": ["A=1=2", "B="], "WorkingDir": "/srv", "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
                "Volumes": { "/data": {}, "/": {}, "/a/../b": {}, "relative": {}, "/twice//": {} },
            } });
            config(text.to_string().as_bytes())
        };
        let found = of("linux", &["/app.wasm", "serve"]).unwrap();
        assert_eq!(found.env, [("A".to_owned(), "1=2".to_owned()), ("B".to_owned(), String::new())]);
        assert_eq!((found.working_dir.as_deref(), found.exposed_ports.as_slice()), (Some("/srv"), [80].as_slice()));
        assert_eq!(found.volumes, ["/data"]);
        assert!(of("wasip1", &["/anything"]).is_ok());
        assert!(of("linux", &["/docker-entrypoint.sh"]).unwrap_err().contains("made for linux/amd64"));
        assert!(config(b"nonsense").is_err());
    }
}
