//! The line format of container logs: `2016-10-06T00:17:09.669794202Z stdout F the line`. `P` marks a part of a line
//! that goes on in the next record of its stream. Pure.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kuberuntime/logs/logs.go` and the CRI's logging design.

use jiff::Timestamp;
use podium_sandbox::Stream;

use super::LogStreams;

/// Longest content of one record; longer lines are split.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

/// Appends one record.
pub(crate) fn write(out: &mut Vec<u8>, at: Timestamp, stream: Stream, content: &[u8], whole: bool) {
    use std::io::Write as _;
    let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    // Writing to memory cannot fail.
    let _ = write!(out, "{at:.9} {stream} {} ", if whole { 'F' } else { 'P' });
    out.extend_from_slice(content);
    out.push(b'\n');
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// When, as written.
    pub(crate) time: &'a str,
    /// From where.
    pub(crate) stream: Stream,
    /// Whether the line ends with it.
    pub(crate) whole: bool,
    /// Without the line break.
    pub(crate) content: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads one record, given without its line break; `None` when it is none.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let whole = parts.next()? == b"F";
        Some(Self { time, stream, whole, content: parts.next()? })
    }

    /// Whether it was asked for.
    pub(crate) fn wanted(&self, streams: LogStreams, since: Option<Timestamp>) -> bool {
        let stream = match streams {
            LogStreams::All => true,
            LogStreams::Stdout => self.stream == Stream::Stdout,
            LogStreams::Stderr => self.stream == Stream::Stderr,
        };
        stream && since.is_none_or(|since| self.time.parse::<Timestamp>().is_ok_and(|at| at >= since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        let at: Timestamp = "2024-02-03T04:05:06.7Z".parse().unwrap();
        let mut out = Vec::new();
        write(&mut out, at, Stream::Stderr, b"a b  c", true);
        assert_eq!(out, b"2024-02-03T04:05:06.700000000Z stderr F a b  c\n");
        let record = Record::parse(&out[..out.len() - 1]).unwrap();
        assert_eq!((record.stream, record.whole, record.content), (Stream::Stderr, true, b"a b  c".as_slice()));
        assert!(record.wanted(LogStreams::Stderr, Some(at)));
        assert!(!record.wanted(LogStreams::Stdout, None));
        assert!(!record.wanted(LogStreams::All, Some("2024-02-03T04:05:07Z".parse().unwrap())));
        for bad in ["", "x", "t stdout", "t stdin F x", "t stdout F"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
