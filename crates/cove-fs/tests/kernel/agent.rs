//! The agent's part in telling the guest of changes, as the real one has to play it: the same system calls, through the
//! mount, under the reserved uid.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cove_fs::{ChangeKind, EntryKind, HostChange, REPLAY_UID, Server};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// The guest's agent: repeats each change until told to stop.
pub(crate) struct Agent {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Agent {
    /// `guest` is where the only share of `server` is mounted.
    pub(crate) fn start(server: &Arc<Server>, guest: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (server, mount, stopped) = (Arc::clone(server), guest.to_owned(), Arc::clone(&stop));
        let (known, knows) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let task = rustix::thread::gettid().as_raw_nonzero().unsigned_abs();
            server.set_repeater(Some(task));
            known.send(()).unwrap();
            run_agent(&server, &mount, &stopped)
        });
        knows.recv().unwrap();
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it once nothing is queued; returns what could not be repeated.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn run_agent(server: &Server, mount: &Path, stop: &AtomicBool) -> Vec<String> {
    // The reserved uid marks the requests; the capabilities of root stay, as the guest's kernel checks permission.
    let sets = rustix::thread::capabilities(None).unwrap();
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).unwrap();
    rustix::thread::set_keep_capabilities(true).unwrap();
    let uid = Uid::from_raw(REPLAY_UID);
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    rustix::thread::set_capabilities(None, sets).unwrap();
    let mut failures = Vec::new();
    loop {
        let changes = server.take_changes(64, Duration::from_millis(50));
        if changes.is_empty() && stop.load(Ordering::Acquire) {
            return failures;
        }
        for change in changes {
            if let Err(errno) = repeat(&change, mount) {
                failures.push(format!("{change:?}: {errno}"));
            }
            server.finish_change(change.id);
        }
    }
}

fn repeat(change: &HostChange, mount: &Path) -> Result<(), Errno> {
    let dir = mount.join(&change.directory);
    let file_mode = Mode::from_raw_mode(0o644);
    match &change.kind {
        ChangeKind::Created { name, entry } => {
            let path = dir.join(name);
            match entry {
                EntryKind::File => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::open(path, flags, file_mode).map(drop)
                }
                EntryKind::Directory => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)),
                EntryKind::Symlink => rustix::fs::symlink("-", path),
                EntryKind::Pipe => rustix::fs::mknodat(CWD, path, FileType::Fifo, file_mode, 0),
                EntryKind::Socket => rustix::fs::mknodat(CWD, path, FileType::Socket, file_mode, 0),
            }
        }
        ChangeKind::Modified { name } => {
            let fd = rustix::fs::open(dir.join(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::pwrite(&fd, b"\0", 0).map(drop)
        }
        ChangeKind::Attributes { name } => {
            let path = dir.join(name);
            let mode = rustix::fs::lstat(&path)?.st_mode;
            rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o7777))
        }
        ChangeKind::Deleted {
            name,
            entry: EntryKind::Directory,
        } => rustix::fs::rmdir(dir.join(name)),
        ChangeKind::Deleted { name, .. } => rustix::fs::unlink(dir.join(name)),
        ChangeKind::Renamed {
            name,
            to_directory,
            to_name,
        } => rustix::fs::rename(dir.join(name), mount.join(to_directory).join(to_name)),
        ChangeKind::Overflow => Ok(()),
    }
}
