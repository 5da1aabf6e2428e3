//! The system calls that no safe wrapper covers.

// UNSAFETY: `unshare`, `mount_setattr` and the question for Landlock's version have no safe wrapper in rustix.
#![expect(unsafe_code, reason = "raw system calls, see above")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Not to be written to, `MOUNT_ATTR_RDONLY`.
pub(crate) const READ_ONLY: u64 = 0x1;
/// No program gains a privilege by it, `MOUNT_ATTR_NOSUID`.
pub(crate) const NO_SUID: u64 = 0x2;
/// Device nodes in it are none, `MOUNT_ATTR_NODEV`.
pub(crate) const NO_DEVICES: u64 = 0x4;
/// No program in it can be executed, `MOUNT_ATTR_NOEXEC`.
pub(crate) const NO_EXECUTION: u64 = 0x8;

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Moves this thread, which has to be the only one, into namespaces of its own.
pub(crate) fn unshare(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the call takes no memory. No flag that is used here takes the descriptors apart (`CLONE_FILES`).
    if unsafe { libc::unshare(flags) } < 0 {
        return Err(last_error());
    }
    Ok(())
}

/// Adds attributes to a mount, with `recursive` to those beneath it as well. Linux 5.12.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attr = MountAttr {
        set,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends in NUL, and `attr` is a structure of the size that is given, which the kernel reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// The version of the running kernel's Landlock.
pub(crate) fn landlock_abi() -> Result<u32, Errno> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    u32::try_from(result).map_err(|_| last_error())
}
