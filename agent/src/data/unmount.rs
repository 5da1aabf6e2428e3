//! Taking the data disk out of use.

use crate::mountinfo::mount_points;
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything below these is on the data disk, or in its way.
const PREFIXES: [&str; 5] = [
    "/run/cove/data",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/run/docker",
    "/run/containerd",
];

/// How often a busy mount is tried, and the pause between. Killed processes let go of their files one by one.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Unmounts the data disk and what is on it, the last mount first. What stays busy is made read-only and let go, so
/// that the file system is whole whatever happens next. Gives back what did not go in order.
pub(crate) fn unmount_all() -> Vec<String> {
    let mut failed = Vec::new();
    match fs::read("/proc/self/mountinfo") {
        Ok(mounts) => {
            for mount in targets(&mounts) {
                if let Err(error) = persistently(&mount) {
                    failed.push(format!("unmounting {} failed: {error}", mount.display()));
                }
            }
        }
        Err(error) => failed.push(format!("reading the list of mounts failed: {error}")),
    }
    rustix::fs::sync();
    failed
}

fn persistently(mount: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match unmount(mount, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            // Gone already, with the process or the mount that it belonged to.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            result => return Ok(result?),
        }
    }
    let remounted = mount_remount(mount, MountFlags::RDONLY, c"");
    unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(remounted?)
}

/// Mount points to unmount, in order.
fn targets(mountinfo: &[u8]) -> Vec<PathBuf> {
    mount_points(mountinfo)
        .rev()
        .filter(|mount| PREFIXES.iter().any(|prefix| mount.starts_with(prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_on_the_data_disk_go_last_mounted_first_and_others_stay() {
        let mountinfo = b"\
22 1 0:20 / / rw - overlay overlay rw
23 22 0:21 / /run/cove/database rw - tmpfs t rw
24 22 254:16 / /run/cove/data rw,noatime shared:1 - ext4 /dev/vdb rw
25 22 254:16 /docker /var/lib/docker rw - ext4 /dev/vdb rw
26 25 0:40 / /var/lib/docker/overlay2/a\\040b/merged rw - overlay overlay rw
27 22 0:41 / /run/docker/netns/x rw - nsfs nsfs rw
";
        assert_eq!(
            targets(mountinfo),
            [
                "/run/docker/netns/x",
                "/var/lib/docker/overlay2/a b/merged",
                "/var/lib/docker",
                "/run/cove/data"
            ]
            .map(Path::new)
        );
    }
}
