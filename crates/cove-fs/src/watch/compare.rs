//! Finds out by comparing what changes that were lost would have told.
//!
//! They are lost where they come faster than the kernel keeps them or the agent repeats them, and while there is no
//! agent. What the guest knows is then compared with what is there, one watched directory after the other and name by
//! name, and the difference is told as changes.
//!
//! ```text
//!                 somebody repeats changes                              every directory compared
//!  lost ──▶ due ──────────────────────────▶ comparing, as the queue has room ─────────▶ (nothing lost)
//!            ▲                                │ lost again, or nobody repeats any more
//!            └────────────────────────────────┘
//! ```
//!
//! The server does not know which absences the guest believes in. So a name that is there and that the guest has
//! never looked up is told as created: at worst, somebody hears of a file that was there before.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, OFlags, RawDir, Statx};
use rustix::io::Errno;

use super::note::{kind, kind_of_type};
use crate::change::Event;
use crate::node::{Node, Place, Stamp, changed};
use crate::tree::{STATUS, Tree, open_dir};

/// Most names that are compared before events are read again.
const NAMES: usize = 1024;
/// How long a directory is put off while changes in it are on their way, which comparing would tell once more.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most names of a directory that are compared, besides those that the guest knows: the guest may fill a directory with
/// as many as the disk holds, and these are kept in memory.
const MOST_NAMES: usize = 1 << 20;
/// Bytes of a directory's entries that are read at a time.
const BATCH: usize = 16 << 10;

/// How far a comparison got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to compare.
    Done,
    /// There is more, at once.
    More,
    /// There is more, once changes have been taken.
    Waits,
}

/// A comparison under way.
pub(super) struct Comparison {
    begun: Instant,
    /// Those that are left, the next one last.
    directories: Vec<u64>,
    /// Where the guest knows files, by directory.
    known: HashMap<u64, Vec<Arc<Place>>>,
    /// The directory at hand, and the names that are left of it.
    current: Option<(Arc<Node>, Vec<CString>)>,
}

impl Comparison {
    fn new(tree: &Tree) -> Self {
        let nodes = tree.nodes.all();
        let mut directories: Vec<_> = nodes
            .iter()
            .filter(|node| node.is_watched())
            .map(|node| node.id)
            .collect();
        // What is in a directory has a higher number as a rule, and is to go before the directory does.
        directories.sort_unstable();
        let mut known: HashMap<u64, Vec<Arc<Place>>> = HashMap::new();
        for node in nodes {
            let place = node.state.lock().place.clone();
            if let Some(place) = place
                && directories.binary_search(&place.parent).is_ok()
            {
                known.entry(place.parent).or_default().push(place);
            }
        }
        Self {
            begun: Instant::now(),
            directories,
            known,
            current: None,
        }
    }

    fn go_on(&mut self, tree: &Tree) -> Step {
        for _ in 0..NAMES {
            if !tree.changes.has_room() {
                return Step::Waits;
            }
            let next = self
                .current
                .as_mut()
                .and_then(|(dir, names)| Some((Arc::clone(dir), names.pop()?)));
            if let Some((dir, name)) = next {
                tree.compare_name(&dir, &name);
            } else if !self.turn_to_next(tree) {
                return if self.directories.is_empty() {
                    Step::Done
                } else {
                    Step::Waits
                };
            }
        }
        Step::More
    }

    /// Turns to the next directory; false where there is none, or none that need not be put off.
    fn turn_to_next(&mut self, tree: &Tree) -> bool {
        self.current = None;
        let patient = self.begun.elapsed() < PATIENCE;
        let is_quiet = |id: u64| {
            let dir = tree.nodes.get(id);
            dir.is_none_or(|dir| dir.pending.load(Ordering::Acquire) == 0)
        };
        let at = self.directories.iter().rposition(|id| !patient || is_quiet(*id));
        let Some(at) = at else { return false };
        let id = self.directories.remove(at);
        let known = self.known.remove(&id).unwrap_or_default();
        if let Some(dir) = tree.nodes.get(id) {
            let mut names = tree.names_in(&dir);
            names.extend(known.iter().map(|place| place.name.clone()));
            names.sort_unstable();
            names.dedup();
            self.current = Some((dir, names));
        }
        true
    }
}

impl Tree {
    /// Begins a comparison where one is due, and goes on with one under way.
    pub(super) fn compare(&self, comparison: &mut Option<Comparison>) -> Step {
        let Some(watch) = &self.watch else {
            return Step::Done;
        };
        if !self.is_repeated() {
            // Nobody would hear of the difference.
            if comparison.take().is_some() {
                watch.comparison_due.store(true, Ordering::Release);
            }
            return Step::Done;
        }
        if watch.comparison_due.swap(false, Ordering::AcqRel) {
            *comparison = Some(Comparison::new(self));
        }
        let step = comparison
            .as_mut()
            .map_or(Step::Done, |comparison| comparison.go_on(self));
        if step == Step::Done {
            *comparison = None;
        }
        step
    }

    /// The names in a directory, the first [`MOST_NAMES`] of them; none that cannot be read any more.
    fn names_in(&self, dir: &Arc<Node>) -> Vec<CString> {
        let mut names = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = self.dir(dir).and_then(|fd| open_dir(&fd, flags));
        let Ok(fd) = opened else { return names };
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if names.len() == MOST_NAMES {
                tracing::warn!(
                    share = ?dir.share.name,
                    "a directory has too many names to compare them all; what was created in it may not be told"
                );
                self.push_change(Event::Overflow);
                break;
            }
            names.push(name.to_owned());
        }
        names
    }

    /// Tells what became of a name.
    fn compare_name(&self, dir: &Arc<Node>, name: &CStr) {
        let looked = self
            .dir(dir)
            .and_then(|fd| rustix::fs::statx(&fd, name, AtFlags::SYMLINK_NOFOLLOW, STATUS));
        let there = match looked {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => None,
            // Whatever became of it, the guest cannot look at it either.
            Err(_) => return,
        };
        let known = self.nodes.at(dir.id, name);
        if let (Some(node), Some(stat)) = (&known, &there)
            && node.is(stat)
        {
            self.compare_file(dir, name, node, stat);
            return;
        }
        if let Some(node) = known {
            self.push_change(Event::Deleted {
                dir: dir.id,
                name: name.to_owned(),
                entry: kind_of_type(node.kind),
            });
        }
        if there.is_some() {
            self.push_change(Event::Created {
                dir: dir.id,
                name: name.to_owned(),
                entry: kind(there.as_ref(), false),
            });
        }
    }

    /// Tells what became of a file that still has its name.
    fn compare_file(&self, dir: &Node, name: &CStr, node: &Node, stat: &Statx) {
        let stamp = Stamp::new(stat);
        let (modified, attributes) = {
            let state = node.state.lock();
            let modified = !node.is_dir() && state.heard.is_some_and(|heard| heard != stamp);
            // New data moves this time as well, but not beyond their own.
            let attributes = state.owner.is_some_and(|(at, _)| at != changed(stat));
            (modified, attributes && changed(stat) != stamp.modified)
        };
        if modified {
            self.push_change(Event::Modified {
                dir: dir.id,
                name: name.to_owned(),
            });
        }
        if attributes {
            self.push_change(Event::Attributes {
                dir: dir.id,
                name: name.to_owned(),
            });
        }
    }
}
