//! What is done in a folder: the system calls that known programs make, without the programs' own work.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, futimens, open, statat, symlinkat};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

/// How much there is to do.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Directories in an archive.
    directories: usize,
    /// Packages in a project, more than [`MISSES`].
    packages: usize,
}

/// Archives of 10,000 files, projects of 2,000.
pub(crate) const WHOLE: Scale = Scale {
    directories: 100,
    packages: 125,
};
/// Enough to have everything done once.
pub(crate) const LITTLE: Scale = Scale {
    directories: 5,
    packages: 5,
};
/// Files in each directory of an archive, and in each package.
const FILES: usize = 100;
const PACKAGE_FILES: usize = 16;
/// Where Node looks for a module that is in the outermost directory, before it finds it there.
const MISSES: usize = 4;
/// Sizes of files go from this…
const LEAST: usize = 200;
/// …to this, most of them small, as in packages of npm.
const MOST: usize = 16_000;

/// Any time but now.
const LONG_AGO: Timespec = Timespec {
    tv_sec: 500_000_000,
    tv_nsec: 0,
};

/// As tar unpacks: each file is made, written and given its time.
pub(crate) fn unpack(archive: &Path, scale: Scale) -> io::Result<()> {
    let bytes = vec![b'w'; MOST];
    let times = Timestamps {
        last_access: LONG_AGO,
        last_modification: LONG_AGO,
    };
    fs::create_dir(archive)?;
    for directory in 0..scale.directories {
        let directory = archive.join(format!("directory-{directory}"));
        fs::create_dir(&directory)?;
        for number in 0..FILES {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let path = directory.join(format!("file-{number}"));
            let mut file = fs::File::from(open(&path, flags, Mode::from(0o644))?);
            file.write_all(&bytes[..size(number)])?;
            futimens(&file, &times)?;
        }
    }
    Ok(())
}

/// As find walks: lists every directory and asks for the status of everything in it.
pub(crate) fn walk(archive: &Path, scale: Scale) -> io::Result<()> {
    let mut seen = 0;
    let mut left = vec![archive.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let status = entry.metadata()?;
            if status.is_dir() {
                left.push(entry.path());
            }
            seen += 1;
        }
    }
    let expected = scale.directories * (FILES + 1);
    if seen == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{seen} were seen of {expected}")))
}

/// As npm installs: asks for every directory before it makes it, writes each file, makes it readable; links programs.
pub(crate) fn install(project: &Path, scale: Scale) -> io::Result<()> {
    let bytes = vec![b'w'; MOST];
    let modules = project.join("node_modules");
    let programs = modules.join(".bin");
    fs::create_dir_all(&programs)?;
    for package in 0..scale.packages {
        let name = format!("package-{package}");
        let package = modules.join(&name);
        for number in 0..PACKAGE_FILES {
            let (directory, file) = place(&package, number);
            fs::create_dir_all(&directory)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
            let mut file = fs::File::from(open(directory.join(file), flags, Mode::from(0o666))?);
            file.write_all(&bytes[..size(number)])?;
            rustix::fs::fchmod(&file, Mode::from(0o644))?;
        }
        symlinkat(format!("../{name}/file-1.js"), CWD, programs.join(name))?;
    }
    Ok(())
}

/// As node loads: looks for each package in vain in the packages that need it, then reads what says where it begins,
/// and its files.
pub(crate) fn load(project: &Path, scale: Scale) -> io::Result<()> {
    let modules = project.join("node_modules");
    let mut bytes = Vec::with_capacity(MOST);
    for package in 0..scale.packages {
        let name = format!("package-{package}");
        for by in 1..=MISSES {
            let by = format!("package-{}", (package + by) % scale.packages);
            let missing = modules.join(by).join("node_modules").join(&name);
            match statat(CWD, &missing, AtFlags::empty()) {
                Err(rustix::io::Errno::NOENT) => {}
                Ok(_) => return Err(io::Error::other("a file that nobody made")),
                Err(errno) => return Err(errno.into()),
            }
        }
        for number in 0..PACKAGE_FILES {
            let (directory, file) = place(&modules.join(&name), number);
            bytes.clear();
            fs::File::open(directory.join(file))?.read_to_end(&mut bytes)?;
            if bytes.len() != size(number) {
                return Err(io::Error::other("a file is not what was written"));
            }
        }
    }
    Ok(())
}

/// Where a package's file is: the one that describes it, and two directories of others.
fn place(package: &Path, number: usize) -> (std::path::PathBuf, String) {
    match number {
        0 => (package.to_path_buf(), "package.json".to_owned()),
        _ if number.is_multiple_of(2) => (package.join("lib"), format!("file-{number}.js")),
        _ => (package.to_path_buf(), format!("file-{number}.js")),
    }
}

/// The size of a file, as skewed as sizes are: half of the files are smaller than 2,200 bytes.
fn size(number: usize) -> usize {
    let spread = number * 37 % 100;
    LEAST + (MOST - LEAST) * spread * spread * spread / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_walked_and_what_is_installed_is_loaded() {
        let dir = std::env::temp_dir().join(format!("cove-files-{}", std::process::id()));
        let (archive, project) = (dir.join("archive"), dir.join("project"));
        for scale in [LITTLE, WHOLE] {
            fs::create_dir(&dir).unwrap();
            let done = unpack(&archive, scale)
                .and_then(|()| walk(&archive, scale))
                .and_then(|()| install(&project, scale))
                .and_then(|()| load(&project, scale));
            fs::remove_dir_all(&dir).unwrap();
            done.unwrap();
        }
    }
}
