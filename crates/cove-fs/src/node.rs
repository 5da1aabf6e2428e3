//! What the server knows of one file that the guest holds a reference to.
//!
//! A node is named by its share, mount, device, inode number and time of birth, so that a number the host has given
//! to another file since is a different node. It holds no descriptor of its own except where one is needed:
//! directories in use are pinned (see `pin`), a file is reached through an open handle or through its directory and
//! name, and then checked to be the same file.
//!
//! ```text
//!            LOOKUP, CREATE …               FORGET to zero
//!  (unknown) ───────────────▶ known, lookups > 0 ─────────▶ (unknown)
//!                             │        ▲
//!                      UNLINK │        │ LINK, LOOKUP by another name
//!                             ▼        │
//!                             known, no place: reached through handles or a pin, or as its successor, or stale
//! ```
//!
//! **Successors.** A guest that bind-mounts a single file holds its node for as long as the mount, and nothing tells the
//! server of it. When an editor puts a new file in the place of the old one, native Linux goes on showing the old one.
//! Here nothing holds that, and holding a descriptor for each file that the guest knows is what this server does
//! without. So a regular file that has lost its last name, and is open nowhere, stands for whatever regular file has
//! the name now: who mounts `app.conf` reads what `app.conf` says. To whoever opens it, it does so from the moment at
//! which it is replaced, which the server may not have heard of yet. The guest's kernel decides by the owner and mode
//! that it was told last who may open it, so a successor is opened only where it has the same, was asked about since,
//! or lets in whoever asks; and past the guest's cache, which may be of another size.

use std::ffi::{CStr, CString};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{FileType, Statx, StatxFlags};

use crate::abi::Attr;
use crate::descriptor::Descriptor;
use crate::ownership::Owner;
use crate::share::Share;

/// What tells files apart at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Index of the share; the same file in two shares is two nodes, as one share may be read-only.
    pub(crate) share: u32,
    /// Mount id: a directory that is mounted twice is two directories, or the guest would see a loop.
    pub(crate) mount: u64,
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) ino: u64,
}

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, u32);

/// The parts of a file's status that identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) identity: Identity,
    /// Time of birth, zero where the file system keeps none.
    pub(crate) born: Time,
}

impl Identified {
    pub(crate) fn new(share: &Share, stat: &Statx) -> Self {
        let born = if stat.stx_mask & StatxFlags::BTIME.bits() != 0 {
            (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
        } else {
            (0, 0)
        };
        Self {
            identity: Identity {
                share: share.index,
                mount: stat.stx_mnt_id,
                device: device(stat),
                ino: stat.stx_ino,
            },
            born,
        }
    }
}

/// A file's device as one number.
pub(crate) fn device(stat: &Statx) -> u64 {
    u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor)
}

/// A directory entry: where a node was seen last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Node id of the directory.
    pub(crate) parent: u64,
    pub(crate) name: CString,
}

/// The hash of a place, from its parts.
pub(crate) fn hash_place(state: &mut impl Hasher, parent: u64, name: &CStr) {
    parent.hash(state);
    name.to_bytes().hash(state);
}

/// A version of a file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) modified: Time,
    pub(crate) size: u64,
}

impl Stamp {
    pub(crate) fn new(stat: &Statx) -> Self {
        Self {
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            size: stat.stx_size,
        }
    }
}

/// A file that the guest knows.
#[derive(Debug)]
pub(crate) struct Node {
    /// The number that the guest knows it by; never used again.
    pub(crate) id: u64,
    pub(crate) share: Arc<Share>,
    pub(crate) identified: Identified,
    /// The type of the host's file.
    pub(crate) kind: FileType,
    /// Whether it is the root of its share, which is never forgotten.
    pub(crate) is_share_root: bool,
    /// References that the guest holds.
    pub(crate) lookups: AtomicU64,
    /// A directory: the host's changes in it are reported.
    pub(crate) watched: AtomicBool,
    /// A directory: nothing more to try, it cannot be watched.
    pub(crate) unwatchable: AtomicBool,
    /// A directory: it is not to be watched, nor what is below it.
    pub(crate) left_out: AtomicBool,
    /// A directory: a name in it may be found by another, in letters of the other case. Known once it is watched.
    pub(crate) ignores_case: AtomicBool,
    /// A directory: the guest's kernel has removed it and lets nobody make anything in it, whatever the host does.
    pub(crate) dead: AtomicBool,
    /// A directory: changes in it that the guest has not been told of yet.
    pub(crate) pending: AtomicU32,
    /// A directory: its pin was used since the last sweep.
    pub(crate) pin_used: AtomicBool,
    /// The guest has written since a handle was last opened.
    pub(crate) written: AtomicBool,
    /// Number of names at the last look.
    pub(crate) links: AtomicU32,
    /// A directory: held while its watch is set up, which may wait for its file system, and the state must not.
    pub(crate) watching: Mutex<()>,
    pub(crate) state: Mutex<State>,
}

/// What the guest's kernel decides by who may do what: user, group and mode.
pub(crate) type Access = (u32, u32, u32);

/// The part of a node that changes together. Locked after no other lock but those of the tables' shards, see `table`.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) place: Option<Arc<Place>>,
    /// The last name of a regular file that has none any more.
    pub(crate) former: Option<Arc<Place>>,
    /// The successor that was opened last.
    pub(crate) followed: Option<Identified>,
    /// The status that the guest was told last.
    pub(crate) shown: Option<Attr>,
    /// Until when the guest may go by that without asking.
    pub(crate) believed: Option<Instant>,
    /// An `O_PATH` descriptor.
    pub(crate) pin: Option<Arc<Descriptor>>,
    /// Open files by handle, for as long as the handles are open.
    pub(crate) open: Vec<(u64, Arc<Descriptor>)>,
    /// The ownership record as of a time of change.
    pub(crate) owner: Option<(Time, Option<Owner>)>,
    /// The version of the data that the guest's cache may hold.
    pub(crate) cached: Option<Stamp>,
    /// The version of the data that was last told of, or is about to be.
    pub(crate) told: Option<Stamp>,
    /// The version of the data that the guest has heard of, in an answer or through its agent.
    pub(crate) heard: Option<Stamp>,
}

impl State {
    /// What the guest was told last of who may open it.
    pub(crate) fn access(&self) -> Option<Access> {
        self.shown.map(|attr| (attr.uid, attr.gid, attr.mode & 0o7777))
    }

    /// Whether the guest may go by the status that it was told last.
    pub(crate) fn is_believed(&self) -> bool {
        self.believed.is_some_and(|until| Instant::now() < until)
    }
}

impl Node {
    pub(crate) fn new(id: u64, share: Arc<Share>, identified: Identified, kind: FileType) -> Self {
        Self {
            id,
            share,
            identified,
            kind,
            is_share_root: false,
            lookups: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            unwatchable: AtomicBool::new(false),
            left_out: AtomicBool::new(false),
            ignores_case: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            pending: AtomicU32::new(0),
            pin_used: AtomicBool::new(false),
            written: AtomicBool::new(false),
            links: AtomicU32::new(1),
            watching: Mutex::new(()),
            state: Mutex::new(State::default()),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether what `stat` describes is this very file. Where no birth is kept, its type tells it at least from one of
    /// another type that has been given its number.
    pub(crate) fn is(&self, stat: &Statx) -> bool {
        Identified::new(&self.share, stat) == self.identified
            && FileType::from_raw_mode(stat.stx_mode.into()) == self.kind
    }

    /// Whether what `stat` describes is what this node stands for: this very file, or its successor.
    pub(crate) fn stands_for(&self, stat: &Statx) -> bool {
        self.is(stat) || self.state.lock().followed == Some(Identified::new(&self.share, stat))
    }

    /// Whether the host's changes in this directory reach the guest, so that the guest may cache for long.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }
}

/// Time of last change of status.
pub(crate) fn changed(stat: &Statx) -> Time {
    (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec)
}
