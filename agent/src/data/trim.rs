//! Discarding the unused blocks of a mounted file system.

#![expect(unsafe_code, reason = "FITRIM has no safe wrapper")]
// UNSAFETY: one ioctl with a fixed structure that the kernel reads and updates.

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::{fs::File, io, path::Path};

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    shortest: u64,
}

const FITRIM: Opcode = opcode::read_write::<Range>(b'X', 121);

/// Discards what is unused in the file system at `mount_point`, and gives the number of bytes. What was deleted a
/// moment ago is written down as such first: until then it counts as used.
pub(crate) fn trim(mount_point: &Path) -> io::Result<u64> {
    let directory = File::open(mount_point)?;
    rustix::fs::syncfs(&directory)?;
    let mut range = Range {
        start: 0,
        length: u64::MAX,
        shortest: 0,
    };
    // SAFETY: FITRIM takes a pointer to a `fstrim_range`, which `Range` is, and stores the number of bytes in it.
    unsafe {
        ioctl(&directory, Updater::<FITRIM, Range>::new(&mut range))?;
    }
    Ok(range.length)
}
