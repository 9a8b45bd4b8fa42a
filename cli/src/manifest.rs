//! Manifests from files, folders and standard input, with the place of every mistake.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Largest manifest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One object of a manifest file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// The object.
    pub(crate) value: Value,
    /// The file it is from.
    pub(crate) source: String,
}

impl Document {
    pub(crate) fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `namespace/name`, if it is a Deployment.
    pub(crate) fn deployment_key(&self) -> Option<String> {
        let namespace = self.value["metadata"]["namespace"].as_str().unwrap_or("default");
        (self.kind() == "Deployment").then(|| format!("{namespace}/{}", self.name()))
    }

    /// What every object must have to be sent anywhere.
    fn check(&self) -> Result<()> {
        for (value, field) in [(self.api_version(), "apiVersion"), (self.kind(), "kind")] {
            if value.is_empty() {
                bail!("{}: an object without {field:?}: {}", self.source, shortened(&self.value));
            }
        }
        if self.name().is_empty() && self.value["metadata"]["generateName"].as_str().unwrap_or_default().is_empty() {
            bail!("{}: {} without \"metadata.name\"", self.source, self.kind());
        }
        Ok(())
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// The objects of files, folders (their `.yaml`, `.yml` and `.json` files by name; those below too when `recursive`)
/// and `-`, standard input.
///
/// # Errors
/// With file, line and column: a file that cannot be read, bad YAML, a field standing twice, an object that cannot be
/// one.
pub(crate) fn read(paths: &[PathBuf], recursive: bool) -> Result<Vec<Document>> {
    let mut out = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text).context("reading standard input")?;
            parse("standard input", &text, &mut out)?;
            continue;
        }
        if path.to_string_lossy().contains("://") {
            bail!("{}: manifests are read from files only; download it first", path.display());
        }
        for file in files_of(path, recursive)? {
            parse(&file.display().to_string(), &read_file(&file)?, &mut out)?;
        }
    }
    if out.is_empty() {
        let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        bail!("no objects in {}", paths.join(", "));
    }
    Ok(out)
}

fn read_file(file: &Path) -> Result<String> {
    let size = std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
    if size > FILE_BYTES_MAX {
        bail!("{} is larger than {FILE_BYTES_MAX} bytes", file.display());
    }
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// The file itself, or the manifests of a folder, sorted.
fn files_of(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut out = Vec::new();
    let listing = || format!("listing {}", path.display());
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).with_context(listing)? {
        entries.push(entry.with_context(listing)?.path());
    }
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                out.extend(files_of(&entry, true)?);
            }
        } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            out.push(entry);
        }
    }
    Ok(out)
}

/// The objects of one text. Mistakes read `FILE: line L, column C: what`.
pub(crate) fn parse(origin: &str, text: &str, out: &mut Vec<Document>) -> Result<()> {
    let documents = podium_api::yaml::documents(text).map_err(|e| match e.line {
        0 => anyhow::anyhow!("{origin}: {}", e.message),
        _ => anyhow::anyhow!("{origin}: {e}"),
    })?;
    for object in documents {
        let document = Document { value: object, source: origin.to_owned() };
        document.check()?;
        out.push(document);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_mistakes() {
        let read = |text: &str| {
            let mut out = Vec::new();
            parse("f.yaml", text, &mut out).map(|()| out.len()).map_err(|e| e.to_string())
        };
        for (text, result) in [
            ("apiVersion: v1\nkind: A\nmetadata: {name: x}\n---\n", Ok(1)),
            ("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A, metadata: {generateName: x-}}\n", Ok(1)),
            (
                "apiVersion: v1\nkind: A\nmetadata:\n  name: x\n   labels: {}\n",
                Err("f.yaml: line 5, column 10: mapping values are not allowed in this context"),
            ),
            ("kind: A\n", Err("f.yaml: an object without \"apiVersion\": {\"kind\":\"A\"}")),
            ("apiVersion: v1\nkind: A\n", Err("f.yaml: A without \"metadata.name\"")),
            ("just text\n", Err("f.yaml: document 1 is no object but a text")),
        ] {
            assert_eq!(read(text), result.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let object = |name: &str| format!("{{apiVersion: v1, kind: A, metadata: {{name: {name}}}}}");
        std::fs::create_dir(folder.path().join("below")).unwrap();
        for file in ["b.yaml", "a.yml", "below/c.json", "readme.md"] {
            std::fs::write(folder.path().join(file), object(&format!("x{}", file.len()))).unwrap();
        }
        std::fs::write(
            folder.path().join("below/c.json"),
            r#"{"apiVersion": "v1", "kind": "A", "metadata": {"name": "c"}}"#,
        )
        .unwrap();
        let names = |recursive: bool| -> Vec<String> {
            let found = read(&[folder.path().to_owned()], recursive).unwrap();
            found.iter().map(|m| m.name().to_owned()).collect()
        };
        assert_eq!(names(false), ["x5", "x6"]);
        assert_eq!(names(true), ["x5", "x6", "c"]);
        assert!(read(&[folder.path().join("none.yaml")], false).unwrap_err().to_string().contains("none.yaml"));
        let url = read(&["https://example.com/a.yaml".into()], false).unwrap_err().to_string();
        assert!(url.contains("download it first"), "{url}");
    }
}
