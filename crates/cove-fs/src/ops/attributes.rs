//! Status of files and file systems, and changing it.

use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, OFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::abi::{self, Attr, AttrOut, ROOT_ID, fattr};
use crate::body::Body;
use crate::descriptor::Descriptor;
use crate::handle::Open;
use crate::memory::Sink;
use crate::node::{Node, Time};
use crate::ownership::{Owner, without_privilege};
use crate::tree::{ProcPath, Reach, STATUS, Tree};

impl Tree {
    pub(crate) fn getattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::GetattrIn = body.take()?;
        if node == ROOT_ID {
            return sink.value(&self.root_attr());
        }
        let handle = (request.flags & abi::GETATTR_FH != 0).then_some(request.fh);
        let node = self.node(node)?;
        let (stat, reach) = self.stat_by(&node, handle)?;
        let owner = self.owner(&node, &stat, &reach);
        node.links
            .store(stat.stx_nlink, std::sync::atomic::Ordering::Relaxed);
        sink.value(&self.attr_out(&node, &stat, &owner))
    }

    /// Status through an open handle if one is named, or whichever way there is. A directory is watched from then on:
    /// who has the guest's kernel watch it asks for nothing else.
    fn stat_by(&self, node: &Arc<Node>, handle: Option<u64>) -> Result<(Statx, Reach), Errno> {
        let Some(fd) = handle.and_then(|handle| self.open_file(handle, node.id)) else {
            self.ensure_known_watched(node);
            return self.stat(node);
        };
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        Ok((stat, Reach::Open(fd)))
    }

    fn open_file(&self, handle: u64, node: u64) -> Option<Arc<Descriptor>> {
        match &self.handles.get(handle, node).ok()?.open {
            Open::File { fd, .. } => Some(Arc::clone(fd)),
            _ => None,
        }
    }

    /// The virtual root: a directory of root's that nobody can write to.
    pub(crate) fn root_attr(&self) -> AttrOut {
        let shares = u32::try_from(self.shares.read().len()).unwrap_or(u32::MAX - 2);
        let attr = Attr {
            ino: ROOT_ID,
            mode: 0o040_555,
            nlink: 2 + shares,
            blksize: 4096,
            ..Attr::default()
        };
        let valid = self.config.short;
        AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            padding: 0,
            attr,
        }
    }

    /// Asked where a program wants to know when a file was born. `ENOSYS`, even once, would end that for all files.
    pub(crate) fn statx(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::StatxIn = body.take()?;
        if node == ROOT_ID {
            return sink.value(&shown(&self.root_attr(), StatxFlags::BASIC_STATS, (0, 0)));
        }
        let node = self.node(node)?;
        let handle = (request.flags & abi::GETATTR_FH != 0).then_some(request.fh);
        let (stat, reach) = self.stat_by(&node, handle)?;
        let owner = self.owner(&node, &stat, &reach);
        let attr = self.attr_out(&node, &stat, &owner);
        // What the host's file system does not know, the guest is not told.
        let known = StatxFlags::from_bits_retain(stat.stx_mask) & STATUS.difference(StatxFlags::MNT_ID);
        sink.value(&shown(
            &attr,
            known,
            (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        ))
    }

    pub(crate) fn setattr(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::SetattrIn = body.take()?;
        let valid = request.valid;
        let node = self.writable(node)?;
        let handle = (valid & fattr::FH != 0)
            .then(|| self.open_file(request.fh, node.id))
            .flatten();
        if valid & fattr::SIZE != 0 {
            self.truncate(&node, handle.as_ref(), request.size)?;
        }
        let (fd, found, reach) = if let Some(fd) = handle {
            (Arc::clone(&fd), None, Reach::Open(fd))
        } else {
            let (fd, stat) = self.hold(&node)?;
            (Arc::clone(&fd), Some(stat), Reach::Pin(fd))
        };
        // Most requests set times alone, as of each file that is unpacked, and need not know whose it is.
        if valid & (fattr::UID | fattr::GID | fattr::MODE | fattr::KILL_SUIDGID) != 0 {
            let stat = match found {
                Some(stat) => stat,
                None => rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?,
            };
            let old = self.owner(&node, &stat, &reach);
            let new = wanted_owner(&node, &old, &request);
            if new != old {
                Self::set_owner(&node, &*fd, &stat, &new)?;
            }
        }
        if valid & (fattr::ATIME | fattr::MTIME | fattr::ATIME_NOW | fattr::MTIME_NOW) != 0 {
            let times = Timestamps {
                last_access: time(
                    valid,
                    fattr::ATIME,
                    fattr::ATIME_NOW,
                    request.atime,
                    request.atimensec,
                )?,
                last_modification: time(
                    valid,
                    fattr::MTIME,
                    fattr::MTIME_NOW,
                    request.mtime,
                    request.mtimensec,
                )?,
            };
            if let Reach::Open(fd) = &reach {
                rustix::fs::futimens(fd, &times)?;
            } else {
                rustix::fs::utimensat(CWD, ProcPath::new(&fd).as_c_str(), &times, AtFlags::empty())?;
            }
        }
        let stat = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        let owner = self.owner(&node, &stat, &reach);
        sink.value(&self.attr_out(&node, &stat, &owner))
    }

    fn truncate(&self, node: &Arc<Node>, handle: Option<&Arc<Descriptor>>, size: u64) -> Result<(), Errno> {
        if size > i64::MAX as u64 {
            return Err(Errno::FBIG);
        }
        if node.kind != rustix::fs::FileType::RegularFile {
            return Err(if node.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        }
        node.written.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(fd) = handle {
            return rustix::fs::ftruncate(fd, size);
        }
        let _place = self.open_budget.reserve()?;
        rustix::fs::ftruncate(self.open(node, OFlags::WRONLY, None)?.0, size)
    }

    pub(crate) fn statfs(&self, node: u64, sink: Sink<'_>) -> Result<usize, Errno> {
        if node == ROOT_ID {
            return sink.value(&abi::StatfsOut {
                bsize: 4096,
                frsize: 4096,
                namelen: 255,
                ..Default::default()
            });
        }
        let node = self.node(node)?;
        let (fd, _) = self.hold(&node)?;
        let stat = rustix::fs::fstatvfs(&fd)?;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        sink.value(&abi::StatfsOut {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: narrow(stat.f_bsize),
            namelen: narrow(stat.f_namemax),
            frsize: narrow(stat.f_frsize),
            ..Default::default()
        })
    }

    /// Takes setuid and setgid away after a write, where there are any.
    pub(crate) fn drop_privilege(&self, node: &Arc<Node>, fd: &Arc<Descriptor>) -> Result<(), Errno> {
        let known = node.state.lock().owner;
        if let Some((_, record)) = known
            && record.is_none_or(|record| record.mode & 0o6000 == 0)
        {
            return Ok(());
        }
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATUS)?;
        let owner = self.owner(node, &stat, &Reach::Open(Arc::clone(fd)));
        let mode = without_privilege(owner.mode);
        if mode == owner.mode {
            return Ok(());
        }
        Self::set_owner(node, &**fd, &stat, &Owner { mode, ..owner })
    }
}

/// A status as STATX has it: of what is in `attr`, what `known` names, and when the file was born.
fn shown(attr: &AttrOut, known: StatxFlags, (born, born_nsec): Time) -> abi::StatxOut {
    let AttrOut {
        attr_valid,
        attr_valid_nsec,
        attr,
        ..
    } = attr;
    let time = |sec: u64, nsec| abi::SxTime {
        sec: sec.cast_signed(),
        nsec,
        reserved: 0,
    };
    let (major, minor) = crate::status::device_parts(attr.rdev);
    abi::StatxOut {
        attr_valid: *attr_valid,
        attr_valid_nsec: *attr_valid_nsec,
        stat: abi::Statx {
            mask: known.bits(),
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mode: (attr.mode & 0xffff) as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            atime: time(attr.atime, attr.atimensec),
            btime: time(born.cast_unsigned(), born_nsec),
            ctime: time(attr.ctime, attr.ctimensec),
            mtime: time(attr.mtime, attr.mtimensec),
            rdev_major: major,
            rdev_minor: minor,
            ..abi::Statx::default()
        },
        ..abi::StatxOut::default()
    }
}

fn wanted_owner(node: &Node, old: &Owner, request: &abi::SetattrIn) -> Owner {
    let mut new = *old;
    let valid = request.valid;
    if valid & fattr::UID != 0 {
        new.uid = request.uid;
    }
    if valid & fattr::GID != 0 {
        new.gid = request.gid;
    }
    if valid & fattr::MODE != 0 {
        new.mode = request.mode & 0o7777;
    } else if valid & (fattr::UID | fattr::GID | fattr::KILL_SUIDGID) != 0 && !node.is_dir() {
        new.mode = without_privilege(new.mode);
    }
    new
}

fn time(valid: u32, set: u32, now: u32, sec: u64, nsec: u32) -> Result<Timespec, Errno> {
    if valid & now != 0 {
        Ok(Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        })
    } else if valid & set != 0 {
        if nsec > 999_999_999 {
            return Err(Errno::INVAL);
        }
        Ok(Timespec {
            tv_sec: sec.cast_signed(),
            tv_nsec: nsec.into(),
        })
    } else {
        Ok(Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        })
    }
}
