//! Owners and modes that a guest gives: kept beside the file, which stays its user's.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use cove_fs::abi::{self, op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{c, parse};
use crate::sharing::{client, folder};

#[test]
fn owners_survive_a_restart_and_the_host_can_take_a_mode_back() {
    let dir = folder();
    {
        let client = client(dir.path());
        client.uid.set(999);
        let root = client.walk("share").unwrap();
        let (entry, _) = client.create(root, "f", 0o4440).unwrap();
        assert_eq!(
            (entry.attr.uid, entry.attr.gid, entry.attr.mode),
            (999, 999, 0o104_440)
        );
    }
    let on_host = std::fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!(on_host.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(on_host.mode() & 0o7777, 0o640);
    let client = client(dir.path());
    let node = client.walk("share/f").unwrap();
    let attr = client.attr(node).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (999, 999, 0o104_440));
    // The record no longer fits what the user made of the file.
    std::fs::set_permissions(dir.path().join("f"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let attr = client.attr(node).unwrap();
    assert_eq!((attr.uid, attr.mode), (999, 0o100_755));
}

/// A folder that people share with a group: what is made in it is the group's, on the host and in containers.
#[test]
fn a_setgid_directory_of_the_host_hands_its_group_on() {
    const GROUP: u32 = 4242;
    let dir = folder();
    if std::os::unix::fs::chown(dir.path(), None, Some(GROUP)).is_err() {
        eprintln!("SKIPPED: only root gives a directory to any group");
        return;
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o2775)).unwrap();
    // Later than the time at which the server may rely on timestamps, so that it remembers that there is no record.
    std::thread::sleep(Duration::from_millis(100));
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    assert_eq!(client.attr(root).unwrap().mode, 0o042_775);
    client.uid.set(70);
    let request = abi::MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let mkdir = |parent, name: &str| -> abi::EntryOut {
        parse(
            &client
                .ask(op::MKDIR, parent, &[request.as_bytes(), &c(name)])
                .unwrap(),
        )
    };
    let outer = mkdir(root, "outer");
    let inner = mkdir(outer.node, "inner");
    for entry in [outer, inner] {
        let attr = client.attr(entry.node).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode), (70, GROUP, 0o042_755));
    }
    let (file, _) = client.create(inner.node, "f", 0o644).unwrap();
    assert_eq!((file.attr.uid, file.attr.gid), (70, GROUP));
    for path in ["outer", "outer/inner"] {
        let on_host = std::fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!(
            (on_host.gid(), on_host.mode() & 0o7777),
            (GROUP, 0o2755),
            "{path}"
        );
    }
}

/// The guest's kernel takes what CREATE answers for new, and checks nothing.
#[test]
fn what_came_to_exist_before_its_creation_is_opened_for_whom_its_mode_lets_in() {
    let dir = folder();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let (path, owner) = (dir.path().join("f"), client.uid.get());
    let set = |mode| {
        std::fs::write(&path, b"kept").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o600);
    client.create(root, "f", 0o644).unwrap();
    client.uid.set(owner + 1);
    let refused = client.create(root, "f", 0o644);
    assert_eq!(refused.unwrap_err(), Errno::STALE);
    set(0o666);
    client.create(root, "f", 0o644).unwrap();
    // It is for the guest's kernel to follow it.
    std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
    let followed = client.create(root, "link", 0o644);
    assert_eq!(followed.unwrap_err(), Errno::STALE);
    assert_eq!(std::fs::read(path).unwrap(), b"kept");
}

#[test]
fn a_record_that_makes_no_sense_is_ignored() {
    let dir = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, b"").unwrap();
    let client = client(dir.path());
    let own = std::fs::metadata(&path).unwrap();
    for record in ["", "1:2", "x:y:z", "1:2:0644:char-1", &"9".repeat(500)] {
        rustix::fs::setxattr(
            &path,
            "user.containers.override_stat",
            record.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let attr = client.attr(client.walk("share/f").unwrap()).unwrap();
        assert_eq!((attr.uid, attr.mode), (own.uid(), own.mode()), "{record:?}");
    }
}

/// A retry met `EEXIST`.
#[test]
fn what_cannot_have_its_owner_is_not_left_behind() {
    let dir = folder();
    let mounted = rustix::mount::mount(
        "none",
        dir.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"nr_inodes=20",
    );
    if let Err(errno) = mounted {
        eprintln!("SKIPPED: cannot mount a small file system: {errno}");
        return;
    }
    // Room for one more file, but not for its attribute.
    let full = (0..1000).find(|number| std::fs::write(dir.path().join(number.to_string()), b"").is_err());
    std::fs::remove_file(dir.path().join("0")).unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    client.uid.set(70);
    let directory = abi::MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let node = abi::MknodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    let refused = [
        client.create(root, "f", 0o644).map(drop),
        client
            .ask(op::MKDIR, root, &[directory.as_bytes(), b"f\0"])
            .map(drop),
        client.ask(op::MKNOD, root, &[node.as_bytes(), b"f\0"]).map(drop),
    ];
    let left = dir.path().join("f").symlink_metadata().is_ok();
    drop(client);
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(full.is_some());
    if refused[0] == Err(Errno::OPNOTSUPP) || refused[0].is_ok() {
        eprintln!("SKIPPED: this kernel's tmpfs counts no attributes: nothing was tested");
        return;
    }
    assert_eq!(refused, [Err(Errno::NOSPC); 3]);
    assert!(!left, "what could not be made is there");
}

/// A new file became the user's as soon as the guest asked again, and nobody was told why.
#[test]
fn owners_of_new_files_last_where_there_are_no_attributes() {
    let dir = folder();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(errno) = rustix::mount::mount("none", dir.path(), "ramfs", flags, None::<&std::ffi::CStr>) {
        eprintln!("SKIPPED: cannot mount a file system without attributes: {errno}");
        return;
    }
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    client.uid.set(70);
    let (file, _) = client.create(root, "f", 0o640).unwrap();
    client.lookup(root, "f").unwrap();
    let health = client.server.health();
    let request = abi::CreateIn {
        flags: 2,
        mode: 0o100_600,
        umask: 0,
        open_flags: 0,
    };
    let unnamed = client.ask(op::TMPFILE, root, &[request.as_bytes(), b"f\0"]);
    let unnamed: abi::EntryOut = parse(&unnamed.unwrap());
    let owners = [file.node, unnamed.node].map(|node| client.attr(node).map(|attr| (attr.uid, attr.gid)));
    drop(client);
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(owners, [Ok((70, 70)); 2]);
    assert_eq!(health.shares_without_attributes, ["share"]);
    // It has no file handles either.
    let untold: &[&str] = if health.watching { &["share"] } else { &[] };
    assert_eq!(health.shares_untold, untold);
}
