//! A shared folder beside one that is not shared, with every kind of way that must not lead there.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_sys_util::signal::{block_signal, get_blocked_signals};

/// What the file outside holds.
const SECRET: &[u8] = b"what no guest is to read 4f1c9a";
/// Most bytes of a file that this process writes.
const LARGEST: u64 = 4 << 20;
/// `SIGXFSZ` of Linux, by which a process dies that would write more, unless it is blocked.
const FILE_TOO_LARGE: i32 = 25;

/// See the module's header.
pub(super) struct Trap {
    dir: PathBuf,
    /// What lies outside of the share, as it was.
    before: Vec<Seen>,
}

/// All by which a change of a file shows.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    inode: u64,
    mode: u32,
    links: u64,
    size: u64,
    changed: (i64, i64),
}

impl Trap {
    /// Makes `share` and `outside` in `dir`. What this thread does from now on, and those that it starts, makes no
    /// large files: a guest may, but that is of no use here.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        limit_files()?;
        let (share, outside) = (dir.join("share"), dir.join("outside"));
        std::fs::create_dir_all(share.join("d"))?;
        std::fs::create_dir_all(outside.join("dir"))?;
        std::fs::write(outside.join("secret"), SECRET)?;
        std::fs::write(share.join("f"), b"mine")?;
        symlink(&outside, share.join("out"))?;
        symlink(outside.join("secret"), share.join("file"))?;
        symlink("../outside", share.join("relative"))?;
        symlink("/proc/self/root", share.join("magic"))?;
        let mut trap = Self {
            dir: dir.to_owned(),
            before: Vec::new(),
        };
        trap.before = trap.look()?;
        Ok(trap)
    }

    /// The folder that is shared.
    pub(super) fn share(&self) -> PathBuf {
        self.dir.join("share")
    }

    /// That nothing outside of the share was changed, and that `told` does not hold what was not to be read.
    pub(super) fn check(&self, told: &[u8]) -> Result<()> {
        let now = self.look()?;
        ensure!(
            now == self.before,
            "outside of the share {:?} became {now:?}",
            self.before
        );
        ensure!(
            std::fs::read(self.dir.join("outside/secret"))? == SECRET,
            "the file outside of the share was changed"
        );
        // Byte by byte: a fuzzer takes what is compared as a whole for a word to try.
        let is_secret = |window: &[u8]| window.iter().zip(SECRET).all(|(told, secret)| told == secret);
        ensure!(
            !told.windows(SECRET.len()).any(is_secret),
            "the guest read the file outside of the share"
        );
        Ok(())
    }

    fn look(&self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for name in ["outside", "outside/dir", "outside/secret"] {
            let path = self.dir.join(name);
            let found = std::fs::symlink_metadata(&path).with_context(|| format!("{name} is gone"))?;
            seen.push(Seen {
                path,
                inode: found.ino(),
                mode: found.mode(),
                links: found.nlink(),
                size: found.size(),
                changed: (found.ctime(), found.ctime_nsec()),
            });
        }
        Ok(seen)
    }
}

/// Holds for this process, and what it means for this thread and those that it starts.
fn limit_files() -> Result<()> {
    let blocked = get_blocked_signals().map_err(Error::msg)?;
    if !blocked.contains(&FILE_TOO_LARGE) {
        block_signal(FILE_TOO_LARGE).map_err(Error::msg)?;
    }
    let limit = Rlimit {
        current: Some(LARGEST),
        ..getrlimit(Resource::Fsize)
    };
    setrlimit(Resource::Fsize, limit).context("cannot limit the size of files")
}
