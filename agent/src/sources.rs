//! Where the bind mounts of a container come from.
//!
//! A folder of the host's is in the guest as long as it is shared. Where it is not, dockerd makes a directory of its
//! name whenever a container starts that is to mount it. The gateway refuses what clients ask for, but dockerd starts
//! containers by itself, too: after a boot, and when one ended that is to be restarted; and it hears of containers in
//! containers. A directory like that looks like the folder, empty, and lives in the guest's memory: a database would
//! begin anew in it and be gone with the machine. So the runtime looks at each source once more, and a container with
//! one of these does not start.
//!
//! dockerd's own view of the guest could be read-only instead, so that it made no directories. But folders of the host's
//! may be below `/run` and `/tmp`, which the engine writes to itself, and a share that is gone leaves its mount point.

use crate::mountinfo::{Mount, mounts};
use cove_wire::guest_folder;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What is in the guest's memory, and so gone with the machine.
const IN_MEMORY: [&[u8]; 2] = [b"overlay", b"tmpfs"];

/// Where the guest's memory is mounted in which dockerd makes directories. What else is in memory somebody has mounted.
const OF_THE_GUEST: [&str; 3] = ["/", "/run", "/tmp"];

/// The type of the file system through which all shares come.
const SHARED: &[u8] = b"virtiofs";

/// The first folder that a bind mount of the container in `bundle` (OCI runtime specification, "Filesystem Bundle") comes
/// from where one of the host's could be, and is none.
pub(crate) fn unshared(bundle: &Path) -> io::Result<Option<String>> {
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    let list = fs::read("/proc/self/mountinfo")?;
    let mounts: Vec<Mount<'_>> = mounts(&list).collect();
    let found = sources(&config).find_map(|source| unshared_folder(Path::new(source), &mounts));
    Ok(found.map(|folder| folder.to_string_lossy().into_owned()))
}

/// The sources of the bind mounts that a container's configuration names.
fn sources(config: &Value) -> impl Iterator<Item = &str> {
    let mounts = config["mounts"].as_array().into_iter().flatten();
    mounts
        .filter(|mount| {
            let mut options = mount["options"].as_array().into_iter().flatten();
            mount["type"] == "bind" || options.any(|option| option == "bind" || option == "rbind")
        })
        .filter_map(|mount| mount["source"].as_str())
}

/// The folder that `source` is in the end, by links and volumes with `o=bind`, if one of the host's could be there, and
/// none is.
fn unshared_folder(source: &Path, mounts: &[Mount<'_>]) -> Option<PathBuf> {
    // The runtime follows links as well. What is missing it finds itself, unless a share is missing around it.
    let end = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let folder = place_of_the_hosts(&end, mounts)?;
    // dockerd makes directories only: anything else is the guest's, such as the engine's socket.
    let made = fs::metadata(&end).map_or(true, |found| found.is_dir());
    made.then_some(folder)
}

/// Where `path`, in which there is no link, is in the guest's memory, if a folder of the host's could be there.
fn place_of_the_hosts(path: &Path, mounts: &[Mount<'_>]) -> Option<PathBuf> {
    let around = || mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Also what a container has mounted within a share.
    if around().any(|mount| mount.kind == SHARED) {
        return None;
    }
    // Of several at one path the last one is on top.
    let Some(mount) = around().max_by_key(|mount| mount.point.components().count()) else {
        return Some(path.to_owned());
    };
    let (origin, whole) = origin(path, mount, mounts);
    let is_somebodys = whole.is_some_and(|whole| !OF_THE_GUEST.map(Path::new).contains(&whole));
    let could_be = IN_MEMORY.contains(&mount.kind) && !is_somebodys && guest_folder(&origin).is_none();
    could_be.then_some(origin)
}

/// Where `path`, which is in `mount`, has its file system as a whole, and where that is mounted. A volume with `o=bind`
/// is a bind mount of another path, below dockerd's own directory.
fn origin<'m>(path: &Path, mount: &Mount<'_>, mounts: &'m [Mount<'_>]) -> (PathBuf, Option<&'m Path>) {
    let whole = |other: &&Mount<'_>| other.device == mount.device && other.root == Path::new("/");
    let parts = (mount.root.strip_prefix("/"), path.strip_prefix(&mount.point));
    match (mounts.iter().find(whole), parts) {
        (Some(whole), (Ok(root), Ok(rest))) => {
            // Of parts, since the last one may be empty.
            let origin = whole.point.join(root).join(rest).components().collect();
            (origin, Some(&*whole.point))
        }
        _ => (path.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MOUNTS: &[u8] = b"\
20 1 0:20 / / rw shared:1 - overlay overlay rw
21 20 0:21 / /run rw shared:2 - tmpfs tmpfs rw
22 20 0:22 / /tmp rw shared:3 - tmpfs tmpfs rw
23 21 254:16 / /run/cove/data rw shared:4 - ext4 /dev/vdb rw
24 20 254:16 /docker /var/lib/docker rw shared:4 - ext4 /dev/vdb rw
25 21 0:23 / /run/cove/shares rw shared:5 - virtiofs cove rw
26 20 0:23 /0123 /home/u rw shared:5 - virtiofs cove rw
27 26 0:24 / /home/u/inner rw shared:6 - tmpfs none rw
28 22 0:23 /4567 /tmp/shared rw shared:5 - virtiofs cove rw
29 24 0:20 /data/pg /var/lib/docker/volumes/lost/_data rw shared:1 - overlay overlay rw
30 24 0:23 /0123/v /var/lib/docker/volumes/kept/_data rw shared:5 - virtiofs cove rw
31 24 0:25 / /var/lib/docker/containers/1/mounts/shm rw - tmpfs shm rw
32 20 0:26 / /mnt/remote rw - nfs4 server:/x rw
33 20 0:27 / /dev rw - devtmpfs dev rw
34 20 0:28 / /mnt/fast rw - tmpfs none rw
";

    fn could_be(path: &str) -> bool {
        let mounts: Vec<Mount<'_>> = mounts(MOUNTS).collect();
        place_of_the_hosts(Path::new(path), &mounts).is_some()
    }

    #[test]
    fn a_volume_is_told_by_the_folder_that_it_leads_to() {
        let mounts: Vec<Mount<'_>> = mounts(MOUNTS).collect();
        let told = place_of_the_hosts(Path::new("/var/lib/docker/volumes/lost/_data"), &mounts);
        assert_eq!(told.as_deref(), Some(Path::new("/data/pg")));
    }

    /// It was an empty directory, in which a database began anew.
    #[test]
    fn a_source_is_unshared_where_a_folder_of_the_hosts_could_be_and_memory_is() {
        for path in [
            "/data/pg",
            "/data",
            "/home/v",
            "/home",
            "/tmp/x",
            "/run/media/u/disk",
            "/var/lib/docker/volumes/lost/_data",
        ] {
            assert!(could_be(path), "{path}");
        }
    }

    #[test]
    fn shares_volumes_and_what_the_guest_has_itself_are_mounted_as_ever() {
        for path in [
            "/home/u",
            "/home/u/project",
            "/home/u/inner/x",
            "/tmp/shared/x",
            "/var/lib/docker/volumes/named/_data",
            "/var/lib/docker/volumes/kept/_data",
            "/var/lib/docker/containers/1/hosts",
            "/var/lib/docker/containers/1/mounts/shm",
            "/mnt/remote/x",
            "/mnt/fast/x",
            "/dev/fuse",
            "/lib/modules",
            "/usr/bin/docker-init",
            "/etc/localtime",
            "/",
        ] {
            assert!(!could_be(path), "{path}");
        }
    }

    #[test]
    fn bind_mounts_are_told_by_their_type_or_an_option() {
        let config = json!({"mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/a", "type": "bind", "source": "/a"},
            {"destination": "/b", "source": "/b", "options": ["ro", "rbind"]},
            {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        ]});
        assert_eq!(sources(&config).collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!(sources(&json!({})).count(), 0);
    }

    #[test]
    fn a_file_or_a_socket_is_none_of_the_directories_that_dockerd_makes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        fs::write(path.join("file"), "").unwrap();
        let list = b"20 1 0:20 / / rw - overlay overlay rw\n";
        let mounts: Vec<Mount<'_>> = mounts(list).collect();
        assert_eq!(unshared_folder(&path, &mounts), Some(path.clone()));
        assert!(unshared_folder(&path.join("missing"), &mounts).is_some());
        let _listener = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        for made_by_others in ["file", "socket"] {
            assert!(unshared_folder(&path.join(made_by_others), &mounts).is_none());
        }
    }
}
