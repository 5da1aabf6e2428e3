//! One daemon only: the directories, the lock, and the sockets that may be taken over because the lock is held.
//!
//! The kernel drops a lock when its process ends, however it ends, so that there is no stale lock. A socket's file
//! does outlive its process; it is removed only by the holder of the lock. There are two locks: one beside the
//! sockets, and one beside the machines, because two sessions of one user may have different runtime directories
//! and still the same machines.

use crate::{
    daemon::{DaemonError, io_error},
    name::MachineName,
};
use cove_api::{Dirs, transport};
#[cfg(unix)]
use std::time::Duration;
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The lock's name, beside the sockets and beside the machines.
const LOCK: &str = "daemon.lock";

/// How often it is looked whether the sockets are in their place, and how many looks in a row have to miss them.
#[cfg(unix)]
const LOOK: Duration = Duration::from_secs(5);
#[cfg(unix)]
const MISSED: u32 = 2;

/// Held for as long as the daemon runs.
#[derive(Debug)]
pub(crate) struct Instance {
    // Let go of first: who gets the lock beside the sockets of a daemon that ends gets this one as well.
    _machines: File,
    _sockets: File,
}

impl Instance {
    /// Prepares the directories and takes both locks.
    pub(crate) fn claim(dirs: &Dirs) -> Result<Self, DaemonError> {
        let longest = cove_machine::longest_socket(&dirs.machine_runtime(MachineName::default().as_str()));
        for path in [dirs.daemon_socket(), longest] {
            if !transport::path_fits(&path) {
                return Err(DaemonError::SocketPathTooLong { path });
            }
        }
        let machines_directory = dirs.machines();
        let data = machines_directory
            .parent()
            .unwrap_or(&machines_directory)
            .to_owned();
        for directory in [&data, &machines_directory, &dirs.logs()] {
            make_private(directory)?;
        }
        make_private(dirs.runtime())?;
        check_private(dirs.runtime())?;
        let sockets = lock(&dirs.runtime().join(LOCK), dirs.runtime(), dirs)?;
        let machines = lock(&data.join(LOCK), dirs.runtime(), dirs).map_err(|error| match error {
            // It had its sockets here, and would hold the lock beside them as well.
            DaemonError::AlreadyRunning { pid } => DaemonError::LostSockets {
                pid,
                runtime: dirs.runtime().to_owned(),
            },
            error => error,
        })?;
        Ok(Self {
            _machines: machines,
            _sockets: sockets,
        })
    }

    /// Listens at `path`, in place of whatever an earlier daemon left there.
    #[expect(
        clippy::unused_self,
        reason = "only the holder of the lock may remove a socket"
    )]
    pub(crate) fn listen(&self, path: &Path) -> Result<transport::Listener, DaemonError> {
        if !transport::path_fits(path) {
            return Err(DaemonError::SocketPathTooLong {
                path: path.to_owned(),
            });
        }
        match fs::remove_file(path) {
            Ok(()) => {
                tracing::debug!(socket = %path.display(), "removed a socket that an earlier daemon left");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove the old socket", path)(source)),
        }
        transport::Listener::bind(path).map_err(io_error("listen at", path))
    }
}

/// Returns when this process's sockets are not in their place any more, so that nobody can reach it. A system may take
/// the whole of `XDG_RUNTIME_DIR` away when its user's last session ends, and have another one there with the next.
#[cfg(unix)]
pub(crate) async fn lost(dirs: &Dirs) {
    let mut missed = 0;
    while missed < MISSED {
        tokio::time::sleep(LOOK).await;
        let there = has_our_lock(dirs.runtime()) || transport::connect(&dirs.daemon_socket()).await.is_ok();
        missed = if there { 0 } else { missed + 1 };
    }
}

/// Elsewhere the sockets are in nobody's way.
#[cfg(not(unix))]
pub(crate) async fn lost(_: &Dirs) {
    std::future::pending().await
}

/// Whether the lock in `runtime` is the one that this process holds, as far as can be seen.
#[cfg(unix)]
fn has_our_lock(runtime: &Path) -> bool {
    match File::open(runtime.join(LOCK)) {
        Ok(mut file) => holder(&mut file).0 == std::process::id(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Makes a directory that only its owner may enter; leaves one alone that exists.
pub(crate) fn make_private(directory: &Path) -> Result<(), DaemonError> {
    cove_api::make_private(directory).map_err(io_error("create the directory", directory))
}

/// Refuses a directory for sockets that others could reach into.
#[cfg(unix)]
fn check_private(directory: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(directory).map_err(io_error("look at", directory))?;
    let own = rustix::process::geteuid().as_raw();
    let mode = metadata.mode() & 0o777;
    let why = if !metadata.is_dir() {
        "it is no directory".to_owned()
    } else if metadata.uid() != own {
        format!(
            "it belongs to user {}, and Cove runs as user {own}",
            metadata.uid()
        )
    } else if mode & 0o077 != 0 {
        format!(
            "its mode is {mode:o}, which lets other users in; run: chmod 700 {}",
            directory.display()
        )
    } else {
        return Ok(());
    };
    Err(DaemonError::NotPrivate {
        path: directory.to_owned(),
        why,
    })
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the other platforms' version can fail")]
fn check_private(_: &Path) -> Result<(), DaemonError> {
    // The profile directory's own access list keeps others out, and the sockets are pipes.
    Ok(())
}

fn lock(path: &Path, runtime: &Path, dirs: &Dirs) -> Result<File, DaemonError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Whoever may open it may lock it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io_error("open the lock", path))?;
    match file.try_lock() {
        Ok(()) => {
            let mut write = || {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}\n{}", std::process::id(), runtime.display())
            };
            write().map_err(io_error("write the lock", path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let (pid, theirs) = holder(&mut file);
            match theirs {
                Some(theirs) if theirs != dirs.runtime() => {
                    Err(DaemonError::RunsElsewhere { pid, runtime: theirs })
                }
                _ => Err(DaemonError::AlreadyRunning { pid }),
            }
        }
        Err(TryLockError::Error(source)) => Err(io_error("lock", path)(source)),
    }
}

/// The process and the runtime directory that a lock's holder has written into it, as far as it got.
fn holder(file: &mut File) -> (u32, Option<PathBuf>) {
    let mut text = String::new();
    // On Windows a locked file cannot be read; then the holder stays unknown.
    let _ = file.take(8192).read_to_string(&mut text);
    let mut lines = text.lines();
    let pid = lines.next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    (pid, lines.next().map(PathBuf::from))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_daemon_is_told_of_the_first() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        let first = Instance::claim(&dirs).unwrap();
        match Instance::claim(&dirs) {
            Err(DaemonError::AlreadyRunning { pid }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        Instance::claim(&dirs).unwrap();
    }

    #[test]
    fn a_daemon_with_other_sockets_but_the_same_machines_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        let _first = Instance::claim(&dirs).unwrap();
        // The first one's sockets are out of the way, as they are when XDG_RUNTIME_DIR differs.
        fs::rename(home.path().join("run"), home.path().join("elsewhere")).unwrap();
        let lock = home.path().join("data/daemon.lock");
        let text = fs::read_to_string(&lock).unwrap();
        fs::write(&lock, text.replace("/run", "/elsewhere")).unwrap();
        match Instance::claim(&dirs) {
            Err(DaemonError::RunsElsewhere { runtime, .. }) => {
                assert_eq!(runtime, home.path().join("elsewhere"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_that_are_taken_away_are_missed_by_their_daemon_and_by_the_next() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        let _first = Instance::claim(&dirs).unwrap();
        let lost = lost(&dirs);
        tokio::pin!(lost);
        assert!(tokio::time::timeout(10 * LOOK, &mut lost).await.is_err());
        fs::rename(dirs.runtime(), home.path().join("elsewhere")).unwrap();
        match Instance::claim(&dirs) {
            Err(DaemonError::LostSockets { pid, .. }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        // What the next one has left in its place is another's; both are of this process here.
        fs::write(dirs.runtime().join(LOCK), "1\n").unwrap();
        tokio::time::timeout(10 * LOOK, lost).await.unwrap();
    }

    #[test]
    fn a_runtime_directory_that_others_may_enter_is_refused_with_the_remedy() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        fs::create_dir(dirs.runtime()).unwrap();
        fs::set_permissions(dirs.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
        let message = Instance::claim(&dirs).unwrap_err().to_string();
        assert!(message.contains("chmod 700"), "{message}");
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused_before_anything_is_made() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("x".repeat(100));
        let message = Instance::claim(&Dirs::below(&long)).unwrap_err().to_string();
        assert!(message.contains("XDG_RUNTIME_DIR"), "{message}");
        assert!(!long.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_by_a_private_one() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        let instance = Instance::claim(&dirs).unwrap();
        let path = dirs.daemon_socket();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(transport::connect(&path).await.is_err());
        let mut listener = instance.listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (client, server) = tokio::join!(transport::connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
    }
}
