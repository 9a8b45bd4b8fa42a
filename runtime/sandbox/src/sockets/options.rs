//! Options of sockets. The pod network has neither keep-alive packets nor hops, so those are kept as values that a guest
//! reads back; only the backlog and a datagram socket's queue have an effect.

use super::Code;

/// What an option may be, as Linux has it.
const KEEP_ALIVE_SECONDS: std::ops::RangeInclusive<u64> = 1..=32_767;
const KEEP_ALIVE_COUNT_MAX: u32 = 127;
const NANOS: u64 = 1_000_000_000;
/// Sizes of buffers; the most also bounds a UDP queue.
const BUFFER_BYTES_MAX: u64 = 1 << 20;
/// A buffer that nobody has asked for. At least two of the largest datagrams.
const BUFFER_BYTES: u64 = 128 << 10;
/// Connections that may wait to be accepted unless the guest says otherwise.
const BACKLOG: u32 = 128;

/// Options, at their defaults or as the guest set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) keep_alive: bool,
    keep_alive_idle_ns: u64,
    keep_alive_interval_ns: u64,
    keep_alive_count: u32,
    hop_limit: u8,
    receive_buffer_bytes: u64,
    send_buffer_bytes: u64,
    pub(crate) backlog: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_alive: false,
            keep_alive_idle_ns: 7200 * NANOS,
            keep_alive_interval_ns: 75 * NANOS,
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: BUFFER_BYTES,
            backlog: BACKLOG,
        }
    }
}

impl Options {
    pub(crate) fn keep_alive_idle_ns(&self) -> u64 {
        self.keep_alive_idle_ns
    }

    pub(crate) fn set_keep_alive_idle_ns(&mut self, value: u64) -> Result<(), Code> {
        self.keep_alive_idle_ns = keep_alive_ns(value)?;
        Ok(())
    }

    pub(crate) fn keep_alive_interval_ns(&self) -> u64 {
        self.keep_alive_interval_ns
    }

    pub(crate) fn set_keep_alive_interval_ns(&mut self, value: u64) -> Result<(), Code> {
        self.keep_alive_interval_ns = keep_alive_ns(value)?;
        Ok(())
    }

    pub(crate) fn keep_alive_count(&self) -> u32 {
        self.keep_alive_count
    }

    pub(crate) fn set_keep_alive_count(&mut self, value: u32) -> Result<(), Code> {
        self.keep_alive_count = nonzero(value.into()).map(|_| value.min(KEEP_ALIVE_COUNT_MAX))?;
        Ok(())
    }

    pub(crate) fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    pub(crate) fn set_hop_limit(&mut self, value: u8) -> Result<(), Code> {
        self.hop_limit = nonzero(value.into()).map(|_| value)?;
        Ok(())
    }

    pub(crate) fn receive_buffer_bytes(&self) -> u64 {
        self.receive_buffer_bytes
    }

    pub(crate) fn set_receive_buffer_bytes(&mut self, value: u64) -> Result<(), Code> {
        self.receive_buffer_bytes = nonzero(value)?.min(BUFFER_BYTES_MAX);
        Ok(())
    }

    pub(crate) fn send_buffer_bytes(&self) -> u64 {
        self.send_buffer_bytes
    }

    pub(crate) fn set_send_buffer_bytes(&mut self, value: u64) -> Result<(), Code> {
        self.send_buffer_bytes = nonzero(value)?.min(BUFFER_BYTES_MAX);
        Ok(())
    }

    pub(crate) fn set_backlog(&mut self, value: u64, max: u32) -> Result<(), Code> {
        self.backlog = u32::try_from(nonzero(value)?).unwrap_or(u32::MAX).min(max.max(1));
        Ok(())
    }
}

fn nonzero(value: u64) -> Result<u64, Code> {
    if value == 0 { Err(Code::InvalidArgument) } else { Ok(value) }
}

fn keep_alive_ns(value: u64) -> Result<u64, Code> {
    let (least, most) = (*KEEP_ALIVE_SECONDS.start() * NANOS, *KEEP_ALIVE_SECONDS.end() * NANOS);
    nonzero(value).map(|ns| ns.clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_value_and_large_ones_are_cut() {
        let mut options = Options::default();
        let wrong = Err(Code::InvalidArgument);
        assert_eq!(options.set_keep_alive_idle_ns(0), wrong);
        assert_eq!(options.set_keep_alive_interval_ns(0), wrong);
        assert_eq!(options.set_keep_alive_count(0), wrong);
        assert_eq!(options.set_hop_limit(0), wrong);
        assert_eq!(options.set_receive_buffer_bytes(0), wrong);
        assert_eq!(options.set_send_buffer_bytes(0), wrong);
        assert_eq!(options.set_backlog(0, 10), wrong);
        assert_eq!(options, Options::default(), "nothing changed");

        options.set_keep_alive_idle_ns(1).unwrap();
        options.set_keep_alive_interval_ns(u64::MAX).unwrap();
        options.set_keep_alive_count(u32::MAX).unwrap();
        options.set_receive_buffer_bytes(u64::MAX).unwrap();
        options.set_backlog(u64::MAX, 10).unwrap();
        assert_eq!(options.keep_alive_idle_ns(), NANOS);
        assert_eq!(options.keep_alive_interval_ns(), 32_767 * NANOS);
        assert_eq!(options.keep_alive_count(), 127);
        assert_eq!(options.receive_buffer_bytes(), BUFFER_BYTES_MAX);
        assert_eq!(options.backlog, 10);
    }
}
