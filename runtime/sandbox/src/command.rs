//! A container that runs once from start to end.

use crate::{Ending, Usage};

/// A running command. Dropping it kills it.
#[derive(Debug)]
pub struct CommandContainer;

impl CommandContainer {
    /// Waits for its end. May be called by many, and again.
    pub async fn wait(&self) -> Ending {
        Ending::Killed
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Asks it to end: closes its standard input. WASI has no signals, so a guest may not notice.
    pub fn terminate(&self) {}

    /// Ends it at once.
    pub fn kill(&self) {}
}
