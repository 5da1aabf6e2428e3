//! Owners and modes as containers set them, kept beside files that on the host stay the user's.
//!
//! The server runs as an ordinary user and cannot `chown`. What a container sets is stored in the extended attribute
//! `user.containers.override_stat` as `uid:gid:mode:type`, the format of containers/storage, so other tools can read
//! it. A file without a record shows the host's own owner and mode: what the user 1000 owns is 1000's in the
//! container too, as with Docker on Linux. Permission checks are the guest kernel's (`default_permissions`); the
//! server only tells it whose a file is.
//!
//! On the host a file's mode is the guest's, except that the user can always read and write it ([`host_mode`]) and
//! that setuid, setgid and sticky exist in the record alone: no guest can leave a setuid program on the host. The one
//! exception is the setgid of a directory that has it on the host ([`host_bits`]), by which people share a folder with
//! a group: it is inherited there as it is natively. When the host's permission bits are not the ones that the record
//! implies, the user has changed them since, and they win.
//!
//! Symlinks, pipes and sockets cannot carry user attributes, and some file systems know none. Their owners are
//! remembered for the lifetime of the server, in a bounded table of the share; without an entry there, they show the
//! record of the directory that they lie in. Device nodes, which an ordinary user cannot make, are empty files with
//! a record of their type.

use std::ffi::CStr;
use std::fmt::Write as _;

use rustix::fs::{FileType, Statx};

/// The attribute's name.
pub(crate) const XATTR: &CStr = c"user.containers.override_stat";
/// Longer records are not ours.
pub(crate) const MAX_RECORD: usize = 128;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    /// What an empty file stands for.
    pub(crate) stands_for: Option<Special>,
}

/// Types of file that an ordinary user cannot make, or that cannot carry attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Block { major: u32, minor: u32 },
    Char { major: u32, minor: u32 },
    Pipe,
    Socket,
}

impl Owner {
    /// Reads a record; `None` for anything that is not one.
    pub(crate) fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(record).ok()?.split(':');
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let stands_for = match fields.next() {
            None | Some("file" | "dir" | "symlink") => None,
            Some("pipe") => Some(Special::Pipe),
            Some("socket") => Some(Special::Socket),
            Some(device) => Some(parse_device(device)?),
        };
        (fields.next().is_none() && mode <= 0o7777).then_some(Self {
            uid,
            gid,
            mode,
            stands_for,
        })
    }

    /// Writes the record for a file of the host's type `kind`.
    pub(crate) fn record(&self, kind: FileType) -> String {
        let mut record = String::with_capacity(40);
        // Writing to a string cannot fail.
        let _ = write!(record, "{}:{}:{:04o}:", self.uid, self.gid, self.mode);
        let _ = match self.stands_for {
            Some(Special::Block { major, minor }) => write!(record, "block-{major}-{minor}"),
            Some(Special::Char { major, minor }) => write!(record, "char-{major}-{minor}"),
            Some(Special::Pipe) => write!(record, "pipe"),
            Some(Special::Socket) => write!(record, "socket"),
            None => write!(
                record,
                "{}",
                if kind == FileType::Directory {
                    "dir"
                } else {
                    "file"
                }
            ),
        };
        record
    }

    /// The owner that the host's own status shows.
    pub(crate) fn of_host(stat: &Statx) -> Self {
        Self {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: u32::from(stat.stx_mode) & 0o7777,
            stands_for: None,
        }
    }

    /// The record as it stands beside what the host's status says now.
    pub(crate) fn reconciled(mut self, stat: &Statx) -> Self {
        let host = u32::from(stat.stx_mode);
        let kind = FileType::from_raw_mode(host);
        if kind != FileType::RegularFile || stat.stx_size != 0 {
            self.stands_for = None;
        }
        if kind == FileType::Symlink {
            self.mode = 0o777;
        } else if host_bits(kind, self.mode, host) != host & 0o7777 {
            self.mode = host & 0o7777;
        }
        self
    }
}

fn parse_device(text: &str) -> Option<Special> {
    let mut parts = text.split('-');
    let kind = parts.next()?;
    let major = parts.next()?.parse().ok().filter(|major| *major < 1 << 12)?;
    let minor = parts.next()?.parse().ok().filter(|minor| *minor < 1 << 20)?;
    match (kind, parts.next()) {
        ("block", None) => Some(Special::Block { major, minor }),
        ("char", None) => Some(Special::Char { major, minor }),
        _ => None,
    }
}

/// The permission bits of the host's file when the guest has set `mode`.
pub(crate) fn host_mode(kind: FileType, mode: u32) -> u32 {
    mode & 0o777 | if kind == FileType::Directory { 0o700 } else { 0o600 }
}

/// The bits of the host's file when the guest has set `mode` and the host has `host`: as [`host_mode`], but a directory
/// keeps the setgid that it has on both sides.
pub(crate) fn host_bits(kind: FileType, mode: u32, host: u32) -> u32 {
    let kept = if kind == FileType::Directory {
        mode & host & 0o2000
    } else {
        0
    };
    host_mode(kind, mode) | kept
}

/// The mode after the guest wrote to a file or changed its owner: setuid goes, and setgid where it means that.
pub(crate) fn without_privilege(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o2010 == 0o2010 {
        mode & !0o2000
    } else {
        mode
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(mode: u32, stands_for: Option<Special>) -> Owner {
        Owner {
            uid: 1000,
            gid: 1011,
            mode,
            stands_for,
        }
    }

    #[test]
    fn records_are_those_of_containers_storage() {
        assert_eq!(
            owner(0o644, None).record(FileType::RegularFile),
            "1000:1011:0644:file"
        );
        assert_eq!(
            owner(0o4755, None).record(FileType::Directory),
            "1000:1011:4755:dir"
        );
        let block = Special::Block { major: 8, minor: 0 };
        assert_eq!(
            owner(0o600, Some(block)).record(FileType::RegularFile),
            "1000:1011:0600:block-8-0"
        );
        assert_eq!(
            Owner::parse(b"1000:1011:0600:block-8-0"),
            Some(owner(0o600, Some(block)))
        );
        assert_eq!(Owner::parse(b"1000:1011:644"), Some(owner(0o644, None)));
    }

    #[test]
    fn what_is_not_a_record_is_ignored() {
        for bad in [
            &b""[..],
            b"0",
            b"0:0",
            b"a:0:0644",
            b"0:0:0899",
            b"0:0:10000",
            b"0:0:0644:door",
            b"-1:0:0644",
            b"0:0:0644:file:x",
            b"0:0:0600:char-1",
            b"0:0:0600:char-1-2-3",
            b"0:0:0600:char-99999-1",
            b"\xff:0:0644",
        ] {
            assert_eq!(Owner::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_user_can_always_edit_and_no_special_bit_reaches_the_host() {
        for mode in 0..=0o7777 {
            let file = host_mode(FileType::RegularFile, mode);
            let dir = host_mode(FileType::Directory, mode);
            assert_eq!(
                (file & 0o600, dir & 0o700, (file | dir) & 0o7000),
                (0o600, 0o700, 0)
            );
        }
    }

    #[test]
    fn a_directory_keeps_setgid_where_both_sides_have_it() {
        let (file, dir) = (FileType::RegularFile, FileType::Directory);
        assert_eq!(host_bits(dir, 0o3750, 0o2755), 0o2750);
        assert_eq!(host_bits(dir, 0o2750, 0o755), 0o750);
        assert_eq!(host_bits(dir, 0o750, 0o2755), 0o750);
        assert_eq!(host_bits(file, 0o6750, 0o6755), 0o750);
    }

    #[test]
    fn writing_clears_setuid_and_an_executable_setgid() {
        assert_eq!(without_privilege(0o6755), 0o755);
        assert_eq!(without_privilege(0o2644), 0o2644);
        assert_eq!(without_privilege(0o1777), 0o1777);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(owner) = Owner::parse(&bytes) {
                prop_assert_eq!(Owner::parse(owner.record(FileType::RegularFile).as_bytes()), Some(owner));
            }
        }

        #[test]
        fn a_record_reads_back(uid: u32, gid: u32, mode in 0_u32..0o10000, major in 0_u32..4096, minor in 0_u32..1 << 20) {
            for stands_for in [None, Some(Special::Pipe), Some(Special::Char { major, minor })] {
                let owner = Owner { uid, gid, mode, stands_for };
                prop_assert_eq!(Owner::parse(owner.record(FileType::RegularFile).as_bytes()), Some(owner));
            }
        }
    }
}
