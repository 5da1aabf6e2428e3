//! What the API says of published ports.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A port of this computer that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where this computer listens.
    pub host: SocketAddr,
    /// Where it leads to, as seen from within the machine.
    pub container: SocketAddr,
    /// The container's name; absent while the engine cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A container or compose service that is reached by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Where a browser on this computer finds it.
    pub url: String,
    /// Its web server, as seen from within the machine.
    pub server: SocketAddr,
}
