//! The state behind the server, and the ways to reach a file on the host.
//!
//! Owner of everything that outlives a request: nodes, handles, shares, locks, watches and the queue of changes.
//! Worker threads share it by reference; each part has its own lock.
//!
//! Nothing is ever opened by a path from the guest. A file is reached through a descriptor held for it, or as one
//! name in a directory's descriptor without following a symlink, and is then compared with what the node stands
//! for; so the worst that a race with the host can do is `STALE`, upon which the guest's kernel looks the name up
//! again.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::change::Changes;
use crate::config::Config;
use crate::descriptor::{Budget, Descriptor};
use crate::handle::Handles;
use crate::locks::Locks;
use crate::node::{Identified, Node, Place};
use crate::replay::Replay;
use crate::share::Share;
use crate::table::Table;
use crate::watch::Watch;

/// What every status is asked for.
pub(crate) const STATUS: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

/// Pins beyond the setting, for those that requests hold while others are being evicted.
pub(crate) const SPARE_PINS: usize = 256;

/// Most files that are open under the reserved uid. The agent opens them one after the other, but that it has closed one
/// is told in the guest kernel's own time.
pub(crate) const MAX_REPLAYING: usize = 4096;

/// How often a file is looked at that is replaced between the look and the opening.
const SUCCESSIONS: usize = 8;

/// Longest chain of directories that is walked to reach one without a descriptor.
const MAX_DEPTH: usize = 2048;

/// See the module's header.
pub(crate) struct Tree {
    pub(crate) config: Config,
    pub(crate) nodes: Table,
    pub(crate) handles: Handles,
    pub(crate) shares: RwLock<Vec<(Arc<Share>, Arc<Node>)>>,
    /// Bounds open handles and lock descriptors.
    pub(crate) open_budget: Arc<Budget>,
    /// Bounds pinned directories, with room to spare for those in the hands of a request.
    pub(crate) pin_budget: Arc<Budget>,
    /// Bounds the agent's handles, for themselves: no container that opens all it can keeps it from repeating changes.
    pub(crate) replay_budget: Arc<Budget>,
    pub(crate) pins: Mutex<VecDeque<Weak<Node>>>,
    /// Devices seen, in order of their prefix in the inode numbers that the guest sees.
    pub(crate) devices: RwLock<Vec<u64>>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) watch: Option<Watch>,
    /// Device and inode of directories that are not watched, nor what is below them.
    pub(crate) left_out: RwLock<Vec<(u64, u64)>>,
    pub(crate) changes: Changes,
    pub(crate) replay: Replay,
    /// The user and group that the server runs as.
    pub(crate) user: (u32, u32),
    /// Whether the guest has said INIT.
    pub(crate) initialised: AtomicBool,
    /// The task that repeats the host's changes in the guest, as the guest numbers it; 0 while nobody does.
    pub(crate) repeater: AtomicU32,
}

/// A way to a file.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// An `O_PATH` descriptor of the file itself.
    Pin(Arc<Descriptor>),
    /// The file, open.
    Open(Arc<Descriptor>),
    /// A name in a directory.
    Name(Arc<Descriptor>, Arc<Place>),
}

/// Who opens a file, and for what: the bits of a mode that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opener {
    pub(crate) uid: u32,
    pub(crate) wanted: u32,
}

impl Opener {
    /// Whether that is so without a look at the user's groups, which no request tells: it takes what the group may do
    /// and what others may.
    pub(crate) fn is_permitted_by(self, owner: u32, mode: u32) -> bool {
        let bits = if self.uid == owner {
            mode >> 6
        } else {
            mode & mode >> 3
        };
        bits & self.wanted == self.wanted
    }
}

impl Reach {
    /// The arguments for calls that take a directory and a path.
    pub(crate) fn at(&self) -> (BorrowedFd<'_>, &CStr, AtFlags) {
        match self {
            Self::Pin(fd) | Self::Open(fd) => (fd.as_fd(), c"", AtFlags::EMPTY_PATH),
            Self::Name(dir, place) => (dir.as_fd(), &place.name, AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

impl Tree {
    /// The node with this number. `STALE` when there is none, or its share is gone.
    pub(crate) fn node(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.nodes
            .get(id)
            .filter(|node| !node.share.is_removed())
            .ok_or(Errno::STALE)
    }

    /// The node, if it may be changed. `ROFS` in a read-only share.
    pub(crate) fn writable(&self, id: u64) -> Result<Arc<Node>, Errno> {
        if id == crate::abi::ROOT_ID {
            return Err(Errno::ROFS);
        }
        let node = self.node(id)?;
        if node.share.read_only {
            Err(Errno::ROFS)
        } else {
            Ok(node)
        }
    }

    /// An `O_PATH` descriptor of a directory, pinned for the next time.
    pub(crate) fn dir(&self, node: &Arc<Node>) -> Result<Arc<Descriptor>, Errno> {
        if let Some(fd) = pinned(node) {
            return Ok(fd);
        }
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        // Up to the first ancestor with a descriptor, then down again.
        let mut below = vec![Arc::clone(node)];
        let mut fd = loop {
            let Some(last) = below.last() else {
                return Err(Errno::STALE);
            };
            let parent = last.state.lock().place.as_ref().map(|place| place.parent);
            let parent = self.node(parent.ok_or(Errno::STALE)?)?;
            if let Some(fd) = pinned(&parent) {
                break fd;
            }
            if below.len() >= MAX_DEPTH {
                return Err(Errno::STALE);
            }
            below.push(parent);
        };
        while let Some(dir) = below.pop() {
            let place = dir.state.lock().place.clone().ok_or(Errno::STALE)?;
            fd = self.open_pin(&fd, &place.name, &dir)?;
        }
        Ok(fd)
    }

    fn open_pin(&self, parent: &Descriptor, name: &CStr, node: &Arc<Node>) -> Result<Arc<Descriptor>, Errno> {
        let place = self.reserve_pin()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(gone)?;
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        if !node.is(&stat) {
            return Err(Errno::STALE);
        }
        let fd = place.hold(fd);
        let mut state = node.state.lock();
        if let Some(other) = &state.pin {
            return Ok(Arc::clone(other));
        }
        state.pin = Some(Arc::clone(&fd));
        drop(state);
        self.note_pin(node);
        Ok(fd)
    }

    /// Takes up a node that has been pinned.
    pub(crate) fn note_pin(&self, node: &Arc<Node>) {
        node.pin_used.store(true, Ordering::Relaxed);
        let mut pins = self.pins.lock();
        // A reference keeps the memory of a node that the guest has long forgotten, and nothing else is evicted for
        // as long as there are few pins.
        if pins.len() >= 2 * (self.config.max_pins + SPARE_PINS) {
            pins.retain(|weak| weak.strong_count() > 0);
        }
        pins.push_back(Arc::downgrade(node));
    }

    /// A place for one more pin, at the cost of one that was not used lately.
    fn reserve_pin(&self) -> Result<crate::descriptor::Place, Errno> {
        if self.pin_budget.used() < self.config.max_pins {
            return self.pin_budget.reserve();
        }
        let mut pins = self.pins.lock();
        let mut spared = 0;
        for _ in 0..pins.len() {
            let Some(weak) = pins.pop_front() else { break };
            let Some(node) = weak.upgrade() else { continue };
            // One that is dead to the guest has no name to be found by again. Not more than half of all are for such:
            // who keeps thousands of removed directories open is to leave some for the others.
            let is_spared = node.dead.load(Ordering::Acquire) && spared < self.config.max_pins / 2;
            spared += usize::from(is_spared);
            if node.pin_used.swap(false, Ordering::Relaxed) || is_spared {
                pins.push_back(weak);
                continue;
            }
            node.state.lock().pin = None;
            if self.pin_budget.used() < self.config.max_pins {
                break;
            }
        }
        drop(pins);
        self.pin_budget.reserve()
    }

    /// The ways to a file, best first.
    fn ways(&self, node: &Arc<Node>) -> [Option<Reach>; 2] {
        if node.is_dir() {
            return [self.dir(node).ok().map(Reach::Pin), None];
        }
        let (pin, place, open) = {
            let state = node.state.lock();
            (
                state.pin.clone(),
                state.place.clone(),
                state.open.last().map(|(_, fd)| Arc::clone(fd)),
            )
        };
        let named = place.and_then(|place| {
            let parent = self.node(place.parent).ok()?;
            Some(Reach::Name(self.dir(&parent).ok()?, place))
        });
        let held = pin.map(Reach::Pin).or(open.map(Reach::Open));
        if named.is_some() {
            [named, held]
        } else {
            [held, None]
        }
    }

    /// The regular file that has taken the last name of one that nothing holds; see `node`.
    fn successor(&self, node: &Arc<Node>) -> Result<(Statx, Reach), Errno> {
        let former = node.state.lock().former.clone();
        self.regular_file_at(former.ok_or(Errno::STALE)?)
    }

    fn regular_file_at(&self, place: Arc<Place>) -> Result<(Statx, Reach), Errno> {
        let parent = self.node(place.parent)?;
        let reach = Reach::Name(self.dir(&parent)?, place);
        let (dir, path, flags) = reach.at();
        let stat = rustix::fs::statx(dir, path, flags, STATUS).map_err(gone)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(Errno::STALE);
        }
        Ok((stat, reach))
    }

    /// Opens the successor, if the guest's kernel has judged by its owner and mode whether to ask for that, or would for
    /// certain let `opener` do so. Here it is also what has the only name of a regular file by now, though nobody has
    /// told of that yet: who opens a name that is replaced over and over would be told each time that it leads to another
    /// file, and the guest's kernel tries no more than twice.
    fn open_successor(
        &self,
        node: &Arc<Node>,
        flags: OFlags,
        opener: Option<Opener>,
    ) -> Result<(OwnedFd, Statx), Errno> {
        let (place, opener) = {
            let state = node.state.lock();
            let has_one_name = node.kind == FileType::RegularFile && node.links.load(Ordering::Relaxed) < 2;
            match (&state.former, &state.place) {
                (Some(former), _) => (Arc::clone(former), opener),
                // Whoever came by the name is to look it up again where that says something else, or where the guest's
                // kernel would go by the size of the file before.
                (None, Some(place)) if has_one_name && !state.is_believed() => (Arc::clone(place), None),
                _ => return Err(Errno::STALE),
            }
        };
        for _ in 0..SUCCESSIONS {
            let (stat, reach) = self.regular_file_at(Arc::clone(&place))?;
            let owner = self.owner(node, &stat, &reach);
            let is_judged = node.state.lock().access() == Some((owner.uid, owner.gid, owner.mode));
            if !is_judged && !opener.is_some_and(|opener| opener.is_permitted_by(owner.uid, owner.mode)) {
                break;
            }
            let (dir, name, _) = reach.at();
            let fd = rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(gone)?;
            let opened = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
            let followed = Identified::new(&node.share, &opened);
            if followed == Identified::new(&node.share, &stat) {
                // The next one who opens it is judged anew where the guest's kernel has not done so.
                if is_judged {
                    node.state.lock().followed = Some(followed);
                }
                return Ok((fd, opened));
            }
        }
        Err(Errno::STALE)
    }

    /// The file's status, and the way on which it was found.
    pub(crate) fn stat(&self, node: &Arc<Node>) -> Result<(Statx, Reach), Errno> {
        for reach in self.ways(node).into_iter().flatten() {
            let (dir, path, flags) = reach.at();
            match rustix::fs::statx(dir, path, flags, STATUS) {
                Ok(stat) if node.stands_for(&stat) => return Ok((stat, reach)),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.successor(node)
    }

    /// Opens the file anew and makes sure that it is the right one. `flags` must not have a side effect; `opener` is for
    /// whom, where that is one who asked to open it.
    pub(crate) fn open(
        &self,
        node: &Arc<Node>,
        flags: OFlags,
        opener: Option<Opener>,
    ) -> Result<(OwnedFd, Statx), Errno> {
        // Never wait for the other end of a pipe that a race put in the place of a file.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        for reach in self.ways(node).into_iter().flatten() {
            let opened = match &reach {
                Reach::Name(dir, place) => {
                    rustix::fs::openat(dir, &*place.name, flags | OFlags::NOFOLLOW, Mode::empty())
                }
                Reach::Pin(fd) if node.is_dir() => open_dir(fd, flags),
                Reach::Pin(fd) | Reach::Open(fd) => {
                    rustix::fs::open(ProcPath::new(fd).as_c_str(), flags, Mode::empty())
                }
            };
            match opened {
                Ok(fd) => {
                    let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
                    if node.stands_for(&stat) {
                        return Ok((fd, stat));
                    }
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.open_successor(node, flags, opener)
    }

    /// A descriptor of the very file, `O_PATH` unless one is at hand, to change it without a race.
    pub(crate) fn hold(&self, node: &Arc<Node>) -> Result<(Arc<Descriptor>, Statx), Errno> {
        if node.is_dir() {
            let fd = self.dir(node)?;
            let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
            return Ok((fd, stat));
        }
        let place = self.open_budget.reserve()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for reach in self.ways(node).into_iter().flatten() {
            let fd = match &reach {
                Reach::Name(dir, place) => {
                    match rustix::fs::openat(dir, &*place.name, flags, Mode::empty()) {
                        Ok(fd) => fd,
                        Err(Errno::NOENT | Errno::NOTDIR) => continue,
                        Err(errno) => return Err(errno),
                    }
                }
                Reach::Pin(fd) | Reach::Open(fd) => {
                    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
                    if node.stands_for(&stat) {
                        return Ok((Arc::clone(fd), stat));
                    }
                    // A successor, of a name that is another file's by now.
                    continue;
                }
            };
            let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
            if node.is(&stat) {
                return Ok((place.hold(fd), stat));
            }
        }
        let (fd, stat) = self.open_successor(node, flags, None)?;
        Ok((place.hold(fd), stat))
    }

    /// The inode number as the guest sees it: unique across devices.
    pub(crate) fn shown_ino(&self, device: u64, ino: u64) -> u64 {
        ino ^ self.device_prefix(device)
    }

    /// What inode numbers of a device are combined with. Nothing for the first device seen.
    pub(crate) fn device_prefix(&self, device: u64) -> u64 {
        let index = self.devices.read().iter().position(|known| *known == device);
        let index = index.unwrap_or_else(|| {
            let mut devices = self.devices.write();
            devices
                .iter()
                .position(|known| *known == device)
                .unwrap_or_else(|| {
                    devices.push(device);
                    devices.len() - 1
                })
        });
        (index as u64) << 48
    }
}

fn pinned(node: &Node) -> Option<Arc<Descriptor>> {
    let fd = node.state.lock().pin.clone()?;
    if !node.pin_used.load(Ordering::Relaxed) {
        node.pin_used.store(true, Ordering::Relaxed);
    }
    Some(fd)
}

/// A name that led to the file before and does not now makes the node stale, not the request wrong.
fn gone(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        other => other,
    }
}

/// Opens the directory behind a descriptor anew.
pub(crate) fn open_dir(dir: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&dir, c".", flags, Mode::empty()) {
        // To find `.` takes the right to search the directory, which to list it does not. The other way is slower.
        Err(Errno::ACCESS) => rustix::fs::open(ProcPath::new(&dir).as_c_str(), flags, Mode::empty()),
        opened => opened,
    }
}

/// `/proc/self/fd/N`, for calls that take only a path; leads to the very file that the descriptor is of.
pub(crate) struct ProcPath(CString);

impl ProcPath {
    pub(crate) fn new(fd: impl AsFd) -> Self {
        Self::build(fd.as_fd(), b"")
    }

    /// `/proc/self/fd/N/name`.
    pub(crate) fn entry(dir: BorrowedFd<'_>, name: &CStr) -> Self {
        Self::build(dir, name.to_bytes())
    }

    fn build(fd: BorrowedFd<'_>, name: &[u8]) -> Self {
        let mut path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
        if !name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        // Neither the digits nor a name that came from a `CStr` contain a NUL.
        Self(CString::new(path).unwrap_or_default())
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}
