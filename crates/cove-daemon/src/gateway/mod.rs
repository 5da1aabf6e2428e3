//! The gateway: `docker.sock` on the host, at which any Docker client reaches the engine in the guest.
//!
//! The Docker API is passed through, not imitated. Each client connection has one engine connection of its own,
//! opened with the client's first request, and bytes travel between the two as they were sent: heads are not written
//! anew, bodies not decoded, chunks not regrouped. The gateway reads along just far enough to know where a message
//! ends, because that is what lets it
//!
//! - hold a request while the machine wakes, and answer in Docker's own words when it does not;
//! - look at the few requests that can ask for a bind mount before the engine sees them, and at what a container was
//!   made with before it starts;
//! - tell builds of this computer's proxies, and containers where that is wanted;
//! - tell when an answer turns the connection into a raw stream, and end it as a raw stream ends: each direction for
//!   itself.
//!
//! Reading along is done with a parser for heads and a counter for bodies rather than with an HTTP server and client
//! back to back. Those own the connections: they rewrite heads, need a handover for every kind of hijacking that
//! Docker knows (`101` for attach, exec, a build's h2c and websockets, but also a plain `200` without a length), and
//! hide exactly what has to be kept here, which is who has closed which direction.
//!
//! ```text
//!               head complete           connected               final head
//!  Idle ─▶ Head ────────────▶ Waiting ───────────▶ Exchange ──────────────────▶ Tunnel ─▶ closed
//!   ▲        │ malformed         │ unavailable        │        101, or no length
//!   │        ▼                   ▼                    │ answer complete
//!   │     4xx, closed       503, closed               │
//!   └─────────────────────────────────────────────────┘
//! ```
//!
//! What the two ends are trusted with: neither may make the other see a message boundary where there is none (a
//! request whose length is ambiguous is refused, an answer whose length is ambiguous ends the connection), and
//! neither may make the gateway hold more than a head, a read-ahead and, for the requests that it checks, a bounded
//! body. Nothing here times out except a head that was begun and not finished, and the look for bind mounts:
//! `docker logs -f` may be silent for days, and a connection has to survive a paused machine.
//!
//! State is owned by one task for each connection; there is none that connections share, save the count of them and of
//! the requests that are looked through at once.

mod accept;
mod buildkit;
mod connection;
mod exchange;
mod framing;
mod head;
mod mounts;
mod proxies;
mod reply;
mod route;
mod stream;

pub use accept::{Capacity, Clients, serve};
pub(crate) use mounts::way;
pub use mounts::{GUEST_OWN, HostPaths, MountPolicy};

use async_trait::async_trait;
use cove_machine::Connection;
use std::collections::BTreeMap;

/// A machine's engine, as the gateway needs it. Any method may be called from any number of connections at once.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// A fresh connection to the engine's API. Waits while the machine starts, however long that takes; dropping the
    /// future gives up waiting, which happens when the client goes away.
    async fn connect(&self) -> Result<Connection, Unavailable>;

    /// What may be bind-mounted now. Asked for with every request that is checked.
    fn mounts(&self) -> MountPolicy;

    /// The engine's description of the container with this name or identifier; nothing where the engine does not answer
    /// at once. Asked for with every request that starts one.
    async fn container(&self, name: &str) -> Option<serde_json::Value>;

    /// Variables for containers and services whose clients do not set them: those of proxies, where that is wanted.
    /// Asked for with every request that makes one.
    fn variables_of_containers(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Arguments for builds whose clients do not set them: those of proxies. Asked for with every request that makes
    /// one.
    fn variables_of_builds(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// There is no engine to talk to, and waiting would not help: the machine is stopped, or it has failed. Reaches the
/// client as HTTP 503 with both sentences.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unavailable {
    /// What is the matter, such as "machine `default` is stopped"; one line, without a full stop.
    pub message: String,
    /// What to do about it, such as "start it with: cove start"; empty when there is nothing sensible to say.
    pub hint: String,
}

impl Unavailable {
    /// An engine that cannot be reached, why, and what to do.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}
