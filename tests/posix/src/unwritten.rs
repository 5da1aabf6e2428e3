//! How much of a file the kernel has yet to write to its disk.

// UNSAFETY: no safe wrapper asks it.
#![expect(unsafe_code, reason = "a raw system call, see above")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `cachestat(2)`, since Linux 6.5; the same number on all processors but Alpha.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`: a length of 0 is all of the file.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct Cached {
    present: u64,
    dirty: u64,
    being_written: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of a file's pages are not on its disk yet.
pub fn unwritten(file: &Path) -> io::Result<u64> {
    let file = File::open(file)?;
    let range = Range { offset: 0, length: 0 };
    let mut cached = Cached::default();
    // SAFETY: both are laid out as the kernel has them, and outlive the call.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut cached, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cached.dirty + cached.being_written)
}
