//! Watches the directories that the guest has looked at, and turns what the host does in them into changes.
//!
//! By fanotify, which an ordinary user may use on directories: its events say whether this very process caused them
//! (`pid`), so what the guest does through the server is told apart from what the host does without a doubt, and
//! a rename is one event with both names. It needs Linux 5.17 and a file system with file handles; where it cannot
//! watch, a directory's answers are short-lived and no events are delivered.
//!
//! The kernel merges events of one process on one name that nobody has read yet, also across a rename of that name;
//! what the order was is then told from what is there now. An exchange of two names comes as two renames. Where changes
//! were lost altogether, `compare` finds the difference.

mod compare;
mod note;
mod wire;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use cove_confine::seccomp::{self, Thread};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::change::is_in_view;
use crate::descriptor::Descriptor;
use crate::node::{Node, Place};
use crate::sys;
use crate::tree::{STATUS, Tree, open_dir};
use compare::Step;
pub(crate) use note::kind_of_type;
use wire::{DirectoryKey, Events, RawEvent};

const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_EVENT_ON_CHILD
    | libc::FAN_ONDIR;

/// The file systems that ignore the case of letters in all names: FAT and exFAT (`MSDOS_SUPER_MAGIC`,
/// `EXFAT_SUPER_MAGIC` of the kernel's `linux/magic.h`).
const CASE_IGNORED: [std::ffi::c_long; 2] = [0x4d44, 0x2011_bab0];
/// Those that do so in the directories that have a flag for it: ext4, F2FS and tmpfs (`EXT4_SUPER_MAGIC`,
/// `F2FS_SUPER_MAGIC`, `TMPFS_MAGIC`).
const CASE_FOLDED: [std::ffi::c_long; 3] = [0xef53, 0xf2f5_2010, 0x0102_1994];
/// That flag (`FS_CASEFOLD_FL` of the kernel's `linux/fs.h`).
const CASEFOLD: u32 = 0x4000_0000;
/// Bytes of events read at once: some hundreds.
const READ: usize = 64 << 10;
/// How long events may wait while only the guest causes any. The kernel keeps 16,384 of them.
const PACE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// How long the other half of an exchange is waited for after a rename.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// How long the end of all watches waits for one that is being set up.
const BEING_WATCHED: Duration = Duration::from_millis(100);
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The watched directories. See the module's header.
pub(crate) struct Watch {
    group: OwnedFd,
    /// Wakes the thread that reads events.
    wake: OwnedFd,
    /// Changes were lost, and no comparison has begun since.
    comparison_due: AtomicBool,
    /// The nodes of each; more than one where a directory is in two shares or mounted twice.
    directories: Mutex<HashMap<DirectoryKey, Vec<u64>>>,
    keys: Mutex<HashMap<u64, DirectoryKey>>,
    /// No more could be watched, and none has been given up since.
    exhausted: AtomicBool,
    /// That has been said.
    warned: AtomicBool,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            group: sys::fanotify_init()?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            comparison_due: AtomicBool::new(false),
            directories: Mutex::default(),
            keys: Mutex::default(),
            exhausted: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        })
    }

    /// How many directories are watched.
    pub(crate) fn count(&self) -> usize {
        self.keys.lock().len()
    }

    /// Whether a directory could not be watched because there were too many, and still are.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Changes were lost: has what the guest knows compared with what is there, as soon as somebody repeats changes.
    pub(crate) fn compare(&self) {
        self.comparison_due.store(true, Ordering::Release);
        self.rouse();
    }

    /// Has the thread look at what there is to do.
    pub(crate) fn rouse(&self) {
        // Fails only where the counter is full, and then the thread is woken as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn add(&self, node: &Node, dir: &Descriptor) -> Result<(), Errno> {
        node.ignores_case.store(ignores_case(dir)?, Ordering::Relaxed);
        let key = DirectoryKey {
            filesystem: rustix::fs::fstatvfs(dir)?.f_fsid,
            handle: sys::name_to_handle(dir.as_fd())?,
        };
        // Known before the first event can come.
        {
            let mut directories = self.directories.lock();
            let nodes = directories.entry(key.clone()).or_default();
            if !nodes.contains(&node.id) {
                nodes.push(node.id);
            }
        }
        if let Err(errno) = sys::fanotify_mark(self.group.as_fd(), true, MASK, dir.as_fd()) {
            self.drop_node(&key, node.id);
            return Err(errno);
        }
        self.keys.lock().insert(node.id, key);
        Ok(())
    }

    /// Ends the kernel's watch on a directory whose last node has been dropped.
    fn unmark(&self, key: &DirectoryKey, dir: BorrowedFd<'_>) {
        let _ = sys::fanotify_mark(self.group.as_fd(), false, MASK, dir);
        // The guest may have looked it up again meanwhile, under another number, and then it is the new node's mark
        // that has just been removed. `add` enters the node before it marks: either the node is seen here, or its mark
        // is still to come.
        if !self.nodes(key).is_empty() {
            let _ = sys::fanotify_mark(self.group.as_fd(), true, MASK, dir);
            // What the host did in between was reported to nobody.
            self.compare();
        }
    }

    /// Ends all watches.
    fn clear(&self) {
        if let Err(errno) = sys::fanotify_flush(self.group.as_fd()) {
            tracing::warn!(%errno, "cannot end the watches on directories of the host");
        }
        self.directories.lock().clear();
        self.keys.lock().clear();
        self.exhausted.store(false, Ordering::Relaxed);
    }

    /// How many directories the kernel watches.
    #[cfg(test)]
    pub(crate) fn marks(&self) -> usize {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fdinfo/{}", self.group.as_raw_fd());
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .filter(|line| line.starts_with("fanotify ino"))
            .count()
    }

    /// True when no node is left for the directory.
    fn drop_node(&self, key: &DirectoryKey, node: u64) -> bool {
        let mut directories = self.directories.lock();
        let Some(nodes) = directories.get_mut(key) else {
            return true;
        };
        nodes.retain(|id| *id != node);
        if !nodes.is_empty() {
            return false;
        }
        directories.remove(key);
        true
    }

    fn nodes(&self, key: &DirectoryKey) -> Vec<u64> {
        self.directories.lock().get(key).cloned().unwrap_or_default()
    }
}

impl Tree {
    /// Has the directory watched, if it can be. Called before its contents are looked at, so that no change falls
    /// between the look and the watch.
    pub(crate) fn ensure_watched(&self, node: &Arc<Node>, dir: &Descriptor) {
        if node.is_watched() || node.unwatchable.load(Ordering::Relaxed) {
            return;
        }
        let Some(watch) = &self.watch else { return };
        if self.is_left_out(node) {
            node.left_out.store(true, Ordering::Relaxed);
            node.unwatchable.store(true, Ordering::Relaxed);
            return;
        }
        // Of what happens where the guest knows no path to, nobody could be told.
        if watch.is_exhausted() || !is_in_view(node.id, &self.nodes) {
            return;
        }
        let result = if watch.count() < self.config.max_watches {
            let _one_at_a_time = node.watching.lock();
            if node.is_watched() {
                return;
            }
            let result = watch.add(node, dir);
            if result.is_ok() {
                node.watched.store(true, Ordering::Release);
            }
            result
        } else {
            Err(Errno::NOSPC)
        };
        if let Err(errno) = result {
            if errno != Errno::NOSPC {
                node.unwatchable.store(true, Ordering::Relaxed);
                tracing::debug!(share = ?node.share.name, %errno, "a directory cannot be watched");
                if is_of_file_system(errno) && node.share.note_untold() {
                    tracing::warn!(
                        share = ?node.share.name,
                        %errno,
                        "a file system in this share does not tell of changes on the host; it is cached for a short \
                         time only"
                    );
                }
                return;
            }
            // Until another is given up.
            watch.exhausted.store(true, Ordering::Relaxed);
            if !watch.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    watched = watch.count(),
                    "no more directories can be watched for changes on the host; others are cached for a short time \
                     only. Raise fs.fanotify.max_user_marks to watch more"
                );
            }
        }
    }

    /// The same, of a directory that has not been opened.
    pub(crate) fn ensure_known_watched(&self, node: &Arc<Node>) {
        if self.is_to_be_watched(node)
            && let Ok(dir) = self.dir(node)
        {
            self.ensure_watched(node, &dir);
        }
    }

    /// Whether the directory is not watched yet, and may be once somebody asks for something of it.
    pub(crate) fn is_to_be_watched(&self, node: &Node) -> bool {
        node.is_dir()
            && !node.is_watched()
            && !node.unwatchable.load(Ordering::Relaxed)
            && self.watch.as_ref().is_some_and(|watch| !watch.is_exhausted())
    }

    /// Whether the directory, or the one that it is in, was said to be left out. The guest looks into the outer one
    /// first.
    fn is_left_out(&self, node: &Node) -> bool {
        let identity = &node.identified.identity;
        if self.left_out.read().contains(&(identity.device, identity.ino)) {
            return true;
        }
        let parent = node.state.lock().place.as_ref().map(|place| place.parent);
        parent
            .and_then(|id| self.nodes.get(id))
            .is_some_and(|parent| parent.left_out.load(Ordering::Relaxed))
    }

    /// Ends the watch on a directory that the guest has forgotten, and knew at `place` last.
    pub(crate) fn unwatch(&self, node: &Node, place: Option<&Place>) {
        let Some(watch) = &self.watch else { return };
        if !node.watched.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(key) = watch.keys.lock().remove(&node.id) else {
            return;
        };
        watch.exhausted.store(false, Ordering::Relaxed);
        if !watch.drop_node(&key, node.id) {
            return;
        }
        // A directory that was removed took its mark with it. One that is not where it was keeps it until the guest is
        // reset; its events lead to no node and are dropped.
        let pin = node.state.lock().pin.clone();
        if let Some(dir) = pin {
            watch.unmark(&key, dir.as_fd());
        } else if let Some(Ok(dir)) = place.map(|place| self.open_once(node, place)) {
            watch.unmark(&key, dir.as_fd());
        }
    }

    /// Ends the watch on a directory that is still where it was, but below one that went out of the guest's view. By its
    /// place it is found from there.
    pub(crate) fn unwatch_out_of_view(&self, node: &Node) {
        let place = node.state.lock().place.clone();
        self.unwatch(node, place.as_deref());
    }

    /// A directory by the place where it was, without a pin for the next time.
    fn open_once(&self, node: &Node, place: &Place) -> Result<OwnedFd, Errno> {
        let parent = self.dir(&self.node(place.parent)?)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &*place.name, flags, Mode::empty())?;
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        if node.is(&stat) { Ok(fd) } else { Err(Errno::STALE) }
    }

    /// Ends all watches, for a guest that has forgotten everything.
    pub(crate) fn unwatch_all(&self) {
        let Some(watch) = &self.watch else { return };
        watch.clear();
        for node in self.nodes.all() {
            // Not while it is being watched anew. One whose file system does not answer then will be, if it ever does.
            let _one_at_a_time = node.watching.try_lock_for(BEING_WATCHED);
            node.watched.store(false, Ordering::Release);
        }
    }
}

/// Whether names in the directory are found in letters of the other case as well.
fn ignores_case(dir: &Descriptor) -> Result<bool, Errno> {
    let kind = rustix::fs::fstatfs(dir)?.f_type;
    if !CASE_FOLDED.contains(&kind) {
        return Ok(CASE_IGNORED.contains(&kind));
    }
    // A descriptor that is a mere place (`O_PATH`) cannot be asked. What cannot be opened is taken for one of the many
    // that do not.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = open_dir(dir, flags).and_then(rustix::fs::ioctl_getflags);
    Ok(flags.is_ok_and(|flags| folds(flags.bits())))
}

fn folds(flags: u32) -> bool {
    flags & CASEFOLD != 0
}

/// Whether a directory cannot be watched because of the file system that it is on, as all others there: it has no file
/// handles or no number of its own, or is a part whose number is not the whole's, such as a subvolume of Btrfs where the
/// kernel does not take these.
fn is_of_file_system(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NODEV | Errno::XDEV)
}

/// The thread that reads events; ends when dropped.
pub(crate) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts it, if the tree has watches.
    pub(crate) fn start(tree: &Arc<Tree>) -> std::io::Result<Option<Self>> {
        let Some(watch) = &tree.watch else { return Ok(None) };
        let (group, wake) = (watch.group.try_clone()?, watch.wake.try_clone()?);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (weak, stopped) = (Arc::downgrade(tree), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("cove-fs-watch".into())
            .spawn(move || {
                seccomp::enter(Thread::Files);
                run(&weak, &group, &wake, &stopped);
            })?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(tree: &Weak<Tree>, group: &OwnedFd, wake: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = vec![0; READ];
    let mut comparison = None;
    // How long to wait for events, where there is a comparison to go on with.
    let mut wait = None;
    // The kernel names the thread group.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    loop {
        let mut ready = [
            PollFd::new(group, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut ready, wait) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "cannot wait for changes on the host");
                return;
            }
        }
        if !ready[2].revents().is_empty() {
            return;
        }
        // Emptied before the look at what there is to do, so that nothing is missed.
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        let (mut len, mut foreign) = (0, Vec::new());
        // Once more after a rename: the other half of an exchange comes moments later.
        for is_last in [false, true] {
            let read = match rustix::io::read(group, &mut buffer) {
                Ok(read) => read,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(errno) => {
                    tracing::error!(%errno, "cannot read changes on the host");
                    return;
                }
            };
            len += read;
            let events = Events(&buffer[..read]).filter(|(pid, _)| *pid != own);
            foreign.extend(events.map(|(_, event)| event.parse()));
            if is_last || foreign.last().is_none_or(|event: &RawEvent| !event.is_rename()) {
                break;
            }
            let mut more = [
                PollFd::new(group, PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
            // What fails here fails again when events are waited for.
            let _ = poll(&mut more, Some(&MOMENT));
        }
        let Some(tree) = tree.upgrade() else { return };
        tree.note_all(&foreign);
        wait = match tree.compare(&mut comparison) {
            Step::Done => None,
            Step::More => Some(&AT_ONCE),
            Step::Waits => Some(&PACE),
        };
        if len > 0 && foreign.is_empty() && wait.is_none() {
            // Only the guest is at work. Being woken for each of its operations would cost as much as they do.
            let mut stopped = [PollFd::new(stop, PollFlags::IN)];
            let _ = poll(&mut stopped, Some(&PACE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::Budget;

    /// One with the flag takes privilege to make; what becomes of it is tested with the server.
    #[test]
    fn a_directory_without_the_flag_does_not_ignore_case() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap();
        let dir = Budget::new(1).reserve().unwrap().hold(dir);
        assert_eq!(ignores_case(&dir), Ok(false));
        let listed = open_dir(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC).unwrap();
        match rustix::fs::ioctl_getflags(listed) {
            Ok(_) | Err(Errno::NOTTY | Errno::OPNOTSUPP) => {}
            Err(errno) => panic!("the flags are not told: {errno}"),
        }
        // Of ext4, that a file consists of extents.
        assert!(folds(0x4000_0000) && !folds(0x0008_0000));
    }

    /// The new node's mark went with the old one's, and nothing that the host did in the directory was told any more.
    #[test]
    fn a_directory_that_is_looked_up_while_its_watch_ends_stays_watched() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap();
        let Ok(watch) = Watch::new() else {
            eprintln!("SKIPPED: this kernel cannot watch by fanotify");
            return;
        };
        let key = DirectoryKey {
            filesystem: rustix::fs::fstatvfs(&dir).unwrap().f_fsid,
            handle: sys::name_to_handle(dir.as_fd()).unwrap(),
        };
        // As `add` leaves it for the new node, between the old one's end and the removal of its mark.
        watch.directories.lock().insert(key.clone(), vec![7]);
        sys::fanotify_mark(watch.group.as_fd(), true, MASK, dir.as_fd()).unwrap();
        watch.unmark(&key, dir.as_fd());
        assert_eq!(watch.marks(), 1);
        assert!(watch.comparison_due.load(Ordering::Acquire));
        assert!(watch.drop_node(&key, 7));
        watch.unmark(&key, dir.as_fd());
        assert_eq!(watch.marks(), 0);
    }
}
