//! Control messages: what the daemon asks of the agent, and what the agent reports.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// First frame in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    pub version: u32,
    /// The sender's program and release, for messages to people.
    pub build: String,
}

/// The two ends speak different versions of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "protocol version {theirs} of {peer} does not match our {ours}; {older} is the older one and has to be updated"
)]
pub struct VersionMismatch {
    /// Our protocol version.
    pub ours: u32,
    /// The peer's protocol version.
    pub theirs: u32,
    /// The peer's program and release.
    pub peer: String,
    /// Which side has to be updated.
    pub older: String,
}

impl Hello {
    /// What this build says of itself; `program` is its name.
    pub fn new(program: &str) -> Self {
        Self {
            version: crate::PROTOCOL_VERSION,
            build: format!("{program} {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Checks the peer's greeting against our own.
    pub fn accept(&self, peer: &Hello) -> Result<(), VersionMismatch> {
        if self.version == peer.version {
            return Ok(());
        }
        let older = if self.version < peer.version {
            &self.build
        } else {
            &peer.build
        };
        Err(VersionMismatch {
            ours: self.version,
            theirs: peer.version,
            peer: peer.build.clone(),
            older: older.clone(),
        })
    }
}

/// A frame from the host on the control port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromHost {
    /// The greeting; first and once.
    Hello(Hello),
    /// A call that the agent answers with the same `id`, in any order.
    Request {
        /// Chosen by the host, unique among the requests in flight.
        id: u64,
        /// What is asked.
        call: Call,
    },
}

/// A frame from the agent on the control port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// The greeting; first and once.
    Hello(Hello),
    /// The answer to the request with this `id`.
    Response {
        /// The request's id.
        id: u64,
        /// The answer, or why there is none.
        result: Result<Reply, Fault>,
    },
    /// Something happened; only sent after [`Call::Subscribe`].
    Event(Event),
}

/// What the daemon asks of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Finishes the boot and starts the engine. Once in the life of a guest; a second one with the same
    /// configuration is answered [`Reply::Done`], with another one refused.
    Boot(Box<BootConfig>),
    /// Asks for a [`Reply::Status`].
    Status,
    /// Asks for events on this connection from now on, the stages so far first.
    Subscribe,
    /// Sets the guest's clock.
    SetTime {
        /// Nanoseconds since the Unix epoch, the host's now.
        unix_ns: u64,
    },
    /// Restarts the engine with the configuration that it has.
    RestartEngine,
    /// Grows the data file system to the size of its disk, which the host has just grown.
    GrowData,
    /// Discards unused blocks of the data disk, so that the host gets them back.
    TrimData,
    /// Makes a share appear at its own path, over what may be there. One that is there already is no error. Waits for
    /// the base of the system, and comes before [`Call::Boot`] where containers of the last run want the share.
    MountShare {
        /// Its entry at the root of the file system [`SHARES_TAG`](crate::SHARES_TAG): one path component.
        name: String,
        /// Where: absolute, without `.`, `..`, doubled or trailing slashes, and through no symbolic link.
        path: String,
    },
    /// Takes away what [`Call::MountShare`] put at this path. One that is not there is no error.
    UnmountShare {
        /// Where.
        path: String,
    },
    /// Makes these, besides the image's own, the authorities whose certificates the engine trusts: all of them, each in
    /// PEM. Waits for the base of the system and may come before [`Call::Boot`]. An engine that runs with others is
    /// started again beneath its containers, which go on; clients that connect after the answer find the new one.
    Trust {
        /// One certificate each.
        certificates: Vec<String>,
    },
    /// Stops containers, engine and guest, in this order. Answered when the engine has stopped; then the data disk
    /// is unmounted and the machine powers off or restarts.
    Shutdown {
        /// How long containers may take to stop before they are killed, in milliseconds.
        grace_ms: u64,
        /// Restart the guest instead of powering off.
        reboot: bool,
    },
}

/// Everything that the agent needs from the host to finish the boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootConfig {
    /// The guest's host name.
    pub hostname: String,
    /// Nanoseconds since the Unix epoch, the host's now.
    pub unix_ns: u64,
    /// Whether programs for other processors are run, by emulation.
    pub foreign_processors: bool,
    /// The engine's configuration.
    pub engine: EngineConfig,
}

impl BootConfig {
    /// Whether `other` asks for the same guest; the time may be another.
    pub fn is_repeated_by(&self, other: &Self) -> bool {
        let unix_ns = self.unix_ns;
        *self
            == Self {
                unix_ns,
                ..other.clone()
            }
    }
}

/// How the engine is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineConfig {
    /// `daemon.json`, written as it is. The agent adds only what the guest's layout dictates (data root, sockets).
    pub daemon_json: serde_json::Value,
    /// Additional environment of dockerd and containerd, for proxies.
    pub environment: BTreeMap<String, String>,
}

/// An answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The call was carried out.
    Done,
    /// The answer to [`Call::Status`].
    Status(Box<GuestStatus>),
    /// The answer to [`Call::TrimData`]: bytes discarded.
    Trimmed {
        /// Bytes that the file system discarded.
        bytes: u64,
    },
}

/// Why a call or a stream was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure it is.
    pub code: FaultCode,
    /// What happened and to what, for a person.
    pub message: String,
}

impl Fault {
    /// A fault of `code` that says `message`.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The call makes no sense in the agent's present state.
    WrongState,
    /// The guest is on its way down; it does nothing else any more.
    ShuttingDown,
    /// The request's content is invalid.
    Invalid,
    /// The named thing is not there.
    NotFound,
    /// The other end of a dial refused or could not be reached.
    Unreachable,
    /// The guest's operating system failed the operation.
    Failed,
}

/// What happens in the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A stage of the boot ended.
    Stage(Stage),
    /// The engine's state changed.
    Engine(EngineState),
    /// A line for the daemon's log: what the agent had to warn of.
    Warning {
        /// What happened and what to do.
        message: String,
    },
}

/// A stage of the boot, on the guest's monotonic clock, which starts with its kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, in `lower-case-words`.
    pub name: String,
    /// When it began, in microseconds since the kernel started.
    pub start_us: u64,
    /// When it ended, in microseconds since the kernel started.
    pub end_us: u64,
}

/// The engine under the agent's supervision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum EngineState {
    /// Not yet asked for ([`Call::Boot`] has not come), or stopped for shutdown.
    Stopped,
    /// Started, its socket does not answer yet.
    Starting,
    /// Its socket answers.
    Ready,
    /// It ended by itself and is started again after a pause.
    Restarting {
        /// How many times in a row it has failed.
        attempt: u32,
        /// Length of the pause, in milliseconds.
        pause_ms: u64,
        /// How it ended, with the last lines of its log.
        why: String,
    },
}

/// The guest's state, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Microseconds since the kernel started.
    pub uptime_us: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The stages so far, in the order in which they ended.
    pub stages: Vec<Stage>,
    /// The engine.
    pub engine: EngineState,
    /// Why the guest cannot run the engine, and what to do; nothing when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Fault>,
    /// Memory of the guest.
    pub memory: Memory,
    /// What its processors have done; an older agent does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTime>,
    /// Size of the data file system in bytes, 0 before it is mounted.
    pub data_size: u64,
    /// Bytes in use on the data file system.
    pub data_used: u64,
}

/// The guest's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the kernel manages.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
}

/// What the guest's processors have done since its start, all of them together, in ticks of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// Ticks in which they worked.
    pub busy: u64,
    /// All ticks.
    pub all: u64,
}

/// A log that the agent keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// The agent's own.
    Agent,
    /// containerd's.
    Containerd,
    /// dockerd's.
    Engine,
    /// The guest kernel's ring buffer.
    Kernel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_mismatch_names_the_older_side() {
        let ours = Hello {
            version: 3,
            build: "cove 3".into(),
        };
        let image = Hello {
            version: 2,
            build: "agent 2".into(),
        };
        let mismatch = ours.accept(&image).unwrap_err();
        assert_eq!(mismatch.older, "agent 2");
        assert_eq!(image.accept(&ours).unwrap_err().older, "agent 2");
        assert!(ours.accept(&ours.clone()).is_ok());
    }

    #[test]
    fn a_response_with_a_fault_reads_back_as_it_was() {
        let response = FromGuest::Response {
            id: 9,
            result: Err(Fault::new(FaultCode::WrongState, "the engine is not running")),
        };
        let frame = crate::encode(&response).unwrap();
        assert_eq!(
            crate::decode::<FromGuest>(&frame[crate::HEADER_LEN..]).unwrap(),
            response
        );
    }
}
