//! The engine's archives of single files and folders: reading one out of what the engine sends, and making what it
//! takes. And those of whole images, of which only is read what files each layer holds.
//!
//! What comes out of a container is hostile: names are not used at all, sizes are only believed as far as bytes follow.
//! What goes in are names that a person chose, without any path.

mod attributes;
mod headers;
mod image;
mod layer;
mod send;
mod zstd;

pub use image::{ImageArchive, ImageLayer, read_image};
pub use layer::{Layer, LayerEntry};
pub use send::{Sent, send};

use std::io::{self, Read};
use tar::{Archive, Builder, Entry, EntryType, Header};

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It makes no sense, or ends early.
    #[error("the engine sent an archive that makes no sense")]
    Broken(#[source] io::Error),
    /// It holds nothing.
    #[error("the engine sent an empty archive")]
    Empty,
    /// It is of something that has no content: a folder, a link, a device.
    #[error("this is not an ordinary file")]
    NoFile,
    /// The file is larger than was asked for.
    #[error("the file has {size} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// What stands in front of the file, such as its attributes, is longer than that of any file.
    #[error("the engine sent more than {most} bytes in front of a file")]
    TooMuchAhead {
        /// How many there may be.
        most: u64,
    },
    /// The name could mean something else than a name.
    #[error("`{0}` is not a name for a file")]
    Name(String),
    /// It cannot be made.
    #[error("the archive cannot be made")]
    Making(#[source] io::Error),
}

/// What is known of a file or folder besides its content: what is kept when it is written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Permissions, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// When its content changed, in seconds since 1970.
    pub modified_s: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Extended attributes.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// Reads the file that an archive begins with: its head, and its content if that has at most `most` bytes.
pub fn read_file(archive: impl Read, most: u64) -> Result<(Head, Vec<u8>), ArchiveError> {
    with_file(archive, |head, content| {
        if head.size > most {
            return Err(ArchiveError::TooLarge { size: head.size });
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(ArchiveError::Broken)?;
        if bytes.len() as u64 != head.size {
            return Err(ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok((head, bytes))
    })
}

/// Hands over the file that an archive begins with, however large it is.
pub fn with_file<T>(
    archive: impl Read,
    take: impl FnOnce(Head, &mut dyn Read) -> Result<T, ArchiveError>,
) -> Result<T, ArchiveError> {
    let (attributes, archive) = attributes::peek(archive)?;
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(ArchiveError::Broken)?;
    let mut entry = entries
        .next()
        .ok_or(ArchiveError::Empty)?
        .map_err(ArchiveError::Broken)?;
    let kind = entry.header().entry_type();
    if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
        return Err(ArchiveError::NoFile);
    }
    let head = head_of(&entry, attributes)?;
    take(head, &mut entry)
}

/// The folder itself, where an archive of what is in a folder begins with it (`./`), as those of the engine and of tar
/// do; nothing where it does not. An engine that such an archive is put into leaves the folder itself as it is.
pub fn read_root(archive: impl Read) -> Result<Option<Head>, ArchiveError> {
    let (attributes, archive) = attributes::peek(archive)?;
    let mut archive = Archive::new(archive);
    let mut entries = archive.entries().map_err(ArchiveError::Broken)?;
    match entries.next() {
        None => Ok(None),
        Some(Err(error)) => Err(ArchiveError::Broken(error)),
        Some(Ok(entry)) => {
            let root = matches!(&*entry.path_bytes(), b"." | b"./");
            if !root || !entry.header().entry_type().is_dir() {
                return Ok(None);
            }
            head_of(&entry, attributes).map(Some)
        }
    }
}

fn head_of<R: Read>(entry: &Entry<'_, R>, attributes: attributes::Attributes) -> Result<Head, ArchiveError> {
    let header = entry.header();
    Ok(Head {
        mode: header.mode().map_err(ArchiveError::Broken)? & 0o7777,
        uid: header.uid().map_err(ArchiveError::Broken)?,
        gid: header.gid().map_err(ArchiveError::Broken)?,
        modified_s: header.mtime().map_err(ArchiveError::Broken)?,
        size: entry.size(),
        attributes,
    })
}

/// An archive of one file.
pub fn of_file(name: &str, head: &Head, content: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    of_one(EntryType::Regular, name, head, content)
}

/// An archive of one empty folder with this owner, mode, time and attributes.
pub fn of_folder(name: &str, head: &Head) -> Result<Vec<u8>, ArchiveError> {
    of_one(EntryType::Directory, name, head, &[])
}

/// A new folder's head: it belongs to root, and all may enter it.
pub fn new_folder(modified_s: u64) -> Head {
    Head {
        mode: 0o755,
        uid: 0,
        gid: 0,
        modified_s,
        size: 0,
        attributes: Vec::new(),
    }
}

fn of_one(kind: EntryType, name: &str, head: &Head, content: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Builder::new(Vec::new());
    let attributes: Vec<(String, &[u8])> = head
        .attributes
        .iter()
        .map(|(name, value)| (format!("{}{name}", attributes::PREFIX), value.as_slice()))
        .collect();
    if !attributes.is_empty() {
        let records = attributes.iter().map(|(key, value)| (key.as_str(), *value));
        archive
            .append_pax_extensions(records)
            .map_err(ArchiveError::Making)?;
    }
    let mut header = header(kind, head.mode, content.len() as u64, head.modified_s);
    header.set_uid(head.uid);
    header.set_gid(head.gid);
    archive
        .append_data(&mut header, checked(name)?, content)
        .and_then(|()| archive.into_inner())
        .map_err(ArchiveError::Making)
}

/// A header of something that belongs to root, until it is told otherwise.
pub(crate) fn header(kind: EntryType, mode: u32, size: u64, modified_s: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(modified_s);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The name, if it can be nothing but a name.
pub fn checked(name: &str) -> Result<&str, ArchiveError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(ArchiveError::Name(name.to_owned()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
