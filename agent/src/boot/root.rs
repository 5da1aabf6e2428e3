//! The root: the image's read-only file system below a layer in memory that is thrown away, and the step from the
//! initramfs into it.

use super::mounts::{self, MountError, attach};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat},
    io::Errno,
    mount::{MountFlags, mount_move},
    process::{chdir, chroot},
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

const IMAGE: &str = "/image";
const LAYER: &str = "/layer";
const ROOT: &str = "/root";

/// What the throw-away layer may take of the memory.
const LAYER_OPTIONS: &str = "mode=0755,size=25%";

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// One of the mounts failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The step into the mounted root failed.
    #[error("switching to the root file system failed: {0}")]
    Switch(#[from] io::Error),
}

/// Mounts the image on `device` and makes it the root of every thread of the agent, and of the kernel's own helpers.
/// Paths that the agent uses mean the same before and after.
pub(crate) fn enter(device: &Path) -> Result<(), RootError> {
    attach(
        &device.display().to_string(),
        Path::new(IMAGE),
        "erofs",
        MountFlags::RDONLY,
        "",
    )?;
    attach(
        "tmpfs",
        Path::new(LAYER),
        "tmpfs",
        MountFlags::NODEV,
        LAYER_OPTIONS,
    )?;
    for directory in ["upper", "work"] {
        fs::create_dir(Path::new(LAYER).join(directory))?;
    }
    let layers = format!("lowerdir={IMAGE},upperdir={LAYER}/upper,workdir={LAYER}/work");
    attach(
        "overlay",
        Path::new(ROOT),
        "overlay",
        MountFlags::empty(),
        &layers,
    )?;
    // Mounted anew instead of moved, so that at no moment a path of another thread leads nowhere.
    mounts::first(Path::new(ROOT))?;
    Ok(switch()?)
}

fn switch() -> io::Result<()> {
    let initramfs = File::open("/")?;
    chdir(ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    // The initramfs lives in memory that nobody would ever see again.
    if let Err(error) = clear(initramfs.as_fd(), fstat(&initramfs)?.st_dev) {
        tracing::warn!("freeing the initramfs failed: {error}");
    }
    Ok(())
}

/// Removes what is in `directory`, but nothing on another file system than `device`.
fn clear(directory: BorrowedFd<'_>, device: u64) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = openat(directory, name, flags, Mode::empty())?;
            if fstat(&inner)?.st_dev != device {
                continue;
            }
            clear(inner.as_fd(), device)?;
            match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                // A mount point, as those left behind are.
                Ok(()) | Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_a_directory_removes_files_links_and_directories_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), path.join("a/link")).unwrap();
        let handle = File::open(path).unwrap();
        clear(handle.as_fd(), fstat(&handle).unwrap().st_dev).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn another_file_system_is_not_cleared() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("inner")).unwrap();
        fs::write(directory.path().join("inner/file"), "").unwrap();
        let handle = File::open(directory.path()).unwrap();
        clear(handle.as_fd(), fstat(&handle).unwrap().st_dev + 1).unwrap();
        assert!(directory.path().join("inner/file").exists());
    }
}
