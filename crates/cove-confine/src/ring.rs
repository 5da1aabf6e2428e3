//! Rings of operations (`io_uring`) that can do nothing but what they were made for.
//!
//! What goes through a ring is seen by no list of system calls, so a ring must be no way around one:
//!
//! ```text
//!  set up, disabled ──▶ gets its file ──▶ restricted ──▶ enabled ──▶ seccomp::arm ──▶ entered by a disk's thread
//! ```
//!
//! A ring takes the operations of a disk, on the one file that it was given, and nothing else; no file can be added to
//! it. From [`crate::seccomp::arm`] on it kills the process to set up a ring, or to change one.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

/// The ring's file, as its operations name it.
pub const FILE: Fixed = Fixed(0);

/// What may be done to a disk that cannot be written to.
const READING: &[u8] = &[opcode::Readv::CODE];

/// What may be done to any other disk.
const WRITING: &[u8] = &[
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// A ring for `entries` operations at a time, a power of two, on the disk `file` alone. Fails on kernels before 5.10,
/// and where the host lets this process have no ring. To be called before [`crate::limits::give_up`], since many
/// kernels take rings for locked memory, and before the lists of system calls are in force.
pub fn of_disk(file: BorrowedFd<'_>, writable: bool, entries: u32) -> io::Result<IoUring> {
    let ring = IoUring::builder().setup_r_disabled().build(entries)?;
    let submitter = ring.submitter();
    submitter.register_files(&[file.as_raw_fd()])?;
    let operations = if writable { WRITING } else { READING };
    let mut restrictions: Vec<_> = operations.iter().copied().map(Restriction::sqe_op).collect();
    // Without this an operation could name any descriptor that the process has.
    restrictions.push(Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()));
    submitter.register_restrictions(&mut restrictions)?;
    submitter.register_enable_rings()?;
    Ok(ring)
}
