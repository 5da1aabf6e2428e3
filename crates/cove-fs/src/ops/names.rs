//! Making, moving and removing directory entries.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;

use super::Caller;
use crate::abi::{self, EntryOut, ROOT_ID};
use crate::body::Body;
use crate::descriptor::Descriptor;
use crate::memory::Sink;
use crate::node::{Identified, Node};
use crate::ownership::{Owner, Special, host_bits, host_mode};
use crate::status::device_parts;
use crate::table::Arrival;
use crate::tree::{ProcPath, STATUS, Tree};
use crate::xattrs;

/// Longest target of a symlink that Linux takes.
const MAX_TARGET: usize = 4095;

impl Tree {
    /// Whose a new file is: the caller's, or of the directory's group where that has setgid.
    pub(crate) fn new_owner(&self, caller: &Caller, parent: &Arc<Node>, kind: FileType, mode: u32) -> Owner {
        let mut owner = Owner {
            uid: caller.uid,
            gid: caller.gid,
            mode: mode & 0o7777,
            stands_for: None,
        };
        // As the guest was told last, be it by the record or by the host: no look at the directory for each new file.
        let told = parent.state.lock().access();
        let (gid, mode) = match told {
            Some((_, gid, mode)) => (gid, mode),
            None => match self.stat(parent) {
                Ok((stat, reach)) => {
                    let dir = self.owner(parent, &stat, &reach);
                    (dir.gid, dir.mode)
                }
                Err(_) => return owner,
            },
        };
        if mode & 0o2000 != 0 {
            owner.gid = gid;
            if kind == FileType::Directory {
                owner.mode |= 0o2000;
            }
        }
        owner
    }

    pub(crate) fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::MkdirIn = body.take()?;
        let name = body.name()?;
        let (parent, dir) = self.target(parent)?;
        let owner = self.new_owner(caller, &parent, FileType::Directory, request.mode);
        let bits = host_mode(FileType::Directory, owner.mode);
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(bits))?;
        sink.value(&self.watched_at_once(self.made(&parent, &dir, name, &owner)?))
    }

    pub(crate) fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::MknodIn = body.take()?;
        let name = body.name()?;
        let (parent, dir) = self.target(parent)?;
        let wanted = FileType::from_raw_mode(request.mode);
        let mut owner = self.new_owner(caller, &parent, wanted, request.mode);
        let (major, minor) = device_parts(request.rdev);
        let kind = match wanted {
            FileType::Fifo | FileType::Socket | FileType::RegularFile => wanted,
            FileType::CharacterDevice => {
                owner.stands_for = Some(Special::Char { major, minor });
                FileType::RegularFile
            }
            FileType::BlockDevice => {
                owner.stands_for = Some(Special::Block { major, minor });
                FileType::RegularFile
            }
            _ if request.mode & 0o170_000 == 0 => FileType::RegularFile,
            _ => return Err(Errno::INVAL),
        };
        let bits = Mode::from_raw_mode(host_mode(kind, owner.mode));
        rustix::fs::mknodat(&dir, name, kind, bits, 0)?;
        sink.value(&self.made(&parent, &dir, name, &owner)?)
    }

    pub(crate) fn symlink(
        &self,
        caller: &Caller,
        parent: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let name = body.name()?;
        let target = body.string()?;
        if target.is_empty() || target.count_bytes() > MAX_TARGET {
            return Err(if target.is_empty() {
                Errno::NOENT
            } else {
                Errno::NAMETOOLONG
            });
        }
        let (parent, dir) = self.target(parent)?;
        let owner = self.new_owner(caller, &parent, FileType::Symlink, 0o777);
        // The target may be anything: the server follows no symlink, and the guest resolves it in its own tree.
        rustix::fs::symlinkat(target, &dir, name)?;
        sink.value(&self.made(&parent, &dir, name, &owner)?)
    }

    pub(crate) fn readlink(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        let node = self.node(node)?;
        if node.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let (_, reach) = self.stat(&node)?;
        let (dir, path, _) = reach.at();
        let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); MAX_TARGET + 1];
        let (target, _) = rustix::fs::readlinkat_raw(dir, path, &mut buffer)?;
        sink.bytes(target)
    }

    /// Gives what was just made in `dir` its owner, and the guest a reference to it. Where either fails it is removed
    /// again, so that whoever failed to make it can try once more.
    fn made(
        &self,
        parent: &Arc<Node>,
        dir: &Descriptor,
        name: &CStr,
        owner: &Owner,
    ) -> Result<EntryOut, Errno> {
        let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS)?;
        let taken_up = Self::give(parent, dir, name, owner, stat).and_then(|stat| {
            let (node, _) = self.nodes.intern(&parent.share, &stat, parent.id, Some(name))?;
            Ok((node, stat))
        });
        let (node, stat) = taken_up.inspect_err(|_| Self::unmake(parent, dir, name, &stat))?;
        Ok(self.entry(parent, &node, &stat, &owner.reconciled(&stat), Arrival::Known))
    }

    /// Makes `owner` that of what was made as `name` in `dir`, which `stat` describes.
    pub(crate) fn give(
        parent: &Arc<Node>,
        dir: &Descriptor,
        name: &CStr,
        owner: &Owner,
        stat: Statx,
    ) -> Result<Statx, Errno> {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let host = Owner::of_host(&stat);
        let bits = if kind == FileType::Symlink {
            host.mode
        } else {
            host_bits(kind, owner.mode, host.mode)
        };
        let identified = Identified::new(&parent.share, &stat);
        if bits != host.mode {
            // A umask or a default ACL took bits away. The name may lead elsewhere by now, even by a link.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let found = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
            if Identified::new(&parent.share, &found) != identified {
                return Err(Errno::STALE);
            }
            rustix::fs::chmod(ProcPath::new(&fd).as_c_str(), Mode::from_raw_mode(bits))?;
        }
        if *owner != (Owner { mode: bits, ..host }) {
            let written = match kind {
                FileType::RegularFile | FileType::Directory => {
                    xattrs::write_record_at(dir, name, &owner.record(kind))
                }
                _ => Err(Errno::NOTSUP),
            };
            match written {
                Ok(()) => {}
                Err(Errno::NOTSUP) => {
                    if matches!(kind, FileType::RegularFile | FileType::Directory) {
                        Self::note_no_xattrs(&parent.share);
                    }
                    parent
                        .share
                        .remember((identified.identity, identified.born), *owner);
                }
                Err(errno) => return Err(errno),
            }
        } else if bits == host.mode {
            return Ok(stat);
        }
        rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS)
    }

    /// Removes what was just made as `name`, unless something else has the name by now.
    pub(crate) fn unmake(parent: &Node, dir: &Descriptor, name: &CStr, made: &Statx) {
        let identified = Identified::new(&parent.share, made);
        let now = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS);
        if !now.is_ok_and(|now| Identified::new(&parent.share, &now) == identified) {
            return;
        }
        let flags = if FileType::from_raw_mode(made.stx_mode.into()) == FileType::Directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        if let Err(errno) = rustix::fs::unlinkat(dir, name, flags) {
            tracing::debug!(share = ?parent.share.name, %errno, "what could not have its owner stays");
        }
    }

    /// A directory to make or remove something in.
    fn target(&self, parent: u64) -> Result<(Arc<Node>, Arc<Descriptor>), Errno> {
        let parent = self.writable(parent)?;
        let dir = self.dir(&parent)?;
        self.ensure_watched(&parent, &dir);
        Ok((parent, dir))
    }

    pub(crate) fn unlink(&self, parent: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let name = body.name()?;
        let (parent, dir) = self.target(parent)?;
        let node = self.nodes.at(parent.id, name);
        if let Some(node) = &node {
            self.keep_reachable(node, &dir, name);
        }
        rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
        if let Some(node) = node {
            self.nodes.lose_name(&node);
        }
        sink.done()
    }

    /// Pins a file that is about to lose the name it is reached by, while others may be left.
    fn keep_reachable(&self, node: &Arc<Node>, dir: &Descriptor, name: &CStr) {
        if node.is_dir() || node.links.load(Ordering::Relaxed) < 2 {
            return;
        }
        let Ok(place) = self.pin_budget.reserve() else {
            return;
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(dir, name, flags, Mode::empty()) else {
            return;
        };
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS);
        if stat.is_ok_and(|stat| node.is(&stat)) {
            let before = node.state.lock().pin.replace(place.hold(fd));
            if before.is_none() {
                self.note_pin(node);
            }
        }
    }

    pub(crate) fn rmdir(&self, parent: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let name = body.name()?;
        let (parent, dir) = self.target(parent)?;
        rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
        if let Some(node) = self.nodes.at(parent.id, name) {
            self.nodes.detach(&node);
        }
        sink.done()
    }

    pub(crate) fn rename(
        &self,
        parent: u64,
        mut body: Body<'_>,
        with_flags: bool,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let (new_parent, flags) = if with_flags {
            let request: abi::Rename2In = body.take()?;
            (request.new_parent, request.flags)
        } else {
            (body.take::<abi::RenameIn>()?.new_parent, 0)
        };
        let (old, new) = (body.name()?, body.name()?);
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            // A whiteout is a device node, which the host would have to make.
            return Err(Errno::INVAL);
        }
        if parent == ROOT_ID || new_parent == ROOT_ID {
            return Err(if parent == new_parent {
                Errno::ROFS
            } else {
                Errno::XDEV
            });
        }
        let (parent, from) = self.target(parent)?;
        let (new_parent, to) = self.target(new_parent)?;
        if parent.share.index != new_parent.share.index {
            return Err(Errno::XDEV);
        }
        let moved = self.nodes.at(parent.id, old);
        let replaced = self.nodes.at(new_parent.id, new);
        if let Some(replaced) = &replaced
            && !flags.contains(RenameFlags::EXCHANGE)
        {
            self.keep_reachable(replaced, &to, new);
        }
        rustix::fs::renameat_with(&from, old, &to, new, flags)?;
        self.note_renamed(
            moved.as_ref(),
            replaced.as_ref(),
            (&parent, old),
            (&new_parent, new),
            flags,
        );
        sink.done()
    }

    /// Follows a rename in the tables.
    pub(crate) fn note_renamed(
        &self,
        moved: Option<&Arc<Node>>,
        replaced: Option<&Arc<Node>>,
        (parent, old): (&Node, &CStr),
        (new_parent, new): (&Node, &CStr),
        flags: RenameFlags,
    ) {
        let same = matches!((moved, replaced), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
        if same && !flags.contains(RenameFlags::EXCHANGE) {
            // Two names of one file: rename does nothing then.
            return;
        }
        if let Some(replaced) = replaced {
            if flags.contains(RenameFlags::EXCHANGE) {
                self.nodes.detach(replaced);
                if let Some(moved) = moved {
                    self.nodes.detach(moved);
                }
                self.nodes.relocate(replaced, parent.id, old);
            } else {
                self.nodes.lose_name(replaced);
            }
        }
        if let Some(moved) = moved {
            self.nodes.relocate(moved, new_parent.id, new);
        }
    }

    pub(crate) fn link(&self, new_parent: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::LinkIn = body.take()?;
        let name = body.name()?;
        let node = self.writable(request.node)?;
        let (new_parent, to) = self.target(new_parent)?;
        if node.share.index != new_parent.share.index {
            return Err(Errno::XDEV);
        }
        if node.is_dir() {
            return Err(Errno::PERM);
        }
        let (fd, _) = self.hold(&node)?;
        let path = ProcPath::new(&fd);
        rustix::fs::linkat(
            rustix::fs::CWD,
            path.as_c_str(),
            &to,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        let stat = rustix::fs::statx(&to, name, AtFlags::SYMLINK_NOFOLLOW, STATUS)?;
        let mut entry = self.enter(&new_parent, name, &stat)?;
        let valid = if self.is_told(&new_parent) {
            self.config.long_entries
        } else {
            self.config.short
        };
        (entry.entry_valid, entry.entry_valid_nsec) = (valid.as_secs(), valid.subsec_nanos());
        sink.value(&entry)
    }
}
