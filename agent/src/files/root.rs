//! The container's root, or a volume, as this process's own.
//!
//! A running container is entered through its first process, so that what is mounted in it is there. The layers of
//! one that does not run are put together once more, only to be read, in a mount that has no place in any tree and goes
//! with this process.

use super::FilesError;
use crate::mountinfo::mount_points;
use cove_wire::FilesRoot;
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    },
    process::{chdir, chroot, fchdir},
};
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The engine's image has no more layers than this.
const MAX_LAYERS: usize = 512;
/// Where the engine keeps layers. Nothing else is read as one.
const LAYERS: &str = "/var/lib/docker";
/// Where the engine keeps volumes: each in a folder by its name, in one that is called `_data`.
const VOLUMES: &str = "/var/lib/docker/volumes";
/// See [`VOLUMES`].
const CONTENT: &str = "_data";

/// An entered root.
#[derive(Debug)]
pub(super) struct Root {
    /// What is mounted in it, by paths from its root. Those of layers are none.
    mounts: Vec<PathBuf>,
}

impl Root {
    /// Enters it. There is no way back.
    pub(super) fn enter(root: &FilesRoot) -> Result<Self, FilesError> {
        let (directory, mounts) = match root {
            FilesRoot::Running { pid, container } => running(*pid, container)?,
            FilesRoot::Layers(layers) => (overlay(layers)?, Vec::new()),
            FilesRoot::Volume(folder) => volume(folder)?,
        };
        fchdir(&directory).map_err(step("fchdir"))?;
        chroot(".").map_err(step("chroot"))?;
        chdir("/").map_err(step("chdir"))?;
        Ok(Self { mounts })
    }

    /// Refuses what is a mount or holds one: removing would reach into volumes and the host's folders.
    pub(super) fn check_no_mount_in(&self, path: &Path) -> Result<(), FilesError> {
        match self.mounts.iter().find(|mount| mount.starts_with(path)) {
            Some(mount) => Err(FilesError::Mounted { mount: mount.clone() }),
            None => Ok(()),
        }
    }
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> FilesError {
    move |source| FilesError::Enter {
        step,
        source: source.into(),
    }
}

fn running(pid: i32, container: &str) -> Result<(OwnedFd, Vec<PathBuf>), FilesError> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let directory = openat(
        CWD,
        process.join("root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|_| FilesError::Gone)?;
    let mounts = fs::read(process.join("mountinfo")).map_err(|_| FilesError::Gone)?;
    // Asked last: if the process is the container's now, the directory was its, too.
    let cgroup = fs::read_to_string(process.join("cgroup")).map_err(|_| FilesError::Gone)?;
    if container.len() < 12 || !cgroup.contains(container) {
        return Err(FilesError::Gone);
    }
    Ok((directory, mounts_in(&mounts)))
}

fn volume(folder: &str) -> Result<(OwnedFd, Vec<PathBuf>), FilesError> {
    check_volume(folder)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, folder, flags, Mode::empty()).map_err(step("the volume"))?;
    let mounts = fs::read("/proc/self/mountinfo").map_err(step("what is mounted"))?;
    let within = mount_points(&mounts)
        .filter_map(|point| Some(Path::new("/").join(point.strip_prefix(folder).ok()?)))
        .filter(|point| point != Path::new("/"));
    Ok((directory, within.collect()))
}

/// Refuses what is not the content of one of the engine's volumes.
fn check_volume(folder: &str) -> Result<(), FilesError> {
    let below = Path::new(folder).strip_prefix(VOLUMES);
    let mut parts = below.into_iter().flat_map(Path::components);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Component::Normal(_)), Some(Component::Normal(content)), None) if content == CONTENT => Ok(()),
        _ => Err(FilesError::Path(folder.to_owned())),
    }
}

fn overlay(layers: &[String]) -> Result<OwnedFd, FilesError> {
    if layers.len() > MAX_LAYERS {
        return Err(FilesError::Path(format!("{} layers", layers.len())));
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
    for layer in layers {
        check_layer(layer)?;
        // One by one: all in one string would not fit for an image of many layers.
        fsconfig_set_string(&overlay, "lowerdir+", layer.as_str()).map_err(step("a layer"))?;
    }
    fsconfig_create(&overlay).map_err(step("the layers together"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("fsmount"))
}

/// Refuses what is not below the engine's directory, or leads out of it.
fn check_layer(layer: &str) -> Result<(), FilesError> {
    let below = Path::new(layer).strip_prefix(LAYERS);
    let mut parts = below.into_iter().flat_map(Path::components).peekable();
    if parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    Err(FilesError::Path(layer.to_owned()))
}

/// What is mounted in a root, but for the root itself.
fn mounts_in(mountinfo: &[u8]) -> Vec<PathBuf> {
    mount_points(mountinfo)
        .filter(|point| point != Path::new("/"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_mount_is_told_from_what_only_begins_alike() {
        let text =
            b"21 20 0:5 / / rw - overlay overlay rw\n22 21 0:6 / /srv/my\\040data rw - ext4 /dev/vdb rw\n";
        let root = Root {
            mounts: mounts_in(text),
        };
        assert_eq!(root.mounts, [Path::new("/srv/my data")]);
        assert!(root.check_no_mount_in(Path::new("/srv")).is_err());
        assert!(root.check_no_mount_in(Path::new("/srv/my data")).is_err());
        assert!(root.check_no_mount_in(Path::new("/srv/my data/file")).is_ok());
        assert!(root.check_no_mount_in(Path::new("/srv/my")).is_ok());
    }

    #[test]
    fn only_what_the_engine_keeps_is_taken_for_a_layer() {
        for layer in [
            "/var/lib/docker/overlay2/5f0a/diff",
            "/var/lib/docker/overlay2/l/X..Y",
        ] {
            assert!(check_layer(layer).is_ok(), "{layer}");
        }
        for layer in [
            "",
            "relative",
            "/etc",
            "/var/lib/docker",
            "/var/lib/docker/",
            "/var/lib/dockerish/diff",
            "/var/lib/docker/..",
            "/var/lib/docker/overlay2/..",
            "/var/lib/docker/../../../etc",
            "/var/lib/../lib/docker/diff",
            "./var/lib/docker/diff",
        ] {
            assert!(check_layer(layer).is_err(), "{layer}");
        }
    }

    #[test]
    fn only_the_content_of_a_volume_is_taken_for_one() {
        assert!(check_volume("/var/lib/docker/volumes/shop_data/_data").is_ok());
        for folder in [
            "",
            "/",
            "/var/lib/docker/volumes",
            "/var/lib/docker/volumes/shop_data",
            "/var/lib/docker/volumes/_data",
            "/var/lib/docker/volumes/../_data",
            "/var/lib/docker/volumes/shop_data/../_data",
            "/var/lib/docker/volumes/shop_data/_data/inner",
            "/var/lib/docker/volumes/shop_data/_data/..",
            "/var/lib/docker/overlay2/5f0a/_data",
            "var/lib/docker/volumes/shop_data/_data",
        ] {
            assert!(check_volume(folder).is_err(), "{folder}");
        }
    }

    #[test]
    fn a_process_that_is_not_the_containers_is_not_entered() {
        let ours = std::process::id().try_into().expect("it fits");
        assert!(running(ours, "0123456789abcdef").is_err());
    }
}
