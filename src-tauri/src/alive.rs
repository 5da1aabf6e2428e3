//! Which windows live. What a window leaves with the engine, such as a container that reads a volume, is marked with its
//! name; so it can be told from what belongs to another one that is still at it.
//!
//! ```text
//!  runtime/windows/NAME.lock   locked by the window of that name as long as it lives, however it ends
//! ```
//!
//! Only who holds the lock removes the file. A window that finds its own gone, in the moment between making and locking
//! it, makes another.

use cove_api::Dirs;
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What the files end with.
const END: &str = ".lock";
/// How often a file is made anew whose own was cleared away before it was locked.
const ATTEMPTS: usize = 5;

/// This window's file.
#[derive(Debug)]
pub(crate) struct Alive {
    name: String,
    /// Locked until it is closed.
    _lock: File,
}

impl Alive {
    /// Says that this window lives, until the process ends.
    pub(crate) fn claim(dirs: &Dirs) -> io::Result<Self> {
        let folder = folder(dirs);
        crate::instance::private_directory(&folder)?;
        for _ in 0..ATTEMPTS {
            let file = tempfile::Builder::new()
                .prefix("")
                .suffix(END)
                .tempfile_in(&folder)?;
            let (lock, path) = file.keep().map_err(|error| error.error)?;
            lock.lock()?;
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.exists() {
                return Ok(Self {
                    name: name.trim_end_matches(END).to_owned(),
                    _lock: lock,
                });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// By which others find it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a window of that name lives. It is what somebody wrote on a container, and may be anything.
pub(crate) fn lives(dirs: &Dirs, name: &str) -> io::Result<bool> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(false);
    }
    is_locked(&folder(dirs).join(format!("{name}{END}")))
}

/// Removes the files of windows that have ended.
pub(crate) fn tidy(dirs: &Dirs) -> io::Result<()> {
    for entry in fs::read_dir(folder(dirs))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == &END[1..]) {
            is_locked(&path)?;
        }
    }
    Ok(())
}

/// Whether somebody holds the file's lock. Otherwise the file is removed.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {
            fs::remove_file(path)?;
            Ok(false)
        }
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn folder(dirs: &Dirs) -> PathBuf {
    dirs.runtime().join("windows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lives_until_it_ends_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let (one, other) = (Alive::claim(&dirs).unwrap(), Alive::claim(&dirs).unwrap());
        let (name, gone) = (one.name().to_owned(), other.name().to_owned());
        drop(other);
        assert!(lives(&dirs, &name).unwrap());
        assert!(!lives(&dirs, &gone).unwrap());
        drop(one);
        tidy(&dirs).unwrap();
        assert_eq!(fs::read_dir(folder(&dirs)).unwrap().count(), 0);
        assert!(!lives(&dirs, &name).unwrap());
    }

    #[test]
    fn what_is_no_name_is_no_window_and_no_file_is_touched_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(directory.path());
        let _window = Alive::claim(&dirs).unwrap();
        let kept = directory.path().join("kept.lock");
        fs::write(&kept, "").unwrap();
        for name in ["", "..", "../../kept", "/etc/passwd", "a/b"] {
            assert!(!lives(&dirs, name).unwrap(), "{name}");
        }
        assert!(kept.exists());
    }
}
