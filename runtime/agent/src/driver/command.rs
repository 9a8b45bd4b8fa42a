//! Commands within a running container, for probes and hooks: what they print is kept up to a bound.

use std::sync::Arc;

use parking_lot::Mutex;
use podium_sandbox::{Ending, ExecSpec, Image, LogSink, Stream};

use super::{
    Shared,
    exec::{self, Found, Place},
    guest::Guest,
};
use crate::images::Record;

/// What is kept of a command's output, as kubelet keeps of a probe's.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// Where a command runs.
#[derive(Clone)]
pub(crate) struct Within {
    pub(crate) guest: Guest,
    /// The container's own module.
    pub(crate) image: Arc<Image>,
    /// What the container's image offers.
    pub(crate) record: Arc<Record>,
    /// What its module is called.
    pub(crate) program: Arc<str>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) exit_code: i32,
    /// Both streams, as they came.
    pub(crate) output: String,
}

/// Runs a command to its end. Dropping the future ends the command.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn run(shared: &Shared, within: Within, argv: Vec<String>) -> Result<Done, String> {
    let name = argv.first().cloned().unwrap_or_default();
    let place = Place { record: within.record, image: Arc::downgrade(&within.image), program: within.program };
    let image = match exec::find(shared, &place, &name).await {
        Found::Program(image) => image,
        Found::Nothing(words, _) => return Err(words.trim_end().to_owned()),
    };
    let output = Arc::new(Output::default());
    let spec = ExecSpec::new(argv, output.clone());
    let exec = match &within.guest {
        Guest::Http(container) => container.exec(&image, spec),
        Guest::Command(container) => container.exec(&image, spec),
    };
    let exec = exec.map_err(|error| format!("exec: {name:?}: {error}"))?;
    let (exit_code, trap) = match exec.wait().await {
        Ending::Finished { code } => (code, None),
        Ending::Trapped { message, .. } => (134, Some(message)),
        Ending::OutOfMemory { .. } => (137, Some("out of memory".to_owned())),
        Ending::TimedOut | Ending::Killed => (137, None),
    };
    let mut text = output.text();
    text.extend(trap);
    Ok(Done { exit_code, output: text })
}

#[derive(Default)]
struct Output(Mutex<Vec<u8>>);

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl LogSink for Output {
    fn write(&self, _: Stream, bytes: &[u8]) {
        let mut kept = self.0.lock();
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded() {
        let output = Output::default();
        for _ in 0..3 {
            output.write(Stream::Stdout, &[b'x'; 6 << 10]);
        }
        assert_eq!(output.text().len(), OUTPUT_BYTES_MAX);
    }
}
