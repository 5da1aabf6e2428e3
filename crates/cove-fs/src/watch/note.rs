//! Turns the host's events into changes.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Statx};

use super::wire::{DirectoryKey, RawEvent};
use crate::change::{EntryKind, Event, is_in_view};
use crate::node::{Node, Stamp};
use crate::tree::{STATUS, Tree};

/// A name in a directory, as the kernel tells of it.
type Named = (DirectoryKey, CString);

impl Tree {
    /// Takes up events that somebody else caused, as many as were read at once.
    pub(super) fn note_all(&self, events: &[RawEvent]) {
        let created = creations(events);
        let mut at = 0;
        while let Some(event) = events.get(at) {
            if let Some(next) = events.get(at + 1)
                && self.note_exchange(event, next)
            {
                at += 2;
                continue;
            }
            self.note(event);
            // What has the name of what was renamed came after it, though the kernel may have told that before.
            if let Some(old) = &event.old
                && created.get(old).is_some_and(|last| *last < at)
                && !events[at + 1..]
                    .iter()
                    .any(|later| later.new.as_ref() == Some(old))
            {
                self.note_there(old);
            }
            at += 1;
        }
    }

    /// Takes up an event that somebody else caused.
    fn note(&self, event: &RawEvent) {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            self.note_overflow();
        }
        if event.is_rename() {
            self.note_rename(event);
        }
        let Some((key, name)) = &event.at else { return };
        for dir in self.watched_nodes(key) {
            // It went out of view with a folder around it, and nobody can be told of what happens in it.
            if !is_in_view(dir.id, &self.nodes) {
                self.unwatch_out_of_view(&dir);
                continue;
            }
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
        let nodes = |place: &Option<Named>| match place {
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

    /// Takes up two renames that have exchanged what two names stand for; false where they have not. Repeated one after
    /// the other they would move the first file to where it was.
    fn note_exchange(&self, first: &RawEvent, second: &RawEvent) -> bool {
        let (Some(one), Some(other)) = (&first.old, &first.new) else {
            return false;
        };
        if (Some(one), Some(other)) != (second.new.as_ref(), second.old.as_ref()) {
            return false;
        }
        let of = |(key, name): &Named| {
            let dir = self.watched_nodes(key).into_iter().next()?;
            let known = self.nodes.at(dir.id, name);
            Some((known, self.look(&dir, name)))
        };
        let (Some((here, came)), Some((there, went))) = (of(one), of(other)) else {
            return false;
        };
        let is = |known: &Option<Arc<Node>>, stat: &Statx| known.as_ref().is_none_or(|node| node.is(stat));
        let exchanged = match (&came, &went) {
            (Some(came), Some(went)) => is(&here, went) && is(&there, came),
            // What was replaced is often removed at once. What was moved away and back has its old name.
            (None, Some(went)) => is(&here, went),
            (Some(came), None) => there.as_ref().is_some_and(|node| node.is(came)),
            (None, None) => false,
        };
        if exchanged {
            self.note_rename(first);
            self.note_there(one);
            return true;
        }
        let (Some(came), Some(went)) = (&came, &went) else {
            return false;
        };
        // And exchanged again, so that the guest is right.
        here.is_some() && there.is_some() && is(&here, came) && is(&there, went)
    }

    /// Something has come to have this name, which no event of its own says.
    fn note_there(&self, (key, name): &Named) {
        for dir in self.watched_nodes(key) {
            if let Some(stat) = self.look(&dir, name) {
                self.push_change(Event::Created {
                    dir: dir.id,
                    name: name.clone(),
                    entry: kind(Some(&stat), false),
                });
            }
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
        let told = known.as_ref().and_then(|node| node.state.lock().told);
        // Its times were set, as `touch` does, which opens it for writing as well.
        let only_attributes = mask & libc::FAN_ATTRIB != 0
            && !is_dir
            && told
                .zip(stamp)
                .is_some_and(|(told, stamp)| told.size == stamp.size);
        if let Some(node) = &known
            && only_attributes
        {
            node.state.lock().told = stamp;
        }
        // Written through a mapping: only the closing tells.
        let mapped = mask & libc::FAN_CLOSE_WRITE != 0 && told.is_some() && told != stamp && !only_attributes;
        let modified = mask & libc::FAN_MODIFY != 0 || mapped;
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
        if mask & libc::FAN_ATTRIB != 0 {
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

/// The names that were created, each with the last event that says so.
fn creations(events: &[RawEvent]) -> HashMap<&Named, usize> {
    let created = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.mask & libc::FAN_CREATE != 0);
    created
        .filter_map(|(at, event)| Some((event.at.as_ref()?, at)))
        .collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rustix::fs::{CWD, RenameFlags};

    use super::*;
    use crate::change::ChangeKind;
    use crate::{Config, Server, ShareOptions};

    /// A server of a folder, whose root is watched; none where this kernel cannot. What this process does there, it
    /// takes for the guest's doing.
    fn watched(path: &Path) -> Option<(Server, Arc<Node>, DirectoryKey)> {
        let server = Server::new(Config::default()).unwrap();
        let options = ShareOptions {
            name: "share".into(),
            read_only: false,
        };
        server.add_share(path, options).unwrap();
        let root = Arc::clone(&server.tree.shares.read()[0].1);
        server.tree.ensure_known_watched(&root);
        if !root.is_watched() {
            eprintln!("SKIPPED: this kernel cannot watch by fanotify");
            return None;
        }
        let key = server.tree.watch.as_ref().unwrap().keys.lock()[&root.id].clone();
        Some((server, root, key))
    }

    fn created(key: &DirectoryKey, name: &CStr) -> RawEvent {
        RawEvent {
            mask: libc::FAN_CREATE,
            at: Some((key.clone(), name.to_owned())),
            ..RawEvent::default()
        }
    }

    fn renamed(key: &DirectoryKey, old: &CStr, new: &CStr) -> RawEvent {
        RawEvent {
            mask: libc::FAN_RENAME | libc::FAN_ONDIR,
            old: Some((key.clone(), old.to_owned())),
            new: Some((key.clone(), new.to_owned())),
            ..RawEvent::default()
        }
    }

    /// What is told of these events.
    fn told(server: &Server, events: &[RawEvent]) -> Vec<String> {
        server.tree.note_all(events);
        let mut told = Vec::new();
        loop {
            let changes = server.take_changes(100, Duration::ZERO);
            if changes.is_empty() {
                return told;
            }
            told.extend(changes.into_iter().map(|change| match change.kind {
                ChangeKind::Created { name, .. } => format!("created {}", name.display()),
                ChangeKind::Renamed { name, to_name, .. } => {
                    format!("renamed {} {}", name.display(), to_name.display())
                }
                other => format!("{other:?}"),
            }));
        }
    }

    /// Created, renamed, and created once more before anybody read of it: the kernel adds the second creation to the
    /// event of the first. The guest went on believing that the name was free.
    #[test]
    fn what_takes_the_name_of_what_was_renamed_is_told_once_whatever_the_kernel_merged() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let Some((server, _, key)) = watched(folder.path()) else {
            return;
        };
        let (x, y) = (c"x", c"y");
        std::fs::write(folder.path().join("y"), b"").unwrap();
        let merged = [created(&key, x), renamed(&key, x, y)];
        assert_eq!(told(&server, &merged), ["created x", "renamed x y"]);
        std::fs::write(folder.path().join("x"), b"").unwrap();
        assert_eq!(told(&server, &merged), ["created x", "renamed x y", "created x"]);
        let apart = [created(&key, x), renamed(&key, x, y), created(&key, x)];
        assert_eq!(told(&server, &apart), ["created x", "renamed x y", "created x"]);
        assert_eq!(told(&server, &apart[1..]), ["renamed x y", "created x"]);
    }

    /// `touch` opens what it sets the times of for writing, and was told as having written.
    #[test]
    fn what_was_touched_is_told_of_its_attributes_and_what_was_made_with_its_own_as_well() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let Some((server, root, key)) = watched(folder.path()) else {
            return;
        };
        let path = folder.path().join("f");
        std::fs::write(&path, b"").unwrap();
        // So that the guest has been told its times.
        server.tree.look_up(root.id, c"f").unwrap();
        let event = |mask| RawEvent {
            mask,
            at: Some((key.clone(), c"f".to_owned())),
            ..RawEvent::default()
        };
        let touch = |seconds| {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        };
        let attributes = r#"Attributes { name: "f" }"#;
        touch(1_000);
        let merged = event(libc::FAN_ATTRIB | libc::FAN_CLOSE_WRITE);
        assert_eq!(told(&server, &[merged]), [attributes]);
        touch(2_000);
        let apart = [event(libc::FAN_ATTRIB), event(libc::FAN_CLOSE_WRITE)];
        assert_eq!(told(&server, &apart), [attributes]);
        // Through a mapping, of which its closing alone tells.
        touch(3_000);
        let written = told(&server, &[event(libc::FAN_CLOSE_WRITE)]);
        assert_eq!(written, [r#"Modified { name: "f" }"#]);
        let made = event(libc::FAN_CREATE | libc::FAN_ATTRIB);
        assert_eq!(told(&server, &[made]), ["created f", attributes]);
    }

    /// The second of the two renames, repeated as such, took the directory back that the first one had moved.
    #[test]
    fn an_exchange_of_two_names_is_told_as_one_rename_and_what_came() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let Some((server, root, key)) = watched(folder.path()) else {
            return;
        };
        let (a, b) = (c"a", c"b");
        for (path, name) in [("a", a), ("b", b)] {
            std::fs::create_dir(folder.path().join(path)).unwrap();
            server.tree.look_up(root.id, name).unwrap();
        }
        let exchange = || {
            let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
            rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        };
        let pair = [renamed(&key, a, b), renamed(&key, b, a)];
        exchange();
        assert_eq!(told(&server, &pair), ["renamed a b", "created a"]);
        exchange();
        assert_eq!(
            told(&server, &pair),
            Vec::<String>::new(),
            "as the guest knows it"
        );
        std::fs::remove_dir(folder.path().join("b")).unwrap();
        assert_eq!(
            told(&server, &pair),
            ["renamed a b", "renamed b a"],
            "there and back"
        );
        std::fs::create_dir(folder.path().join("b")).unwrap();
        server.tree.look_up(root.id, b).unwrap();
        exchange();
        std::fs::remove_dir(folder.path().join("a")).unwrap();
        assert_eq!(
            told(&server, &pair),
            ["renamed a b"],
            "and what was replaced removed"
        );
    }
}
