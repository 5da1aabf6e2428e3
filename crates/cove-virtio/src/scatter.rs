//! Vectored I/O straight between a file descriptor and guest memory.
//!
//! Guest memory changes under us at any time, so it must never be seen through a Rust reference; the kernel copies
//! to and from raw addresses instead.

// UNSAFETY: `readv`, `preadv`, `pwritev` and `sendmsg` take raw addresses; the safe wrappers for them take `&[u8]` and
// `&mut [u8]`, which must not exist for memory that the guest writes to meanwhile.
#![expect(unsafe_code, reason = "vectored I/O on guest memory needs raw iovecs")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// Most slices that one call moves; more are left for the next.
pub(crate) const MAX_SLICES: usize = 64;

/// Reads from `fd` into `slices`, in order, and returns the number of bytes. `EINTR` is retried.
pub(crate) fn read(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (iovecs, count) = iovecs(slices);
    retry(|| {
        // SAFETY: the first `count` entries name memory that `slices` keeps mapped for the duration of the call, and
        // which the kernel may write: it is guest memory, where any bytes are valid. The bitmap type is `()`, so no
        // dirty tracking is bypassed.
        unsafe { libc::readv(fd.as_raw_fd(), iovecs.as_ptr(), count) }
    })
}

/// Reads from `offset` of `fd` into `slices`, in order, and returns the number of bytes. `EINTR` is retried.
pub(crate) fn read_at(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>], offset: i64) -> io::Result<usize> {
    let (iovecs, count) = iovecs(slices);
    retry(|| {
        // SAFETY: as in `read`; only where in the file the bytes come from differs.
        unsafe { libc::preadv64(fd.as_raw_fd(), iovecs.as_ptr(), count, offset) }
    })
}

/// Writes `slices`, in order, at `offset` of `fd`, and returns the number of bytes. `EINTR` is retried.
pub(crate) fn write_at(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>], offset: i64) -> io::Result<usize> {
    let (iovecs, count) = iovecs(slices);
    retry(|| {
        // SAFETY: the first `count` entries name memory that `slices` keeps mapped for the duration of the call; the
        // kernel only reads it.
        unsafe { libc::pwritev64(fd.as_raw_fd(), iovecs.as_ptr(), count, offset) }
    })
}

/// Sends `slices`, in order, on the socket `fd` without blocking and without `SIGPIPE`, and returns the number of
/// bytes. `EINTR` is retried.
pub(crate) fn send(fd: BorrowedFd<'_>, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (mut iovecs, count) = iovecs(slices);
    // SAFETY: an all-zero msghdr is a valid one: no address, no control data, no slices.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iovecs.as_mut_ptr();
    message.msg_iovlen = usize::try_from(count).unwrap_or(0);
    retry(|| {
        // SAFETY: `message` points at `iovecs`, which outlives the call, and its first `count` entries name memory
        // that `slices` keeps mapped; the kernel only reads it.
        unsafe {
            libc::sendmsg(
                fd.as_raw_fd(),
                &raw const message,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    })
}

fn iovecs(slices: &[VolatileSlice<'_>]) -> ([libc::iovec; MAX_SLICES], libc::c_int) {
    let mut iovecs = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; MAX_SLICES];
    let mut count = 0;
    for (iovec, slice) in iovecs.iter_mut().zip(slices) {
        *iovec = self::iovec(slice);
        count += 1;
    }
    (iovecs, count)
}

/// The slice as the kernel takes it, which must not outlive what keeps the slice mapped.
pub(crate) fn iovec(slice: &VolatileSlice<'_>) -> libc::iovec {
    libc::iovec {
        iov_base: slice.ptr_guard_mut().as_ptr().cast(),
        iov_len: slice.len(),
    }
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(bytes) = usize::try_from(call()) {
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Drops the first `count` bytes of `slices`, which must hold at least as many.
pub(crate) fn advance(slices: &mut Vec<VolatileSlice<'_>>, mut count: usize) {
    let mut whole = 0;
    for slice in slices.iter_mut() {
        if count < slice.len() {
            if let Ok(rest) = slice.offset(count) {
                *slice = rest;
            }
            break;
        }
        count -= slice.len();
        whole += 1;
    }
    slices.drain(..whole);
}

/// Keeps only the first `count` bytes of `slices`.
pub(crate) fn truncate(slices: &mut Vec<VolatileSlice<'_>>, mut count: usize) {
    let mut keep = 0;
    for slice in slices.iter_mut() {
        if count == 0 {
            break;
        }
        if slice.len() > count
            && let Ok(first) = slice.subslice(0, count)
        {
            *slice = first;
        }
        count -= slice.len().min(count);
        keep += 1;
    }
    slices.truncate(keep);
}
