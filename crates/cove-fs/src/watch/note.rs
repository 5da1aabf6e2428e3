//! Turns the host's events into changes.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Statx};

use super::wire::{DirectoryKey, RawEvent};
use crate::change::{EntryKind, Event};
use crate::node::{Node, Stamp};
use crate::tree::{STATUS, Tree};

impl Tree {
    /// Takes up an event that somebody else caused.
    pub(super) fn note(&self, event: &RawEvent) {
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
        let ids = self
            .watch
            .as_ref()
            .map(|watch| watch.nodes(key))
            .unwrap_or_default();
        ids.into_iter().filter_map(|id| self.nodes.get(id)).collect()
    }

    /// Queues a change for the agent.
    pub(crate) fn push_change(&self, event: Event) {
        if !self.changes.push(event, &self.nodes)
            && let Some(watch) = &self.watch
        {
            tracing::warn!("changes on the host came faster than the guest takes them up; comparing instead");
            watch.compare();
        }
    }

    fn note_rename(&self, event: &RawEvent) {
        let nodes = |place: &Option<(DirectoryKey, CString)>| match place {
            Some((key, name)) => self
                .watched_nodes(key)
                .into_iter()
                .map(|node| (node, name.clone()))
                .collect(),
            None => Vec::new(),
        };
        let is_dir = event.mask & libc::FAN_ONDIR != 0;
        let mut news: Vec<(Arc<Node>, CString)> = nodes(&event.new);
        for (dir, name) in nodes(&event.old) {
            let share = dir.share.index;
            if let Some(at) = news.iter().position(|(new, _)| new.share.index == share) {
                let (to, to_name) = news.swap_remove(at);
                let entry = if is_dir {
                    EntryKind::Directory
                } else {
                    EntryKind::File
                };
                self.push_change(Event::Renamed {
                    dir: dir.id,
                    name,
                    to_dir: to.id,
                    to_name,
                    entry,
                });
            } else {
                let entry = self.kind_of_known(&dir, &name, is_dir);
                self.push_change(Event::Deleted {
                    dir: dir.id,
                    name,
                    entry,
                });
            }
        }
        for (dir, name) in news {
            let stat = self.look(&dir, &name);
            self.push_change(Event::Created {
                dir: dir.id,
                entry: kind(stat.as_ref(), is_dir),
                name,
            });
        }
    }

    fn note_entry(&self, dir: &Arc<Node>, name: &CStr, mask: u64) {
        let is_dir = mask & libc::FAN_ONDIR != 0;
        let stat = self.look(dir, name);
        let known = self.nodes.at(dir.id, name);
        let created = mask & libc::FAN_CREATE != 0;
        let deleted = mask & libc::FAN_DELETE != 0;
        let create = || Event::Created {
            dir: dir.id,
            name: name.to_owned(),
            entry: kind(stat.as_ref(), is_dir),
        };
        let delete = || Event::Deleted {
            dir: dir.id,
            name: name.to_owned(),
            entry: self.kind_of_known(dir, name, is_dir),
        };
        match (created, deleted) {
            (true, false) => self.push_change(create()),
            (false, true) => self.push_change(delete()),
            // Merged: what is there now came last.
            (true, true) if stat.is_some() => {
                self.push_change(delete());
                self.push_change(create());
            }
            (true, true) => {
                self.push_change(create());
                self.push_change(delete());
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
            // Where it cannot be looked at, having been moved perhaps, the next closing is to tell once more.
            if let Some(node) = &known
                && stamp.is_some()
            {
                node.state.lock().told = stamp;
            }
            self.push_change(Event::Modified {
                dir: dir.id,
                name: name.to_owned(),
            });
        }
        if mask & libc::FAN_ATTRIB != 0 && !created {
            self.push_change(Event::Attributes {
                dir: dir.id,
                name: name.to_owned(),
            });
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
                self.push_change(Event::Attributes {
                    dir: dir.id,
                    name: CString::default(),
                });
            }
            Some(place)
                if self
                    .nodes
                    .get(place.parent)
                    .is_some_and(|parent| !parent.is_watched()) =>
            {
                self.push_change(Event::Attributes {
                    dir: place.parent,
                    name: place.name.clone(),
                });
            }
            _ => {}
        }
    }

    /// Events were lost.
    fn note_overflow(&self) {
        tracing::warn!("changes on the host came faster than they could be read; comparing instead");
        self.push_change(Event::Overflow);
        if let Some(watch) = &self.watch {
            watch.compare();
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

pub(super) fn kind(stat: Option<&Statx>, is_dir: bool) -> EntryKind {
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
