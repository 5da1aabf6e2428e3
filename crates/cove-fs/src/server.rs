//! The server as its users see it: shares come and go, requests are answered, changes of the host are handed out.

use std::ffi::CString;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use cove_confine::seccomp::{self, Thread};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::abi::ROOT_ID;
use crate::change::{ChangeKind, Changes, Event, HostChange};
use crate::config::Config;
use crate::descriptor::{Budget, Descriptor};
use crate::dispatch::Answer;
use crate::handle::{Handle, Handles, Open};
use crate::locks::Locks;
use crate::memory::{Sink, Source};
use crate::node::device;
use crate::replay::Replay;
use crate::share::{Share, ShareOptions};
use crate::table::Table;
use crate::tree::{MAX_REPLAYING, SPARE_PINS, STATUS, Tree};
use crate::watch::{Watch, Watcher};

/// How long the files of a guest that has gone may take to be closed while somebody waits.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a share could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The name is not one path component.
    #[error("{name:?} cannot be the name of a share")]
    Name {
        /// The name given.
        name: String,
    },
    /// The name is taken.
    #[error("there is a share named {name:?} already")]
    Exists {
        /// The name given.
        name: String,
    },
    /// There is no such share.
    #[error("there is no share named {name:?}")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The folder cannot be opened.
    #[error("cannot open the folder {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How the server is doing, for `cove doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a finding of its own, none a state"
)]
pub struct Health {
    /// Files and directories that the guest knows.
    pub nodes: usize,
    /// Whether it is refused others, because those are as many as it may know.
    pub nodes_exhausted: bool,
    /// Files, directories and locks that the guest holds open.
    pub open: usize,
    /// Directories whose descriptors are kept.
    pub pinned: usize,
    /// Whether changes on the host can be watched at all.
    pub watching: bool,
    /// Whether somebody repeats them in the guest.
    pub repeating: bool,
    /// Directories watched.
    pub watched: usize,
    /// Whether some directory is not watched because there were too many.
    pub watches_exhausted: bool,
    /// Shares in which some file system does not tell of changes.
    pub shares_untold: Vec<String>,
    /// Changes waiting to be taken.
    pub queued_changes: usize,
    /// Shares where owners set by containers last only as long as the server.
    pub shares_without_attributes: Vec<String>,
}

/// A file server for one guest.
///
/// **Threads.** Every method may be called from any thread at any time; requests are answered in parallel.
/// **Failure.** Whatever a request contains, the answer is a failure of that request and nothing else.
/// **Process.** Files are made with the process's umask and repaired when it takes something away, so a umask of 0
/// saves a system call for each. `/proc` must be mounted. Events tell own changes by process, so the server must be
/// the only part of its process to write beneath the shares.
pub struct Server {
    pub(crate) tree: Arc<Tree>,
    _watcher: Option<Watcher>,
    next_share: Mutex<u32>,
}

impl Server {
    /// A server without shares.
    pub fn new(config: Config) -> std::io::Result<Self> {
        let watch = if config.watch {
            Watch::new()
                .inspect_err(|errno| {
                    tracing::warn!(%errno, "changes on the host cannot be watched; caches will be short-lived");
                })
                .ok()
        } else {
            None
        };
        let tree = Arc::new(Tree {
            nodes: Table::new(ROOT_ID + 1, config.max_nodes),
            handles: Handles::new(),
            shares: RwLock::default(),
            open_budget: Budget::new(config.max_open),
            pin_budget: Budget::new(config.max_pins + SPARE_PINS),
            replay_budget: Budget::new(MAX_REPLAYING),
            pins: Mutex::default(),
            devices: RwLock::default(),
            locks: Locks::new(),
            watch,
            left_out: RwLock::default(),
            changes: Changes::new(config.max_queued),
            replay: Replay::default(),
            user: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            initialised: AtomicBool::new(false),
            repeater: AtomicU32::new(0),
            config,
        });
        let watcher = Watcher::start(&tree)?;
        Ok(Self {
            tree,
            _watcher: watcher,
            next_share: Mutex::new(0),
        })
    }

    /// Adds the folder at `path`, visible to the guest at once.
    pub fn add_share(&self, path: &Path, options: ShareOptions) -> Result<(), ShareError> {
        let open = |source: Errno| ShareError::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(open)?;
        self.add_share_at(root, path, options)
    }

    /// Adds an opened folder, for a server that cannot reach paths itself. `path` is for messages.
    pub fn add_share_at(&self, root: OwnedFd, path: &Path, options: ShareOptions) -> Result<(), ShareError> {
        let ShareOptions { name, read_only } = options;
        let valid =
            !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains('/');
        let Some(c_name) = valid.then(|| CString::new(name.as_str()).ok()).flatten() else {
            return Err(ShareError::Name { name });
        };
        let open = |source: Errno| ShareError::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let stat = rustix::fs::statx(&root, c"", AtFlags::EMPTY_PATH, STATUS).map_err(open)?;
        if u32::from(stat.stx_mode) & 0o170_000 != 0o040_000 {
            return Err(open(Errno::NOTDIR));
        }
        let mut next = self.next_share.lock();
        let mut shares = self.tree.shares.write();
        if shares.iter().any(|(share, _)| share.name == c_name) {
            return Err(ShareError::Exists { name });
        }
        let place = self.tree.open_budget.reserve().map_err(open)?;
        *next += 1;
        let share = Arc::new(Share::new(*next, c_name, read_only));
        let node = self.tree.nodes.insert_root(&share, &stat);
        node.state.lock().pin = Some(place.hold(root));
        shares.push((share, node));
        Ok(())
    }

    /// Takes a share away. What the guest holds of it is stale from now on, and its descriptors are closed.
    pub fn remove_share(&self, name: &str) -> Result<(), ShareError> {
        let removed = {
            let mut shares = self.tree.shares.write();
            let at = shares
                .iter()
                .position(|(share, _)| share.name.as_bytes() == name.as_bytes());
            shares.remove(at.ok_or_else(|| ShareError::Unknown {
                name: name.to_owned(),
            })?)
        };
        let share = removed.0;
        // While they can still be reached.
        for node in self.tree.nodes.all() {
            if node.share.index == share.index && node.is_watched() {
                let place = node.state.lock().place.clone();
                self.tree.unwatch(&node, place.as_deref());
            }
        }
        share.removed.store(true, Ordering::Release);
        let taken = self.tree.handles.take_where(|handle| match &handle.open {
            Open::File { node, .. } | Open::Dir { node, .. } => node.share.index == share.index,
            Open::Root { .. } | Open::Replay { .. } => false,
        });
        drop(taken);
        for node in self.tree.nodes.remove_share(share.index) {
            self.tree.unwatch(&node, None);
            node.state.lock().pin = None;
            self.tree.locks.release_node(node.id);
        }
        Ok(())
    }

    /// Leaves the directory at `path` and everything below it out of the watches, for as long as the server lives. For
    /// what changes all the time and concerns no guest, like the disk that the guest itself runs from. To be called
    /// before the guest looks there.
    pub fn leave_unwatched(&self, path: &Path) -> std::io::Result<()> {
        let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), STATUS)?;
        self.tree.left_out.write().push((device(&stat), stat.stx_ino));
        Ok(())
    }

    /// The names of the shares, in order of their addition.
    pub fn shares(&self) -> Vec<String> {
        self.shares_that(|_| true)
    }

    /// Answers one request: `readable` holds it, header first; the answer goes to `writable`, header first.
    pub fn serve(&self, readable: &[VolatileSlice<'_>], writable: &[VolatileSlice<'_>]) -> Answer {
        self.tree.answer(Source { slices: readable }, writable)
    }

    /// Forgets everything that a guest held, for a device that is reset. Shares stay.
    pub fn reset(&self) {
        self.tree.forget_guest();
        self.tree.initialised.store(false, Ordering::Release);
    }

    /// Takes changes that somebody else than the guest made, for the agent to repeat in order, under the uid
    /// [`Config::replay_uid`] (see the module `replay`), and each reported by [`Server::finish_change`]. Waits up to
    /// `timeout` for the first. May return fewer than there are, since the paths of later ones can depend on the
    /// earlier ones having been repeated.
    pub fn take_changes(&self, most: usize, timeout: Duration) -> Vec<HostChange> {
        let tree = &self.tree;
        tree.changes.take(most, timeout, &tree.nodes, |id, event| {
            tree.replay.begin(id, event);
        })
    }

    /// Notes that the agent is done with a change, whether or not it could repeat it.
    pub fn finish_change(&self, id: u64) {
        let missed = self.tree.replay.end(id);
        let Some(event) = self.tree.changes.finish(id, &self.tree.nodes) else {
            return;
        };
        // A rename that the guest's kernel took for nothing leaves the old name behind in its cache.
        if let (true, Event::Renamed { dir, name, entry, .. }) = (missed, event) {
            self.tree.push_change(Event::Deleted { dir, name, entry });
        }
    }

    /// Says which task, as the guest numbers it, repeats changes from now on. Only while one does may the guest keep
    /// anything for long; none does at first. When one does again, what changed meanwhile is found by comparing, and
    /// told. Requests of any other task under the uid [`Config::replay_uid`] are refused.
    pub fn set_repeater(&self, task: Option<NonZeroU32>) {
        let before = self
            .tree
            .repeater
            .swap(task.map_or(0, NonZeroU32::get), Ordering::AcqRel);
        let Some(watch) = &self.tree.watch else { return };
        if task.is_some() {
            // A comparison may have been waiting for somebody.
            watch.rouse();
        } else if before != 0 {
            // The guest still keeps what it was given for long, while changes are told to nobody.
            watch.compare();
        }
    }

    /// Ends a waiting [`Server::take_changes`] and [`Server::await_waiting`]; later ones wait no more.
    pub fn end_changes(&self) {
        self.tree.changes.end();
        self.tree.locks.end_awaiting();
    }

    /// Requests that wait for file locks: number and task, as the guest numbers them.
    pub fn waiting(&self) -> Vec<(u64, u32)> {
        self.tree.locks.waiting()
    }

    /// The same, as soon as there have been any for `patience`. virtio-fs carries no INTERRUPT, so whoever finds that
    /// such a task was interrupted calls [`Server::interrupt`]. Empty after [`Server::end_changes`].
    pub fn await_waiting(&self, patience: Duration) -> Vec<(u64, u32)> {
        self.tree.locks.await_waiting(patience)
    }

    /// Ends the wait of a request with `EINTR`, if it still waits. The guest's kernel takes that for an interruption
    /// that it knows of: not for requests of tasks that sleep undisturbed, whose programs would see its internal number
    /// for a restart.
    pub fn interrupt(&self, unique: u64) {
        self.tree.locks.end_wait(unique);
    }

    /// How the server is doing.
    pub fn health(&self) -> Health {
        let tree = &self.tree;
        let watch = tree.watch.as_ref();
        Health {
            nodes: tree.nodes.len(),
            nodes_exhausted: tree.nodes.is_full(),
            open: tree.open_budget.used(),
            pinned: tree.pin_budget.used(),
            watching: watch.is_some(),
            repeating: tree.is_repeated(),
            watched: watch.map_or(0, Watch::count),
            watches_exhausted: watch.is_some_and(Watch::is_exhausted),
            shares_untold: self.shares_that(Share::is_untold),
            queued_changes: tree.changes.len(),
            shares_without_attributes: self.shares_that(Share::lacks_xattrs),
        }
    }

    /// The names of the shares of which this holds.
    fn shares_that(&self, holds: impl Fn(&Share) -> bool) -> Vec<String> {
        let shares = self.tree.shares.read();
        shares
            .iter()
            .filter(|(share, _)| holds(share))
            .map(|(share, _)| share.name.to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tree.locks.end();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("health", &self.health()).finish()
    }
}

impl HostChange {
    /// Whether the change says that others were lost.
    pub fn is_overflow(&self) -> bool {
        self.kind == ChangeKind::Overflow
    }
}

impl Tree {
    /// Forgets all that the guest held. Where a file cannot be closed, as on a server that has gone away, that is left
    /// behind: the next guest need not wait for it.
    pub(crate) fn forget_guest(&self) {
        self.close(self.handles.take_where(|_| true), self.locks.take_all());
        self.replay.clear();
        for node in self.nodes.all() {
            if node.is_share_root {
                node.lookups.store(0, Ordering::Relaxed);
            } else {
                self.nodes.forget(node.id, u64::MAX);
            }
        }
        self.unwatch_all();
    }

    /// Closes files and what carries their locks, on a thread of their own that is waited for no longer than
    /// [`CLOSING`].
    fn close(&self, files: Vec<Arc<Handle>>, locked: Vec<Arc<Descriptor>>) {
        if files.is_empty() && locked.is_empty() {
            return;
        }
        let locks = Arc::clone(&self.locks);
        let (open, closed) = mpsc::channel::<()>();
        let spawned = std::thread::Builder::new()
            .name("cove-fs-close".into())
            .spawn(move || {
                seccomp::enter(Thread::Files);
                drop((files, locked));
                locks.wake();
                drop(open);
            });
        // Without the thread they are closed by now.
        if spawned.is_ok() && closed.recv_timeout(CLOSING) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "files that the guest had open cannot be closed yet: their file system does not answer"
            );
        }
    }

    /// Writes everything to disk that the guest may have written.
    pub(crate) fn syncfs(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        let roots: Vec<_> = if node == ROOT_ID {
            self.shares
                .read()
                .iter()
                .map(|(_, root)| Arc::clone(root))
                .collect()
        } else {
            vec![self.node(node)?]
        };
        for root in roots {
            // Needs a descriptor that is open for more than its path.
            let _place = self.open_budget.reserve()?;
            rustix::fs::syncfs(self.open(&root, OFlags::RDONLY, None)?.0)?;
        }
        sink.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::Owner;

    fn server(path: &Path) -> (Server, u64) {
        let config = Config {
            max_pins: 8,
            watch: false,
            ..Config::default()
        };
        server_with(config, path)
    }

    fn server_with(config: Config, path: &Path) -> (Server, u64) {
        let server = Server::new(config).unwrap();
        let options = ShareOptions {
            name: "share".into(),
            read_only: false,
        };
        server.add_share(path, options).unwrap();
        let root = server.tree.shares.read()[0].1.id;
        (server, root)
    }

    /// Each kept the memory of its node for as long as there were fewer pins than the setting has.
    #[test]
    fn directories_that_the_guest_forgot_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let (server, root) = server(folder.path());
        let tree = &server.tree;
        for _ in 0..5000 {
            std::fs::create_dir(&path).unwrap();
            let id = tree.look_up(root, c"d").unwrap().node;
            tree.dir(&tree.node(id).unwrap()).unwrap();
            std::fs::remove_dir(&path).unwrap();
            tree.nodes.forget(id, 1).unwrap();
        }
        assert_eq!(tree.pin_budget.used(), 0);
        assert!(tree.pins.lock().len() <= 2 * (8 + SPARE_PINS));
    }

    /// The mode was set by the name alone, which follows links.
    #[test]
    fn no_mode_is_given_to_what_took_the_name_of_a_new_directory() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, victim) = (folder.path().join("shared"), folder.path().join("victim"));
        std::fs::create_dir_all(shared.join("d")).unwrap();
        std::fs::write(&victim, b"").unwrap();
        rustix::fs::chmod(&victim, Mode::from_raw_mode(0o600)).unwrap();
        rustix::fs::chmod(shared.join("d"), Mode::from_raw_mode(0o700)).unwrap();
        let (server, root) = server(&shared);
        let (parent, owner) = (
            server.tree.node(root).unwrap(),
            Owner {
                uid: 70,
                gid: 70,
                mode: 0o777,
                stands_for: None,
            },
        );
        let dir = server.tree.dir(&parent).unwrap();
        let stat = rustix::fs::statx(&dir, c"d", AtFlags::SYMLINK_NOFOLLOW, STATUS).unwrap();
        std::fs::rename(shared.join("d"), shared.join("moved")).unwrap();
        std::os::unix::fs::symlink("../victim", shared.join("d")).unwrap();
        let given = Tree::give(&parent, &dir, c"d", &owner, stat);
        assert_eq!(given.unwrap_err(), Errno::STALE);
        assert_eq!(rustix::fs::stat(&victim).unwrap().st_mode & 0o777, 0o600);
        // As it is meant to be.
        let given = Tree::give(&parent, &dir, c"moved", &owner, stat).unwrap();
        assert_eq!(given.stx_mode & 0o777, 0o777);
    }

    /// Looks into as many directories, and so has them watched.
    fn look_into(server: &Server, root: u64, folder: &Path, count: usize) -> Vec<u64> {
        (0..count)
            .map(|number| {
                let name = CString::new(number.to_string()).unwrap();
                let path = folder.join(number.to_string());
                std::fs::create_dir_all(&path).unwrap();
                std::fs::write(path.join("inner"), b"").unwrap();
                let outer = server.tree.look_up(root, &name).unwrap().node;
                server.tree.look_up(outer, c"inner").unwrap();
                outer
            })
            .collect()
    }

    /// The marks of directories without a descriptor stayed, until the user could have no more of them.
    #[test]
    fn what_is_not_watched_any_more_has_no_mark() {
        const MANY: usize = 100;
        let config = Config {
            max_pins: 8,
            ..Config::default()
        };
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (server, root) = server_with(config, folder.path());
        let Some(watch) = &server.tree.watch else {
            eprintln!("SKIPPED: this kernel cannot watch by fanotify");
            return;
        };
        for dir in look_into(&server, root, folder.path(), MANY) {
            assert!(server.tree.node(dir).unwrap().is_watched());
            server.tree.let_go(dir, 1);
        }
        assert_eq!((watch.count(), watch.marks()), (1, 1), "the share alone");
        look_into(&server, root, folder.path(), MANY);
        assert_eq!((watch.count(), watch.marks()), (MANY + 1, MANY + 1));
        server.tree.forget_guest();
        assert_eq!((watch.count(), watch.marks()), (0, 0));
        look_into(&server, root, folder.path(), MANY);
        assert_eq!((watch.count(), watch.marks()), (MANY + 1, MANY + 1));
        server.remove_share("share").unwrap();
        assert_eq!((watch.count(), watch.marks()), (0, 0));
    }

    /// It was believed for as long as any other, while the event that ended it was of `README`.
    #[test]
    fn an_absence_is_not_believed_where_the_case_of_names_is_ignored() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (server, root) = server_with(Config::default(), folder.path());
        server.set_repeater(NonZeroU32::new(7));
        let absent = || server.tree.look_up(root, c"readme").unwrap().entry_valid;
        let believed = absent();
        let node = server.tree.node(root).unwrap();
        if !node.is_watched() {
            eprintln!("SKIPPED: this kernel cannot watch by fanotify");
            return;
        }
        assert_eq!(believed, Config::default().long_entries.as_secs());
        // As of a folder on FAT, which takes privilege to mount.
        node.ignores_case.store(true, Ordering::Relaxed);
        assert_eq!(absent(), 0);
    }

    #[test]
    fn a_directory_is_watched_once_there_is_room_again() {
        let config = Config {
            max_watches: 3,
            ..Config::default()
        };
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (server, root) = server_with(config, folder.path());
        if !server.health().watching {
            eprintln!("SKIPPED: this kernel cannot watch by fanotify");
            return;
        }
        let dirs = look_into(&server, root, folder.path(), 3);
        let is_watched = |at: usize| server.tree.node(dirs[at]).unwrap().is_watched();
        assert_eq!((is_watched(1), is_watched(2)), (true, false));
        assert!(server.health().watches_exhausted);
        server.tree.let_go(dirs[0], 1);
        assert!(!server.health().watches_exhausted);
        server.tree.look_up(dirs[2], c"inner").unwrap();
        assert!(is_watched(2));
    }
}
