//! How many sockets and name lookups a container may have, and what they cost it.

use std::time::Duration;

/// Bounds of a container's sockets. Past a count, the guest hears an error code and goes on; past
/// [`crate::Limits::memory_bytes_max`] as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLimits {
    /// Sockets of one instance: listening, connected, bound or unused. A connection that waits to be accepted is none yet.
    pub instance_max: u32,
    /// Sockets of all instances.
    pub container_max: u32,
    /// Name lookups under way at once, of all instances.
    pub lookups_max: u32,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long looking up a name may take.
    pub lookup_timeout: Duration,
    /// How long what was written to a connection may take to leave after the guest has closed it.
    pub linger: Duration,
    /// Most that a guest may ask for as its connections' backlog.
    pub backlog_max: u32,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self {
            instance_max: 1024,
            container_max: 4096,
            lookups_max: 64,
            connect_timeout: Duration::from_secs(30),
            lookup_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(10),
            backlog_max: 1024,
        }
    }
}
