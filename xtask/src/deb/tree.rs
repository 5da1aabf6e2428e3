//! The files of a package, as they will lie below `/`.

use super::emptied;
use crate::process::run_quietly;
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a file may be used for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// To be read.
    File,
    /// To be run.
    Program,
}

/// A directory that becomes a package. Places in it are relative.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// An empty one; what is at `root` is removed.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        emptied(&root)?;
        set_mode(&root, 0o755)?;
        Ok(Self(root))
    }

    /// A file with `contents`.
    pub(super) fn write(&self, place: &str, mode: Mode, contents: &[u8]) -> Result<()> {
        let path = self.make_room(place)?;
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        finish(&path, mode)
    }

    /// A copy of a file. Never a link, since that would have the file's own time.
    pub(super) fn copy(&self, place: &str, mode: Mode, from: &Path) -> Result<()> {
        let path = self.make_room(place)?;
        fs::copy(from, &path)
            .with_context(|| format!("cannot copy {} to {}", from.display(), path.display()))?;
        finish(&path, mode)
    }

    /// Copies of all files of a directory, to be read.
    pub(super) fn copy_all(&self, place: &str, from: &Path) -> Result<()> {
        for file in files(from)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            self.copy(&format!("{place}/{name}"), Mode::File, &file)?;
        }
        Ok(())
    }

    /// Puts a file with the ending `.gz` in the place of one, without the time that gzip would note in it.
    pub(super) fn compress(&self, place: &str) -> Result<()> {
        run_quietly(
            Command::new("gzip")
                .args(["-9", "--no-name"])
                .arg(self.0.join(place)),
        )
    }

    /// The same for all files of a directory.
    pub(super) fn compress_all(&self, place: &str) -> Result<()> {
        run_quietly(
            Command::new("gzip")
                .args(["-9", "--no-name"])
                .args(files(&self.0.join(place))?),
        )
    }

    /// What it takes on a disk, as Debian's policy counts it: files in whole KiB, and one for each directory.
    pub(super) fn kib(&self) -> Result<u64> {
        kib_below(&self.0).with_context(|| format!("cannot look through {}", self.0.display()))
    }

    /// Makes the package; no time in it is after `epoch`, in seconds since 1970.
    pub(super) fn pack(&self, package: &Path, compression: &[&str], epoch: u64) -> Result<()> {
        let mut command = Command::new("dpkg-deb");
        command.args(["--build", "--root-owner-group"]).args(compression);
        command.arg(&self.0).arg(package);
        run_quietly(command.env("SOURCE_DATE_EPOCH", epoch.to_string()))
    }

    /// The path of a place whose directories are there then, for everybody to enter whatever our umask is.
    fn make_room(&self, place: &str) -> Result<PathBuf> {
        let path = self.0.join(place);
        let mut directory = self.0.clone();
        for part in Path::new(place).parent().into_iter().flatten() {
            directory.push(part);
            if !directory.is_dir() {
                fs::create_dir(&directory)
                    .with_context(|| format!("cannot create {}", directory.display()))?;
                set_mode(&directory, 0o755)?;
            }
        }
        Ok(path)
    }
}

fn finish(path: &Path, mode: Mode) -> Result<()> {
    set_mode(
        path,
        match mode {
            Mode::File => 0o644,
            Mode::Program => 0o755,
        },
    )
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> Result<()> {
    anyhow::bail!("Debian packages are built on Debian")
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.is_file());
    Ok(files)
}

fn kib_below(directory: &Path) -> std::io::Result<u64> {
    let mut sum = 1;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            kib_below(&entry.path())?
        } else {
            entry.metadata()?.len().div_ceil(1024)
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread::sleep, time::Duration};

    /// Any time before now.
    const EPOCH: u64 = 1_700_000_000;

    fn package(directory: &Path, name: &str, order: [&str; 3]) -> Vec<u8> {
        let tree = Tree::new(directory.join(name)).unwrap();
        let control =
            "Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x.invalid>\nDescription: x\n";
        tree.write("DEBIAN/control", Mode::File, control.as_bytes())
            .unwrap();
        for place in order {
            tree.write(place, Mode::File, place.as_bytes()).unwrap();
        }
        tree.compress("usr/share/doc/x/changelog").unwrap();
        let file = directory.join(format!("{name}.deb"));
        tree.pack(&file, &["-Zxz"], EPOCH).unwrap();
        fs::read(file).unwrap()
    }

    #[test]
    fn the_same_files_make_the_same_package_at_another_time() {
        if crate::process::find("dpkg-deb").is_none() {
            eprintln!("skipped: there is no dpkg-deb");
            return;
        }
        let directory = std::env::temp_dir().join(format!("cove-xtask-deb-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let places = ["usr/share/doc/x/changelog", "usr/bin/b", "usr/bin/a"];
        let first = package(&directory, "first", places);
        // Times in archives are whole seconds.
        sleep(Duration::from_millis(1100));
        let second = package(&directory, "second", [places[2], places[0], places[1]]);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn sizes_are_counted_in_whole_kib() {
        let directory = std::env::temp_dir().join(format!("cove-xtask-kib-{}", std::process::id()));
        let tree = Tree::new(directory.clone()).unwrap();
        tree.write("usr/a", Mode::File, &[0; 1025]).unwrap();
        tree.write("usr/b", Mode::File, b"").unwrap();
        let kib = tree.kib().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        // Two directories and a file of two.
        assert_eq!(kib, 4);
    }
}
