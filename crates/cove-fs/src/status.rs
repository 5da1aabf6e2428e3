//! A file's status as the guest sees it: the host's, with the owner that a container set, and with how long the
//! guest may believe it.
//!
//! How long: in a watched directory for long, since the guest is told of every change there, as long as its agent
//! listens; elsewhere, and names where their case is ignored, for the short time of the settings. Three cases are never
//! believed for long: a file with several names, which may change through one in an unwatched directory; a name that came
//! up moments ago and a name in a directory with changes that the guest has not been told of, since the telling (see
//! `replay`) has to find the guest without an opinion.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::abi::{Attr, AttrOut, EntryOut};
use crate::node::{Identified, Node, Stamp, Time, changed};
use crate::ownership::{Owner, Special, host_bits};
use crate::share::Share;
use crate::table::Arrival;
use crate::tree::{ProcPath, Reach, Tree};
use crate::xattrs;

/// Timestamps within this of now may stand for more than one change: kernels before 6.13 stamp by the timer tick.
const TICK: i128 = 20_000_000;
/// A change within this of now may not have been told of.
const FRESH: i128 = 2_000_000_000;

/// Whether less than `nanoseconds` have gone by since `time`, or it lies ahead.
fn within(time: Time, nanoseconds: i128) -> bool {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = i128::from(now.tv_sec) - i128::from(time.0);
    let age = seconds * 1_000_000_000 + i128::from(now.tv_nsec) - i128::from(time.1);
    age < nanoseconds
}

/// Whether it has changed so lately that nobody may have been told of it.
pub(crate) fn is_fresh(stat: &Statx) -> bool {
    within(changed(stat), FRESH)
}

/// Whether another change might hide behind the same timestamp.
pub(crate) fn is_ambiguous(time: Time) -> bool {
    within(time, TICK)
}

impl Tree {
    /// Whose the file is and what mode it has, as the guest should see it.
    pub(crate) fn owner(&self, node: &Arc<Node>, stat: &Statx, reach: &Reach) -> Owner {
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            return self.remembered_owner(node, stat).reconciled(stat);
        }
        let time = changed(stat);
        {
            let mut state = node.state.lock();
            state.told = Some(Stamp::new(stat));
            state.heard = state.told;
            if let Some((at, owner)) = state.owner
                && at == time
            {
                return owner.unwrap_or_else(|| Owner::of_host(stat)).reconciled(stat);
            }
        }
        let record = match xattrs::read_record(reach, node.is_dir()) {
            Err(Errno::NOTSUP) => {
                Self::note_no_xattrs(&node.share);
                return self.remembered_owner(node, stat).reconciled(stat);
            }
            other => other.unwrap_or(None),
        };
        if !is_ambiguous(time) {
            node.state.lock().owner = Some((time, record));
        }
        record.unwrap_or_else(|| Owner::of_host(stat)).reconciled(stat)
    }

    /// The owner of a file that cannot carry a record.
    fn remembered_owner(&self, node: &Arc<Node>, stat: &Statx) -> Owner {
        let Identified { identity, born } = Identified::new(&node.share, stat);
        let key = (identity, born);
        let host = Owner::of_host(stat);
        node.share
            .remembered(key)
            .or_else(|| self.record_of_parent(node, &host))
            .unwrap_or(host)
    }

    /// The owner of the directory, if a container set it, with the host's mode for the file itself.
    fn record_of_parent(&self, node: &Arc<Node>, host: &Owner) -> Option<Owner> {
        let parent = node.state.lock().place.as_ref()?.parent;
        let parent = self.node(parent).ok()?;
        let cached = parent.state.lock().owner;
        let record = if let Some((_, record)) = cached {
            record
        } else {
            let (_, reach) = self.stat(&parent).ok()?;
            xattrs::read_record(&reach, true).ok()?
        }?;
        Some(Owner {
            uid: record.uid,
            gid: record.gid,
            ..*host
        })
    }

    /// Notes that an owner is only remembered of what could carry a record elsewhere.
    pub(crate) fn note_no_xattrs(share: &Share) {
        if share.note_no_xattrs() {
            tracing::warn!(
                share = ?share.name,
                "a file system in this share stores no user attributes: owners that containers set there last \
                 until the machine stops"
            );
        }
    }

    /// Makes `owner` the file's owner and mode, in the record and on the host, through `fd`, which is of this node.
    pub(crate) fn set_owner(
        node: &Arc<Node>,
        fd: impl std::os::fd::AsFd,
        stat: &Statx,
        owner: &Owner,
    ) -> Result<(), Errno> {
        let host = Owner::of_host(stat);
        let bits = host_bits(node.kind, owner.mode, host.mode);
        // Mode first: with the bits that the record implies, the user may write, and so set attributes.
        if node.kind != FileType::Symlink && bits != host.mode {
            rustix::fs::chmod(
                ProcPath::new(&fd).as_c_str(),
                rustix::fs::Mode::from_raw_mode(bits),
            )?;
        }
        node.state.lock().owner = None;
        let Identified { identity, born } = Identified::new(&node.share, stat);
        let key = (identity, born);
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            node.share.remember(key, *owner);
            return Ok(());
        }
        let redundant = *owner == Owner { mode: bits, ..host };
        let reach_has_record = || {
            let mut buffer = [0; 1];
            let result = rustix::fs::getxattr(
                ProcPath::new(&fd).as_c_str(),
                crate::ownership::XATTR,
                &mut buffer[..],
            );
            !matches!(result, Err(Errno::NODATA | Errno::NOTSUP))
        };
        if redundant && !reach_has_record() && !node.share.lacks_xattrs() {
            return Ok(());
        }
        match xattrs::write_record(&fd, &owner.record(node.kind)) {
            Err(Errno::NOTSUP) => {
                Self::note_no_xattrs(&node.share);
                node.share.remember(key, *owner);
                Ok(())
            }
            result => result,
        }
    }

    /// The status in FUSE's form.
    pub(crate) fn attr(&self, node: &Node, stat: &Statx, owner: &Owner) -> Attr {
        let (kind, rdev) = match owner.stands_for {
            None => (
                u32::from(stat.stx_mode) & 0o170_000,
                device(stat.stx_rdev_major, stat.stx_rdev_minor),
            ),
            Some(Special::Block { major, minor }) => (0o060_000, device(major, minor)),
            Some(Special::Char { major, minor }) => (0o020_000, device(major, minor)),
            Some(Special::Pipe) => (0o010_000, 0),
            Some(Special::Socket) => (0o140_000, 0),
        };
        let attr = Attr {
            ino: self.shown_ino(node.identified.identity.device, stat.stx_ino),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: stat.stx_atime.tv_sec.cast_unsigned(),
            mtime: stat.stx_mtime.tv_sec.cast_unsigned(),
            ctime: stat.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: stat.stx_atime.tv_nsec,
            mtimensec: stat.stx_mtime.tv_nsec,
            ctimensec: stat.stx_ctime.tv_nsec,
            mode: kind | owner.mode,
            nlink: stat.stx_nlink,
            uid: owner.uid,
            gid: owner.gid,
            rdev,
            blksize: stat.stx_blksize,
            flags: 0,
        };
        node.state.lock().shown = Some(attr);
        attr
    }

    /// The answer to a lookup of `node` in `parent`.
    pub(crate) fn entry(
        &self,
        parent: &Node,
        node: &Arc<Node>,
        stat: &Statx,
        owner: &Owner,
        arrival: Arrival,
    ) -> EntryOut {
        let entry = self.name_validity(parent, arrival == Arrival::New && is_fresh(stat));
        let attr = self.attr_validity(Some(parent), node);
        node.state.lock().believed = Instant::now().checked_add(attr);
        EntryOut {
            node: node.id,
            generation: 0,
            entry_valid: entry.as_secs(),
            attr_valid: attr.as_secs(),
            entry_valid_nsec: entry.subsec_nanos(),
            attr_valid_nsec: attr.subsec_nanos(),
            attr: self.attr(node, stat, owner),
        }
    }

    /// The answer for a name that does not exist, which the guest may believe as well.
    pub(crate) fn no_entry(&self, parent: &Node, was_known: bool) -> EntryOut {
        let valid = if parent.ignores_case.load(Ordering::Relaxed) {
            // What makes `readme` be there is told as the creation of `README`.
            Duration::ZERO
        } else {
            self.name_validity(parent, was_known)
        };
        EntryOut {
            entry_valid: valid.as_secs(),
            entry_valid_nsec: valid.subsec_nanos(),
            ..EntryOut::default()
        }
    }

    /// Whether the guest is told of what happens in a directory.
    pub(crate) fn is_told(&self, dir: &Node) -> bool {
        dir.is_watched() && self.is_repeated()
    }

    /// Whether somebody repeats the host's changes in the guest.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeater.load(Ordering::Acquire) != 0
    }

    fn name_validity(&self, parent: &Node, untold: bool) -> Duration {
        if !self.is_told(parent) || parent.ignores_case.load(Ordering::Relaxed) {
            self.config.short
        } else if untold || parent.pending.load(Ordering::Acquire) > 0 {
            Duration::ZERO
        } else {
            self.config.long_entries
        }
    }

    /// The answer to GETATTR and its like. What is said of a successor is not to be believed of the file itself, which
    /// may turn up under another name.
    pub(crate) fn attr_out(&self, node: &Arc<Node>, stat: &Statx, owner: &Owner) -> AttrOut {
        let valid = if node.is(stat) {
            self.attr_validity(None, node)
        } else {
            Duration::ZERO
        };
        node.state.lock().believed = Instant::now().checked_add(valid);
        AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            padding: 0,
            attr: self.attr(node, stat, owner),
        }
    }

    /// How long attributes hold. `parent` saves a search where it is known. Those of a directory that is still to be
    /// watched not at all: to have it watched by inotify, the guest's kernel looks at nothing but who may read it.
    pub(crate) fn attr_validity(&self, parent: Option<&Node>, node: &Node) -> Duration {
        if self.is_to_be_watched(node) {
            return Duration::ZERO;
        }
        let told = if node.is_dir() {
            self.is_told(node)
        } else if node.links.load(Ordering::Relaxed) > 1 {
            false
        } else if let Some(parent) = parent {
            self.is_told(parent)
        } else {
            let parent = node.state.lock().place.as_ref().map(|place| place.parent);
            parent
                .and_then(|id| self.nodes.get(id))
                .is_some_and(|parent| self.is_told(&parent))
        };
        if told {
            self.config.long_attributes
        } else {
            self.config.short
        }
    }
}

/// A device number as FUSE carries it: the kernel's old 32-bit encoding.
pub(crate) fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// Major and minor of a device number as FUSE carries it.
pub(crate) fn device_parts(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, rdev & 0xff | (rdev >> 12) & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_as_far_away_as_a_guest_can_set_it() {
        assert!(!is_ambiguous((i64::MIN, 0)));
        assert!(is_ambiguous((i64::MAX, 999_999_999)));
    }

    #[test]
    fn device_numbers_travel_both_ways() {
        for (major, minor) in [(1, 3), (8, 0), (259, 1_048_575), (4095, 255)] {
            assert_eq!(device_parts(device(major, minor)), (major, minor));
        }
    }
}
