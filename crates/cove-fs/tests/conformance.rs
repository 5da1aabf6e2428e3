//! POSIX behaviour, compared with a native directory: each scenario of `cove-posix` runs in both.
//!
//! The server runs as an ordinary user while the scenarios run as root and as others, as in containers.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use cove_fs::Config;

#[test]
fn a_shared_folder_behaves_like_a_native_one() {
    if !kernel::available() {
        return;
    }
    let shared = kernel::Shared::new(Config::default());
    let native = tempfile::Builder::new()
        .prefix("cove-fs-native-")
        .tempdir_in("/var/tmp")
        .unwrap();
    rustix::fs::chmod(native.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    std::os::unix::fs::chown(native.path(), Some(kernel::USER), Some(kernel::USER)).unwrap();
    let found = cove_posix::compare(native.path(), &shared.guest);
    let gone: Vec<_> = cove_posix::DIFFERENCES
        .iter()
        .filter(|known| !found.known.contains(known))
        .collect();
    assert!(gone.is_empty(), "no difference any more: {gone:?}");
    assert!(
        found.unknown.is_empty(),
        "undocumented differences:\n{}",
        found.unknown.join("\n")
    );
    let size = |path| {
        let stat = rustix::fs::statvfs(path).unwrap();
        (stat.f_blocks, stat.f_files)
    };
    assert_eq!(size(&shared.host), size(&shared.guest));
    let strangers = owned_by_others(&shared.host);
    assert!(
        strangers.is_empty(),
        "files on the host that are not the user's: {strangers:?}"
    );
}

/// Files on the host that do not belong to the user or that the user cannot edit.
fn owned_by_others(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode() & 0o7777;
        let editable = metadata.is_symlink() || (mode & 0o600 == 0o600 && mode & 0o7000 == 0);
        if metadata.uid() != kernel::USER || !editable {
            strangers.push(path.clone());
        }
        if metadata.is_dir() {
            strangers.extend(owned_by_others(&path));
        }
    }
    strangers
}
