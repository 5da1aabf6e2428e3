//! Files within containers and volumes: what the agent, started once for each question, is asked and answers.
//!
//! The host runs `cove-agent files QUESTION` in the guest ([`Exec`](crate::Exec)) and reads one [`FilesAnswer`] from
//! its standard output. Contents of files do not go this way: the engine's own archives carry them.

use serde::{Deserialize, Serialize};

/// Where the agent's program is in the guest.
pub const AGENT_PROGRAM: &str = "/usr/sbin/cove-agent";
/// Its first argument when it is asked about files; the second is a [`FilesQuestion`] as JSON.
pub const FILES_ARGUMENT: &str = "files";
/// Entries of a folder that are told of at most.
pub const MAX_ENTRIES: usize = 5000;
/// Mounts that are asked about at most, and the length of all their paths in bytes: a question is one argument of a
/// program, which Linux bounds by 128 KiB.
pub const MAX_MOUNTS: usize = 256;
/// See [`MAX_MOUNTS`].
pub const MAX_MOUNTS_LENGTH: usize = 32 << 10;

/// A question about the files of a container or a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesQuestion {
    /// Which files.
    pub root: FilesRoot,
    /// What is wanted.
    pub call: FilesCall,
}

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesRoot {
    /// As a running container sees them, mounts included.
    Running {
        /// Its first process, as the engine numbers it.
        pid: i32,
        /// Its id, by which the agent makes sure that the number is not another process's by now.
        container: String,
    },
    /// The layers of one that does not run, the uppermost first. Nothing is mounted over them, and they are only read.
    Layers(Vec<String>),
    /// The folder that the engine keeps a volume in.
    Volume(String),
}

/// What is wanted of them. Paths are absolute and mean what they mean within the container, or from the
/// volume's root, links included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesCall {
    /// What is there: answered by [`FilesAnswer::Folder`] or [`FilesAnswer::Other`].
    Look {
        /// The folder's or file's path.
        path: String,
        /// Where something is mounted in the container, as it was asked for when that was made: links on the way to it
        /// are those of the container.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mounts: Vec<String>,
    },
    /// Removes a file, or a folder with all that is in it, unless something is mounted there. Answered by
    /// [`FilesAnswer::Done`].
    Remove {
        /// Its path.
        path: String,
    },
    /// Gives something another name in its folder, one that is not there yet. Answered by [`FilesAnswer::Done`].
    Rename {
        /// Its path.
        path: String,
        /// The new name, without a slash.
        name: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesAnswer {
    /// A folder.
    Folder {
        /// Its path, links resolved.
        path: String,
        /// What is in it, in no order; at most [`MAX_ENTRIES`].
        entries: Vec<FileEntry>,
        /// Whether there is more.
        cut: bool,
        /// The innermost of the mounts asked about that it is in, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<InMount>,
    },
    /// Something else.
    Other {
        /// Its path, links resolved.
        path: String,
        /// What it is.
        entry: FileEntry,
        /// The innermost of the mounts asked about that it is in, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<InMount>,
    },
    /// It was done.
    Done,
    /// It was not, for this reason.
    Refused(String),
}

/// Where something is in a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InMount {
    /// The mount, as it was asked about.
    pub mount: String,
    /// The path from there; empty for what is mounted itself.
    pub inner: String,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Whether the name is not UTF-8, and `name` only resembles it.
    #[serde(default)]
    pub garbled: bool,
    /// What it is.
    pub kind: FileKind,
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// When its content changed, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<FileLink>,
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLink {
    /// As it is written.
    pub target: String,
    /// What is at its end; absent if nothing.
    pub kind: Option<FileKind>,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A folder.
    Folder,
    /// An ordinary file.
    File,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Special,
}
