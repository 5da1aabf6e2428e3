//! POSIX behaviour, compared with a native directory: each scenario of `cove-posix` runs in both.
//!
//! The server runs as an ordinary user while the scenarios run as root and as others, as in containers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
// UNSAFETY: signals have no safe wrapper.
#![expect(unsafe_code, reason = "a signal is sent to a thread")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::os::unix::thread::JoinHandleExt;

use cove_fs::Config;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

extern "C" fn ignore(_: libc::c_int) {}

/// Not one of the scenarios, as virtio-fs carries no INTERRUPT.
#[test]
#[ignore = "it mounts, for which it takes root"]
fn a_signal_ends_the_wait_for_a_lock() {
    let shared = kernel::Shared::new(Config::default());
    let path = shared.guest.join("f");
    std::fs::write(&path, b"").unwrap();
    let open = || std::fs::File::open(&path).unwrap();
    let (held, wanted) = (open(), open());
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    // SAFETY: all-zero is a valid value, which asks for no restart of what is interrupted; the handler does nothing,
    // and this program has no other use for the signal.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(installed, 0);
    let waiter = std::thread::spawn(move || rustix::fs::flock(&wanted, FlockOperation::LockExclusive));
    while shared.server.waiting().is_empty() {
        assert!(!waiter.is_finished(), "a lock was granted twice");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // SAFETY: the thread has not been joined, so that its name is good.
    unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
    assert_eq!(waiter.join().unwrap(), Err(Errno::INTR));
    assert!(shared.server.waiting().is_empty());
    drop(held);
}

#[test]
#[ignore = "it mounts, for which it takes root"]
fn a_shared_folder_behaves_like_a_native_one() {
    let shared = kernel::Shared::new(Config::default());
    let native = tempfile::Builder::new()
        .prefix("cove-fs-native-")
        .tempdir_in("/var/tmp")
        .unwrap();
    rustix::fs::chmod(native.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    std::os::unix::fs::chown(native.path(), Some(kernel::USER), Some(kernel::USER)).unwrap();
    let found = cove_posix::compare(native.path(), &shared.guest);
    let gone: Vec<_> = cove_posix::DIFFERENCES
        .iter()
        .filter(|known| !found.known.contains(known))
        .collect();
    assert!(gone.is_empty(), "no difference any more: {gone:?}");
    assert!(
        found.unknown.is_empty(),
        "undocumented differences:\n{}",
        found.unknown.join("\n")
    );
    let size = |path| {
        let stat = rustix::fs::statvfs(path).unwrap();
        (stat.f_blocks, stat.f_files)
    };
    assert_eq!(size(&shared.host), size(&shared.guest));
    let strangers = owned_by_others(&shared.host);
    assert!(
        strangers.is_empty(),
        "files on the host that are not the user's: {strangers:?}"
    );
}

/// Files on the host that do not belong to the user or that the user cannot edit.
fn owned_by_others(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode() & 0o7777;
        let editable = metadata.is_symlink() || (mode & 0o600 == 0o600 && mode & 0o7000 == 0);
        if metadata.uid() != kernel::USER || !editable {
            strangers.push(path.clone());
        }
        if metadata.is_dir() {
            strangers.extend(owned_by_others(&path));
        }
    }
    strangers
}
