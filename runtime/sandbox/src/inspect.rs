//! Reads from a file what it is, how it runs and what it imports, before anything is compiled.

use std::borrow::Cow;

use bytes::Bytes;
use wasmparser::{ExternalKind, Imports, Parser, Payload};

use crate::{ImageKind, LoadError, host::CAPABILITIES};

/// What an export makes of a component, best first.
const RUNS_BY_EXPORT: &[(&str, &str, ImageKind)] = &[
    ("wasi:http/handler", "0.3", ImageKind::HttpService),
    ("wasi:http/incoming-handler", "0.2", ImageKind::HttpHandler),
    ("wasi:cli/run", "0.3", ImageKind::AsyncCommand),
    ("wasi:cli/run", "0.2", ImageKind::Command),
];

/// The one module that a core module may import from.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";
/// Bytes shown of a file that is no Wasm.
const SHOWN_BYTES: usize = 16;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inspected {
    pub(crate) kind: ImageKind,
    pub(crate) imports: Vec<String>,
}

/// The binary form of a file: text is translated.
pub(crate) fn binary(file: Bytes) -> Result<Bytes, LoadError> {
    if file.starts_with(b"\0asm") {
        return Ok(file);
    }
    if !looks_like_text(&file) {
        return Err(not_wasm(&file));
    }
    match wat::parse_bytes(&file) {
        Ok(Cow::Borrowed(_)) => Ok(file.clone()),
        Ok(Cow::Owned(binary)) => Ok(binary.into()),
        Err(error) => Err(LoadError::Invalid { reason: error.to_string() }),
    }
}

fn looks_like_text(file: &[u8]) -> bool {
    let text = file.trim_ascii_start();
    ["(module", "(component", "(;", ";;"].iter().any(|start| text.starts_with(start.as_bytes()))
}

fn not_wasm(file: &[u8]) -> LoadError {
    let shown = &file[..file.len().min(SHOWN_BYTES)];
    let first_bytes = match shown {
        [] => "nothing (the file is empty)".to_owned(),
        _ => format!("\"{}\"", shown.escape_ascii()),
    };
    LoadError::NotWasm { first_bytes }
}

/// Reads a binary.
///
/// # Errors
/// When it is broken, of no kind that runs here, or imports what this host does not offer.
pub(crate) fn inspect(binary: &[u8]) -> Result<Inspected, LoadError> {
    let (imports, exports) = names(binary).map_err(|e| LoadError::Invalid { reason: e.to_string() })?;
    let component = Parser::is_component(binary);
    let kind = if component { component_kind(&exports)? } else { core_kind(&exports)? };
    for import in &imports {
        if component { check_import(import)? } else { check_core_import(import)? }
    }
    Ok(Inspected { kind, imports })
}

type Names = (Vec<String>, Vec<String>);

/// Names of imports and exports at the top level.
fn names(binary: &[u8]) -> Result<Names, wasmparser::BinaryReaderError> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(binary) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) if depth == 0 => {
                for group in section {
                    core_imports(group?, &mut imports)?;
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export?;
                    if matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact) {
                        exports.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn core_imports(group: Imports<'_>, imports: &mut Vec<String>) -> Result<(), wasmparser::BinaryReaderError> {
    match group {
        Imports::Single(_, import) => imports.push(format!("{}::{}", import.module, import.name)),
        Imports::Compact1 { module, items } => {
            for item in items {
                imports.push(format!("{module}::{}", item?.name));
            }
        }
        Imports::Compact2 { module, names, .. } => {
            for name in names {
                imports.push(format!("{module}::{}", name?));
            }
        }
    }
    Ok(())
}

fn component_kind(exports: &[String]) -> Result<ImageKind, LoadError> {
    let found = RUNS_BY_EXPORT.iter().find(|(interface, version, _)| {
        exports.iter().any(|export| {
            split_version(export).is_some_and(|(name, has)| name == *interface && is_compatible(has, version))
        })
    });
    match found {
        Some((_, _, kind)) => Ok(*kind),
        None if exports.is_empty() => Err(LoadError::Unsupported {
            what: "a component that exports nothing; expected wasi:http/incoming-handler@0.2, wasi:http/handler@0.3, wasi:cli/run@0.2 or wasi:cli/run@0.3".to_owned(),
        }),
        None => Ok(ImageKind::Library),
    }
}

fn core_kind(exports: &[String]) -> Result<ImageKind, LoadError> {
    if exports.iter().any(|export| export == "_start") {
        return Ok(ImageKind::CoreCommand);
    }
    if exports.iter().any(|export| export != "_initialize") {
        return Ok(ImageKind::CoreReactor);
    }
    let what =
        "a core module that exports no function; expected _start (a WASI preview 1 command) or functions to call";
    Err(LoadError::Unsupported { what: what.to_owned() })
}

fn check_import(import: &str) -> Result<(), LoadError> {
    let missing = |hint: String| LoadError::MissingImport { name: import.to_owned(), hint };
    let (interface, version) = split_version(import).unwrap_or((import, ""));
    let Some(versions) = offered(interface) else {
        return Err(missing("remove the import, or compose the component with one that provides it".to_owned()));
    };
    if versions.iter().any(|offered| is_compatible(version, offered)) {
        return Ok(());
    }
    Err(missing(format!("it offers version {}: rebuild against that", versions.join(" and "))))
}

/// The versions of an interface that this host has.
fn offered(interface: &str) -> Option<&'static [&'static str]> {
    let (group, name) = interface.split_once('/')?;
    let capability = CAPABILITIES.iter().find(|capability| capability.group == group)?;
    capability.interfaces.iter().find(|(offered, _)| *offered == name).map(|(_, versions)| *versions)
}

fn check_core_import(import: &str) -> Result<(), LoadError> {
    match import.split_once("::") {
        Some((PREVIEW1, _)) => Ok(()),
        _ => Err(LoadError::MissingImport {
            name: import.to_owned(),
            hint: format!("core modules may import only from {PREVIEW1}; build for wasm32-wasip1 or wasm32-wasip2"),
        }),
    }
}

fn split_version(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
}

/// Whether a released version belongs to a series such as `0.2`. Release candidates link with nothing but themselves.
fn is_compatible(version: &str, series: &str) -> bool {
    version == series
        || !version.contains('-')
            && version.strip_prefix(series).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str) -> Result<Inspected, LoadError> {
        inspect(&binary(Bytes::copy_from_slice(file.as_bytes()))?)
    }

    #[test]
    fn kinds() {
        let core = check(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start")))"#,
        );
        let wanted =
            Inspected { kind: ImageKind::CoreCommand, imports: vec!["wasi_snapshot_preview1::proc_exit".into()] };
        assert_eq!(core, Ok(wanted));
        let reactor = check(r#"(module (func (export "_initialize")) (func (export "add")))"#);
        assert_eq!(reactor.map(|it| it.kind), Ok(ImageKind::CoreReactor));
    }

    #[test]
    fn refusals_say_what_and_what_to_do() {
        let cases = [
            ("#!/bin/sh\necho hello", r##"not a WebAssembly file: it begins with "#!/bin/sh\necho h""##),
            ("", "it begins with nothing (the file is empty)"),
            ("(module", "invalid WebAssembly: "),
            ("(module)", "a core module that exports no function; expected _start"),
            (r#"(module (memory (export "run") 1))"#, "a core module that exports no function"),
            ("(component)", "a component that exports nothing; expected wasi:http/incoming-handler@0.2"),
            (
                r#"(module (import "env" "emscripten" (func)) (func (export "_start")))"#,
                "imports env::emscripten, which this host does not offer; core modules may import only from wasi_snapshot_preview1",
            ),
        ];
        for (file, wanted) in cases {
            let error = check(file).unwrap_err().to_string();
            assert!(error.contains(wanted), "{file}: {error}");
        }
    }

    #[test]
    fn imports_by_interface_and_version() {
        let cases = [
            ("wasi:http/types@0.2.0", None),
            ("wasi:http/types@0.2.99", None),
            ("wasi:http/types@0.3.2", None),
            ("wasi:http/types@0.3.0-rc-2025-09-16", Some("it offers version 0.2 and 0.3: rebuild")),
            ("wasi:http/types@0.20.0", Some("rebuild against that")),
            ("wasi:keyvalue/store@0.2.0", Some("imports wasi:keyvalue/store@0.2.0, which this host does not offer")),
            ("log", Some("imports log, which")),
        ];
        for (import, wanted) in cases {
            let error = check_import(import).err().map(|e| e.to_string());
            match (wanted, &error) {
                (None, None) => {}
                (Some(wanted), Some(error)) if error.contains(wanted) => {}
                _ => panic!("{import}: {error:?}"),
            }
        }
    }
}
