//! Changes of shared folders that the host made, for the agent to repeat in the guest, whose programs and caches learn
//! of them by that; and which of the guest's tasks wait for file locks, since only the guest knows who of them got a
//! signal.
//!
//! ```text
//!  guest (agent)                                      host (machine process)
//!      │ connect vsock port CHANGES ──────────────────▶ │
//!      │ Repeater{task} ──────────────────────────────▶ │ from now on the guest may cache for long
//!      │ ◀────────────────────────── Told::Change ...   │ in the order in which they happened
//!      │ repeats each under REPEATER_UID                │
//!      │ Answered::Repeated{id} ──────────────────────▶ │ one for each, whether or not it worked
//!      │ ◀───────────────────── Told::Waiting{tasks}    │ now and then, while there are any
//!      │ Answered::Interrupted{tasks} ────────────────▶ │ their requests end with EINTR
//! ```

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use std::{fmt, num::NonZeroU32};

/// The uid under which the agent repeats changes. The host's file server answers the [`Repeater`]'s requests under it as
/// if they changed something, and changes nothing; it refuses anybody else's.
pub const REPEATER_UID: u32 = 0xfffe_c07e;

/// Who repeats: the first that the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeater {
    /// Number of the task (thread), as the guest's first process knows it.
    pub task: NonZeroU32,
}

/// What the host tells the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Something to repeat.
    Change(Change),
    /// Tasks that wait for file locks: which of them were interrupted?
    Waiting {
        /// Numbers of tasks (threads), as the guest's first process knows them.
        tasks: Vec<u32>,
    },
}

/// What the agent answers, once to each [`Told`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// It is done with a change.
    Repeated {
        /// The change's.
        id: u64,
    },
    /// These of the tasks have a signal to take, or are to stop or to be frozen, and cannot before their requests have
    /// been answered.
    Interrupted {
        /// Some of [`Told::Waiting`]'s.
        tasks: Vec<u32>,
    },
}

/// One change. Paths are relative and have no `.`, `..` or empty components; what is named may be gone again by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// For [`Answered::Repeated`].
    pub id: u64,
    /// The share's entry at the root of the file system [`SHARES_TAG`](crate::SHARES_TAG).
    pub share: FileName,
    /// The directory below it; empty for the share itself.
    pub directory: FileName,
    /// What happened there.
    pub what: Changed,
}

/// What happened in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// An entry came to be.
    Created {
        /// Its name.
        name: FileName,
        /// Its kind.
        entry: Entry,
    },
    /// A file's data changed.
    Modified {
        /// Its name.
        name: FileName,
    },
    /// Mode, owner, times or attributes changed.
    Attributes {
        /// The entry's name; empty for the directory itself.
        name: FileName,
    },
    /// An entry was removed.
    Deleted {
        /// Its name.
        name: FileName,
        /// Its kind, as far as known.
        entry: Entry,
    },
    /// An entry got another name.
    Renamed {
        /// Its old name.
        name: FileName,
        /// The new directory, like [`Change::directory`].
        to_directory: FileName,
        /// Its new name.
        to_name: FileName,
    },
}

/// Kinds of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Pipe,
    /// A unix socket.
    Socket,
}

/// A name or a path, which on Linux is any bytes but zero. JSON has it as a string where it is text, and as a list of
/// numbers where it is not.
#[derive(Clone, PartialEq, Eq)]
pub struct FileName(pub Vec<u8>);

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for FileName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = FileName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, as text or as bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<FileName, E> {
                Ok(FileName(text.as_bytes().to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<FileName, A::Error> {
                let mut name = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    name.push(byte);
                }
                Ok(FileName(name))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HEADER_LEN, decode, encode};
    use proptest::prelude::*;

    #[test]
    fn a_name_that_is_text_stays_readable() {
        let name = FileName("ünïcode \"x\"\n".into());
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""ünïcode \"x\"\n""#);
    }

    proptest! {
        #[test]
        fn any_name_reads_back_as_it_was(name in proptest::collection::vec(any::<u8>(), 0..64), id in any::<u64>()) {
            let name = FileName(name);
            let change = Change {
                id,
                share: FileName(b"0123".to_vec()),
                directory: name.clone(),
                what: Changed::Renamed { name: name.clone(), to_directory: FileName(Vec::new()), to_name: name },
            };
            let told = Told::Change(change);
            let frame = encode(&told).unwrap();
            prop_assert_eq!(decode::<Told>(&frame[HEADER_LEN..]).unwrap(), told);
        }

        #[test]
        fn no_frame_makes_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = decode::<Told>(&bytes);
            let _ = decode::<Answered>(&bytes);
            let _ = decode::<Repeater>(&bytes);
        }
    }
}
