//! What a server can be told.

use std::time::Duration;

/// The uid under which the guest's agent repeats the host's changes. Its requests are answered without effect, and
/// those of anybody else under it refused.
pub const REPLAY_UID: u32 = 0xfffe_c07e;

/// Settings of a [`crate::Server`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Most files, directories and locks that the guest may hold open; beyond it, `ENFILE`.
    pub max_open: usize,
    /// Most files and directories that the guest may know; beyond it, `ENFILE` for those that it does not.
    pub max_nodes: usize,
    /// Most directories whose descriptors are kept for the next request.
    pub max_pins: usize,
    /// How long the guest may believe names in a watched directory.
    pub long_entries: Duration,
    /// How long the guest may believe attributes in a watched directory. Bounds how long a change that no event
    /// tells of (a write through a mapping on the host) goes unseen.
    pub long_attributes: Duration,
    /// How long the guest may believe what is not watched.
    pub short: Duration,
    /// Whether to watch directories that the guest looks at.
    pub watch: bool,
    /// Most directories to watch; the kernel's own bound (`fs.fanotify.max_user_marks`) holds as well.
    pub max_watches: usize,
    /// Most changes that wait to be taken; beyond it they are dropped, and found out by comparing. At least 4.
    pub max_queued: usize,
    /// Uid of the agent's requests that repeat the host's changes.
    pub replay_uid: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_open: 65_536,
            // A guest's kernel spends more than a kibibyte of its own memory on each (inode and dentry), and forgets
            // some when that is short: this is more than a guest with four gibibytes can know. Here each is a
            // little more than half a kibibyte.
            max_nodes: 4 << 20,
            max_pins: 4096,
            long_entries: Duration::from_mins(10),
            long_attributes: Duration::from_mins(1),
            short: Duration::from_secs(1),
            watch: true,
            max_watches: 1 << 20,
            max_queued: 65_536,
            replay_uid: REPLAY_UID,
        }
    }
}
