//! Watches the directories that the guest has looked into, and turns what the host does in them into changes.
//!
//! By fanotify, which an ordinary user may use on directories: its events say whether this very process caused them
//! (`pid`), so what the guest does through the server is told apart from what the host does without a doubt, and
//! a rename is one event with both names. It needs Linux 5.17 and a file system with file handles; where it cannot
//! watch, a directory's answers are short-lived and no events are delivered.
//!
//! The kernel merges events of one process on one name that nobody has read yet; what the order was is then told
//! from what is there now.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{AtFlags, FileType, Statx};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::change::{EntryKind, Event};
use crate::descriptor::Descriptor;
use crate::node::{Node, Stamp};
use crate::sys::{self, FileHandle};
use crate::tree::{STATUS, Tree};

const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_EVENT_ON_CHILD
    | libc::FAN_ONDIR;

const READ: usize = 64 << 10;

/// What the kernel calls a directory: file system and handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DirectoryKey {
    filesystem: u64,
    handle: FileHandle,
}

/// The watched directories. See the module's header.
pub(crate) struct Watch {
    group: OwnedFd,
    /// The nodes of each; more than one where a directory is in two shares or mounted twice.
    directories: Mutex<HashMap<DirectoryKey, Vec<u64>>>,
    keys: Mutex<HashMap<u64, DirectoryKey>>,
    count: AtomicUsize,
    exhausted: AtomicBool,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            group: sys::fanotify_init()?,
            directories: Mutex::default(),
            keys: Mutex::default(),
            count: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
        })
    }

    /// How many directories are watched.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a directory could not be watched because there were too many.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    fn add(&self, node: &Node, dir: &Descriptor) -> Result<(), Errno> {
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
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// True when no node is left for the directory.
    fn drop_node(&self, key: &DirectoryKey, node: u64) -> bool {
        let mut directories = self.directories.lock();
        let Some(nodes) = directories.get_mut(key) else { return true };
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
        let result = if watch.count() < self.config.max_watches {
            let _one_at_a_time = node.state.lock();
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
            node.unwatchable.store(true, Ordering::Relaxed);
            if errno == Errno::NOSPC && !watch.exhausted.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    watched = watch.count(),
                    "no more directories can be watched for changes on the host; others are cached for a short time \
                     only. Raise fs.fanotify.max_user_marks to watch more"
                );
            } else if errno != Errno::NOSPC {
                tracing::debug!(share = ?node.share.name, %errno, "a directory cannot be watched");
            }
        }
    }

    /// Ends the watch on a directory that the guest has forgotten.
    pub(crate) fn unwatch(&self, node: &Arc<Node>) {
        let Some(watch) = &self.watch else { return };
        if !node.watched.swap(false, Ordering::AcqRel) {
            return;
        }
        watch.count.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = watch.keys.lock().remove(&node.id) else { return };
        if !watch.drop_node(&key, node.id) {
            return;
        }
        // A directory that was removed took its mark with it. One that cannot be reached keeps it until the server
        // ends; its events lead to no node and are dropped.
        let pin = node.state.lock().pin.clone();
        if let Some(dir) = pin {
            let _ = sys::fanotify_mark(watch.group.as_fd(), false, MASK, dir.as_fd());
        }
    }
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
        let group = watch.group.try_clone()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (weak, stopped) = (Arc::downgrade(tree), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("cove-fs-watch".into())
            .spawn(move || run(&weak, &group, &stopped))?;
        Ok(Some(Self { stop, thread: Some(thread) }))
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

fn run(tree: &Weak<Tree>, group: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = vec![0; READ];
    // The kernel names the thread group.
    let own = rustix::process::getpid().as_raw_nonzero().get();
    loop {
        let mut ready = [PollFd::new(group, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "cannot wait for changes on the host");
                return;
            }
        }
        if !ready[1].revents().is_empty() {
            return;
        }
        let len = match rustix::io::read(group, &mut buffer) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(errno) => {
                tracing::error!(%errno, "cannot read changes on the host");
                return;
            }
        };
        let Some(tree) = tree.upgrade() else { return };
        for event in Events(&buffer[..len]) {
            if event.pid != own {
                tree.note(&event);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Metadata {
    len: u32,
    version: u8,
    reserved: u8,
    metadata_len: u16,
    mask: u64,
    fd: i32,
    pid: i32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct InfoHeader {
    kind: u8,
    padding: u8,
    len: u16,
    filesystem: [u32; 2],
    handle_len: u32,
    handle_kind: i32,
}

/// One event as read.
#[derive(Debug, Default)]
struct RawEvent {
    mask: u64,
    pid: i32,
    at: Option<(DirectoryKey, CString)>,
    old: Option<(DirectoryKey, CString)>,
    new: Option<(DirectoryKey, CString)>,
}

/// Cuts what was read into events. The kernel wrote it, and it is checked all the same.
struct Events<'a>(&'a [u8]);

impl Iterator for Events<'_> {
    type Item = RawEvent;

    fn next(&mut self) -> Option<RawEvent> {
        let (metadata, _) = Metadata::read_from_prefix(self.0).ok()?;
        let (event, rest) = self.0.split_at_checked(metadata.len as usize)?;
        if event.len() < size_of::<Metadata>() {
            return None;
        }
        self.0 = rest;
        let mut raw = RawEvent { mask: metadata.mask, pid: metadata.pid, ..RawEvent::default() };
        let mut info = event.get(usize::from(metadata.metadata_len)..).unwrap_or_default();
        while let Ok((header, after)) = InfoHeader::read_from_prefix(info) {
            let Some((record, rest)) = info.split_at_checked(usize::from(header.len)) else { break };
            if record.len() < size_of::<InfoHeader>() {
                break;
            }
            info = rest;
            let Some((handle, name)) = after.split_at_checked(header.handle_len as usize) else { break };
            let Ok(name) = CStr::from_bytes_until_nul(name) else { continue };
            let key = DirectoryKey {
                filesystem: u64::from(header.filesystem[0]) | u64::from(header.filesystem[1]) << 32,
                handle: FileHandle { kind: header.handle_kind, bytes: handle.into() },
            };
            let place = Some((key, name.to_owned()));
            match header.kind {
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME => raw.at = place,
                libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => raw.old = place,
                libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => raw.new = place,
                _ => {}
            }
        }
        Some(raw)
    }
}

impl Tree {
    /// Takes up an event that somebody else caused.
    fn note(&self, event: &RawEvent) {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            self.note_overflow();
        }
        if event.mask & libc::FAN_RENAME != 0 {
            self.note_rename(event);
        }
        let Some((key, name)) = &event.at else { return };
        for dir in self.watched_nodes(key) {
            if name.to_bytes() == b"." {
                self.note_own_attributes(&dir, event.mask);
            } else {
                self.note_entry(&dir, name, event.mask);
            }
        }
    }

    fn watched_nodes(&self, key: &DirectoryKey) -> Vec<Arc<Node>> {
        let ids = self.watch.as_ref().map(|watch| watch.nodes(key)).unwrap_or_default();
        ids.into_iter().filter_map(|id| self.nodes.get(id)).collect()
    }

    fn push(&self, event: Event) {
        self.changes.push(event, &self.nodes);
    }

    fn note_rename(&self, event: &RawEvent) {
        let nodes = |place: &Option<(DirectoryKey, CString)>| match place {
            Some((key, name)) => {
                self.watched_nodes(key).into_iter().map(|node| (node, name.clone())).collect()
            }
            None => Vec::new(),
        };
        let is_dir = event.mask & libc::FAN_ONDIR != 0;
        let mut news: Vec<(Arc<Node>, CString)> = nodes(&event.new);
        for (dir, name) in nodes(&event.old) {
            let share = dir.share.index;
            if let Some(at) = news.iter().position(|(new, _)| new.share.index == share) {
                let (to, to_name) = news.swap_remove(at);
                let entry = if is_dir { EntryKind::Directory } else { EntryKind::File };
                self.push(Event::Renamed { dir: dir.id, name, to_dir: to.id, to_name, entry });
            } else {
                let entry = self.kind_of_known(&dir, &name, is_dir);
                self.push(Event::Deleted { dir: dir.id, name, entry });
            }
        }
        for (dir, name) in news {
            let stat = self.look(&dir, &name);
            self.push(Event::Created { dir: dir.id, entry: kind(stat.as_ref(), is_dir), name });
        }
    }

    fn note_entry(&self, dir: &Arc<Node>, name: &CStr, mask: u64) {
        let is_dir = mask & libc::FAN_ONDIR != 0;
        let stat = self.look(dir, name);
        let known = self.nodes.at(dir.id, name);
        let created = mask & libc::FAN_CREATE != 0;
        let deleted = mask & libc::FAN_DELETE != 0;
        let create =
            || Event::Created { dir: dir.id, name: name.to_owned(), entry: kind(stat.as_ref(), is_dir) };
        let delete = || Event::Deleted {
            dir: dir.id,
            name: name.to_owned(),
            entry: self.kind_of_known(dir, name, is_dir),
        };
        match (created, deleted) {
            (true, false) => self.push(create()),
            (false, true) => self.push(delete()),
            // Merged: what is there now came last.
            (true, true) if stat.is_some() => {
                self.push(delete());
                self.push(create());
            }
            (true, true) => {
                self.push(create());
                self.push(delete());
            }
            (false, false) => {}
        }
        if deleted && stat.is_none() {
            return;
        }
        let stamp = stat.as_ref().map(Stamp::new);
        let modified = mask & libc::FAN_MODIFY != 0 || {
            // Written through a mapping: only the closing tells.
            let told = known.as_ref().and_then(|node| node.state.lock().told);
            mask & libc::FAN_CLOSE_WRITE != 0 && told.is_some() && told != stamp
        };
        if modified && !is_dir {
            if let Some(node) = &known {
                node.state.lock().told = stamp;
            }
            self.push(Event::Modified { dir: dir.id, name: name.to_owned() });
        }
        if mask & libc::FAN_ATTRIB != 0 && !created {
            self.push(Event::Attributes { dir: dir.id, name: name.to_owned() });
        }
    }

    /// A directory's own mode or times changed. Its parent says so too, where that is watched.
    fn note_own_attributes(&self, dir: &Arc<Node>, mask: u64) {
        if mask & libc::FAN_ATTRIB == 0 {
            return;
        }
        let place = dir.state.lock().place.clone();
        match place {
            None if dir.is_share_root => {
                self.push(Event::Attributes { dir: dir.id, name: CString::default() });
            }
            Some(place) => {
                if self.nodes.get(place.parent).is_some_and(|parent| !parent.is_watched()) {
                    self.push(Event::Attributes { dir: place.parent, name: place.name.clone() });
                }
            }
            None => {}
        }
    }

    /// Events were lost: finds out what it can by comparing what the guest knows with what is there.
    fn note_overflow(&self) {
        tracing::warn!("changes on the host came faster than they could be read; comparing instead");
        self.push(Event::Overflow);
        for node in self.nodes.all() {
            let Some(place) = node.state.lock().place.clone() else { continue };
            let Some(dir) = self.nodes.get(place.parent).filter(|dir| dir.is_watched()) else { continue };
            let stat = self.look(&dir, &place.name);
            let name = place.name.clone();
            match &stat {
                Some(stat) if node.is(stat) => {
                    let told = node.state.lock().told;
                    if told.is_some_and(|told| told != Stamp::new(stat)) && !node.is_dir() {
                        self.push(Event::Modified { dir: dir.id, name });
                    }
                }
                other => {
                    let entry = kind_of_type(node.kind);
                    self.push(Event::Deleted { dir: dir.id, name: name.clone(), entry });
                    if let Some(stat) = other {
                        self.push(Event::Created { dir: dir.id, name, entry: kind(Some(stat), false) });
                    }
                }
            }
        }
    }

    fn look(&self, dir: &Arc<Node>, name: &CStr) -> Option<Statx> {
        let dir = self.dir(dir).ok()?;
        rustix::fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS).ok()
    }

    fn kind_of_known(&self, dir: &Node, name: &CStr, is_dir: bool) -> EntryKind {
        match self.nodes.at(dir.id, name) {
            _ if is_dir => EntryKind::Directory,
            Some(node) if !node.is_dir() => kind_of_type(node.kind),
            _ => EntryKind::File,
        }
    }
}

fn kind(stat: Option<&Statx>, is_dir: bool) -> EntryKind {
    match stat {
        Some(stat) => kind_of_type(FileType::from_raw_mode(stat.stx_mode.into())),
        None if is_dir => EntryKind::Directory,
        None => EntryKind::File,
    }
}

pub(crate) fn kind_of_type(kind: FileType) -> EntryKind {
    match kind {
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        _ => EntryKind::File,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_cut_into_events_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            len in 0_u32..300,
        ) {
            let mut bytes = bytes;
            if bytes.len() >= 24 {
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[6..8].copy_from_slice(&24_u16.to_ne_bytes());
            }
            prop_assert!(Events(&bytes).count() <= bytes.len() / 24 + 1);
        }
    }
}
