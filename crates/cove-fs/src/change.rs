//! What changed on the host, queued for the guest's agent to repeat.
//!
//! ```text
//!   event ──▶ queued ──take──▶ taken ──repeated by the agent, answered by `replay`──▶ finish ──▶ (gone)
//!               │
//!               └─ queue full: everything queued is dropped, one Overflow takes its place, and what was dropped is
//!                  found out by comparing (see `watch::compare`)
//! ```
//!
//! Changes are taken in order. What renames or removes a directory is the last of its batch, so that the paths of
//! those after it can be told as the guest sees them then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::node::{Node, Place};
use crate::table::Table;

/// Longest path of directories.
const MAX_DEPTH: usize = 2048;

/// What kind of directory entry it is: which call the agent makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// `open` with `O_CREAT`, `unlink`.
    File,
    /// `mkdir`, `rmdir`.
    Directory,
    /// `symlink`, `unlink`.
    Symlink,
    /// `mknod` of a pipe, `unlink`.
    Pipe,
    /// `mknod` of a socket, `unlink`.
    Socket,
}

/// A change that somebody other than the guest made. Paths are relative to the share's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChange {
    /// For [`crate::Server::finish_change`].
    pub id: u64,
    /// The share's name.
    pub share: OsString,
    /// The directory.
    pub directory: PathBuf,
    /// What happened in it.
    pub kind: ChangeKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// An entry came to be, or was moved here from where nobody watched.
    Created {
        /// Its name.
        name: OsString,
        /// Its kind.
        entry: EntryKind,
    },
    /// A file's data changed.
    Modified {
        /// Its name.
        name: OsString,
    },
    /// Mode, owner, times or attributes changed.
    Attributes {
        /// Its name; empty for the share's root itself.
        name: OsString,
    },
    /// An entry was removed, or moved to where nobody watches.
    Deleted {
        /// Its name.
        name: OsString,
        /// Its kind, as far as known.
        entry: EntryKind,
    },
    /// An entry moved from one watched directory to another, or within one.
    Renamed {
        /// Its old name.
        name: OsString,
        /// The new directory.
        to_directory: PathBuf,
        /// The new name.
        to_name: OsString,
    },
    /// Changes were lost, in any share. What the server could find out by comparing follows as changes of its own.
    Overflow,
}

/// A change in terms of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Created {
        dir: u64,
        name: CString,
        entry: EntryKind,
    },
    Modified {
        dir: u64,
        name: CString,
    },
    Attributes {
        dir: u64,
        name: CString,
    },
    Deleted {
        dir: u64,
        name: CString,
        entry: EntryKind,
    },
    Renamed {
        dir: u64,
        name: CString,
        to_dir: u64,
        to_name: CString,
        entry: EntryKind,
    },
    Overflow,
}

impl Event {
    /// The directories concerned.
    pub(crate) fn directories(&self) -> [Option<u64>; 2] {
        match self {
            Self::Created { dir, .. }
            | Self::Modified { dir, .. }
            | Self::Attributes { dir, .. }
            | Self::Deleted { dir, .. } => [Some(*dir), None],
            Self::Renamed { dir, to_dir, .. } => [Some(*dir), Some(*to_dir)],
            Self::Overflow => [None, None],
        }
    }

    /// Whether paths may be different after it.
    fn moves_directories(&self) -> bool {
        matches!(
            self,
            Self::Deleted {
                entry: EntryKind::Directory,
                ..
            } | Self::Renamed {
                entry: EntryKind::Directory,
                ..
            } | Self::Overflow
        )
    }
}

#[derive(Default)]
struct Queue {
    queued: VecDeque<Event>,
    /// Those of `queued` that say that a file was modified, to say it once.
    modified: HashSet<(u64, CString)>,
    taken: HashMap<u64, Event>,
    next: u64,
    /// Nobody takes any more.
    ended: bool,
}

impl Queue {
    /// Takes up to `most` changes that can be told, and drops those before them that cannot.
    fn take(&mut self, most: usize, nodes: &Table, mut taken: impl FnMut(u64, &Event)) -> Vec<HostChange> {
        let mut changes = Vec::new();
        while changes.len() < most {
            let Some(event) = self.queued.pop_front() else {
                break;
            };
            if let Event::Modified { dir, name } = &event {
                self.modified.remove(&(*dir, name.clone()));
            }
            let event = as_seen(event, nodes);
            self.next += 1;
            let id = self.next;
            let Some(change) = tell(id, &event, nodes) else {
                settle(&event, nodes);
                continue;
            };
            taken(id, &event);
            let last = event.moves_directories();
            self.taken.insert(id, event);
            changes.push(change);
            if last {
                break;
            }
        }
        changes
    }
}

/// The queue. Filled by the watching thread, emptied by whoever talks to the agent.
pub(crate) struct Changes {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Most that wait to be taken.
    most: usize,
}

impl Changes {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            most,
        }
    }

    /// Adds a change. False where there is no room: it is dropped with all that waited.
    pub(crate) fn push(&self, event: Event, nodes: &Table) -> bool {
        let mut queue = self.queue.lock();
        match &event {
            Event::Modified { dir, name } => {
                if !queue.modified.insert((*dir, name.clone())) {
                    return true;
                }
            }
            Event::Created { dir, name, .. } | Event::Deleted { dir, name, .. } => {
                // A modification after this one is news again.
                queue.modified.remove(&(*dir, name.clone()));
            }
            Event::Renamed {
                dir,
                name,
                to_dir,
                to_name,
                ..
            } => {
                queue.modified.remove(&(*dir, name.clone()));
                queue.modified.remove(&(*to_dir, to_name.clone()));
            }
            Event::Attributes { .. } | Event::Overflow => {}
        }
        let has_room = queue.queued.len() < self.most;
        if has_room {
            for dir in event.directories().into_iter().flatten() {
                if let Some(dir) = nodes.get(dir) {
                    dir.pending.fetch_add(1, Ordering::AcqRel);
                }
            }
            queue.queued.push_back(event);
        } else {
            for dropped in std::mem::take(&mut queue.queued) {
                settle(&dropped, nodes);
            }
            queue.modified.clear();
            queue.queued.push_back(Event::Overflow);
        }
        drop(queue);
        self.filled.notify_all();
        has_room
    }

    /// Whether there is room for what is found by comparing: half of the queue is kept for what happens meanwhile.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.lock().queued.len() < self.most / 2
    }

    /// Takes up to `most` changes, waiting for the first that can be told until `timeout` has passed or the queue has
    /// ended. `taken` sees each before anybody can act on it.
    pub(crate) fn take(
        &self,
        most: usize,
        timeout: Duration,
        nodes: &Table,
        mut taken: impl FnMut(u64, &Event),
    ) -> Vec<HostChange> {
        let deadline = Instant::now().checked_add(timeout);
        let mut queue = self.queue.lock();
        loop {
            while queue.queued.is_empty() {
                if queue.ended {
                    return Vec::new();
                }
                let ended = if let Some(deadline) = deadline {
                    self.filled.wait_until(&mut queue, deadline).timed_out()
                } else {
                    self.filled.wait(&mut queue);
                    false
                };
                if ended && queue.queued.is_empty() {
                    return Vec::new();
                }
            }
            let changes = queue.take(most, nodes, &mut taken);
            // None is what says that the queue has ended, or that it is late.
            if !changes.is_empty() || most == 0 {
                return changes;
            }
        }
    }

    /// Ends the wait of whoever is in [`Changes::take`], and every later one.
    pub(crate) fn end(&self) {
        self.queue.lock().ended = true;
        self.filled.notify_all();
    }

    /// Notes that the guest has been told.
    pub(crate) fn finish(&self, id: u64, nodes: &Table) -> Option<Event> {
        let event = self.queue.lock().taken.remove(&id)?;
        settle(&event, nodes);
        Some(event)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.lock().queued.len()
    }
}

/// What a rename is to a guest that knows a path to one of its directories only, the other having gone out of view.
fn as_seen(event: Event, nodes: &Table) -> Event {
    let Event::Renamed {
        dir,
        name,
        to_dir,
        to_name,
        entry,
    } = event
    else {
        return event;
    };
    match (is_in_view(dir, nodes), is_in_view(to_dir, nodes)) {
        (true, false) => {
            settle_in(to_dir, nodes);
            Event::Deleted { dir, name, entry }
        }
        (false, true) => {
            settle_in(dir, nodes);
            Event::Created {
                dir: to_dir,
                name: to_name,
                entry,
            }
        }
        _ => Event::Renamed {
            dir,
            name,
            to_dir,
            to_name,
            entry,
        },
    }
}

fn settle(event: &Event, nodes: &Table) {
    for dir in event.directories().into_iter().flatten() {
        settle_in(dir, nodes);
    }
}

/// One change fewer is to be told in a directory.
fn settle_in(dir: u64, nodes: &Table) {
    if let Some(dir) = nodes.get(dir) {
        let _ = dir
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
    }
}

/// Puts a change in the guest's words; `None` when the guest knows no path to where it happened.
fn tell(id: u64, event: &Event, nodes: &Table) -> Option<HostChange> {
    let os = |name: &CString| OsStr::from_bytes(name.to_bytes()).to_owned();
    let (dir, kind) = match event {
        Event::Created { dir, name, entry } => (
            *dir,
            ChangeKind::Created {
                name: os(name),
                entry: *entry,
            },
        ),
        Event::Modified { dir, name } => (*dir, ChangeKind::Modified { name: os(name) }),
        Event::Attributes { dir, name } => (*dir, ChangeKind::Attributes { name: os(name) }),
        Event::Deleted { dir, name, entry } => (
            *dir,
            ChangeKind::Deleted {
                name: os(name),
                entry: *entry,
            },
        ),
        Event::Renamed {
            dir,
            name,
            to_dir,
            to_name,
            ..
        } => {
            let (_, to_directory) = path(*to_dir, nodes)?;
            (
                *dir,
                ChangeKind::Renamed {
                    name: os(name),
                    to_directory,
                    to_name: os(to_name),
                },
            )
        }
        Event::Overflow => {
            let nowhere = (OsString::new(), PathBuf::new());
            return Some(HostChange {
                id,
                share: nowhere.0,
                directory: nowhere.1,
                kind: ChangeKind::Overflow,
            });
        }
    };
    let (share, directory) = path(dir, nodes)?;
    Some(HostChange {
        id,
        share,
        directory,
        kind,
    })
}

/// The path of a directory as the guest knows it, below the share's root.
fn path(dir: u64, nodes: &Table) -> Option<(OsString, PathBuf)> {
    let mut names = Vec::new();
    let root = climb(dir, nodes, |place| names.push(place))?;
    let path = names
        .iter()
        .rev()
        .map(|place| OsStr::from_bytes(place.name.to_bytes()))
        .collect();
    Some((OsStr::from_bytes(root.share.name.to_bytes()).to_owned(), path))
}

/// Whether the guest knows a path to a directory.
pub(crate) fn is_in_view(dir: u64, nodes: &Table) -> bool {
    climb(dir, nodes, |_| ()).is_some()
}

/// Goes up from a directory to its share's root, which is returned, and shows each place on the way.
fn climb(dir: u64, nodes: &Table, mut each: impl FnMut(Arc<Place>)) -> Option<Arc<Node>> {
    let mut node = nodes.get(dir)?;
    for _ in 0..=MAX_DEPTH {
        if node.is_share_root {
            return Some(node);
        }
        let place = node.state.lock().place.clone()?;
        node = nodes.get(place.parent)?;
        each(place);
    }
    None
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD};

    use super::*;
    use crate::share::Share;
    use crate::tree::STATUS;

    /// A table with the root of one share.
    fn table() -> (Table, u64) {
        let table = Table::new(2, 100);
        let stat = rustix::fs::statx(CWD, "/", AtFlags::empty(), STATUS).unwrap();
        let root = table.insert_root(&Arc::new(Share::new(1, c"share".to_owned(), false)), &stat);
        (table, root.id)
    }

    fn take(changes: &Changes, table: &Table) -> Vec<ChangeKind> {
        let taken = changes.take(100, Duration::ZERO, table, |_, _| {});
        for change in &taken {
            changes.finish(change.id, table);
        }
        taken.into_iter().map(|change| change.kind).collect()
    }

    #[test]
    fn a_file_modified_often_is_told_once_until_taken() {
        let (table, dir) = table();
        let changes = Changes::new(100);
        let modified = || Event::Modified {
            dir,
            name: c"f".to_owned(),
        };
        for _ in 0..10 {
            changes.push(modified(), &table);
        }
        assert_eq!(
            take(&changes, &table),
            [ChangeKind::Modified { name: "f".into() }]
        );
        changes.push(modified(), &table);
        assert_eq!(take(&changes, &table).len(), 1);
        assert_eq!(table.get(dir).unwrap().pending.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_moves_a_directory_ends_its_batch() {
        let (table, dir) = table();
        let changes = Changes::new(100);
        let rename = |entry| Event::Renamed {
            dir,
            name: c"a".into(),
            to_dir: dir,
            to_name: c"b".into(),
            entry,
        };
        changes.push(rename(EntryKind::File), &table);
        changes.push(rename(EntryKind::Directory), &table);
        changes.push(rename(EntryKind::File), &table);
        assert_eq!(take(&changes, &table).len(), 2);
        assert_eq!(take(&changes, &table).len(), 1);
    }

    #[test]
    fn a_full_queue_becomes_one_overflow() {
        let (table, dir) = table();
        let changes = Changes::new(100);
        for number in 0..=100 {
            let name = CString::new(number.to_string()).unwrap();
            let kept = changes.push(Event::Attributes { dir, name }, &table);
            assert_eq!(
                (kept, changes.has_room()),
                (number < 100, number < 49 || number == 100)
            );
        }
        assert_eq!(changes.len(), 1);
        assert_eq!(take(&changes, &table), [ChangeKind::Overflow]);
        assert_eq!(table.get(dir).unwrap().pending.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_ended_queue_keeps_nobody_waiting() {
        let (table, _) = table();
        let changes = Changes::new(100);
        changes.end();
        assert_eq!(changes.take(1, Duration::MAX, &table, |_, _| {}), []);
    }

    #[test]
    fn a_change_where_the_guest_knows_no_path_is_dropped() {
        let (table, _) = table();
        let changes = Changes::new(100);
        changes.push(
            Event::Attributes {
                dir: 999,
                name: c"f".to_owned(),
            },
            &table,
        );
        assert_eq!(take(&changes, &table), []);
    }

    #[test]
    fn of_a_rename_to_or_from_where_the_guest_knows_no_path_it_is_told_what_it_sees() {
        let (table, dir) = table();
        let changes = Changes::new(100);
        for (dir, to_dir) in [(dir, 999), (999, dir)] {
            let event = Event::Renamed {
                dir,
                name: c"old".into(),
                to_dir,
                to_name: c"new".into(),
                entry: EntryKind::File,
            };
            changes.push(event, &table);
        }
        let (name, entry) = ("old".into(), EntryKind::File);
        let deleted = ChangeKind::Deleted { name, entry };
        let created = ChangeKind::Created {
            name: "new".into(),
            entry,
        };
        assert_eq!(take(&changes, &table), [deleted, created]);
        assert_eq!(table.get(dir).unwrap().pending.load(Ordering::Relaxed), 0);
    }

    /// Nothing taken is how the queue says that it has ended: the guest was told of nothing any more, and went on
    /// believing what it knew.
    #[test]
    fn whoever_waits_is_not_told_of_an_end_by_a_change_that_cannot_be_told() {
        const LONG: Duration = Duration::from_secs(20);
        let (table, dir) = table();
        let changes = Changes::new(100);
        let attributes = |dir| Event::Attributes {
            dir,
            name: c"f".to_owned(),
        };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| changes.take(1, LONG, &table, |_, _| {}));
            changes.push(attributes(999), &table);
            let began = Instant::now();
            while changes.len() > 0 && began.elapsed() < LONG {
                std::thread::yield_now();
            }
            changes.push(attributes(dir), &table);
            let kinds: Vec<_> = waiting
                .join()
                .unwrap()
                .into_iter()
                .map(|change| change.kind)
                .collect();
            assert_eq!(kinds, [ChangeKind::Attributes { name: "f".into() }]);
        });
    }
}
