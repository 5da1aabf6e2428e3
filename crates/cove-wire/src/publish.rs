//! Published ports: what the engine's proxy in the guest asks of the daemon.
//!
//! ```text
//!  guest (the engine's proxy)                         host (daemon)
//!      │ connect vsock port HOST ─────────────────────▶ │
//!      │ Publish (one frame) ─────────────────────────▶ │ binds the port, or waits until it can
//!      │ ◀────────────────────── Published (one frame)  │
//!      │ ◀══════════ open for as long as the port ════▶ │ either end closes: the port is released
//! ```

use crate::Fault;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr};

/// A port of the host that is to lead to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// What is carried.
    pub protocol: Protocol,
    /// Where the host is to listen; the address is the one that the user named, or that of all.
    pub host: SocketAddr,
    /// Where it leads to, as seen from within the guest.
    pub container: SocketAddr,
    /// Whether a port that cannot be had is waited for: the answer comes once it is bound. That is for a port that the
    /// engine has promised already, as after the daemon's restart.
    #[serde(default)]
    pub patient: bool,
}

/// The answer to [`Publish`]. After a fault the connection closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Nothing once the port is bound. The fault's message is what the engine tells its client.
    pub result: Result<(), Fault>,
}

/// What a published port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    /// The name that the engine uses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
