//! `wasi:cli`, clocks, random numbers and `wasi:io`: what every guest has, and what preview 1 is made of.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::{WasiCtxBuilder, p2, p3};

use super::{Capability, Guest};
use crate::{ContainerSpec, Stream, container::Container, log::LogStream};

const BOTH: &[&str] = &["0.2", "0.3"];

pub(super) const CLI: Capability = Capability {
    group: "wasi:cli",
    interfaces: &[
        ("environment", BOTH),
        ("exit", BOTH),
        ("stderr", BOTH),
        ("stdin", BOTH),
        ("stdout", BOTH),
        ("terminal-input", BOTH),
        ("terminal-output", BOTH),
        ("terminal-stderr", BOTH),
        ("terminal-stdin", BOTH),
        ("terminal-stdout", BOTH),
        ("types", &["0.3"]),
    ],
    can_be_empty: false,
    link: link_environment,
};

pub(super) const CLOCKS: Capability = Capability {
    group: "wasi:clocks",
    interfaces: &[("monotonic-clock", BOTH), ("system-clock", &["0.3"]), ("types", &["0.3"]), ("wall-clock", &["0.2"])],
    can_be_empty: false,
    link: linked,
};

pub(super) const IO: Capability = Capability {
    group: "wasi:io",
    interfaces: &[("error", &["0.2"]), ("poll", &["0.2"]), ("streams", &["0.2"])],
    can_be_empty: false,
    link: linked,
};

pub(super) const RANDOM: Capability = Capability {
    group: "wasi:random",
    interfaces: &[("insecure", BOTH), ("insecure-seed", BOTH), ("random", BOTH)],
    can_be_empty: false,
    link: linked,
};

/// Bytes of one call for random numbers: a 0.2 guest or a core module that asks for more traps, a 0.3 guest gets as many. Making
/// them holds up the thread, so a bound on memory alone would not do.
const RANDOM_BYTES_MAX: u64 = 4 << 20;

/// Nothing to do: the library's own implementation is linked before all others.
fn linked(_: &mut Linker<Guest>) -> wasmtime::Result<()> {
    Ok(())
}

/// What every store has of the library's context. Arguments and environment are not in here for components: see
/// [`Environment`].
pub(super) fn context(container: &Arc<Container>) -> WasiCtxBuilder {
    let spec = &container.spec;
    let mut context = WasiCtxBuilder::new();
    context
        .stdout(LogStream::new(container.clone(), Stream::Stdout))
        .stderr(LogStream::new(container.clone(), Stream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(RANDOM_BYTES_MAX);
    if let Some(stdin) = &spec.stdin {
        context.stdin(stdin.stream(spec.tty));
    }
    context
}

fn link_environment(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p2::bindings::cli::environment::add_to_linker::<_, HasEnvironment>(linker, environment)?;
    p3::bindings::cli::environment::add_to_linker::<_, HasEnvironment>(linker, environment)
}

fn environment(guest: &mut Guest) -> Environment<'_> {
    Environment(&guest.own.container.spec)
}

/// Arguments and environment straight from the spec: an instance that does not ask for them pays nothing, however
/// many variables a pod has.
struct Environment<'a>(&'a ContainerSpec);

struct HasEnvironment;

impl HasData for HasEnvironment {
    type Data<'a> = Environment<'a>;
}

impl p2::bindings::cli::environment::Host for Environment<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.0.args.clone())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.0.working_dir.clone())
    }
}

impl p3::bindings::cli::environment::Host for Environment<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.0.args.clone())
    }

    fn get_initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.0.working_dir.clone())
    }
}
