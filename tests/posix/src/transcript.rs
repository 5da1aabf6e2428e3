//! What a scenario saw, line by line, without what may rightly differ from one directory to another.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

/// See the module's header.
#[derive(Debug)]
pub struct Transcript {
    dir: PathBuf,
    /// Labels, and what was seen.
    pub lines: Vec<(String, String)>,
}

impl Transcript {
    /// Of what is seen in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            lines: Vec::new(),
        }
    }

    /// A path in the scenario's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes down what an operation returned.
    pub(crate) fn saw<T: Debug>(&mut self, label: &str, result: T) {
        self.lines.push((label.to_owned(), format!("{result:?}")));
    }

    /// Writes down a file's status.
    pub(crate) fn stat(&mut self, name: &str) {
        let status = rustix::fs::statx(
            CWD,
            self.path(name),
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        )
        .map(|stat| {
            let size = if stat.stx_mode & 0o170_000 == 0o040_000 {
                0
            } else {
                stat.stx_size
            };
            format!(
                "{:o} {}:{} links {} size {size} device {}:{}",
                stat.stx_mode,
                stat.stx_uid,
                stat.stx_gid,
                stat.stx_nlink,
                stat.stx_rdev_major,
                stat.stx_rdev_minor
            )
        });
        self.saw(&format!("status of {name}"), status);
    }

    /// Makes a file with these bytes.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&mut self, name: &str) {
        let names = std::fs::read_dir(self.path(name)).map(|entries| {
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        });
        self.saw(
            &format!("list of {name}"),
            names.map_err(|error| error.raw_os_error()),
        );
    }

    /// Opens a file.
    pub(crate) fn open(&self, name: &str, flags: OFlags, mode: u32) -> Result<rustix::fd::OwnedFd, Errno> {
        rustix::fs::open(
            self.path(name),
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode),
        )
    }
}

/// The error alone, to write down.
pub(crate) fn error<T, E: Debug>(result: Result<T, E>) -> Result<(), E> {
    result.map(drop)
}
