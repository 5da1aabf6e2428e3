//! What machine process, porter and cell say to each other: one JSON value a line.

use crate::{
    Exit, MachineEvent, Share,
    process::protocol::{Order, Reply},
};
use cove_confine::Layer;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LinesCodec};

/// Longest line, in bytes: an account of the end has twenty lines of the guest's console.
const MAX_LINE: usize = 256 << 10;

/// One end of a conversation.
pub(crate) type Line = Framed<UnixStream, LinesCodec>;

/// Begins a conversation on `stream`.
pub(crate) fn line(stream: UnixStream) -> Line {
    Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE))
}

/// Which part of a machine a process plays, and what it is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Starts the cell, and brings folders into its view. Its standard input is the socket of its errands.
    Porter {
        /// The descriptor of the cell's end of the conversation, inherited.
        line: i32,
        /// Why there are to be no namespaces, if so.
        bare: Option<String>,
    },
    /// Faces the guest. Its standard input is the conversation, its standard output takes the guest's console.
    Cell {
        /// Why it has no namespaces, if so.
        bare: Option<String>,
    },
}

/// What the porter is asked to do. Each errand has one answer, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Errand {
    /// Bring a folder into an empty slot of the cell's view.
    Mount {
        /// Which slot.
        slot: usize,
        /// The folder.
        path: PathBuf,
        /// Whether it may only be read.
        read_only: bool,
    },
    /// Take the folder out of a slot.
    Unmount {
        /// Which slot.
        slot: usize,
    },
}

/// What the porter says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PorterSaid {
    /// First: the cell's process number.
    Started(u32),
    /// First, instead: why the host makes no namespaces for it.
    NoNamespaces(String),
    /// What came of an errand.
    Done(Result<(), String>),
}

/// What is asked of the cell, with a number that its answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asking {
    /// Unique on the conversation.
    pub(crate) id: u64,
    /// What is asked.
    pub(crate) ask: Ask,
}

/// What is asked of the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Have the guest run, if it is the cell that runs it.
    Begin,
    /// Something of the guest, if it is the cell that runs it.
    Machine(Order),
    /// Tell the guest whether it has a network.
    Plug(bool),
    /// Let the guest reach a folder.
    AddShare {
        /// The folder, as everybody knows it.
        share: Share,
        /// Where the cell finds it.
        at: PathBuf,
    },
    /// Take a folder away.
    RemoveShare {
        /// Its name.
        name: String,
    },
    /// Say how the file server is doing.
    FolderHealth,
}

/// What the cell says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// First: it is confined, its devices are there.
    Ready {
        /// Every layer, as it found it.
        layers: Vec<Layer>,
    },
    /// First, instead: why it could not make a view of its own.
    NoView(String),
    /// Why it cannot go on.
    Failed(String),
    /// What came of an ask.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it.
        result: Result<Reply, String>,
    },
    /// Something happened to the guest.
    Event(MachineEvent),
    /// Last: how the guest ended.
    Ended(Exit),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::protocol::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn a_part_reads_back_as_it_was_written() {
        for part in [
            Part::Porter {
                line: 7,
                bare: Some("no \"namespaces\"".into()),
            },
            Part::Cell { bare: None },
        ] {
            assert_eq!(decode::<Part>(&encode(&part)).unwrap(), part);
        }
    }

    proptest! {
        #[test]
        fn no_line_of_a_cell_makes_the_parser_panic(line in ".*") {
            let _ = decode::<Word>(&line);
            let _ = decode::<PorterSaid>(&line);
        }
    }
}
