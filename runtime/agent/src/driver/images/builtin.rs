//! The image that every node has: its tools, for ephemeral containers and for pods that look around.
//!
//! It is what commands of `exec` are taken from, by a name that no registry is asked about.

use std::sync::Arc;

use super::{Images, NotReady, PullPolicy, Ready, Wanted, options};
use crate::{
    images::{ImageError, Record},
    streams::Tools,
};

/// Its name.
const NAME: &str = "podium.dev/tools";
/// What runs when a container names no command.
const SHELL: &str = "sh";

/// Whether a name means it.
pub(super) fn is_named(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest == ":latest")
}

impl Images {
    /// The node's tools as an image.
    pub(super) async fn builtin(&self, wanted: Wanted<'_>) -> Result<Ready, NotReady> {
        let none = |why: String| NotReady::Source(ImageError::Pull(why));
        match &self.tools {
            Tools::Off => Err(none(format!("{NAME} means the node's tools, and this node has none"))),
            Tools::Image(name) if is_named(name) => Err(none(format!("the node's tools are said to be {NAME}"))),
            Tools::Image(name) => {
                let wanted = Wanted { name, policy: PullPolicy::IfNotPresent, ..wanted };
                Box::pin(self.get(wanted, |_| {})).await
            }
            Tools::Module(wasm) => {
                let loaded = self.sandbox.load_with(wasm.clone(), options(wanted)).await;
                let image = loaded.map_err(NotReady::Load)?;
                let record = Record::of_file(SHELL, image.digest(), wasm.len() as u64);
                Ok(Ready { image, record: Arc::new(record), pulled: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_the_nodes_own() {
        for (name, own) in [
            ("podium.dev/tools", true),
            ("podium.dev/tools:latest", true),
            ("podium.dev/tools:v1", false),
            ("podium.dev/tools2", false),
            ("demo/podium.dev/tools", false),
        ] {
            assert_eq!(is_named(name), own, "{name}");
        }
    }
}
