//! Whether an image may be started: every byte is the one that its manifest describes.
//!
//! Hashing a few hundred megabytes takes a second or two, so a start uses [`verify_quick`]: it trusts a stamp,
//! written after the last full verification, for as long as the files' identity, length and times are those
//! that the stamp recorded. The stamp lives outside the image, with whoever asks.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::manifest::{MANIFEST, Manifest, Role};

/// Checks the image in `dir` completely: manifest, protocol version, and every byte of every file.
pub fn verify(dir: &Path) -> Result<Manifest, ImageError> {
    let manifest = Manifest::load(dir)?;
    for role in Role::ALL {
        let entry = manifest.entry(role);
        let file = manifest.file(role);
        // The length is compared first: it is the cheaper way to find a truncated copy.
        let length = metadata(&file)?.len();
        if length != entry.size {
            return Err(ImageError::Length {
                file,
                expected: entry.size,
                actual: length,
            });
        }
        let (actual, _) = Digest::of_file(&file)?;
        if actual != entry.sha256 {
            return Err(ImageError::Altered {
                file,
                expected: entry.sha256,
                actual,
            });
        }
    }
    Ok(manifest)
}

/// Like [`verify`], but hashes the files only if they are not those that `stamp` recorded when it was last
/// written. A full verification that succeeds rewrites the stamp (and its directory, if need be); a stamp
/// that cannot be read or written costs time, never correctness.
pub fn verify_quick(dir: &Path, stamp: &Path) -> Result<Manifest, ImageError> {
    let manifest = Manifest::load(dir)?;
    let now = Stamp::of(&manifest)?;
    if Stamp::read(stamp).as_ref() == Some(&now) {
        return Ok(manifest);
    }
    let manifest = verify(dir)?;
    // Only what was the same before and after the hashing has been verified.
    if Stamp::of(&manifest)? == now
        && let Err(error) = now.write(stamp)
    {
        tracing::warn!(stamp = %stamp.display(), %error, "could not record the verification");
    }
    Ok(manifest)
}

/// What the system knows of a file that a manifest describes.
fn metadata(file: &Path) -> Result<Metadata, ImageError> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ImageError::FileMissing {
            file: file.to_owned(),
        }),
        found => found.at("read", file),
    }
}

/// What identifies the files of a verified image.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    manifest: Digest,
    files: Vec<Identity>,
}

/// What changes when a file is replaced or written to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    size: u64,
    modified_ns: u128,
    changed_ns: i128,
    inode: u64,
    device: u64,
}

impl Stamp {
    fn of(manifest: &Manifest) -> Result<Self, ImageError> {
        let path = manifest.dir.join(MANIFEST);
        let bytes = std::fs::read(&path).at("read", &path)?;
        let files = Role::ALL
            .iter()
            .map(|&role| {
                let file = manifest.file(role);
                Identity::of(&metadata(&file)?).at("read", &file)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            manifest: Digest::of(&bytes),
            files,
        })
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(path)?;
        Ok(())
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> std::io::Result<Self> {
        let modified = metadata
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let (changed_ns, inode, device) = unix_identity(metadata);
        Ok(Self {
            size: metadata.len(),
            modified_ns: modified.as_nanos(),
            changed_ns,
            inode,
            device,
        })
    }
}

#[cfg(unix)]
fn unix_identity(metadata: &Metadata) -> (i128, u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    // The change time is what a writer cannot set back.
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    (changed, metadata.ino(), metadata.dev())
}

#[cfg(not(unix))]
fn unix_identity(_: &Metadata) -> (i128, u64, u64) {
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::{write, write_image};

    fn rewrite(path: &Path, bytes: &[u8]) {
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn an_untouched_image_verifies() {
        let dir = tempfile::tempdir().unwrap();
        write_image(dir.path());
        verify(dir.path()).unwrap();
    }

    #[test]
    fn one_changed_byte_in_any_file_is_found_and_named() {
        for role in Role::ALL {
            let dir = tempfile::tempdir().unwrap();
            let manifest = write_image(dir.path());
            let mut bytes = std::fs::read(manifest.file(role)).unwrap();
            bytes[0] ^= 1;
            rewrite(&manifest.file(role), &bytes);
            match verify(dir.path()) {
                Err(ImageError::Altered { file, .. }) => assert_eq!(file, manifest.file(role)),
                other => panic!("{role}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_truncated_file_is_found_by_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = write_image(dir.path());
        rewrite(&manifest.file(Role::Rootfs), b"short");
        assert!(matches!(
            verify(dir.path()),
            Err(ImageError::Length { actual: 5, .. })
        ));
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do_whichever_way_it_is_looked_for() {
        for role in Role::ALL {
            let dir = tempfile::tempdir().unwrap();
            let manifest = write_image(dir.path());
            std::fs::remove_file(manifest.file(role)).unwrap();
            for error in [
                verify(dir.path()).unwrap_err(),
                verify_quick(dir.path(), &dir.path().join("stamp.json")).unwrap_err(),
            ] {
                assert!(error.hint().is_some(), "{error:?}");
                match error {
                    ImageError::FileMissing { file } => assert_eq!(file, manifest.file(role)),
                    other => panic!("{role}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_quick_check_hashes_again_when_a_file_was_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let stamps = tempfile::tempdir().unwrap();
        let stamp = stamps.path().join("deep/stamp.json");
        let manifest = write_image(dir.path());
        verify_quick(dir.path(), &stamp).unwrap();
        assert!(stamp.exists());
        verify_quick(dir.path(), &stamp).unwrap();

        let kernel = manifest.file(Role::Kernel);
        let mut bytes = std::fs::read(&kernel).unwrap();
        bytes[3] ^= 0x40;
        rewrite(&kernel, &bytes);
        assert!(matches!(
            verify_quick(dir.path(), &stamp),
            Err(ImageError::Altered { .. })
        ));
    }

    #[test]
    fn the_quick_check_skips_the_hashing_when_the_stamp_matches() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = dir.path().join("stamp.json");
        let mut manifest = write_image(dir.path());
        // The manifest is wrong about a hash, which only a full verification can notice.
        manifest.files.kernel.sha256 = Digest::of(b"something else");
        write(&manifest);
        Stamp::of(&manifest).unwrap().write(&stamp).unwrap();
        verify_quick(dir.path(), &stamp).unwrap();
        assert!(verify(dir.path()).is_err());
    }

    #[test]
    fn a_damaged_stamp_only_costs_time() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = dir.path().join("stamp.json");
        write_image(dir.path());
        rewrite(&stamp, b"{ not json");
        verify_quick(dir.path(), &stamp).unwrap();
        assert!(Stamp::read(&stamp).is_some());
    }
}
