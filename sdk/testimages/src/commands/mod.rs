//! Commands that have sockets, for the shell and by themselves.

use podium_tools::Commands;

mod fetch;
mod names;
mod netcat;

pub const ALL: Commands =
    &[("curl", fetch::curl), ("nc", netcat::nc), ("nslookup", names::nslookup), ("wget", fetch::wget)];
