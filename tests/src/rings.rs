//! Threads that the system lets have no rings (`io_uring`), as the list of system calls of a container may.

use std::env::consts::ARCH;

use anyhow::Result;
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// `io_uring_setup`, which has the same number on every architecture.
const IO_URING_SETUP: i64 = 425;

/// From here on it fails with `errno` for this thread, and for the threads and programs that it starts, to set up a
/// ring.
pub fn forbid(errno: Errno) -> Result<()> {
    let refused = SeccompAction::Errno(errno.raw_os_error().cast_unsigned());
    let rules = [(IO_URING_SETUP, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
