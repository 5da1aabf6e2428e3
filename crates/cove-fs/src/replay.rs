//! The server's part when the guest's agent repeats a change of the host.
//!
//! The agent makes the same system call under a reserved uid; the server answers as if the call changed something,
//! while the host has long changed. So the guest's kernel updates its own caches and tells its own watchers.
//!
//! | change | the agent does | the server answers |
//! | --- | --- | --- |
//! | created | `open(O_CREAT \| O_EXCL)`, `mkdir`, `symlink`, `mknod` | LOOKUP: absent; then the file that is there |
//! | modified | `open(O_WRONLY)`, `write` of one byte at 0, `close` | OPEN: direct I/O, nothing cached stays; WRITE: its length |
//! | attributes | `chmod` | SETATTR: the attributes that are there |
//! | deleted | `unlink`, `rmdir` | LOOKUP: present; then success |
//! | renamed | `rename` | LOOKUP: old present, new absent; then success |
//!
//! Nothing under the reserved uid ever changes the host, whether or not a change was handed out; and only names with a
//! change under way are answered otherwise than truly, so that a path leads to the same place for the agent as for
//! everyone.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use crate::abi::{self, Attr, EntryOut, OpenOut, fopen, op};
use crate::body::Body;
use crate::change::{EntryKind, Event};
use crate::handle::Open;
use crate::memory::Sink;
use crate::node::Node;
use crate::tree::{STATUS, Tree};

/// What the answer about a name is to be, while a change is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// About to be created: absent.
    Coming(EntryKind),
    /// About to be deleted: present.
    Going(EntryKind),
    /// About to be renamed: present.
    From(EntryKind),
    /// About to be renamed to: absent.
    To,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    change: u64,
    role: Role,
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
            self.parts.lock().entry((dir, name.clone())).or_default().push(Part { change, role });
        };
        match event {
            Event::Created { dir, name, entry } => add(*dir, name, Role::Coming(*entry)),
            Event::Deleted { dir, name, entry } => add(*dir, name, Role::Going(*entry)),
            Event::Renamed { dir, name, to_dir, to_name, entry } => {
                add(*dir, name, Role::From(*entry));
                add(*to_dir, to_name, Role::To);
            }
            Event::Modified { .. } | Event::Attributes { .. } | Event::Overflow => {}
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
            op::CREATE => body.take::<abi::CreateIn>().and_then(|_| self.replay_create(node, &mut body, true, sink)),
            op::MKDIR => body.take::<abi::MkdirIn>().and_then(|_| self.replay_create(node, &mut body, false, sink)),
            op::MKNOD => body.take::<abi::MknodIn>().and_then(|_| self.replay_create(node, &mut body, false, sink)),
            op::SYMLINK => self.replay_create(node, &mut body, false, sink),
            op::UNLINK | op::RMDIR => body.name().and_then(|name| self.replay_delete(node, name, sink)),
            op::RENAME | op::RENAME2 => self.replay_rename(opcode, node, &mut body, sink),
            op::SETATTR => self.replay_setattr(node, sink),
            op::OPEN => self.replay_open(node, sink),
            op::LINK | op::TMPFILE | op::SETXATTR | op::REMOVEXATTR | op::FALLOCATE | op::COPY_FILE_RANGE => {
                Err(Errno::PERM)
            }
            _ => return None,
        };
        Some(answer)
    }

    fn replay_lookup(&self, dir: u64, name: &CStr) -> Option<EntryOut> {
        match self.replay.part(dir, name)?.role {
            Role::Coming(_) | Role::To => Some(EntryOut::default()),
            Role::Going(entry) | Role::From(entry) => Some(self.former(dir, name, entry)),
        }
    }

    /// The node that the guest knows by a name that is gone, or one that only stands in for it.
    fn former(&self, dir: u64, name: &CStr, entry: EntryKind) -> EntryOut {
        let kind = match entry {
            EntryKind::File => FileType::RegularFile,
            EntryKind::Directory => FileType::Directory,
            EntryKind::Symlink => FileType::Symlink,
            EntryKind::Pipe => FileType::Fifo,
            EntryKind::Socket => FileType::Socket,
        };
        let known = self.nodes.at(dir, name).filter(|node| node.kind == kind);
        let id = match known {
            Some(node) if self.nodes.refer(&node) => node.id,
            _ => {
                let Some(parent) = self.nodes.get(dir) else { return EntryOut::default() };
                self.nodes.insert_phantom(&parent.share, kind)
            }
        };
        let attr = Attr { ino: id, mode: kind.as_raw_mode() | 0o777, nlink: 1, ..Attr::default() };
        EntryOut { node: id, attr, ..EntryOut::default() }
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
        let Role::Coming(kind) = part.role else { return Err(Errno::PERM) };
        self.replay.end(part.change);
        let parent = self.node(dir)?;
        let host = self.dir(&parent)?;
        let entry = match rustix::fs::statx(&host, name, AtFlags::SYMLINK_NOFOLLOW, STATUS) {
            Ok(stat) if crate::watch::kind_of_type(FileType::from_raw_mode(stat.stx_mode.into())) == kind => {
                self.enter(&parent, name, &stat)
            }
            // Gone already, which the next change will say.
            _ => self.former(dir, name, kind),
        };
        if !opens {
            return sink.value(&entry);
        }
        let fh = self.handles.insert(Open::Replay { node: entry.node });
        sink.values(&entry, &OpenOut { fh, open_flags: fopen::DIRECT_IO, padding: 0 })
    }

    fn replay_delete(&self, dir: u64, name: &CStr, sink: Sink<'_>) -> Result<usize, Errno> {
        let part = self.replay.part(dir, name).ok_or(Errno::PERM)?;
        if !matches!(part.role, Role::Going(_)) {
            return Err(Errno::PERM);
        }
        self.replay.end(part.change);
        if let Some(node) = self.nodes.at(dir, name) {
            self.nodes.detach(&node);
        }
        sink.done()
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
        let to = self.replay.part(to_dir, new).ok_or(Errno::PERM)?;
        if !matches!(part.role, Role::From(_)) || to.role != Role::To || part.change != to.change {
            return Err(Errno::PERM);
        }
        self.replay.end(part.change);
        let (from, to): (Arc<Node>, Arc<Node>) = (self.node(dir)?, self.node(to_dir)?);
        let (moved, replaced) = (self.nodes.at(dir, old), self.nodes.at(to_dir, new));
        self.note_renamed(moved, replaced, (&from, old), (&to, new), RenameFlags::empty());
        sink.done()
    }

    fn replay_setattr(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        let node = self.node(node)?;
        let (stat, reach) = self.stat(&node)?;
        let owner = self.owner(&node, &stat, &reach);
        sink.value(&self.attr_out(&node, &stat, &owner))
    }

    fn replay_open(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        let node = self.node(node)?;
        node.state.lock().cached = None;
        let fh = self.handles.insert(Open::Replay { node: node.id });
        sink.value(&OpenOut { fh, open_flags: fopen::DIRECT_IO, padding: 0 })
    }
}
