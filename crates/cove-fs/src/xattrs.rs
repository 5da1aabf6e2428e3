//! Reading and writing a file's ownership record, whichever way the file is reached.
//!
//! Linux 6.13 can name a file in a directory for this; before, the way leads through `/proc/self/fd`.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::ownership::{MAX_RECORD, Owner, XATTR};
use crate::sys;
use crate::tree::{ProcPath, Reach};

/// Cleared when the kernel turns out to lack the calls.
static RELATIVE_CALLS: AtomicBool = AtomicBool::new(true);

/// The record of the file, if it carries a valid one. `NOTSUP` where the file system stores none.
pub(crate) fn read_record(reach: &Reach, is_dir: bool) -> Result<Option<Owner>, Errno> {
    let mut buffer = [0; MAX_RECORD];
    match read(reach, is_dir, XATTR, &mut buffer) {
        Ok(len) => Ok(buffer.get(..len).and_then(Owner::parse)),
        // Absent; too long to be ours; not ours to read.
        Err(Errno::NODATA | Errno::RANGE | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read(reach: &Reach, is_dir: bool, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    if RELATIVE_CALLS.load(Ordering::Relaxed) {
        let result = match reach {
            Reach::Name(dir, place) => Some(sys::getxattrat(dir.as_fd(), &place.name, name, buffer)),
            Reach::Pin(fd) if is_dir => Some(sys::getxattrat(fd.as_fd(), c".", name, buffer)),
            Reach::Pin(_) | Reach::Open(_) => None,
        };
        match result {
            Some(Err(Errno::NOSYS)) => RELATIVE_CALLS.store(false, Ordering::Relaxed),
            // A directory that may not be searched has no `.` either.
            Some(Err(Errno::ACCESS)) if matches!(reach, Reach::Pin(_)) => {}
            Some(result) => return result,
            None => {}
        }
    }
    match reach {
        Reach::Name(dir, place) => {
            rustix::fs::lgetxattr(ProcPath::entry(dir.as_fd(), &place.name).as_c_str(), name, buffer)
        }
        Reach::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
        Reach::Pin(fd) => rustix::fs::getxattr(ProcPath::new(fd).as_c_str(), name, buffer),
    }
}

/// Writes the record of a file just made as `name` in `dir`.
pub(crate) fn write_record_at(dir: impl AsFd, name: &CStr, record: &str) -> Result<(), Errno> {
    if RELATIVE_CALLS.load(Ordering::Relaxed) {
        match sys::setxattrat(dir.as_fd(), name, XATTR, record.as_bytes()) {
            Err(Errno::NOSYS) => RELATIVE_CALLS.store(false, Ordering::Relaxed),
            result => return result,
        }
    }
    let path = ProcPath::entry(dir.as_fd(), name);
    rustix::fs::lsetxattr(path.as_c_str(), XATTR, record.as_bytes(), XattrFlags::empty())
}

/// Writes the record of the file behind `fd`, which may be `O_PATH`.
pub(crate) fn write_record(fd: impl AsFd, record: &str) -> Result<(), Errno> {
    rustix::fs::setxattr(
        ProcPath::new(fd).as_c_str(),
        XATTR,
        record.as_bytes(),
        XattrFlags::empty(),
    )
}
