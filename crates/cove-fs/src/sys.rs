//! The system calls that no safe wrapper covers: vectored I/O on guest memory, locks of an open file description,
//! extended attributes relative to a directory, and fanotify.

// UNSAFETY: `preadv` and `pwritev2` take raw addresses, because no Rust reference may exist to memory that the guest
// writes to meanwhile; the other calls have no wrapper in rustix.
#![expect(unsafe_code, reason = "raw system calls, see above")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use vm_memory::VolatileSlice;

/// Most slices that one call moves: what a request of 1 MiB in pages of 4 KiB needs, and some.
const MAX_SLICES: usize = 260;

/// Reads from `fd` at `offset` into `slices`, leaving out their first `skip` bytes and stopping after `len`.
pub(crate) fn read_at(
    fd: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    skip: usize,
    len: usize,
    offset: u64,
) -> Result<usize, Errno> {
    transfer(slices, skip, len, offset, |iovecs, count, position| {
        // SAFETY: the first `count` entries name memory that `slices` keeps mapped for the duration of the call, and
        // which the kernel may write: it is guest memory, where any bytes are valid. The bitmap type is `()`, so no
        // dirty tracking is bypassed.
        unsafe { libc::preadv(fd.as_raw_fd(), iovecs, count, position) }
    })
}

/// Writes `len` bytes of `slices`, after their first `skip`, to `fd` at `offset`, or at its end with `append`.
pub(crate) fn write_at(
    fd: BorrowedFd<'_>,
    slices: &[VolatileSlice<'_>],
    skip: usize,
    len: usize,
    offset: u64,
    append: bool,
) -> Result<usize, Errno> {
    let flags = if append { libc::RWF_APPEND } else { 0 };
    transfer(slices, skip, len, offset, |iovecs, count, position| {
        // SAFETY: as in `read_at`, and the kernel only reads the memory.
        unsafe { libc::pwritev2(fd.as_raw_fd(), iovecs, count, position, flags) }
    })
}

/// Calls `call` with as many iovecs at a time as fit, until `len` bytes have moved or it moves fewer than asked.
fn transfer(
    slices: &[VolatileSlice<'_>],
    mut skip: usize,
    len: usize,
    offset: u64,
    call: impl Fn(*const libc::iovec, libc::c_int, libc::off_t) -> isize,
) -> Result<usize, Errno> {
    let mut rest = slices.iter();
    let mut done = 0;
    loop {
        let mut iovecs = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MAX_SLICES];
        let mut count = 0;
        let mut wanted = 0;
        while count < MAX_SLICES && done + wanted < len {
            let Some(slice) = rest.next() else { break };
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            let Ok(slice) = slice.offset(skip) else {
                return Err(Errno::FAULT);
            };
            skip = 0;
            let size = slice.len().min(len - done - wanted);
            iovecs[count] = libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: size,
            };
            count += 1;
            wanted += size;
        }
        if count == 0 {
            return Ok(done);
        }
        let position = offset
            .checked_add(done as u64)
            .and_then(|at| libc::off_t::try_from(at).ok());
        let position = position.ok_or(Errno::INVAL)?;
        match usize::try_from(call(iovecs.as_ptr(), i32::try_from(count).unwrap_or(0), position)) {
            Ok(moved) => {
                done += moved;
                if moved < wanted {
                    return Ok(done);
                }
            }
            // Whatever moved before the failure has moved; the next request meets the error again.
            Err(_) if done > 0 => return Ok(done),
            Err(_) => return Err(last_error()),
        }
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

/// A byte range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangeLock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(crate) kind: i16,
    /// First byte.
    pub(crate) start: i64,
    /// Number of bytes; 0 reaches to the end of any file.
    pub(crate) len: i64,
}

/// Sets or clears a lock that belongs to the open file description behind `fd`, without waiting.
pub(crate) fn set_lock(fd: BorrowedFd<'_>, lock: RangeLock) -> Result<(), Errno> {
    let mut flock = to_flock(lock);
    // SAFETY: `flock` is a valid structure of the type that this command takes.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw mut flock) }).map(drop)
}

/// The first lock that stands against `lock`, or one of kind `F_UNLCK`.
pub(crate) fn get_lock(fd: BorrowedFd<'_>, lock: RangeLock) -> Result<RangeLock, Errno> {
    let mut flock = to_flock(lock);
    // SAFETY: `flock` is a valid structure of the type that this command takes and fills in.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut flock) })?;
    Ok(RangeLock {
        kind: flock.l_type,
        start: flock.l_start,
        len: flock.l_len,
    })
}

fn to_flock(lock: RangeLock) -> libc::flock {
    // SAFETY: all-zero is a valid value of this structure of integers.
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = lock.kind;
    flock.l_whence = 0;
    flock.l_start = lock.start;
    flock.l_len = lock.len;
    flock
}

/// The same numbers on every architecture, since Linux 6.13.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;

#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// Reads an extended attribute of `path` (not followed if a symlink) under `dir`. `NOSYS` before Linux 6.13.
pub(crate) fn getxattrat(
    dir: BorrowedFd<'_>,
    path: &CStr,
    name: &CStr,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let args = XattrArgs {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: the strings end in NUL, `args` points at `value`, and the kernel writes no more than its size there.
    let result = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    usize::try_from(result).map_err(|_| last_error())
}

/// Sets an extended attribute of `path` (not followed if a symlink) under `dir`. `NOSYS` before Linux 6.13.
pub(crate) fn setxattrat(dir: BorrowedFd<'_>, path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let args = XattrArgs {
        value: value.as_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: the strings end in NUL and `args` points at `value`, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            name.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// Opens a fanotify group that reports directory handles and names, as an ordinary user may.
pub(crate) fn fanotify_init() -> Result<OwnedFd, Errno> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_DFID_NAME | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::fanotify_init(flags, 0) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts (`add`) or ends reports of `mask` for the directory `dir` and what lies directly in it.
pub(crate) fn fanotify_mark(
    group: BorrowedFd<'_>,
    add: bool,
    mask: u64,
    dir: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let flags = if add {
        libc::FAN_MARK_ADD
    } else {
        libc::FAN_MARK_REMOVE
    } | libc::FAN_MARK_ONLYDIR;
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, dir.as_raw_fd(), c".".as_ptr()) })
        .map(drop)
}

/// Ends all reports.
pub(crate) fn fanotify_flush(group: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: flushing looks at no path.
    check(unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_FLUSH,
            0,
            libc::AT_FDCWD,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// Longest file handle that a file system may have (`MAX_HANDLE_SZ`).
pub(crate) const MAX_HANDLE: usize = 128;

/// What the kernel calls a file in fanotify events: type and bytes of its handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileHandle {
    pub(crate) kind: i32,
    pub(crate) bytes: Box<[u8]>,
}

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX_HANDLE],
}

/// The handle of the directory `dir`.
pub(crate) fn name_to_handle(dir: BorrowedFd<'_>) -> Result<FileHandle, Errno> {
    let mut raw = RawHandle {
        bytes: 128,
        kind: 0,
        handle: [0; MAX_HANDLE],
    };
    let mut mount = 0;
    // SAFETY: `raw` is laid out as `struct file_handle` with room for as many bytes as it says, and the path ends in
    // NUL.
    check(unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            c".".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            0,
        )
    })?;
    let bytes = raw.handle.get(..raw.bytes as usize).ok_or(Errno::OVERFLOW)?;
    Ok(FileHandle {
        kind: raw.kind,
        bytes: bytes.into(),
    })
}
