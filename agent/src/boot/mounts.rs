//! The file systems without a device that a Linux system has.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::{ffi::CString, fs, io, os::unix::fs::symlink, path::Path};

/// A file system without a device: its type, where it goes below the root, flags, options.
struct Pseudo(&'static str, &'static str, MountFlags, &'static str);

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const SAFEST: MountFlags = SAFE.union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Those that the agent itself needs: in the initramfs, and again in the root.
const FIRST: [Pseudo; 3] = [
    Pseudo("proc", "proc", SAFEST, ""),
    Pseudo("sysfs", "sys", SAFEST, ""),
    Pseudo("devtmpfs", "dev", MountFlags::NOSUID, "mode=0755"),
];

/// Those of the finished system. The sizes are shares of the memory: a full one must not take it all.
const SYSTEM: [Pseudo; 7] = [
    Pseudo("tmpfs", "run", SAFE, "mode=0755,size=20%"),
    Pseudo("tmpfs", "tmp", SAFE, "mode=1777,size=50%"),
    Pseudo("devpts", "dev/pts", DEVICES, "gid=5,mode=0620,ptmxmode=0666"),
    Pseudo("tmpfs", "dev/shm", SAFEST, "mode=1777,size=50%"),
    Pseudo("mqueue", "dev/mqueue", SAFEST, ""),
    Pseudo(
        "cgroup2",
        "sys/fs/cgroup",
        SAFEST,
        "nsdelegate,memory_recursiveprot",
    ),
    Pseudo("bpf", "sys/fs/bpf", SAFEST, "mode=0700"),
];

/// Links in `/dev` that programs expect.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("mounting {what} at {at} failed: {source}")]
pub(crate) struct MountError {
    pub(crate) what: String,
    pub(crate) at: String,
    pub(crate) source: io::Error,
}

/// Mounts `what` of the type `kind` at `at`, which is made when it is missing.
pub(crate) fn attach(
    what: &str,
    at: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), MountError> {
    let attach = || {
        fs::create_dir_all(at)?;
        let options = CString::new(options)?;
        mount(what, at, kind, flags, options.as_c_str())?;
        Ok(())
    };
    attach().map_err(|source| MountError {
        what: what.to_owned(),
        at: at.display().to_string(),
        source,
    })
}

/// Mounts what the agent itself needs below `root`.
pub(crate) fn first(root: &Path) -> Result<(), MountError> {
    FIRST.iter().try_for_each(|pseudo| pseudo.attach(root))
}

/// Mounts the rest of the system. Gives back what failed: a system without one of these is worth having.
pub(crate) fn system() -> Vec<String> {
    let mounts = SYSTEM
        .iter()
        .filter_map(|pseudo| pseudo.attach(Path::new("/")).err())
        .map(|error| error.to_string());
    let mut failed: Vec<String> = mounts.collect();
    for (target, link) in LINKS {
        // The kernel makes a device node of its own for ptmx, which would open the wrong instance of devpts.
        let _ = fs::remove_file(link);
        if let Err(error) = symlink(target, link) {
            failed.push(format!("linking {link} to {target} failed: {error}"));
        }
    }
    failed
}

/// Makes mounts that are added later show up in containers that ask for it (`rshared`, `rslave`).
pub(crate) fn share_all() -> io::Result<()> {
    Ok(mount_change(
        "/",
        MountPropagationFlags::SHARED | MountPropagationFlags::REC,
    )?)
}

impl Pseudo {
    fn attach(&self, root: &Path) -> Result<(), MountError> {
        let Self(kind, at, flags, options) = self;
        attach(kind, &root.join(at), kind, *flags, options)
    }
}
