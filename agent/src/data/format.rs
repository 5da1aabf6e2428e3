//! Making the data file system, in such a way that an interruption at any moment leaves a disk that the next start
//! recognises as its own unfinished work.
//!
//! `mkfs.ext4` writes into a sparse file in memory, of the disk's size, where it leaves little: nothing but metadata.
//! That is then copied:
//!
//! ```text
//!  blank ─▶ first block: MAKING ─sync─▶ everything but the first block ─sync─▶ first block, with the superblock ─sync─▶ ours
//!             └───────────────── interrupted: Unfinished, made anew ─────────────────┘
//! ```

use super::superblock::{HEAD, LABEL, MAKING};
use rustix::fs::{SeekFrom, seek};
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

/// The file in memory.
pub(crate) const DRAFT: &str = "/run/cove/data.img";

/// A journal large enough for containers; ext4's own choice would let the disk's host file grow by up to a GiB
/// without anybody having stored a thing. Small disks get ext4's choice, which is smaller still.
const JOURNAL_MB: &str = "size=128";
const JOURNAL_FROM: u64 = 8 << 30;

const COPY: usize = 256 * 1024;

/// `mkfs.ext4` for a disk of `size` bytes.
pub(crate) fn mkfs(size: u64) -> Command {
    let mut mkfs = Command::new("/sbin/mkfs.ext4");
    // No blocks kept for root, whom nobody but the engine runs as. The tables are zeroed later, by the kernel, and
    // nothing is discarded: the disk is blank.
    mkfs.args(["-q", "-F", "-m", "0", "-b", "4096", "-L", LABEL]);
    mkfs.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    if size >= JOURNAL_FROM {
        mkfs.args(["-J", JOURNAL_MB]);
    }
    mkfs.arg(OsStr::new(DRAFT));
    mkfs
}

/// Makes the empty file for [`mkfs`].
pub(crate) fn make_draft(path: &Path, size: u64) -> io::Result<()> {
    File::create(path)?.set_len(size)
}

/// Copies the file system in `draft` to `disk`.
pub(crate) fn copy(draft: &Path, disk: &Path) -> io::Result<()> {
    let draft = File::open(draft)?;
    let disk = OpenOptions::new().write(true).open(disk)?;
    let mut first = [0; HEAD];
    first[..MAKING.len()].copy_from_slice(MAKING);
    disk.write_all_at(&first, 0)?;
    disk.sync_data()?;
    copy_extents(&draft, &disk, HEAD as u64)?;
    disk.sync_data()?;
    draft.read_exact_at(&mut first, 0)?;
    disk.write_all_at(&first, 0)?;
    disk.sync_data()
}

/// Copies from `from` on whatever `draft` holds, and skips its holes: a blank disk has zeroes there already.
fn copy_extents(draft: &File, disk: &File, from: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY];
    let mut at = from;
    loop {
        let start = match seek(draft, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only holes follow.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(draft, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let length = usize::try_from(end - at).map_or(COPY, |left| left.min(COPY));
            draft.read_exact_at(&mut buffer[..length], at)?;
            disk.write_all_at(&buffer[..length], at)?;
            at += length as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::superblock::Content;

    #[test]
    fn a_copy_equals_the_draft_and_keeps_its_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (draft, disk) = (directory.path().join("draft"), directory.path().join("disk"));
        let size = 64 << 20;
        for path in [&draft, &disk] {
            make_draft(path, size).unwrap();
        }
        let file = OpenOptions::new().write(true).open(&draft).unwrap();
        for (at, byte) in [(0, 1), (5000, 2), (30 << 20, 3), (size - 1, 4)] {
            file.write_all_at(&[byte], at).unwrap();
        }
        copy(&draft, &disk).unwrap();
        assert!(std::fs::read(&draft).unwrap() == std::fs::read(&disk).unwrap());
    }

    #[test]
    fn an_interrupted_copy_is_recognised_as_unfinished() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        make_draft(&disk, 1 << 20).unwrap();
        // The draft is too short to have a first block, so that the copy fails at its last step.
        let draft = directory.path().join("draft");
        std::fs::write(&draft, "x").unwrap();
        copy(&draft, &disk).unwrap_err();
        let mut head = [0; HEAD];
        File::open(&disk).unwrap().read_exact_at(&mut head, 0).unwrap();
        assert_eq!(Content::of(&head), Content::Unfinished);
    }
}
