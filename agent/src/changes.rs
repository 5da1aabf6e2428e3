//! Repeats in the guest what the host changed in shared folders.
//!
//! ```text
//!  Connecting ── host's port CHANGES ──▶ Repeating: Change ─▶ system call ─▶ Repeated
//!      ▲                                     │ connection lost
//!      └─────────────────────────────────────┘
//! ```
//!
//! On the same connection the host asks which of those who wait for file locks were interrupted. virtio-fs carries no
//! interrupts: whoever waits would not even notice that it is being killed before somebody else lets go of the lock.
//!
//! The call is made through the mount that all containers' mounts come from, under a uid that the host's file server
//! knows ([`REPEATER_UID`]), from a task that it was told of ([`cove_wire::Repeater`]): it answers as if the call changed something, and changes nothing. The guest's kernel,
//! which believes that it does, brings its caches up to date and tells those who watch.
//!
//! A container may have turned any directory on the way into a symbolic link. So nothing here follows one, or leaves
//! the shares otherwise: this thread has root's capabilities.

use crate::{shares::ATTACHED, vsock};
use cove_wire::{
    Answered, Change, Changed, Entry, FileName, HEADER_LEN, REPEATER_UID, Told, WireError, body_len, decode,
    encode, port,
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmod, chownat, fstat, mkdirat,
        mknodat, openat, openat2, renameat, statat, symlinkat, unlinkat,
    },
    io::{Errno, pwrite},
    thread::{
        capabilities, gettid, set_capabilities, set_keep_capabilities, set_thread_res_gid, set_thread_res_uid,
    },
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    thread::{Builder, sleep},
    time::Duration,
};

/// The first and the longest pause between attempts to reach the host.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Begins to repeat, on a thread of its own, for as long as the guest lives. The shares have been attached.
pub(crate) fn begin() -> io::Result<()> {
    Builder::new().name("changes".into()).spawn(|| {
        let repeater = match Repeater::new(Path::new(ATTACHED)).and_then(|repeater| {
            become_repeater()?;
            Ok(repeater)
        }) {
            Ok(repeater) => repeater,
            Err(error) => {
                // The host then lets the guest cache for a short time only.
                tracing::warn!("what the host changes cannot be repeated: {error}");
                return;
            }
        };
        let mut pause = PAUSES.0;
        loop {
            match vsock::connect_to_host(port::CHANGES) {
                Ok(host) => {
                    pause = PAUSES.0;
                    if let Err(error) = repeater.attend(File::from(host)) {
                        tracing::warn!("the host's changes are no longer told: {error}");
                    }
                }
                Err(error) => tracing::debug!("the host does not tell of its changes: {error}"),
            }
            sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    })?;
    Ok(())
}

/// Makes this thread's requests known to the host's file server. The kernel of the guest is to permit them all the
/// same, so the capabilities stay.
fn become_repeater() -> Result<(), Errno> {
    let sets = capabilities(None)?;
    set_keep_capabilities(true)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    let uid = Uid::from_raw(REPEATER_UID);
    set_thread_res_uid(uid, uid, uid)?;
    set_capabilities(None, sets)
}

struct Repeater {
    /// The directory that holds all shares.
    shares: OwnedFd,
}

impl Repeater {
    fn new(shares: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shares = openat(CWD, shares, flags, Mode::empty())?;
        Ok(Self { shares })
    }

    /// Repeats what the host tells, until the connection ends.
    fn attend(&self, host: File) -> Result<(), WireError> {
        let mut answers = host.try_clone()?;
        let task = gettid().as_raw_nonzero().unsigned_abs();
        answers.write_all(&encode(&cove_wire::Repeater { task })?)?;
        let mut changes = BufReader::new(host);
        loop {
            let mut header = [0; HEADER_LEN];
            changes.read_exact(&mut header)?;
            let mut body = vec![0; body_len(header)?];
            changes.read_exact(&mut body)?;
            let answer = match decode(&body)? {
                Told::Change(change) => {
                    if let Err(errno) = self.repeat(&change) {
                        // Most often it is gone again already.
                        tracing::debug!(?change, "not repeated: {errno}");
                    }
                    Answered::Repeated { id: change.id }
                }
                Told::Waiting { mut tasks } => {
                    tasks.retain(|task| is_interrupted(*task));
                    Answered::Interrupted { tasks }
                }
            };
            answers.write_all(&encode(&answer)?)?;
        }
    }

    fn repeat(&self, change: &Change) -> Result<(), Errno> {
        let dir = self.directory(&change.share, &change.directory)?;
        let file_mode = Mode::from_raw_mode(0o644);
        match &change.what {
            Changed::Created { name, entry } => {
                let name = one(name)?;
                match entry {
                    Entry::File => {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        openat(&dir, name, flags, file_mode).map(drop)
                    }
                    Entry::Directory => mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
                    Entry::Symlink => symlinkat("-", &dir, name),
                    Entry::Pipe => mknodat(&dir, name, FileType::Fifo, file_mode, 0),
                    Entry::Socket => mknodat(&dir, name, FileType::Socket, file_mode, 0),
                }
            }
            Changed::Modified { name } => {
                let name = one(name)?;
                match modify(&dir, name) {
                    // A program that runs cannot be opened for writing; new attributes make the kernel drop its
                    // pages, too.
                    Err(Errno::TXTBSY) => touch(&dir, name),
                    result => result,
                }
            }
            Changed::Attributes { name } if name.0.is_empty() => change_mode(&dir),
            Changed::Attributes { name } => touch(&dir, one(name)?),
            Changed::Deleted { name, entry } => {
                let flags = match entry {
                    Entry::Directory => AtFlags::REMOVEDIR,
                    Entry::File | Entry::Symlink | Entry::Pipe | Entry::Socket => AtFlags::empty(),
                };
                unlinkat(&dir, one(name)?, flags)
            }
            Changed::Renamed {
                name,
                to_directory,
                to_name,
            } => {
                let to = self.directory(&change.share, to_directory)?;
                renameat(&dir, one(name)?, &to, one(to_name)?)
            }
        }
    }

    /// Opens a directory of a share, whatever containers have made of the way to it.
    fn directory(&self, share: &FileName, directory: &FileName) -> Result<OwnedFd, Errno> {
        let mut path = one(share)?.as_bytes().to_vec();
        if !directory.0.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&directory.0);
        }
        openat2(
            &self.shares,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH
                | ResolveFlags::NO_SYMLINKS
                | ResolveFlags::NO_MAGICLINKS
                | ResolveFlags::NO_XDEV,
        )
    }
}

/// Whether a task that waits for a lock has been interrupted, and can go on only once its request has been answered.
fn is_interrupted(task: u32) -> bool {
    // Its name, which is in there, may be any bytes.
    let status = std::fs::read(format!("/proc/{task}/status"));
    status.is_ok_and(|status| is_woken(&String::from_utf8_lossy(&status)))
}

/// Whether the status of a task that waits for an answer says that something has woken it. It then waits on in `D`,
/// where before it slept interruptibly (`S`).
///
/// Pending signals are no sign of it, in either direction. Of a process's threads one takes what is for all of them:
/// the others sleep on, and `EINTR` would give them the kernel's internal number for a restart, which programs do not
/// know. And whoever is to stop, to be frozen with its container or to be traced is woken without a signal of its own.
/// The kernel begins the call of one that has woken anew where no handler saw a signal.
fn is_woken(status: &str) -> bool {
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| state.trim_start().starts_with('D'))
}

/// Accepts one component of a path.
fn one(name: &FileName) -> Result<&OsStr, Errno> {
    let bytes = &name.0[..];
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(Errno::INVAL);
    }
    Ok(OsStr::from_bytes(bytes))
}

/// Makes the kernel believe that a file's data changed. What is there by now may be no file, and must not block.
fn modify(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    pwrite(&file, b"\0", 0).map(drop)
}

/// Makes the kernel believe that attributes changed.
fn touch(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        return chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    change_mode(&openat(dir, name, flags, Mode::empty())?)
}

/// Gives a file the mode that it has.
fn change_mode(file: &OwnedFd) -> Result<(), Errno> {
    let mode = fstat(file)?.st_mode & 0o7777;
    // The call for descriptors does not take those that are open for their path only.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    chmod(path, Mode::from_raw_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn file_name(text: &str) -> FileName {
        FileName(text.into())
    }

    /// Shares in a directory of their own, where nobody answers without effect: what is repeated is really done.
    fn shares() -> (tempfile::TempDir, Repeater) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("share/dir")).unwrap();
        let repeater = Repeater::new(directory.path()).unwrap();
        (directory, repeater)
    }

    fn repeat(repeater: &Repeater, directory: &str, what: Changed) -> Result<(), Errno> {
        repeater.repeat(&Change {
            id: 1,
            share: file_name("share"),
            directory: file_name(directory),
            what,
        })
    }

    #[test]
    fn a_task_is_interrupted_when_it_has_woken_whatever_is_pending() {
        let woken = |state: &str, pending: u64| {
            is_woken(&format!(
                "Name:\tState:\nUmask:\t0022\nState:\t{state}\nSigQ:\t1/7\nShdPnd:\t{pending:016x}\n"
            ))
        };
        assert!(woken("D (disk sleep)", 0x4000));
        assert!(
            woken("D (disk sleep)", 0),
            "to be frozen or stopped, or another took the signal"
        );
        assert!(
            !woken("S (sleeping)", 0x4000),
            "another thread takes what is for all"
        );
        assert!(!woken("R (running)", 0x4000), "asked about again if it waits");
        assert!(!is_woken("nonsense"));
        assert!(!is_interrupted(u32::MAX));
    }

    #[test]
    fn each_kind_of_change_is_the_call_that_makes_it() {
        let (directory, repeater) = shares();
        let dir = directory.path().join("share/dir");
        for (name, entry) in [
            ("file", Entry::File),
            ("sub", Entry::Directory),
            ("link", Entry::Symlink),
            ("pipe", Entry::Pipe),
            ("socket", Entry::Socket),
        ] {
            let name = file_name(name);
            repeat(&repeater, "dir", Changed::Created { name, entry }).unwrap();
        }
        repeat(
            &repeater,
            "dir",
            Changed::Modified {
                name: file_name("file"),
            },
        )
        .unwrap();
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"\0");
        for name in ["file", "sub", "pipe", ""] {
            let name = file_name(name);
            repeat(&repeater, "dir", Changed::Attributes { name }).unwrap();
        }
        let moved = Changed::Renamed {
            name: file_name("file"),
            to_directory: file_name(""),
            to_name: file_name("moved"),
        };
        repeat(&repeater, "dir", moved).unwrap();
        assert!(directory.path().join("share/moved").exists());
        for (name, entry) in [
            ("sub", Entry::Directory),
            ("link", Entry::Symlink),
            ("pipe", Entry::Pipe),
        ] {
            let name = file_name(name);
            repeat(&repeater, "dir", Changed::Deleted { name, entry }).unwrap();
        }
        assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "only the socket is left");
    }

    #[test]
    fn no_link_that_a_container_made_leads_out_of_the_shares() {
        let (directory, repeater) = shares();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "whole").unwrap();
        symlink(outside.path(), directory.path().join("share/way")).unwrap();
        symlink(&victim, directory.path().join("share/victim")).unwrap();
        let mode = fs::metadata(&victim).unwrap().permissions();
        let name = || file_name("victim");
        for way in ["way", "dir/../../..", outside.path().to_str().unwrap()] {
            for what in [
                Changed::Deleted {
                    name: name(),
                    entry: Entry::File,
                },
                Changed::Modified { name: name() },
                Changed::Attributes { name: name() },
            ] {
                repeat(&repeater, way, what).unwrap_err();
            }
        }
        repeat(&repeater, "", Changed::Modified { name: name() }).unwrap_err();
        for name in ["..", ".", "a/b", "a\0"] {
            let what = Changed::Created {
                name: file_name(name),
                entry: Entry::Directory,
            };
            assert_eq!(repeat(&repeater, "", what), Err(Errno::INVAL), "{name:?}");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"whole");
        assert_eq!(fs::metadata(&victim).unwrap().permissions(), mode);
    }

    #[test]
    fn a_pipe_that_took_a_files_place_neither_blocks_nor_is_written() {
        let (directory, repeater) = shares();
        let pipe = directory.path().join("share/pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        repeat(
            &repeater,
            "",
            Changed::Modified {
                name: file_name("pipe"),
            },
        )
        .unwrap_err();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let reader = openat(CWD, &pipe, flags, Mode::empty()).unwrap();
        repeat(
            &repeater,
            "",
            Changed::Modified {
                name: file_name("pipe"),
            },
        )
        .unwrap_err();
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }
}
