//! Where an image is made: a directory beside the one it is for, on the same file system, so that the finished
//! image takes its place in one step. Dropped unfinished, it leaves nothing behind; what a killed build could not
//! remove, the next one does. While a workshop stands, the directory above is locked, so there is one at a time.
//!
//! ```text
//!  OUTPUT.new-XXXXXX/image/    the five files
//!                    staging/  the root file system as mkfs.erofs reads it
//!                    spill/    large contents of packages, until they move to staging/
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::manifest::{FileEntry, Files, MANIFEST, Manifest, Role};

/// An image in the making.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    output: PathBuf,
    _lock: File,
}

impl Workshop {
    /// A workshop for the image in `output`, whose parent is made if it is not there. While another build is at work in
    /// that, `busy` having been told of it, this waits for its end.
    pub(crate) fn create(output: &Path, busy: impl FnOnce(&Path)) -> Result<Self, ImageError> {
        let output = std::path::absolute(output).at("find", output)?;
        let parent = output.parent().unwrap_or(&output).to_owned();
        fs::create_dir_all(&parent).at("create", &parent)?;
        let lock = File::open(&parent).at("open", &parent)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                busy(&parent);
                lock.lock().at("lock", &parent)?;
            }
            Err(TryLockError::Error(error)) => return Err::<Self, _>(error).at("lock", &parent),
        }
        let prefix = format!(
            ".{}.new-",
            output.file_name().unwrap_or_default().to_string_lossy()
        );
        remove_stale(&parent, &prefix)?;
        let dir = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .at("create a directory in", &parent)?;
        for sub in ["image", "staging", "spill"] {
            let path = dir.path().join(sub);
            fs::create_dir(&path).at("create", &path)?;
        }
        Ok(Self {
            dir,
            output,
            _lock: lock,
        })
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.dir.path().join("staging")
    }

    pub(crate) fn spill(&self) -> PathBuf {
        self.dir.path().join("spill")
    }

    /// A path for a file that nobody needs in the end.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the file of this role is made.
    pub(crate) fn file(&self, role: Role) -> PathBuf {
        self.image().join(role.file_name())
    }

    pub(crate) fn write(&self, role: Role, bytes: &[u8]) -> Result<(), ImageError> {
        let path = self.file(role);
        fs::write(&path, bytes).at("write", &path)
    }

    /// Sizes and digests of the four files.
    pub(crate) fn describe(&self) -> Result<Files, ImageError> {
        let entry = |role: Role| {
            let (sha256, size) = Digest::of_file(&self.file(role))?;
            Ok(FileEntry {
                name: role.file_name().into(),
                size,
                sha256,
            })
        };
        Ok(Files {
            kernel: entry(Role::Kernel)?,
            initramfs: entry(Role::Initramfs)?,
            rootfs: entry(Role::Rootfs)?,
            starter: entry(Role::Starter)?,
        })
    }

    /// Writes the manifest, makes all of it durable, and puts it in the place of whatever image is there.
    pub(crate) fn finish(self, mut manifest: Manifest) -> Result<Manifest, ImageError> {
        let image = self.image();
        let path = image.join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(io::Error::from)
            .at("write", &path)?;
        text.push(b'\n');
        fs::write(&path, text).at("write", &path)?;
        for path in Role::ALL
            .map(|role| self.file(role))
            .iter()
            .chain([&path, &image])
        {
            File::open(path)
                .and_then(|file| file.sync_all())
                .at("write out", path)?;
        }
        self.put_in_place(&image)?;
        manifest.dir.clone_from(&self.output);
        Ok(manifest)
    }

    fn put_in_place(&self, image: &Path) -> Result<(), ImageError> {
        let output = &self.output;
        if !output.exists() {
            return fs::rename(image, output).at("place", output);
        }
        // The old image lands in the workshop, and goes with it. Who has its files open keeps them.
        if renameat_with(CWD, image, CWD, output, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        // Not every file system can exchange. Here the place is empty for a moment, and if the second step
        // fails, the first is undone.
        let old = self.scratch("old");
        fs::rename(output, &old).at("move away", output)?;
        fs::rename(image, output)
            .or_else(|error| fs::rename(&old, output).and(Err(error)))
            .at("place", output)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }
}

/// Removes the workshops of builds that were killed. The lock says that no other build is at work here.
fn remove_stale(parent: &Path, prefix: &str) -> Result<(), ImageError> {
    for entry in fs::read_dir(parent).at("read", parent)? {
        let entry = entry.at("read", parent)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            fs::remove_dir_all(&path).at("remove", &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::write_image;
    use crate::verify::verify;

    fn finish(output: &Path, contents: &str) -> Manifest {
        let workshop = Workshop::create(output, alone).unwrap();
        for role in Role::ALL {
            workshop
                .write(role, format!("{contents} {role}").as_bytes())
                .unwrap();
        }
        let scrap = tempfile::tempdir().unwrap();
        let mut manifest = write_image(scrap.path());
        manifest.files = workshop.describe().unwrap();
        workshop.finish(manifest).unwrap()
    }

    fn alone(place: &Path) {
        panic!("another build is at work in {}", place.display());
    }

    fn names(dir: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn a_finished_image_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("deep/image");
        finish(&output, "first");
        let second = finish(&output, "second");
        assert_eq!(verify(&output).unwrap(), second);
        assert_eq!(fs::read(second.file(Role::Kernel)).unwrap(), b"second kernel");
        assert_eq!(names(output.parent().unwrap()), ["image"]);
    }

    #[test]
    fn a_build_that_waits_for_another_one_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image");
        let first = Workshop::create(&output, alone).unwrap();
        let (say, said) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let busy = |place: &Path| say.send(place.to_owned()).unwrap();
                Workshop::create(&output, busy).map(drop)
            });
            assert_eq!(said.recv().unwrap(), dir.path());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn an_abandoned_workshop_leaves_the_old_image_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image");
        let first = finish(&output, "first");
        let workshop = Workshop::create(&output, alone).unwrap();
        workshop.write(Role::Kernel, b"half").unwrap();
        drop(workshop);
        assert_eq!(verify(&output).unwrap(), first);
        assert_eq!(names(dir.path()), ["image"]);
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".image.new-dead/staging/x")).unwrap();
        fs::create_dir(dir.path().join(".other.new-alive")).unwrap();
        finish(&dir.path().join("image"), "first");
        let mut names = names(dir.path());
        names.sort();
        assert_eq!(names, [".other.new-alive", "image"]);
    }
}
