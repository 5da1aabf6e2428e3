//! The Alpine base: a disk image whose every file is checked against Alpine's own package database.
//!
//! The image is pinned by its hash, so that nobody can change it on the way. The check goes further: what its
//! author changed, added or left behind does not get into our image. A file counts only if a package owns it
//! and its bytes have the checksum that the package recorded; owner and mode come from the database, not
//! from the disk. Files that the recipe knows to be altered are restored to what the package installed, which
//! the same checksum proves, or left out.

use std::collections::BTreeMap;
use std::path::Path;

use ext4_view::{Ext4, Ext4Error};

use crate::apkdb::{self, ApkPackage, OwnedFile, Ownership};
use crate::error::ImageError;
use crate::qcow2::Qcow2;
use crate::recipe::{self, Altered, Restore};
use crate::tree::{Node, TreePath};

const DATABASE: &str = "/lib/apk/db/installed";
/// No file of the base is larger: the kernel's modules come one by one.
const MAX_FILE: u64 = 128 << 20;

/// A checked file or symbolic link.
pub(crate) struct BaseFile {
    pub(crate) ownership: Ownership,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Symlink(String),
}

impl BaseFile {
    pub(crate) fn node(&self) -> Node {
        match &self.kind {
            Kind::File(bytes) => Node::file(self.ownership.mode, bytes.clone()),
            Kind::Symlink(target) => Node::Symlink {
                target: target.clone(),
            },
        }
    }
}

/// The base after the check.
pub(crate) struct Base {
    name: String,
    disk: Ext4,
    packages: Vec<ApkPackage>,
    files: BTreeMap<TreePath, BaseFile>,
}

impl Base {
    /// Opens the disk image at `path` and checks all of it. `step` hears of the files done and in all.
    pub(crate) fn check(
        path: &Path,
        recipe: &recipe::Alpine,
        step: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ImageError> {
        let name = recipe.disk.clone();
        let malformed = |reason: String| ImageError::Archive {
            archive: name.clone(),
            reason,
        };
        let disk = Ext4::load(Box::new(Qcow2::open(path)?)).map_err(|error| malformed(error.to_string()))?;
        let database = disk
            .read_to_string(DATABASE)
            .map_err(|error| malformed(format!("{DATABASE}: {error}")))?;
        let packages =
            apkdb::parse(&database).map_err(|reason| malformed(format!("{DATABASE}: {reason}")))?;

        let mut altered: BTreeMap<&TreePath, &Altered> = recipe
            .altered
            .iter()
            .map(|altered| (&altered.path.0, altered))
            .collect();
        let total = packages.iter().map(|package| package.files.len() as u64).sum();
        let mut findings = Vec::new();
        let mut files = BTreeMap::new();
        let mut done = 0;
        for package in &packages {
            for owned in &package.files {
                let found = read(&disk, &owned.path);
                match judge(package, owned, found, altered.remove(&owned.path)) {
                    Ok(Some(kind)) => {
                        let ownership = owned.ownership;
                        files.insert(owned.path.clone(), BaseFile { ownership, kind });
                    }
                    Ok(None) => {}
                    Err(finding) => findings.push(finding),
                }
                done += 1;
                step(done, total);
            }
        }
        findings.extend(
            altered
                .keys()
                .map(|path| format!("/{path} is listed as altered, but no package owns it")),
        );
        if findings.is_empty() {
            Ok(Self {
                name,
                disk,
                packages,
                files,
            })
        } else {
            Err(ImageError::BaseAltered { findings })
        }
    }

    /// The package of this name.
    pub(crate) fn package(&self, name: &str) -> Result<&ApkPackage, ImageError> {
        let found = self.packages.iter().find(|package| package.name == name);
        found.ok_or_else(|| ImageError::NotOffered {
            missing: name.into(),
            origin: self.name.clone(),
        })
    }

    /// The checked files of a package.
    pub(crate) fn files<'a>(
        &'a self,
        package: &'a ApkPackage,
    ) -> impl Iterator<Item = (&'a TreePath, &'a BaseFile)> {
        package
            .files
            .iter()
            .filter_map(|owned| self.files.get_key_value(&owned.path))
    }

    /// The bytes of a checked file.
    pub(crate) fn bytes(&self, path: &TreePath) -> Result<&[u8], ImageError> {
        match self.files.get(path).map(|file| &file.kind) {
            Some(Kind::File(bytes)) => Ok(bytes),
            _ => Err(ImageError::Unmatched {
                what: format!("file /{path} in {}", self.name),
            }),
        }
    }

    /// The bytes of a file that no package owns: as trustworthy as the base's pinned hash, and no more.
    pub(crate) fn unowned(&self, path: &TreePath) -> Result<Vec<u8>, ImageError> {
        match read(&self.disk, path) {
            Ok(Kind::File(bytes)) => Ok(bytes),
            _ => Err(ImageError::Unmatched {
                what: format!("unowned file /{path} in {}", self.name),
            }),
        }
    }
}

/// What of a package's file gets into the image: what was found, if it is what the package installed; what restores it,
/// if the recipe knows it to be altered; nothing, if the recipe leaves it out. An error is a finding, as a sentence.
fn judge(
    package: &ApkPackage,
    owned: &OwnedFile,
    found: Result<Kind, String>,
    altered: Option<&Altered>,
) -> Result<Option<Kind>, String> {
    let (path, package) = (&owned.path, &package.name);
    let intact = |kind: &Kind| match kind {
        Kind::File(bytes) => owned.checksum.matches(bytes),
        Kind::Symlink(target) => owned.checksum.matches(target.as_bytes()),
    };
    let Some(altered) = altered else {
        return match found {
            Ok(kind) if intact(&kind) => Ok(Some(kind)),
            Ok(_) => Err(format!("/{path} is not as {package} installed it")),
            Err(error) => Err(format!("/{path} of {package} is not readable: {error}")),
        };
    };
    if found.as_ref().is_ok_and(intact) {
        return Err(format!("/{path} is intact, but the recipe lists it as altered"));
    }
    match altered.restore.as_ref().map(|how| restore(how, found.ok())) {
        None => Ok(None),
        Some(restored) if intact(&restored) => Ok(Some(restored)),
        Some(_) => Err(format!(
            "/{path} is altered ({}) and the recipe does not restore what {package} installed",
            altered.reason
        )),
    }
}

fn restore(how: &Restore, found: Option<Kind>) -> Kind {
    match (how, found) {
        (Restore::Text(text), _) => Kind::File(text.clone().into_bytes()),
        (Restore::Link(target), _) => Kind::Symlink(target.clone()),
        (Restore::WithoutLines(starts), Some(Kind::File(bytes))) => {
            let added = |line: &[u8]| starts.iter().any(|start| line.starts_with(start.as_bytes()));
            Kind::File(
                bytes
                    .split_inclusive(|&byte| byte == b'\n')
                    .filter(|line| !added(line))
                    .flatten()
                    .copied()
                    .collect(),
            )
        }
        // There is nothing to take lines from; the empty file will not have the right checksum.
        (Restore::WithoutLines(_), _) => Kind::File(vec![]),
    }
}

fn read(disk: &Ext4, path: &TreePath) -> Result<Kind, String> {
    let absolute = format!("/{path}");
    let text = |error: Ext4Error| error.to_string();
    let metadata = disk.symlink_metadata(&absolute).map_err(text)?;
    if metadata.is_symlink() {
        let target = disk.read_link(&absolute).map_err(text)?;
        return target
            .to_str()
            .map(|target| Kind::Symlink(target.to_owned()))
            .map_err(|error| error.to_string());
    }
    if !metadata.file_type().is_regular_file() {
        return Err("it is neither a file nor a symbolic link".into());
    }
    if metadata.len() > MAX_FILE {
        return Err(format!("it has {} bytes", metadata.len()));
    }
    disk.read(&absolute).map(Kind::File).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_lines_are_taken_out_and_the_rest_stays_byte_for_byte() {
        let found = Kind::File(b"root:x:0\nuser:x:1000\nno newline".to_vec());
        let how = Restore::WithoutLines(vec!["user:".into()]);
        assert_eq!(
            restore(&how, Some(found)),
            Kind::File(b"root:x:0\nno newline".to_vec())
        );
    }

    #[test]
    fn a_link_is_restored_as_a_link() {
        let how = Restore::Link("../proc/mounts".into());
        assert_eq!(
            restore(&how, Some(Kind::File(vec![]))),
            Kind::Symlink("../proc/mounts".into())
        );
    }
}
