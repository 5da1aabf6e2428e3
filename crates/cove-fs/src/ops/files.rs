//! Regular files: opening, data, space, durability.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Statx};
use rustix::io::Errno;

use super::Caller;
use crate::abi::{self, OpenOut, fopen};
use crate::body::Body;
use crate::descriptor::{Descriptor, Place};
use crate::handle::{Handle, Open};
use crate::memory::{HEADER, Sink, Source};
use crate::node::{Identified, Node, Stamp};
use crate::ownership::{Owner, host_mode};
use crate::share::Share;
use crate::status::is_ambiguous;
use crate::sys;
use crate::tree::{Opener, STATUS, Tree};

/// Most bytes that one `COPY_FILE_RANGE` moves, so that it does not keep a worker for long; the guest asks again.
const MAX_COPY: u64 = 128 << 20;
/// Of the guest's flags, those that mean something for the host's descriptor. `O_APPEND` is not among them: it
/// travels with each write, as pages may be written back through any handle.
const HOST_FLAGS: OFlags = OFlags::ACCMODE.union(OFlags::SYNC).union(OFlags::DSYNC);
/// The guest's kernel opens a program so that it is about to execute (`__FMODE_EXEC`).
const FOR_EXECUTION: OFlags = OFlags::from_bits_retain(0x20);

impl Tree {
    pub(crate) fn open_op(
        &self,
        caller: &Caller,
        node: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::OpenIn = body.take()?;
        let flags = OFlags::from_bits_retain(request.flags);
        let node = if writes(flags) {
            self.writable(node)?
        } else {
            self.node(node)?
        };
        require_file(&node)?;
        let place = self.open_budget.reserve()?;
        let opener = Opener {
            uid: caller.uid,
            wanted: wanted(flags),
        };
        let (fd, mut stat) = self.open(&node, flags & HOST_FLAGS, Some(opener))?;
        let fd = place.hold(fd);
        if flags.contains(OFlags::TRUNC) {
            // Only now that it is sure which file this is.
            rustix::fs::ftruncate(&fd, 0)?;
            if request.open_flags & abi::OPEN_KILL_SUIDGID != 0 {
                self.drop_privilege(&node, &fd)?;
            }
            stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        }
        sink.value(&self.opened(node, fd, flags, &stat))
    }

    /// Makes a handle and says what the guest may keep in its cache.
    fn opened(&self, node: Arc<Node>, fd: Arc<Descriptor>, flags: OFlags, stat: &Statx) -> OpenOut {
        let mut open_flags = fopen::PARALLEL_DIRECT_WRITES;
        if !writes(flags) {
            // Nothing to report at close; locks set through this handle go when it is released.
            open_flags |= fopen::NOFLUSH;
        }
        let stamp = Stamp::new(stat);
        let written = node.written.swap(false, Ordering::Relaxed);
        {
            let mut state = node.state.lock();
            if Identified::new(&node.share, stat) == node.identified {
                if state.cached == Some(stamp) && !written {
                    open_flags |= fopen::KEEP_CACHE;
                }
                state.cached = (!is_ambiguous(stamp.modified)).then_some(stamp);
            } else {
                // A successor, while the guest may still believe in the size of the file before.
                open_flags |= fopen::DIRECT_IO;
                state.cached = None;
            }
        }
        let fh = self.handles.insert(Open::File {
            node,
            fd,
            lock_owners: Mutex::default(),
        });
        OpenOut {
            fh,
            open_flags,
            padding: 0,
        }
    }

    pub(crate) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::CreateIn = body.take()?;
        let name = body.name()?;
        let parent = self.writable(parent)?;
        let dir = self.dir(&parent)?;
        self.ensure_watched(&parent, &dir);
        let place = self.open_budget.reserve()?;
        let flags = OFlags::from_bits_retain(request.flags);
        let host =
            flags & HOST_FLAGS | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let owner = self.new_owner(caller, &parent, FileType::RegularFile, request.mode);
        let mode = Mode::from_raw_mode(host_mode(FileType::RegularFile, owner.mode));
        match rustix::fs::openat(&dir, name, host | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(fd) => {
                let fd = place.hold(fd);
                let finished = self.finish_new_file(&parent.share, &fd, &owner).and_then(|stat| {
                    let fd = Arc::clone(&fd);
                    self.created(&parent, Some(name), fd, flags, (&owner, &stat))
                });
                let (entry, open) = finished.inspect_err(|_| {
                    // Or the next try would find that it exists.
                    if let Ok(stat) = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS) {
                        Self::unmake(&parent, &dir, name, &stat);
                    }
                })?;
                sink.values(&entry, &open)
            }
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                self.open_existing(caller, &parent, name, (place, flags), sink)
            }
            Err(errno) => Err(errno),
        }
    }

    /// CREATE of a file that has come to exist since the guest looked. The guest's kernel takes it for new and checks
    /// nothing; told that what it knew is `STALE`, it looks again, and opens what is there by its own rules.
    fn open_existing(
        &self,
        caller: &Caller,
        parent: &Arc<Node>,
        name: &CStr,
        (place, flags): (Place, OFlags),
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let entry = self.look_up(parent.id, name)?;
        let node = self.node(entry.node)?;
        let opener = Opener {
            uid: caller.uid,
            wanted: wanted(flags),
        };
        let permitted =
            node.kind == FileType::RegularFile && opener.is_permitted_by(entry.attr.uid, entry.attr.mode);
        let opened = if permitted {
            self.open(&node, flags & HOST_FLAGS, None)
        } else {
            Err(Errno::STALE)
        };
        let opened = opened.and_then(|(fd, stat)| {
            if flags.contains(OFlags::TRUNC) {
                rustix::fs::ftruncate(&fd, 0)?;
            }
            Ok((fd, stat))
        });
        let (fd, stat) = opened.inspect_err(|_| drop(self.nodes.forget(entry.node, 1)))?;
        let open = self.opened(node, place.hold(fd), flags, &stat);
        sink.values(&entry, &open)
    }

    pub(crate) fn tmpfile(
        &self,
        caller: &Caller,
        parent: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::CreateIn = body.take()?;
        let parent = self.writable(parent)?;
        let dir = self.dir(&parent)?;
        let place = self.open_budget.reserve()?;
        let flags = OFlags::from_bits_retain(request.flags);
        let owner = self.new_owner(caller, &parent, FileType::RegularFile, request.mode);
        let mode = Mode::from_raw_mode(host_mode(FileType::RegularFile, owner.mode));
        let excl = flags & OFlags::EXCL;
        let fd = rustix::fs::openat(
            &dir,
            c".",
            flags & HOST_FLAGS | OFlags::TMPFILE | OFlags::CLOEXEC | excl,
            mode,
        )?;
        let fd = place.hold(fd);
        let stat = self.finish_new_file(&parent.share, &fd, &owner)?;
        let (entry, open) = self.created(&parent, None, fd, flags, (&owner, &stat))?;
        sink.values(&entry, &open)
    }

    /// Gives a new file its record, and the mode that a umask may have kept from it.
    fn finish_new_file(&self, share: &Share, fd: &Descriptor, owner: &Owner) -> Result<Statx, Errno> {
        let bits = host_mode(FileType::RegularFile, owner.mode);
        let as_is = (owner.uid, owner.gid) == self.user && owner.mode == bits;
        let mut is_recorded = true;
        if !as_is {
            let record = owner.record(FileType::RegularFile);
            match rustix::fs::fsetxattr(
                fd,
                crate::ownership::XATTR,
                record.as_bytes(),
                rustix::fs::XattrFlags::empty(),
            ) {
                Ok(()) => {}
                Err(Errno::NOTSUP) => is_recorded = false,
                Err(errno) => return Err(errno),
            }
        }
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        if !is_recorded {
            Self::note_no_xattrs(share);
            let Identified { identity, born } = Identified::new(share, &stat);
            share.remember((identity, born), *owner);
        }
        if u32::from(stat.stx_mode) & 0o7777 == bits {
            return Ok(stat);
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(bits))?;
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATUS)
    }

    fn created(
        &self,
        parent: &Arc<Node>,
        name: Option<&CStr>,
        fd: Arc<Descriptor>,
        flags: OFlags,
        (owner, stat): (&Owner, &Statx),
    ) -> Result<(abi::EntryOut, OpenOut), Errno> {
        let (node, _) = self.nodes.intern(&parent.share, stat, parent.id, name)?;
        let owner = owner.reconciled(stat);
        // The guest itself made it, so there is nothing to tell it of.
        let entry = self.entry(parent, &node, stat, &owner, crate::table::Arrival::Known);
        let open = self.opened(node, fd, flags, stat);
        Ok((entry, open))
    }

    pub(crate) fn read(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::ReadIn = body.take()?;
        let handle = self.file(request.fh, node)?;
        let (_, fd) = handle.file()?;
        let len = sink.room().min(request.size as usize);
        let count = sys::read_at(fd.as_fd(), sink.slices, HEADER, len, request.offset)?;
        sink.finish(count)
    }

    /// `data` are the request's slices, of which the first `skip` bytes are header and parameters.
    pub(crate) fn write(
        &self,
        node: u64,
        request: &abi::WriteIn,
        source: Source<'_>,
        skip: usize,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let handle = self.file(request.fh, node)?;
        let (node, fd) = handle.file()?;
        if node.share.read_only {
            return Err(Errno::ROFS);
        }
        let len = request.size as usize;
        if source.len().saturating_sub(skip) < len {
            return Err(Errno::INVAL);
        }
        let append = request.write_flags & abi::WRITE_CACHE == 0
            && OFlags::from_bits_retain(request.flags).contains(OFlags::APPEND);
        if request.write_flags & abi::WRITE_KILL_SUIDGID != 0 {
            self.drop_privilege(node, fd)?;
        }
        if !node.written.load(Ordering::Relaxed) {
            node.written.store(true, Ordering::Relaxed);
        }
        let count = sys::write_at(fd.as_fd(), source.slices, skip, len, request.offset, append)?;
        let size = u32::try_from(count).unwrap_or(request.size);
        sink.value(&abi::WriteOut { size, padding: 0 })
    }

    pub(crate) fn flush(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::FlushIn = body.take()?;
        let handle = self.handles.get(request.fh, node)?;
        if let Open::File { lock_owners, .. } = &handle.open {
            // The guest's kernel may give its number to another process, whose locks this handle has nothing to do with.
            lock_owners.lock().retain(|owner| *owner != request.lock_owner);
        }
        self.locks.release(node, request.lock_owner);
        sink.done()
    }

    pub(crate) fn release(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::ReleaseIn = body.take()?;
        let handle = self.handles.remove(request.fh, node)?;
        if let Open::File { lock_owners, .. } = &handle.open {
            let owners = std::mem::take(&mut *lock_owners.lock());
            for owner in owners {
                self.locks.release(node, owner);
            }
            drop(handle);
            self.locks.wake();
        }
        sink.done()
    }

    pub(crate) fn fsync(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::FsyncIn = body.take()?;
        let handle = self.handles.get(request.fh, node)?;
        let fd = match &handle.open {
            Open::File { fd, .. } | Open::Dir { fd, .. } => fd,
            Open::Root { .. } | Open::Replay { .. } => return sink.done(),
        };
        if request.flags & abi::FSYNC_FDATASYNC != 0 {
            rustix::fs::fdatasync(fd)?;
        } else {
            rustix::fs::fsync(fd)?;
        }
        sink.done()
    }

    pub(crate) fn fallocate(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::FallocateIn = body.take()?;
        let handle = self.file(request.fh, node)?;
        let (node, fd) = handle.file()?;
        if node.share.read_only {
            return Err(Errno::ROFS);
        }
        node.written.store(true, Ordering::Relaxed);
        let mode = FallocateFlags::from_bits_retain(request.mode);
        if request.offset > i64::MAX as u64 || request.length > i64::MAX as u64 {
            return Err(Errno::INVAL);
        }
        rustix::fs::fallocate(fd, mode, request.offset, request.length)?;
        sink.done()
    }

    pub(crate) fn lseek(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let request: abi::LseekIn = body.take()?;
        let handle = self.file(request.fh, node)?;
        let (_, fd) = handle.file()?;
        if request.offset > i64::MAX as u64 {
            return Err(Errno::NXIO);
        }
        let position = match request.whence {
            SEEK_DATA => SeekFrom::Data(request.offset),
            SEEK_HOLE => SeekFrom::Hole(request.offset),
            _ => return Err(Errno::INVAL),
        };
        sink.value(&abi::LseekOut {
            offset: rustix::fs::seek(fd, position)?,
        })
    }

    pub(crate) fn copy_file_range(
        &self,
        node: u64,
        mut body: Body<'_>,
        sink: Sink<'_>,
    ) -> Result<usize, Errno> {
        let request: abi::CopyFileRangeIn = body.take()?;
        let from = self.file(request.fh_in, node)?;
        let to = self.file(request.fh_out, request.node_out)?;
        let (_, from) = from.file()?;
        let (target, to) = to.file()?;
        if target.share.read_only {
            return Err(Errno::ROFS);
        }
        target.written.store(true, Ordering::Relaxed);
        let (mut off_in, mut off_out) = (request.off_in, request.off_out);
        let len = usize::try_from(request.len.min(MAX_COPY)).map_err(|_| Errno::INVAL)?;
        let count = rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), len)?;
        let size = u32::try_from(count).map_err(|_| Errno::OVERFLOW)?;
        sink.value(&abi::WriteOut { size, padding: 0 })
    }

    /// The open file behind a handle of this node, unless its share is gone.
    pub(crate) fn file(&self, handle: u64, node: u64) -> Result<Arc<Handle>, Errno> {
        let handle = self.handles.get(handle, node)?;
        if handle.file()?.0.share.is_removed() {
            Err(Errno::STALE)
        } else {
            Ok(handle)
        }
    }
}

impl Handle {
    pub(crate) fn file(&self) -> Result<(&Arc<Node>, &Arc<Descriptor>), Errno> {
        match &self.open {
            Open::File { node, fd, .. } => Ok((node, fd)),
            _ => Err(Errno::BADF),
        }
    }
}

/// Whether the guest means to change the file.
fn writes(flags: OFlags) -> bool {
    flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC)
}

/// The bits of a mode that it takes to open a file so.
fn wanted(flags: OFlags) -> u32 {
    let reads = flags & OFlags::ACCMODE != OFlags::WRONLY;
    let executes = flags.contains(FOR_EXECUTION);
    u32::from(reads) << 2 | u32::from(writes(flags)) << 1 | u32::from(executes)
}

/// Pipes, sockets and devices are opened by the guest's kernel and never by the server.
fn require_file(node: &Node) -> Result<(), Errno> {
    match node.kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::NXIO),
    }
}
