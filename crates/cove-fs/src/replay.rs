//! The server's part when the guest's agent repeats a change of the host.
//!
//! The agent makes the same system call under a reserved uid, from a task whose number the server knows
//! ([`crate::Server::set_repeater`]); the server answers as if the call changed something,
//! while the host has long changed. So the guest's kernel updates its own caches and tells its own watchers.
//!
//! | change | the agent does | the server answers |
//! | --- | --- | --- |
//! | created | `open(O_CREAT \| O_EXCL)`, `mkdir`, `symlink`, `mknod` | LOOKUP: absent; then the file that is there |
//! | modified | `open(O_WRONLY)`, `write` of one byte at 0, `close` | OPEN: direct I/O, nothing cached stays; WRITE: its length |
//! | attributes | `chmod` | SETATTR: the attributes that are there |
//! | deleted | `unlink`, `rmdir` | LOOKUP: present; then success |
//! | renamed | `rename` | LOOKUP: old present, new as the guest knows it; then success |
//!
//! The host may be several changes further by then. So the agent is shown the tree as the guest knows it: a name that
//! the guest knows is present, whatever became of it, and where a file is gone before the guest ever saw it, a node
//! stands in for it that nothing can be done with. Nothing under the reserved uid ever changes the host, whether or
//! not a change was handed out.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, RenameFlags, Statx};
use rustix::io::Errno;

use crate::abi::{self, Attr, AttrOut, EntryOut, OpenOut, fopen, op};
use crate::body::Body;
use crate::change::{EntryKind, Event, is_in_view};
use crate::handle::Open;
use crate::memory::Sink;
use crate::node::{Node, Stamp};
use crate::tree::{STATUS, Tree};
use crate::watch::kind_of_type;

/// What the answer about a name is to be, while a change is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// About to be created: absent.
    Coming(EntryKind),
    /// About to be deleted: present.
    Going(EntryKind),
    /// About to be renamed: present.
    From(EntryKind),
    /// About to be renamed to: absent, or present with what the guest knows there and the rename replaces.
    To(EntryKind),
    /// Changed where it is: present.
    Staying,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    change: u64,
    role: Role,
    /// The agent was shown something else by this name than what is there.
    stood_in: bool,
}

/// The changes under way, by name.
#[derive(Default)]
pub(crate) struct Replay {
    parts: Mutex<HashMap<(u64, CString), Vec<Part>>>,
}

impl Replay {
    /// A change has been handed to the agent.
    pub(crate) fn begin(&self, change: u64, event: &Event) {
        let add = |dir: u64, name: &CString, role| {
            self.parts
                .lock()
                .entry((dir, name.clone()))
                .or_default()
                .push(Part {
                    change,
                    role,
                    stood_in: false,
                });
        };
        match event {
            Event::Created { dir, name, entry } => add(*dir, name, Role::Coming(*entry)),
            Event::Deleted { dir, name, entry } => add(*dir, name, Role::Going(*entry)),
            Event::Renamed {
                dir,
                name,
                to_dir,
                to_name,
                entry,
            } => {
                add(*dir, name, Role::From(*entry));
                add(*to_dir, to_name, Role::To(*entry));
            }
            Event::Modified { dir, name } | Event::Attributes { dir, name } => add(*dir, name, Role::Staying),
            Event::Overflow => {}
        }
    }

    /// Forgets all changes under way.
    pub(crate) fn clear(&self) {
        self.parts.lock().clear();
    }

    /// The part that the earliest change under way has for a name.
    fn part(&self, dir: u64, name: &CStr) -> Option<Part> {
        let key = (dir, name.to_owned());
        self.parts.lock().get(&key)?.first().copied()
    }

    /// Something else stands in, for the earliest change, for what has the name.
    fn note_stand_in(&self, dir: u64, name: &CStr) {
        let key = (dir, name.to_owned());
        if let Some(part) = self
            .parts
            .lock()
            .get_mut(&key)
            .and_then(|parts| parts.first_mut())
        {
            part.stood_in = true;
        }
    }

    /// A change was repeated, or given up.
    pub(crate) fn end(&self, change: u64) -> bool {
        let mut open = false;
        self.parts.lock().retain(|_, parts| {
            let before = parts.len();
            parts.retain(|part| part.change != change);
            open |= parts.len() < before;
            !parts.is_empty()
        });
        open
    }
}

impl Tree {
    /// Answers a request of the agent that would change something, or that names something in change. `None` for
    /// all others, which are answered like anybody's.
    pub(crate) fn replayed(
        &self,
        opcode: u32,
        node: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Option<Result<usize, Errno>> {
        let answer = match opcode {
            op::LOOKUP => {
                let name = match body.name() {
                    Ok(name) => name,
                    Err(errno) => return Some(Err(errno)),
                };
                let entry = self.replay_lookup(node, name)?;
                sink.value(&entry)
            }
            op::CREATE => body
                .take::<abi::CreateIn>()
                .and_then(|_| self.replay_create(node, &mut body, true, sink)),
            op::MKDIR => body
                .take::<abi::MkdirIn>()
                .and_then(|_| self.replay_create(node, &mut body, false, sink)),
            op::MKNOD => body
                .take::<abi::MknodIn>()
                .and_then(|_| self.replay_create(node, &mut body, false, sink)),
            op::SYMLINK => self.replay_create(node, &mut body, false, sink),
            op::UNLINK | op::RMDIR => body.name().and_then(|name| self.replay_delete(node, name, sink)),
            op::RENAME | op::RENAME2 => self.replay_rename(opcode, node, &mut body, sink),
            op::GETATTR | op::SETATTR => self.replay_attributes(node, sink)?,
            op::OPEN => self.replay_open(node, sink),
            op::LINK | op::TMPFILE | op::SETXATTR | op::REMOVEXATTR | op::FALLOCATE | op::COPY_FILE_RANGE => {
                Err(Errno::PERM)
            }
            _ => return None,
        };
        Some(answer)
    }

    fn replay_lookup(&self, dir: u64, name: &CStr) -> Option<EntryOut> {
        let role = self.replay.part(dir, name).map(|part| part.role);
        match role {
            Some(Role::Coming(_)) => Some(EntryOut::default()),
            Some(Role::To(entry)) => Some(self.replaced(dir, name, entry)),
            Some(Role::Going(entry)) => Some(self.going(dir, name, entry)),
            Some(Role::From(entry)) => Some(self.former(dir, name, entry, false)),
            Some(Role::Staying) | None => {
                // As on the host, if it still is there what the guest knows.
                let known = self.nodes.at(dir, name);
                if role.is_none() && known.is_none() {
                    return None;
                }
                let kind = known
                    .as_ref()
                    .map_or(EntryKind::File, |node| kind_of_type(node.kind));
                match known {
                    Some(node) if self.stat(&node).is_ok() => None,
                    None if self.is_there(dir, name) => None,
                    _ => Some(self.former(dir, name, kind, false)),
                }
            }
        }
    }

    /// What a rename of an `entry` replaces: the file that the guest knows by that name, unless it is the one that came
    /// there. The guest's kernel tells those who watch the file itself that it is gone.
    fn replaced(&self, dir: u64, name: &CStr, entry: EntryKind) -> EntryOut {
        let by_directory = entry == EntryKind::Directory;
        let known = self
            .nodes
            .at(dir, name)
            .filter(|node| node.is_dir() == by_directory && !self.is_now_at(node, dir, name));
        match known {
            Some(node) => self.former(dir, name, kind_of_type(node.kind), true),
            None => EntryOut::default(),
        }
    }

    /// What a removal takes away. Where the guest has seen already what came in its place, that must not go: its kernel
    /// would take a directory for dead, and let nobody make anything in it who holds it.
    fn going(&self, dir: u64, name: &CStr, entry: EntryKind) -> EntryOut {
        let known = self.nodes.at(dir, name);
        if known.is_none_or(|node| !self.is_now_at(&node, dir, name)) {
            return self.former(dir, name, entry, true);
        }
        self.replay.note_stand_in(dir, name);
        let stand_in = self
            .nodes
            .get(dir)
            .and_then(|parent| self.nodes.insert_phantom(&parent.share, file_type(entry)).ok());
        stand_in.map_or_else(EntryOut::default, |node| entry_of(&node, told_last(&node)))
    }

    fn is_there(&self, dir: u64, name: &CStr) -> bool {
        self.status_at(dir, name).is_ok()
    }

    fn is_now_at(&self, node: &Node, dir: u64, name: &CStr) -> bool {
        self.status_at(dir, name).is_ok_and(|stat| node.is(&stat))
    }

    fn status_at(&self, dir: u64, name: &CStr) -> Result<Statx, Errno> {
        let dir = self.node(dir).and_then(|node| self.dir(&node))?;
        rustix::fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS)
    }

    /// The node that the guest knows by a name that is gone, or one that only stands in for it. `goes` where the
    /// guest's kernel is about to take the name off the file.
    fn former(&self, dir: u64, name: &CStr, entry: EntryKind, goes: bool) -> EntryOut {
        // A rename is told without the type of what is no directory, and nothing but that decides whether the guest's
        // kernel removes or renames it.
        let by_directory = entry == EntryKind::Directory;
        let known = self
            .nodes
            .at(dir, name)
            .filter(|node| node.is_dir() == by_directory);
        self.known_or_stand_in(known, dir, name, entry)
            .map_or_else(EntryOut::default, |node| {
                entry_of(&node, self.former_attr(&node, goes))
            })
    }

    /// `known` with one reference more, or else a node that is found by this name from now on and stands in for a file.
    fn known_or_stand_in(
        &self,
        known: Option<Arc<Node>>,
        dir: u64,
        name: &CStr,
        entry: EntryKind,
    ) -> Option<Arc<Node>> {
        if let Some(node) = known.filter(|node| self.nodes.refer(node)) {
            return Some(node);
        }
        let parent = self.nodes.get(dir)?;
        let node = self.nodes.insert_phantom(&parent.share, file_type(entry)).ok()?;
        self.nodes.relocate(&node, dir, name);
        Some(node)
    }

    /// The status of a file that is not, or no longer, where the agent looks for it, but may be in use: as it is, where
    /// it is open say, or else as the guest was told it last. With another size or type the guest's kernel would take
    /// the file away from those who use it, and without a link tell those who watch it that it is gone.
    fn former_attr(&self, node: &Arc<Node>, goes: bool) -> Attr {
        match self.stat(node) {
            Ok((stat, reach)) if node.is(&stat) => {
                let owner = self.owner(node, &stat, &reach);
                let mut attr = self.attr(node, &stat, &owner);
                // The host has taken this name off already.
                attr.nlink = attr.nlink.saturating_add(u32::from(goes));
                attr
            }
            _ => told_last(node),
        }
    }

    fn replay_create(
        &self,
        dir: u64,
        body: &mut Body<'_>,
        opens: bool,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let name = body.name()?;
        let part = self.replay.part(dir, name).ok_or(Errno::PERM)?;
        let Role::Coming(kind) = part.role else {
            return Err(Errno::PERM);
        };
        let place = self.replay_budget.reserve().inspect_err(|_| {
            // Passes, and then it is told once more. That the guest knows too many files may last, and comparing
            // would never end.
            if let Some(watch) = &self.watch {
                watch.compare();
            }
        })?;
        let parent = self.node(dir)?;
        let host = self.dir(&parent)?;
        let entry = match rustix::fs::statx(&host, name, AtFlags::SYMLINK_NOFOLLOW, STATUS) {
            Ok(stat) if kind_of_type(FileType::from_raw_mode(stat.stx_mode.into())) == kind => {
                self.enter(&parent, name, &stat)?
            }
            // Gone already, which the next change will say. The guest's kernel takes nothing of another type.
            _ => {
                let known = self
                    .nodes
                    .at(dir, name)
                    .filter(|node| FileType::from_raw_mode(told_last(node).mode) == file_type(kind));
                let node = self
                    .known_or_stand_in(known, dir, name, kind)
                    .ok_or(Errno::NFILE)?;
                entry_of(&node, told_last(&node))
            }
        };
        if opens && FileType::from_raw_mode(entry.attr.mode) != FileType::RegularFile {
            // An empty file that stands for a device, say. The guest's kernel would refuse what it did not ask for, and
            // give back neither the reference nor the handle.
            self.let_go(entry.node, 1);
            return Err(Errno::NODEV);
        }
        // Not before the guest is told: until then the name is still to come.
        self.replay.end(part.change);
        if !opens {
            return sink.value(&entry);
        }
        let fh = self.handles.insert(Open::Replay {
            node: entry.node,
            _place: place,
        });
        sink.values(
            &entry,
            &OpenOut {
                fh,
                open_flags: fopen::DIRECT_IO,
                padding: 0,
            },
        )
    }

    fn replay_delete(&self, dir: u64, name: &CStr, sink: Sink<'_>) -> Result<usize, Errno> {
        let part = self.replay.part(dir, name).ok_or(Errno::PERM)?;
        if !matches!(part.role, Role::Going(_)) {
            return Err(Errno::PERM);
        }
        let known = self.nodes.at(dir, name);
        let is_there = known.as_ref().is_some_and(|node| self.is_now_at(node, dir, name));
        if is_there && !part.stood_in {
            // The guest has found or made it since, and its kernel believed in the name and did not ask.
            return Err(Errno::BUSY);
        }
        self.replay.end(part.change);
        if let Some(node) = known.filter(|_| !is_there) {
            self.nodes.lose_name(&node);
            self.bury(&node);
        }
        sink.done()
    }

    /// Gives a directory up that the guest's kernel has removed. It may have gone where the guest cannot see it, and
    /// come back: as another node, since this one is dead in the guest for good.
    fn bury(&self, node: &Arc<Node>) {
        if !node.is_dir() {
            return;
        }
        node.dead.store(true, Ordering::Release);
        // What happens in it has no path here, and is told by the other's once there is one.
        node.unwatchable.store(true, Ordering::Relaxed);
        self.unwatch(node, None);
        // Nor has what happens below it, where it was only moved. What was removed has no links left, and nothing below.
        if self.stat(node).is_ok_and(|(stat, _)| stat.stx_nlink > 0) {
            for below in self.nodes.all() {
                if below.is_watched() && !is_in_view(below.id, &self.nodes) {
                    self.unwatch_out_of_view(&below);
                }
            }
        }
    }

    fn replay_rename(
        &self,
        opcode: u32,
        dir: u64,
        body: &mut Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let to_dir = if opcode == op::RENAME {
            body.take::<abi::RenameIn>()?.new_parent
        } else {
            body.take::<abi::Rename2In>()?.new_parent
        };
        let (old, new) = (body.name()?, body.name()?);
        let part = self.replay.part(dir, old).ok_or(Errno::PERM)?;
        let to_part = self.replay.part(to_dir, new).ok_or(Errno::PERM)?;
        if !matches!(part.role, Role::From(_))
            || !matches!(to_part.role, Role::To(_))
            || part.change != to_part.change
        {
            return Err(Errno::PERM);
        }
        self.replay.end(part.change);
        let (from, to): (Arc<Node>, Arc<Node>) = (self.node(dir)?, self.node(to_dir)?);
        let (moved, replaced) = (self.nodes.at(dir, old), self.nodes.at(to_dir, new));
        if replaced
            .as_ref()
            .is_some_and(|node| self.is_now_at(node, to_dir, new))
        {
            // The guest has found already what came there. A directory that lost its place here could not be named to
            // the agent any more, nor what happens in it.
            if let Some(moved) = moved.filter(|node| !self.is_now_at(node, dir, old)) {
                self.nodes.detach(&moved);
            }
            return sink.done();
        }
        self.note_renamed(
            moved.as_ref(),
            replaced.as_ref(),
            (&from, old),
            (&to, new),
            RenameFlags::empty(),
        );
        if let Some(replaced) = replaced
            && to_part.role == Role::To(EntryKind::Directory)
            && moved.is_none_or(|moved| !Arc::ptr_eq(&moved, &replaced))
        {
            self.bury(&replaced);
        }
        sink.done()
    }

    /// `None` where everybody's answer will do.
    fn replay_attributes(&self, node: u64, sink: Sink<'_>) -> Option<Result<usize, Errno>> {
        if node == abi::ROOT_ID {
            return None;
        }
        let node = match self.node(node) {
            Ok(node) => node,
            Err(errno) => return Some(Err(errno)),
        };
        Some(match self.stat(&node) {
            Ok((stat, reach)) => {
                let owner = self.owner(&node, &stat, &reach);
                sink.value(&self.attr_out(&node, &stat, &owner))
            }
            Err(_) => sink.value(&AttrOut {
                attr: told_last(&node),
                ..AttrOut::default()
            }),
        })
    }

    fn replay_open(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        let place = self.replay_budget.reserve()?;
        let node = self.node(node)?;
        let stamp = self.stat(&node).ok().map(|(stat, _)| Stamp::new(&stat));
        {
            let mut state = node.state.lock();
            state.cached = None;
            // Of what cannot be looked at the guest has heard nothing, which comparing is to find.
            if stamp.is_some() {
                state.heard = stamp;
            }
        }
        let fh = self.handles.insert(Open::Replay {
            node: node.id,
            _place: place,
        });
        sink.value(&OpenOut {
            fh,
            open_flags: fopen::DIRECT_IO,
            padding: 0,
        })
    }
}

fn file_type(entry: EntryKind) -> FileType {
    match entry {
        EntryKind::File => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Pipe => FileType::Fifo,
        EntryKind::Socket => FileType::Socket,
    }
}

/// What the guest is not to believe for long, as nobody looked it up by that name.
fn entry_of(node: &Node, attr: Attr) -> EntryOut {
    EntryOut {
        node: node.id,
        attr,
        ..EntryOut::default()
    }
}

/// The status that the guest was told last. It was told none of what only stands in for a file.
fn told_last(node: &Node) -> Attr {
    let shown = node.state.lock().shown;
    shown.unwrap_or_else(|| Attr {
        ino: node.id,
        mode: node.kind.as_raw_mode() | 0o777,
        nlink: 1,
        ..Attr::default()
    })
}
