//! The data disk: the only thing in the guest that persists, so nothing here destroys anything. A disk is made into a
//! file system only when it is blank, and used only when it carries ours.
//!
//! ```text
//!             ┌ blank, unfinished ─▶ make ─┐
//!  look ──────┼ ours, clean ───────────────┼─▶ mount ─▶ grow, when the disk is larger ─▶ in use
//!             ├ ours, check due ─▶ e2fsck ─┘      │
//!             └ anything else ────────────────────┴─▶ refused: the engine is not started, the shell is
//! ```

mod format;
mod superblock;
mod trim;
mod unmount;

pub(crate) use unmount::unmount_all;

use crate::process::{
    Child,
    confine::{Confinement, Session, confine},
};
use cove_wire::{Fault, FaultCode};
use rustix::{
    fs::statvfs,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, mount_bind, move_mount,
    },
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use superblock::{Content, HEAD, Superblock};

/// Where the data disk is mounted: out of the way of the host's folders, which have the paths that they have there.
pub(crate) const MOUNT_POINT: &str = "/run/cove/data";

/// Directories on the data disk, and where programs expect them.
const DIRECTORIES: [(&str, &str); 2] = [
    ("docker", "/var/lib/docker"),
    ("containerd", "/var/lib/containerd"),
];

/// How much of a disk's beginning and end must be zero for the disk to be blank. File systems, volume managers and
/// partition tables have their signatures there.
const BLANK: u64 = 1 << 20;

/// The smallest disk that holds an engine's data.
const SMALLEST: u64 = 64 << 20;

/// A disk is larger than its file system from here on. Less may not be enough for another group of blocks.
const WORTH_GROWING: u64 = 160 << 20;

/// Why the data disk is not in use. Says what to do, because it is shown as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The disk could not be read or written.
    #[error("the data disk {disk} could not be {what}: {source}; check the disk's file on the host")]
    Disk {
        disk: String,
        what: &'static str,
        source: io::Error,
    },
    /// The disk is not large enough.
    #[error("the data disk {disk} has only {size} bytes; make it at least 64 MiB large")]
    Small { disk: String, size: u64 },
    /// The disk is not ours.
    #[error(
        "the data disk {disk} holds {content}, which is not a Cove data file system, and was left alone; \
         look at it with `cove shell`, or stop the machine and move its data.img on the host elsewhere: the next start \
         makes an empty one"
    )]
    Foreign { disk: String, content: String },
    /// A program of e2fsprogs failed.
    #[error("{program} failed on the data disk {disk} ({why}); nothing was changed by force: {remedy}")]
    Tool {
        program: &'static str,
        disk: String,
        why: String,
        remedy: &'static str,
    },
    /// The file system could not be mounted.
    #[error(
        "the data file system on {disk} could not be mounted: {source}; `cove shell` and then `e2fsck -f {disk}` \
         checks it by hand"
    )]
    Mount { disk: String, source: io::Error },
}

impl From<DataError> for Fault {
    fn from(error: DataError) -> Self {
        Self::new(FaultCode::Failed, error.to_string())
    }
}

/// A data disk whose file system is ready to be put in its place.
pub(crate) struct Mounted {
    disk: PathBuf,
    mount: OwnedFd,
    size: u64,
}

/// Looks at `disk` and makes what is needed of it. `tools` completes when e2fsprogs can be run, which a clean disk
/// does not wait for.
pub(crate) async fn open(disk: &Path, tools: impl Future<Output = ()>) -> Result<Mounted, DataError> {
    let content = blocking(disk, "read", look).await?;
    match content {
        Content::Ours(Superblock {
            needs_check: false, ..
        }) => {}
        Content::Ours(_) => {
            tools.await;
            check(disk).await?;
        }
        Content::Empty | Content::Unfinished => {
            tools.await;
            make(disk).await?;
        }
        Content::Foreign(content) => {
            return Err(DataError::Foreign {
                disk: name(disk),
                content,
            });
        }
    }
    let size = match content {
        Content::Ours(superblock) => superblock.size,
        _ => u64::MAX,
    };
    let mount = {
        let disk = disk.to_owned();
        tokio::task::spawn_blocking(move || mount(&disk)).await
    };
    let mount = mount
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| DataError::Mount {
            disk: name(disk),
            source,
        })?;
    Ok(Mounted {
        disk: disk.to_owned(),
        mount,
        size,
    })
}

impl Mounted {
    /// Puts the file system and its directories in their places, and grows it when the disk has grown. Gives back
    /// the disk for [`grow`], and what went wrong with growing, which does not keep the data from being used.
    pub(crate) async fn place(self) -> Result<Option<DataError>, DataError> {
        place(&self.mount).map_err(|source| DataError::Mount {
            disk: name(&self.disk),
            source,
        })?;
        let size = device_size(&self.disk).unwrap_or(0);
        if size.saturating_sub(self.size) < WORTH_GROWING {
            return Ok(None);
        }
        tracing::info!(from = self.size, to = size, "growing the data file system");
        Ok(grow(&self.disk).await.err())
    }
}

/// Grows the mounted file system to the size of `disk`.
pub(crate) async fn grow(disk: &Path) -> Result<(), DataError> {
    let mut resize = Command::new("/usr/sbin/resize2fs");
    run(
        "resize2fs",
        resize.arg(disk),
        disk,
        "the data is as it was",
        |code| code == 0,
    )
    .await
}

/// Bytes that the mounted file system has, and those that are in use.
pub(crate) fn usage() -> Option<(u64, u64)> {
    let stat = statvfs(MOUNT_POINT).ok()?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Some((
        stat.f_blocks.saturating_mul(stat.f_frsize),
        used.saturating_mul(stat.f_frsize),
    ))
}

/// Discards the unused blocks, and gives the number of bytes.
pub(crate) async fn trim() -> io::Result<u64> {
    tokio::task::spawn_blocking(|| trim::trim(Path::new(MOUNT_POINT)))
        .await
        .map_err(io::Error::other)?
}

fn look(disk: &Path) -> io::Result<Content> {
    let file = File::open(disk)?;
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0)?;
    let content = Content::of(&head);
    if content == Content::Empty && !is_blank(&file, device_size(disk)?)? {
        return Ok(Content::Foreign("data behind an empty first block".into()));
    }
    Ok(content)
}

/// Whether the beginning and the end of a disk of `size` bytes are zero.
fn is_blank(disk: &File, size: u64) -> io::Result<bool> {
    let length = BLANK.min(size);
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
    for at in [0, size - length] {
        disk.read_exact_at(&mut buffer, at)?;
        if buffer.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn device_size(disk: &Path) -> io::Result<u64> {
    Ok(rustix::fs::seek(File::open(disk)?, rustix::fs::SeekFrom::End(0))?)
}

async fn make(disk: &Path) -> Result<(), DataError> {
    tracing::info!(disk = name(disk), "making the data file system");
    let size = blocking(disk, "read", device_size).await?;
    if size < SMALLEST {
        return Err(DataError::Small {
            disk: name(disk),
            size,
        });
    }
    let draft = Path::new(format::DRAFT);
    blocking(disk, "prepared", move |_| format::make_draft(draft, size)).await?;
    let made = run(
        "mkfs.ext4",
        &mut format::mkfs(size),
        disk,
        "start the machine again",
        |code| code == 0,
    )
    .await;
    let copied = match made {
        Ok(()) => blocking(disk, "written", move |disk| format::copy(draft, disk)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = fs::remove_file(draft) {
        tracing::warn!("removing {} failed: {error}", draft.display());
    }
    copied
}

/// `e2fsck -p` repairs what can be repaired without a question, and fails on everything else.
async fn check(disk: &Path) -> Result<(), DataError> {
    tracing::warn!(disk = name(disk), "checking the data file system");
    let mut e2fsck = Command::new("/sbin/e2fsck");
    // Exit status 1: errors were corrected. 2: and a mounted root would have to be rebooted, which this is not.
    let repaired = |code| (0..=3).contains(&code);
    let remedy = "`cove shell` and then `e2fsck -f` repairs it by hand";
    run("e2fsck", e2fsck.arg("-p").arg(disk), disk, remedy, repaired).await
}

async fn run(
    program: &'static str,
    command: &mut Command,
    disk: &Path,
    remedy: &'static str,
    good: impl FnOnce(i32) -> bool,
) -> Result<(), DataError> {
    let failed = |why| DataError::Tool {
        program,
        disk: name(disk),
        why,
        remedy,
    };
    confine(
        command,
        Confinement {
            session: Session::Group,
            cgroup: None,
            oom_score: "-900",
        },
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Child::spawn(command).map_err(|error| failed(error.to_string()))?;
    let log = crate::logs::Log::default();
    let output = [child.stdout.take(), child.stderr.take()].into_iter().flatten();
    let readers: Vec<_> = output
        .map(|pipe| tokio::spawn(log.clone().fill_from(pipe)))
        .collect();
    let exit = child.wait().await;
    for reader in readers {
        // What cannot be read only makes the message shorter.
        let _ = reader.await;
    }
    let said = log.last_lines(8);
    tracing::info!(program, %exit, "{said}");
    if good(exit.code()) {
        return Ok(());
    }
    Err(failed(format!("{exit}, {}", one_line(&said))))
}

/// The lines of `text` that are not empty, on one line.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Mounts the file system without putting it anywhere yet: where it goes may not be there.
fn mount(disk: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", disk)?;
    fsconfig_set_flag(context, "discard")?;
    fsconfig_set_string(context, "errors", "remount-ro")?;
    fsconfig_create(context)?;
    Ok(fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOATIME,
    )?)
}

fn place(mount: &OwnedFd) -> io::Result<()> {
    let data = Path::new(MOUNT_POINT);
    fs::create_dir_all(data)?;
    move_mount(
        mount,
        "",
        rustix::fs::CWD,
        data,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    for (directory, place) in DIRECTORIES {
        let directory = data.join(directory);
        match rustix::fs::mkdir(&directory, rustix::fs::Mode::from_raw_mode(0o710)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        fs::create_dir_all(place)?;
        mount_bind(&directory, place)?;
    }
    Ok(())
}

/// Runs what blocks on the disk beside the agent's one thread.
async fn blocking<T: Send + 'static>(
    disk: &Path,
    what: &'static str,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, DataError> {
    let path = disk.to_owned();
    let result = tokio::task::spawn_blocking(move || work(&path)).await;
    result
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| DataError::Disk {
            disk: name(disk),
            what,
            source,
        })
}

fn name(disk: &Path) -> String {
    disk.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(writes: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SMALLEST).unwrap();
        for (at, data) in writes {
            file.as_file().write_all_at(data, *at).unwrap();
        }
        file
    }

    #[test]
    fn a_disk_of_zeroes_is_blank() {
        assert_eq!(look(disk(&[]).path()).unwrap(), Content::Empty);
    }

    #[test]
    fn a_signature_behind_the_first_block_or_at_the_end_is_not_blank() {
        for at in [4096, 64 << 10, BLANK - 1, SMALLEST - 512] {
            assert!(
                matches!(look(disk(&[(at, b"x")]).path()).unwrap(), Content::Foreign(_)),
                "at {at}"
            );
        }
    }

    #[test]
    fn a_disk_shorter_than_a_block_is_an_error_and_not_blank() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(look(file.path()).is_err());
    }
}
