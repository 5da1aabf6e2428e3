//! Files that are replaced whole, so that nobody ever sees half of one.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// Replaces the file at `path` atomically and durably: temporary file beside it, fsync, rename, fsync of the
/// directory. Keeps the permissions of the file that was there; a new one gets `mode`. Follows a symbolic link to
/// the file that is meant. Makes missing directories.
pub(crate) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let target: PathBuf = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".cove-").tempfile_in(directory)?;
    file.write_all(contents)?;
    match fs::metadata(&target) {
        Ok(old) => file.as_file().set_permissions(old.permissions())?,
        Err(_) => set_mode(file.as_file(), mode)?,
    }
    file.as_file().sync_all()?;
    file.persist(&target)?;
    sync_directory(directory)
}

/// Whether the error says that no space is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(unix)]
fn set_mode(file: &fs::File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the other platforms' version can fail")]
fn set_mode(_: &fs::File, _: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the other platforms' version can fail")]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
