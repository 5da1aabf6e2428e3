//! What the daemon and a machine process say to each other: one JSON value a line, on a socket that only their user may
//! connect to. Both still check what they read, since a daemon may meet a machine process of another release.

use crate::{BackendKind, Disk, Features, FolderHealth, MachineEvent, Share};
use cove_confine::Layer;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LinesCodec};

/// Raised with every change that an older peer would misunderstand.
pub(crate) const VERSION: u32 = 4;

/// Longest line, in bytes.
const MAX_LINE: usize = 64 << 10;

/// A control connection, from either end.
pub(crate) type Line = Framed<UnixStream, LinesCodec>;

/// Makes a control connection of `stream`.
pub(crate) fn line(stream: UnixStream) -> Line {
    Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE))
}

/// The one line that a machine process writes to its standard output: how its start went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "start")]
pub(crate) enum StartReport {
    /// The guest runs, and the control socket answers.
    Running,
    /// Another machine process holds the lock.
    Locked,
    /// It did not work.
    Failed {
        /// Why, for a person.
        why: String,
        /// Whether the hypervisor came down by a fault of its own.
        #[serde(default)]
        crashed: bool,
    },
}

/// What the machine process says first on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its [`VERSION`].
    pub(crate) version: u32,
    /// Its process id and, after it, the hypervisor's.
    pub(crate) processes: Vec<u32>,
    /// What runs the machine.
    pub(crate) backend: BackendKind,
    /// What the machine can do.
    pub(crate) features: Features,
    /// What a person should know about how it was set up.
    pub(crate) notices: Vec<String>,
    /// How the process that faces the guest is confined.
    pub(crate) confinement: Vec<Layer>,
    /// Whether the vCPUs stand still.
    pub(crate) paused: bool,
    /// Whether they do since the host had no space for what the guest wrote.
    #[serde(default)]
    pub(crate) held: bool,
    /// The folders that the guest may reach.
    pub(crate) shares: Vec<Share>,
}

impl Hello {
    /// What the vCPUs do.
    pub(crate) fn vcpus(&self) -> Vcpus {
        match (self.paused, self.held) {
            (false, _) => Vcpus::Running,
            (true, false) => Vcpus::Paused,
            (true, true) => Vcpus::Held,
        }
    }
}

/// Whether the vCPUs run, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vcpus {
    /// They run.
    Running,
    /// They stand on request.
    Paused,
    /// They stand since the host had no space for what the guest wrote.
    Held,
}

impl Vcpus {
    /// What they do after an event.
    pub(crate) fn after(event: &MachineEvent) -> Self {
        match event {
            MachineEvent::Paused { held: false } => Self::Paused,
            MachineEvent::Paused { held: true } => Self::Held,
            MachineEvent::Resumed | MachineEvent::Rebooted | MachineEvent::Exited(_) => Self::Running,
        }
    }
}

/// A request with a number that its answer will carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Chosen by the daemon, unique on the connection.
    pub(crate) id: u64,
    /// What is asked.
    pub(crate) request: Request,
}

/// What the daemon asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Something of the machine itself.
    Machine(Order),
    /// Let the guest reach a folder.
    AddShare(Share),
    /// Take a folder away from the guest.
    RemoveShare {
        /// Its name.
        name: String,
    },
    /// Say how the file server is doing.
    FolderHealth,
}

/// What the daemon asks of the machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Stop the vCPUs.
    Pause,
    /// Let them go on.
    Resume,
    /// Cut the power.
    Kill,
    /// Tell the guest a disk's new size.
    Grow {
        /// Which one.
        disk: Disk,
        /// Its size in bytes.
        size: u64,
    },
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It was carried out.
    Done,
    /// The answer to [`Request::FolderHealth`].
    Folders(FolderHealth),
}

/// What the machine process says after its [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// A request was carried out, or why not.
    Answer {
        /// The request's number.
        id: u64,
        /// What came of it, or why it was refused.
        result: Result<Reply, String>,
    },
    /// Something happened. The machine's end is not told like this but by the connection's end: the account is on disk
    /// then, where it also is for a daemon that was not connected.
    Event(MachineEvent),
}

/// Turns a value into a line, without its end.
pub(crate) fn encode<T: Serialize>(value: &T) -> String {
    #[expect(
        clippy::expect_used,
        reason = "these types hold nothing that JSON cannot, such as maps with odd keys"
    )]
    serde_json::to_string(value).expect("a message is JSON")
}

/// Turns a line into a value.
pub(crate) fn decode<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_read_back_as_they_were_and_take_one_line() {
        for said in [
            Said::Answer {
                id: 7,
                result: Ok(Reply::Done),
            },
            Said::Answer {
                id: 8,
                result: Err("not\nnow".into()),
            },
            Said::Event(MachineEvent::Rebooted),
        ] {
            let line = encode(&said);
            assert!(!line.contains('\n'));
            assert_eq!(decode::<Said>(&line).unwrap(), said);
        }
        let call = Call {
            id: 1,
            request: Request::Machine(Order::Grow {
                disk: Disk::Data,
                size: u64::MAX,
            }),
        };
        assert_eq!(decode::<Call>(&encode(&call)).unwrap(), call);
        let call = Call {
            id: 2,
            request: Request::AddShare(Share {
                name: "a".into(),
                path: "/home/ü \n\"".into(),
                read_only: true,
            }),
        };
        assert_eq!(decode::<Call>(&encode(&call)).unwrap(), call);
    }

    #[test]
    fn a_pause_of_a_release_that_does_not_say_why_was_on_request() {
        /// What such a release reads.
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "snake_case", tag = "event")]
        enum Earlier {
            Paused,
        }
        let paused = decode::<Said>(r#"{"event":{"event":"paused"}}"#).unwrap();
        assert_eq!(paused, Said::Event(MachineEvent::Paused { held: false }));
        let held = encode(&MachineEvent::Paused { held: true });
        assert_eq!(decode::<Earlier>(&held).unwrap(), Earlier::Paused);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parsers_panic(line in ".*") {
            let _ = decode::<Call>(&line);
            let _ = decode::<Said>(&line);
            let _ = decode::<Hello>(&line);
            let _ = decode::<StartReport>(&line);
        }
    }
}
