//! Taking the data disk out of use.

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
};
use std::{fs, io, path::Path, time::Duration};

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
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => {
            for mount in targets(&mounts) {
                if let Err(error) = persistently(&mount) {
                    failed.push(format!("unmounting {mount} failed: {error}"));
                }
            }
        }
        Err(error) => failed.push(format!("reading the list of mounts failed: {error}")),
    }
    rustix::fs::sync();
    failed
}

fn persistently(mount: &str) -> io::Result<()> {
    for _ in 0..TRIES {
        match unmount(mount, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            // Gone already, with the process or the mount that it belonged to.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            result => return Ok(result?),
        }
    }
    let remounted = mount_remount(Path::new(mount), MountFlags::RDONLY, c"");
    unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(remounted?)
}

/// Mount points to unmount, in order.
fn targets(mountinfo: &str) -> Vec<String> {
    let mount_points = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    let mut targets: Vec<String> = mount_points.filter(|mount| is_ours(mount)).collect();
    targets.reverse();
    targets
}

fn is_ours(mount: &str) -> bool {
    PREFIXES.iter().any(|prefix| {
        mount
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let digits = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = digits.filter(u8::is_ascii) {
            text.push(char::from(byte));
            rest = &rest[at + 4..];
        } else {
            text.push('\\');
            rest = &rest[at + 1..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_on_the_data_disk_go_last_mounted_first_and_others_stay() {
        let mountinfo = "\
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
        );
    }

    proptest! {
        #[test]
        fn escaped_names_read_back(name in "[ a-zA-Z0-9\\\\\t\n/ü]{0,40}") {
            let escape = |c: char| match c {
                ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
                other => other.to_string(),
            };
            let escaped: String = name.chars().map(escape).collect();
            prop_assert_eq!(unescape(&escaped), name);
        }

        #[test]
        fn arbitrary_fields_never_panic(field in ".{0,60}") {
            unescape(&field);
        }
    }
}
