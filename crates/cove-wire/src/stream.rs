//! Streams: what the one [`Open`] frame on a stream connection asks for.

use crate::{Fault, LogSource, Look};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// What a stream is to be connected to. Bytes may follow it before [`Opened`] has come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// The engine's API socket; raw bytes follow. Waits until the engine answers.
    Engine,
    /// A Docker client in the guest, which has connected to [`CLIENTS_SOCKET`](crate::CLIENTS_SOCKET); its requests
    /// follow. Waits until there is one.
    Client,
    /// A TCP address within the guest, such as a container's; raw bytes follow.
    Dial(Dial),
    /// A TCP address within the guest, as for [`Dial`](Self::Dial); [`Chunks`](crate::Chunks) follow both ways, so that
    /// a connection that was reset on one side is reset on the other.
    Connection(Dial),
    /// A UDP address within the guest. Datagrams follow, each after its length as a 16-bit big-endian number. They may
    /// be lost where datagrams may.
    Datagrams(Dial),
    /// A process; [`ExecPacket`](crate::ExecPacket)s follow.
    Exec(Exec),
    /// The lines of a log; raw bytes follow from guest to host.
    Logs(LogRequest),
    /// A look at the guest's network; one [`Seen`](crate::Seen) frame follows from guest to host.
    Look(Look),
}

/// The answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Nothing when the stream is connected; the connection closes after a fault.
    pub result: Result<(), Fault>,
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// Address as seen from within the guest.
    pub address: SocketAddr,
    /// A network namespace to dial from, the path of its file; the guest's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A process to run in the guest, outside of any container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; a login shell when empty.
    pub command: Vec<String>,
    /// Variables on top of the guest's defaults.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Working directory; `/root` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The terminal to give it; pipes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// A terminal's type and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of `TERM`.
    pub kind: String,
    /// Width in characters.
    pub columns: u16,
    /// Height in lines.
    pub rows: u16,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Whose log.
    pub source: LogSource,
    /// Keep the stream open and send new lines as they come.
    pub follow: bool,
    /// At most so many of the last lines; all that are kept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
}
