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
    /// Why this computer does not listen there, although the engine has promised it: another program has taken the
    /// port since. It is tried again until it can be had. Absent when this computer listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
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
