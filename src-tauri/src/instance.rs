//! One window a Cove: a second start shows the first's window and ends.
//!
//! The first listens at a socket beside the daemon's, so that two Coves (`COVE_HOME`) have a window each, and nothing is
//! asked of the session's message bus, which need not be there. A lock decides who is the first: of two that start at
//! once, neither would find the other's socket yet, and each would take the other's away.

use crate::window;
use cove_api::{
    Dirs,
    transport::{self, Listener},
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    time::Duration,
};
use tauri::AppHandle;
use tokio::time::sleep;

/// How often whoever has the lock is looked for, at most, where it does not listen.
const LOOKS: u32 = 50;
/// How long between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What became of claiming the window.
pub(crate) enum Claim {
    /// This is the only one.
    First(Instance),
    /// Another one is open and was told to show itself.
    Second,
    /// It cannot be found out.
    Unknown(io::Error),
}

/// The only window's ear.
pub(crate) struct Instance {
    listener: Listener,
    /// Locked until it is closed, however the window ends.
    _lock: File,
}

/// Claims the window of this Cove.
pub(crate) async fn claim(dirs: &Dirs) -> Claim {
    let socket = dirs.runtime().join("window.sock");
    let mut looks = 1;
    loop {
        // Whoever answers shows its window for that.
        let Err(silent) = transport::connect(&socket).await else {
            return Claim::Second;
        };
        match lock(dirs.runtime()) {
            Ok(Some(lock)) => return listen(&socket, lock),
            // Whoever has it does not listen yet, or has just ended.
            Ok(None) if looks < LOOKS => looks += 1,
            Ok(None) => return Claim::Unknown(silent),
            Err(error) => return Claim::Unknown(error),
        }
        sleep(LOOK).await;
    }
}

/// Listens as the first, in place of one that left its socket.
fn listen(socket: &Path, lock: File) -> Claim {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Claim::Unknown(error),
        _ => {}
    }
    match Listener::bind(socket) {
        Ok(listener) => Claim::First(Instance {
            listener,
            _lock: lock,
        }),
        Err(error) => Claim::Unknown(error),
    }
}

/// Locks the window of this directory, unless another one has.
fn lock(runtime: &Path) -> io::Result<Option<File>> {
    private_directory(runtime)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(runtime.join("window.lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A directory such as that for sockets, as the daemon makes it: nobody else's to enter.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

impl Instance {
    /// Shows the window whenever another start asks for it.
    pub(crate) async fn serve(mut self, app: AppHandle) {
        loop {
            match self.listener.accept().await {
                Ok(_) => window::show(&app),
                // As for want of descriptors. This window is the first all the same, and hears the next one.
                Err(_) => sleep(LOOK).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_window_of_the_same_cove_finds_the_first_and_one_that_died_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let Claim::First(first) = claim(&dirs).await else {
            panic!("nobody else is there");
        };
        assert!(matches!(claim(&dirs).await, Claim::Second));
        // Its socket stays behind, as after a kill.
        drop(first);
        assert!(matches!(claim(&dirs).await, Claim::First(_)));
    }

    #[tokio::test]
    async fn of_windows_that_start_at_once_one_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        private_directory(dirs.runtime()).unwrap();
        let socket = dirs.runtime().join("window.sock");
        // The other has the lock and does not listen yet.
        let other = lock(dirs.runtime()).unwrap().unwrap();
        let listens = async {
            sleep(LOOK * 3).await;
            Listener::bind(&socket).unwrap()
        };
        let (claimed, listener) = tokio::join!(claim(&dirs), listens);
        assert!(matches!(claimed, Claim::Second));
        drop((other, listener));
    }

    #[tokio::test]
    async fn a_window_that_is_ending_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        // The other listens no more, and has the lock still.
        let other = lock(dirs.runtime()).unwrap().unwrap();
        let ends = async {
            sleep(LOOK * 3).await;
            drop(other);
        };
        let (claimed, ()) = tokio::join!(claim(&dirs), ends);
        assert!(matches!(claimed, Claim::First(_)));
    }
}
