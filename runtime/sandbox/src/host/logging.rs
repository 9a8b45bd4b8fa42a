//! `wasi:logging`: each message is one line of the container's standard error: `LEVEL context: message`.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

use super::{Capability, Guest};
use crate::Stream;

const INTERFACES: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];

pub(super) const CAPABILITY: Capability =
    Capability { group: "wasi:logging", interfaces: &[("logging", &["", "0.1.0-draft"])], can_be_empty: true, link };

#[derive(Debug, Clone, Copy, ComponentType, Lift, Lower)]
#[allow(dead_code, reason = "made by lifting")]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in INTERFACES {
        linker.instance(name)?.func_wrap("log", log)?;
    }
    Ok(())
}

fn log(store: StoreContextMut<'_, Guest>, (level, context, message): (Level, String, String)) -> wasmtime::Result<()> {
    let container = &store.data().own.container;
    if container.is_granted(CAPABILITY.group) {
        container.write(Stream::Stderr, line(level, &context, &message).as_bytes());
    }
    Ok(())
}

/// One line, whatever the guest puts into it.
fn line(level: Level, context: &str, message: &str) -> String {
    let separator = if context.is_empty() { "" } else { ": " };
    let text = format!("{} {context}{separator}{message}", level.name());
    let mut line = text.trim_end().replace('\r', "\\r").replace('\n', "\\n");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let cases = [
            ("web", "hello", "WARN web: hello\n"),
            ("", "hello\n", "WARN hello\n"),
            ("web", "one\nERROR two", "WARN web: one\\nERROR two\n"),
        ];
        for (context, message, wanted) in cases {
            assert_eq!(line(Level::Warn, context, message), wanted);
        }
    }
}
