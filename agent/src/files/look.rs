//! What is in a folder.

use super::{FilesError, failed};
use cove_wire::{FileEntry, FileKind, FileLink, FilesAnswer, InMount, MAX_ENTRIES};
use std::{
    ffi::OsStr,
    fs::{self, FileType, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Permission bits with set-user-ID, set-group-ID and sticky bit (inode(7)).
const PERMISSIONS: u32 = 0o7777;

/// Looks at a folder or file of this process's root, and says which of these mounts it is in.
pub(super) fn at(path: &Path, mounts: &[String]) -> Result<FilesAnswer, FilesError> {
    if !path.is_absolute() {
        return Err(FilesError::Path(path.display().to_string()));
    }
    let path = fs::canonicalize(path).map_err(failed("find", path))?;
    let text = path
        .to_str()
        .ok_or_else(|| FilesError::Path(path.display().to_string()))?
        .to_owned();
    let found = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
    if !found.is_dir() {
        let entry = entry(&path, path.file_name().unwrap_or_default(), &found);
        return Ok(FilesAnswer::Other {
            within: innermost(&path, mounts),
            path: text,
            entry,
        });
    }
    let mut entries = Vec::new();
    let mut cut = false;
    for next in fs::read_dir(&path).map_err(failed("read", &path))? {
        let next = next.map_err(failed("read", &path))?;
        if entries.len() == MAX_ENTRIES {
            cut = true;
            break;
        }
        match next.metadata() {
            Ok(found) => entries.push(entry(&next.path(), &next.file_name(), &found)),
            // It went away in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", &next.path())(error)),
        }
    }
    Ok(FilesAnswer::Folder {
        path: text,
        entries,
        cut,
        within: innermost(&path, mounts),
    })
}

/// The mount that is nearest above a path, by where their links lead. One that is not there is not mounted now.
fn innermost(path: &Path, mounts: &[String]) -> Option<InMount> {
    let points = mounts
        .iter()
        .filter_map(|mount| Some((fs::canonicalize(mount).ok()?, mount)));
    let (point, mount) = points
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())?;
    Some(InMount {
        mount: mount.clone(),
        inner: path.strip_prefix(point).ok()?.to_str()?.to_owned(),
    })
}

fn entry(path: &Path, name: &OsStr, found: &Metadata) -> FileEntry {
    let kind = kind(found.file_type());
    FileEntry {
        name: name.to_string_lossy().into_owned(),
        garbled: name.to_str().is_none(),
        kind,
        mode: found.mode() & PERMISSIONS,
        size: found.len(),
        uid: found.uid(),
        gid: found.gid(),
        modified_ms: found
            .mtime()
            .saturating_mul(1000)
            .saturating_add(found.mtime_nsec() / 1_000_000),
        link: (kind == FileKind::Link).then(|| FileLink {
            target: fs::read_link(path)
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default(),
            kind: fs::metadata(path).ok().map(|found| self::kind(found.file_type())),
        }),
    }
}

fn kind(found: FileType) -> FileKind {
    if found.is_dir() {
        FileKind::Folder
    } else if found.is_file() {
        FileKind::File
    } else if found.is_symlink() {
        FileKind::Link
    } else {
        FileKind::Special
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

    #[test]
    fn a_folder_shows_links_with_what_they_lead_to_and_names_that_are_no_text() {
        let scratch = tempfile::tempdir().expect("a directory");
        let folder = fs::canonicalize(scratch.path()).expect("its path");
        fs::write(folder.join("file"), "four").expect("a file");
        symlink("file", folder.join("link")).expect("a link");
        symlink("nowhere", folder.join("loose")).expect("a link");
        fs::write(folder.join(OsStr::from_bytes(b"\xff")), "").expect("a file");
        let FilesAnswer::Folder {
            path,
            mut entries,
            cut,
            within,
        } = at(scratch.path(), &[]).expect("it can be read")
        else {
            panic!("not a folder");
        };
        assert_eq!((Path::new(&path), cut, within), (folder.as_path(), false, None));
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let [file, link, loose, garbled] = &entries[..] else {
            panic!("{entries:?}");
        };
        assert_eq!((file.kind, file.size, file.garbled), (FileKind::File, 4, false));
        let wanted = |target: &str, kind| {
            Some(FileLink {
                target: target.to_owned(),
                kind,
            })
        };
        assert_eq!(link.link, wanted("file", Some(FileKind::File)));
        assert_eq!(loose.link, wanted("nowhere", None));
        assert!(garbled.garbled);
        let linked = at(&folder.join("link"), &[]).expect("it can be read");
        let FilesAnswer::Other { path, entry, .. } = linked else {
            panic!("not a file");
        };
        assert_eq!(
            (Path::new(&path), entry.kind),
            (folder.join("file").as_path(), FileKind::File)
        );
    }

    #[test]
    fn the_innermost_mount_is_told_wherever_links_lead_to_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let folder = fs::canonicalize(scratch.path()).expect("its path");
        fs::create_dir_all(folder.join("run/data/inner")).expect("folders");
        fs::create_dir(folder.join("run/data-not")).expect("a folder");
        symlink("run", folder.join("alias")).expect("a link");
        let text = |path: &str| folder.join(path).to_str().expect("UTF-8").to_owned();
        let mounts = [text("run"), text("alias/data"), text("nowhere")];
        let within = |path: &str| {
            let within = match at(&folder.join(path), &mounts).expect("it can be read") {
                FilesAnswer::Folder { within, .. } | FilesAnswer::Other { within, .. } => within,
                other => panic!("{other:?}"),
            };
            within.map(|within| (within.mount, within.inner))
        };
        assert_eq!(within("run/data"), Some((text("alias/data"), String::new())));
        assert_eq!(
            within("run/data/inner"),
            Some((text("alias/data"), "inner".into()))
        );
        assert_eq!(within("run/data-not"), Some((text("run"), "data-not".into())));
        assert_eq!(within("."), None);
    }
}
