//! Mounts the server in this machine's own kernel through `/dev/fuse`: real requests, without a virtual machine.
//!
//! Needs root and `/dev/fuse`. The tests that use it are left out unless asked for, `cargo test -p cove-fs --
//! --include-ignored` as root, and are by `cargo xtask test --all` where root runs that.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each of its users needs a part of it"
)]

pub(crate) mod agent;

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use cove_fs::{Answer, Config, Server, ShareOptions};
pub(crate) use cove_posix::as_user;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use vm_memory::VolatileSlice;

/// The largest WRITE with its header.
const BUFFER: usize = (1 << 20) + 8192;

/// A mounted server. Unmounts when dropped.
pub(crate) struct Mount {
    target: PathBuf,
    fuse: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `server` at `target` with `threads` workers.
    pub(crate) fn new(server: &Arc<Server>, target: &Path, threads: usize) -> Self {
        let mut mount = Self::prepare(target);
        mount.serve(server, threads);
        mount
    }

    /// Mounts without a server yet: whoever looks into it waits.
    pub(crate) fn prepare(target: &Path) -> Self {
        let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            fuse.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("cove-fs", target, "fuse", flags, options.as_c_str()).unwrap();
        Self {
            target: target.to_owned(),
            fuse: Arc::new(fuse),
            threads: Vec::new(),
        }
    }

    /// Has `server` answer, by `threads` workers with the credentials of this thread.
    pub(crate) fn serve(&mut self, server: &Arc<Server>, threads: usize) {
        for _ in 0..threads {
            let (server, fuse) = (Arc::clone(server), Arc::clone(&self.fuse));
            self.threads
                .push(std::thread::spawn(move || work(&server, &fuse)));
        }
    }
}

/// A folder with a server that shares it, run by an ordinary user, and the mount of it.
pub(crate) struct Shared {
    /// The folder on the host.
    pub(crate) host: PathBuf,
    /// The same folder through the mount.
    pub(crate) guest: PathBuf,
    pub(crate) server: Arc<Server>,
    _mount: Mount,
    _directory: tempfile::TempDir,
}

/// Whom the server runs as.
pub(crate) const USER: u32 = 12_345;

impl Shared {
    /// Makes all of it. The folder belongs to [`USER`].
    pub(crate) fn new(config: Config) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cove-fs-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let host = directory.path().join("host");
        let target = directory.path().join("mount");
        for path in [directory.path(), &host, &target] {
            std::fs::create_dir_all(path).unwrap();
            rustix::fs::chmod(path, Mode::from_raw_mode(0o755)).unwrap();
        }
        std::os::unix::fs::chown(&host, Some(USER), Some(USER)).unwrap();
        let mut mount = Mount::prepare(&target);
        let server = as_user(USER, || {
            let server = Arc::new(Server::new(config).unwrap());
            server
                .add_share(
                    &host,
                    ShareOptions {
                        name: "share".into(),
                        read_only: false,
                    },
                )
                .unwrap();
            mount.serve(&server, 3);
            server
        });
        let guest = target.join("share");
        Self {
            host,
            guest,
            server,
            _mount: mount,
            _directory: directory,
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = CString::new(self.target.as_os_str().as_bytes()).unwrap();
        if let Err(errno) = rustix::mount::unmount(target.as_c_str(), UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {errno}", self.target.display());
            return;
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn work(server: &Server, fuse: &Arc<OwnedFd>) {
    let mut request = vec![0; BUFFER];
    let mut reply = vec![0; BUFFER];
    loop {
        let len = match rustix::io::read(&**fuse, &mut request) {
            Ok(len) => len,
            // Interrupted before it was taken.
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
            Err(_) => return,
        };
        let readable = [VolatileSlice::from(&mut request[..len])];
        let writable = [VolatileSlice::from(&mut reply[..])];
        match server.serve(&readable, &writable) {
            Answer::Written(0) | Answer::Nothing => {}
            Answer::Written(len) => {
                // The asker may be gone.
                let _ = rustix::io::write(&**fuse, &reply[..len]);
            }
            Answer::Later(pending) => {
                let fuse = Arc::clone(fuse);
                pending.deliver(move |answer| {
                    let _ = rustix::io::write(&*fuse, &answer);
                });
            }
        }
    }
}
