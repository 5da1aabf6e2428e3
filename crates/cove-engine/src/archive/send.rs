//! Files and folders of this computer, as an archive that is made while it is sent.

use super::{checked, header};
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read as _, Write},
    path::PathBuf,
    time::UNIX_EPOCH,
};
use tar::{Builder, EntryType};

/// Names of what was left out that are told.
const NAMED: usize = 5;

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Sockets, pipes and devices, which are left out.
    pub left_out: u64,
    /// The first five of those, as they would have been called.
    pub left_out_names: Vec<String>,
}

/// Writes an archive of these files and folders, each under its own name. They belong to root, as they do after
/// `docker cp`; links are kept as links.
pub fn send(paths: &[PathBuf], to: impl Write) -> io::Result<Sent> {
    let mut archive = Builder::new(to);
    let mut sent = Sent::default();
    let mut waiting: Vec<(PathBuf, PathBuf)> = Vec::new();
    for path in paths.iter().rev() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let name = checked(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        waiting.push((path.clone(), PathBuf::from(name)));
    }
    while let Some((path, name)) = waiting.pop() {
        let found = fs::symlink_metadata(&path)?;
        let modified = modified(&found);
        let mode = mode(&found);
        if found.is_dir() {
            let mut header = header(EntryType::Directory, mode, 0, modified);
            archive.append_data(&mut header, &name, io::empty())?;
            for inner in fs::read_dir(&path)? {
                let inner = inner?;
                waiting.push((inner.path(), name.join(inner.file_name())));
            }
        } else if found.is_symlink() {
            let mut header = header(EntryType::Symlink, 0o777, 0, modified);
            archive.append_link(&mut header, &name, fs::read_link(&path)?)?;
        } else if found.is_file() {
            let mut header = header(EntryType::Regular, mode, found.len(), modified);
            // A file that grows is cut, and one that shrinks is filled up: the size stands in front of it.
            let content = File::open(&path)?.chain(io::repeat(0)).take(found.len());
            archive.append_data(&mut header, &name, content)?;
            sent.bytes += found.len();
        } else {
            sent.left_out += 1;
            if sent.left_out_names.len() < NAMED {
                sent.left_out_names.push(name.display().to_string());
            }
            continue;
        }
        sent.entries += 1;
    }
    archive.into_inner()?.flush()?;
    Ok(sent)
}

fn modified(found: &Metadata) -> u64 {
    found
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_secs())
}

#[cfg(unix)]
fn mode(found: &Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    // What lets a program act as its owner is not carried into root's hands.
    found.mode() & 0o777
}

#[cfg(not(unix))]
fn mode(found: &Metadata) -> u32 {
    if found.is_dir() { 0o755 } else { 0o644 }
}
