//! `nslookup`: what a name means in the pod's network.

use podium_tools::{Code, io::Io};

use crate::{net::lookup, tasks::block_on};

pub fn nslookup(args: &[String], io: &mut Io) -> Code {
    let Some(name) = args.iter().find(|arg| !arg.starts_with('-')).cloned() else {
        return io.fail("nslookup", "a name is needed");
    };
    let asked = name.clone();
    match block_on(async move { lookup(&asked).await }) {
        Some(Ok(found)) => {
            for address in found {
                io.line(format_args!("Name:\t{name}\nAddress: {address}"));
            }
            0
        }
        _ => {
            io.line(format_args!("** server can't find {name}: NXDOMAIN"));
            1
        }
    }
}
