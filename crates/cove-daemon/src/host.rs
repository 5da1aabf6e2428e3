//! What this computer has and how much of it is in use: the one place that asks the operating system.
//!
//! A number that a platform does not give without unsafe code is absent there; whoever shows it leaves it out.

use crate::settings::HostSize;
use std::path::Path;

/// Processors and memory.
pub(crate) fn size() -> HostSize {
    let cpus =
        std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    HostSize {
        cpus,
        memory: memory(),
    }
}

/// Bytes that this user may still write to the file system that `path` is on.
#[cfg(unix)]
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    // The nearest ancestor that exists is on the same file system as what will be made below it.
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that this user may still write to the file system that `path` is on.
#[cfg(not(unix))]
pub(crate) fn free_space(_path: &Path) -> Option<u64> {
    None
}

/// Bytes that a file takes on its disk, which are fewer than its length when it is sparse.
pub(crate) fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| {
        #[cfg(unix)]
        {
            // In units of 512 bytes whatever the file system's block size (stat(2), st_blocks).
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        }
        #[cfg(not(unix))]
        metadata.len()
    })
}

#[cfg(target_os = "linux")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the other platforms' version has no answer"
)]
fn memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    Some(u64::from(info.mem_unit) * info.totalram)
}

#[cfg(not(target_os = "linux"))]
fn memory() -> Option<u64> {
    None
}

/// Memory that a process has in RAM, shared pages included, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn resident(pid: u32) -> Option<u64> {
    // The second field of statm, in pages (proc_pid_statm(5)).
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Memory that a process has in RAM, in bytes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn resident(_pid: u32) -> Option<u64> {
    None
}

/// Whether whoever is at a socket's other end has closed both directions. What they sent before may still lie unread,
/// so that nothing but this tells it to somebody who does not read on.
#[cfg(unix)]
pub(crate) fn hung_up(socket: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(socket, PollFlags::empty())];
    let at_once = Timespec::default();
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_computer_has_memory_and_this_process_uses_some_of_it() {
        let total = size().memory.unwrap();
        let used = resident(std::process::id()).unwrap();
        assert!(used > 1 << 20 && used < total, "{used} of {total}");
    }

    #[test]
    #[cfg(unix)]
    fn who_hangs_up_is_noticed_behind_what_they_sent() {
        use std::{io::Write, net::Shutdown, os::unix::net::UnixStream};
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"unread").unwrap();
        assert!(!hung_up(&ours));
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!hung_up(&ours), "they still listen");
        drop(theirs);
        assert!(hung_up(&ours));
    }

    #[test]
    #[cfg(unix)]
    fn a_sparse_file_takes_less_than_its_length_and_space_is_found_for_a_path_that_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(allocated(&path) < 1 << 20);
        assert_eq!(allocated(&dir.path().join("absent")), 0);
        assert!(free_space(&dir.path().join("a/b/c")).unwrap() > 0);
    }
}
