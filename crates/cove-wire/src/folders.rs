//! Which paths in the guest are its own, and which may be folders of the host's.

use std::path::Path;

/// Folders of the guest's own, which a share would hide, or be hidden by. What is elsewhere may be a folder of the
/// host's.
const GUEST_FOLDERS: [&str; 15] = [
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run/containerd",
    "/run/cove",
    "/run/docker",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/run",
];

/// The folder of the guest's own that `path` is in, or that is in it: the reason why no folder of the host's can be at
/// this path.
pub fn guest_folder(path: &Path) -> Option<&'static str> {
    GUEST_FOLDERS
        .into_iter()
        .find(|own| path.starts_with(own) || Path::new(own).starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_its_own_of_what_is_in_its_folders_and_around_them() {
        for path in [
            "/",
            "/etc",
            "/etc/ssl/certs",
            "/var",
            "/var/lib",
            "/run",
            "/usr/lib/x",
        ] {
            assert!(guest_folder(Path::new(path)).is_some(), "{path}");
        }
        for path in [
            "/data",
            "/home/u",
            "/var/log",
            "/run/media/u",
            "/libx",
            "/tmp",
            "/run/docker.sock",
        ] {
            assert_eq!(guest_folder(Path::new(path)), None, "{path}");
        }
    }
}
