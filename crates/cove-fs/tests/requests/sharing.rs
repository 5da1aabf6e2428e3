//! Shares that come and go, bounds, locks that wait.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cove_fs::abi::{self, ROOT_ID, fattr, op};
use cove_fs::{Config, REPLAY_UID, ShareError, ShareOptions};
use rustix::fs::{Mode, XattrFlags};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, TASK, c, parse};

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

pub(crate) fn client(path: &Path) -> Client {
    Client::new(Config::default(), &[("share", path, false)])
}

fn names(client: &Client, node: u64) -> Vec<String> {
    let open: abi::OpenOut = parse(&client.ask(op::OPENDIR, node, &[&[0; 8]]).unwrap());
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let request = abi::ReadIn {
            fh: open.fh,
            offset,
            size: 300,
            ..Default::default()
        };
        let reply = client.ask(op::READDIR, node, &[request.as_bytes()]).unwrap();
        if reply.is_empty() {
            return names;
        }
        let mut rest = &reply[..];
        while !rest.is_empty() {
            let entry: abi::Dirent = parse(rest);
            let len = entry.namelen as usize;
            names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
            offset = entry.off;
            rest = &rest[(24 + len).next_multiple_of(8)..];
        }
    }
}

#[test]
fn shares_appear_and_vanish_while_the_guest_runs() {
    let (one, two) = (folder(), folder());
    std::fs::write(two.path().join("f"), b"content").unwrap();
    let client = Client::new(Config::default(), &[("one", one.path(), false)]);
    assert_eq!(names(&client, ROOT_ID), [".", "..", "one"]);
    assert_eq!(client.lookup(ROOT_ID, "two").unwrap_err(), Errno::NOENT);
    let options = ShareOptions {
        name: "two".into(),
        read_only: false,
    };
    client.server.add_share(two.path(), options.clone()).unwrap();
    assert!(matches!(
        client.server.add_share(two.path(), options),
        Err(ShareError::Exists { .. })
    ));
    assert_eq!(names(&client, ROOT_ID), [".", "..", "one", "two"]);
    let node = client.walk("two/f").unwrap();
    let fh = client.open(node, 0).unwrap();
    assert_eq!(client.read(node, fh, 0, 100).unwrap(), b"content");
    let open = client.server.health().open;
    client.server.remove_share("two").unwrap();
    assert_eq!(client.attr(node).unwrap_err(), Errno::STALE);
    assert_eq!(client.read(node, fh, 0, 100).unwrap_err(), Errno::BADF);
    assert_eq!(client.lookup(ROOT_ID, "two").unwrap_err(), Errno::NOENT);
    assert!(
        client.server.health().open < open,
        "descriptors of a removed share stay open"
    );
    assert!(client.walk("one").is_ok());
    assert!(matches!(
        client.server.remove_share("two"),
        Err(ShareError::Unknown { .. })
    ));
}

/// What a listing with attributes has for each name: the node, 0 for a bare name.
fn names_and_nodes(client: &Client, node: u64) -> Vec<(String, u64)> {
    let open: abi::OpenOut = parse(&client.ask(op::OPENDIR, node, &[&[0; 8]]).unwrap());
    let request = abi::ReadIn {
        fh: open.fh,
        size: 4096,
        ..Default::default()
    };
    let reply = client.ask(op::READDIRPLUS, node, &[request.as_bytes()]).unwrap();
    let mut found = Vec::new();
    let mut rest = &reply[..];
    while !rest.is_empty() {
        let entry: abi::EntryOut = parse(rest);
        let at = size_of::<abi::EntryOut>();
        let dirent: abi::Dirent = parse(&rest[at..]);
        let (start, len) = (at + size_of::<abi::Dirent>(), dirent.namelen as usize);
        let name = String::from_utf8(rest[start..start + len].to_vec()).unwrap();
        found.push((name, entry.node));
        rest = &rest[(start + len).next_multiple_of(8)..];
    }
    found
}

/// Listing it took the right to search it as well, to find `.` there, which natively it does not.
#[test]
fn a_directory_that_may_be_read_and_not_searched_shows_its_names_alone() {
    const USER: u32 = 12_345;
    let dir = folder();
    let inner = dir.path().join("names");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("f"), b"").unwrap();
    let look = || {
        let client = client(dir.path());
        let node = client.walk("share/names").unwrap();
        // Known by now, so that its record is read of the directory itself and not by its name.
        let record = b"70:71:0444:dir";
        rustix::fs::setxattr(
            &inner,
            "user.containers.override_stat",
            record,
            XattrFlags::empty(),
        )
        .unwrap();
        rustix::fs::chmod(&inner, Mode::from_raw_mode(0o444)).unwrap();
        let natively = std::fs::read_dir(&inner).unwrap().count();
        let listed = (names(&client, node), names_and_nodes(&client, node));
        let owner = client.attr(node).unwrap().uid;
        let looked = client.lookup(node, "f").unwrap_err();
        // Or the folder could not be removed.
        rustix::fs::chmod(&inner, Mode::from_raw_mode(0o700)).unwrap();
        (natively, listed, owner, looked)
    };
    let (natively, (mut names, mut bare), owner, looked) = if rustix::process::geteuid().is_root() {
        // Root may search whatever it likes.
        rustix::fs::chmod(dir.path(), Mode::from_raw_mode(0o755)).unwrap();
        for path in [dir.path(), &inner] {
            std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
        }
        cove_posix::as_user(USER, look)
    } else {
        look()
    };
    names.sort();
    bare.sort();
    assert_eq!(natively, 1);
    assert_eq!(names, [".", "..", "f"]);
    assert_eq!(bare, [".", "..", "f"].map(|name| (name.to_owned(), 0)));
    assert_eq!((owner, looked), (70, Errno::ACCESS));
}

#[test]
fn a_bad_share_is_refused_with_a_reason() {
    let client = client(folder().path());
    for name in ["", ".", "..", "a/b", "nul\0"] {
        let options = ShareOptions {
            name: name.into(),
            read_only: false,
        };
        assert!(matches!(
            client.server.add_share(Path::new("/"), options),
            Err(ShareError::Name { .. })
        ));
    }
    for path in ["/nowhere/at/all", "/etc/passwd"] {
        let options = ShareOptions {
            name: "x".into(),
            read_only: false,
        };
        let error = client.server.add_share(Path::new(path), options).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open the folder {path}"));
    }
}

#[test]
fn nothing_in_a_read_only_share_can_be_changed() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), b"content").unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let client = Client::new(Config::default(), &[("share", dir.path(), true)]);
    let (root, file) = (client.walk("share").unwrap(), client.walk("share/f").unwrap());
    let name = c("f");
    let refused: &[(u32, u64, Vec<&[u8]>)] = &[
        (op::CREATE, root, vec![&[0; 16], b"n\0"]),
        (op::MKDIR, root, vec![&[0; 8], b"n\0"]),
        (op::MKNOD, root, vec![&[0; 16], b"n\0"]),
        (op::SYMLINK, root, vec![b"n\0t\0"]),
        (op::UNLINK, root, vec![&name]),
        (op::RMDIR, root, vec![b"d\0"]),
        (op::TMPFILE, root, vec![&[0; 16], b"n\0"]),
        (op::REMOVEXATTR, file, vec![b"user.x\0"]),
        (op::SETXATTR, file, vec![&[0; 16], b"user.x\0"]),
    ];
    for (opcode, node, body) in refused {
        assert_eq!(
            client.ask(*opcode, *node, body).unwrap_err(),
            Errno::ROFS,
            "request {opcode}"
        );
    }
    let link = abi::LinkIn { node: file };
    assert_eq!(
        client
            .ask(op::LINK, root, &[link.as_bytes(), b"n\0"])
            .unwrap_err(),
        Errno::ROFS
    );
    let rename = abi::RenameIn { new_parent: root };
    assert_eq!(
        client
            .ask(op::RENAME, root, &[rename.as_bytes(), b"f\0n\0"])
            .unwrap_err(),
        Errno::ROFS
    );
    let set = abi::SetattrIn {
        valid: fattr::MODE | fattr::SIZE,
        ..Default::default()
    };
    assert_eq!(
        client.ask(op::SETATTR, file, &[set.as_bytes()]).unwrap_err(),
        Errno::ROFS
    );
    for flags in [1, 2, 0o1000] {
        assert_eq!(client.open(file, flags).unwrap_err(), Errno::ROFS);
    }
    let fh = client.open(file, 0).unwrap();
    assert_eq!(client.write(file, fh, 0, b"x").unwrap_err(), Errno::ROFS);
    assert_eq!(client.read(file, fh, 0, 100).unwrap(), b"content");
}

#[test]
fn a_flood_of_opens_ends_in_enfile_and_recovers() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let config = Config {
        max_open: 50,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", dir.path(), false)]);
    let node = client.walk("share/f").unwrap();
    let mut handles = Vec::new();
    let refused = loop {
        match client.open(node, 0) {
            Ok(fh) => handles.push(fh),
            Err(errno) => break errno,
        }
        assert!(handles.len() <= 50);
    };
    assert_eq!(refused, Errno::NFILE);
    assert!(handles.len() >= 40);
    assert!(client.attr(node).is_ok(), "looking must still work");
    for fh in handles {
        client.release(node, fh).unwrap();
    }
    assert!(client.open(node, 0).is_ok());
}

/// They have no descriptor, but memory, which was bounded by nothing.
#[test]
fn handles_of_the_root_and_under_the_reserved_uid_are_counted() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let config = Config {
        max_open: 50,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", dir.path(), false)]);
    let node = client.walk("share/f").unwrap();
    let flood = |open: &dyn Fn() -> Result<(), Errno>| {
        let refused = (0..10_000).find_map(|_| open().err());
        assert_eq!(refused, Some(Errno::NFILE));
    };
    flood(&|| client.ask(op::OPENDIR, ROOT_ID, &[&[0; 8]]).map(drop));
    assert_eq!(client.open(node, 0).unwrap_err(), Errno::NFILE);
    // The agent is not kept from its work by what containers have open, even under its uid, but bounded by itself.
    client.server.set_repeater(Some(TASK));
    client.uid.set(REPLAY_UID);
    client.task.set(NonZeroU32::MAX);
    for opcode in [op::OPEN, op::GETATTR, op::LOOKUP, op::OPENDIR, op::STATFS] {
        assert_eq!(client.ask(opcode, node, &[&[0; 8]]).unwrap_err(), Errno::PERM);
    }
    client.task.set(TASK);
    let fh = client.open(node, 1).unwrap();
    client.release(node, fh).unwrap();
    flood(&|| client.open(node, 1).map(drop));
}

#[test]
fn many_directories_are_reached_through_few_descriptors() {
    let dir = folder();
    let config = Config {
        max_pins: 8,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", dir.path(), false)]);
    let mut leaves = Vec::new();
    for number in 0..200 {
        let path = format!("{number}/a/b/c");
        std::fs::create_dir_all(dir.path().join(&path)).unwrap();
        std::fs::write(dir.path().join(&path).join("f"), path.as_bytes()).unwrap();
        leaves.push((client.walk(&format!("share/{path}/f")).unwrap(), path));
    }
    assert!(client.server.health().pinned < 32, "{:?}", client.server.health());
    for (node, path) in leaves.iter().rev() {
        let fh = client.open(*node, 0).unwrap();
        assert_eq!(client.read(*node, fh, 0, 100).unwrap(), path.as_bytes());
        client.release(*node, fh).unwrap();
    }
    // A moved directory takes what is below it along.
    let (from, to) = (client.walk("share/7").unwrap(), client.walk("share/8/a").unwrap());
    let root = client.walk("share").unwrap();
    let rename = abi::RenameIn { new_parent: to };
    client
        .ask(op::RENAME, root, &[rename.as_bytes(), b"7\0moved\0"])
        .unwrap();
    for _ in 0..3 {
        for (node, _) in &leaves {
            client.attr(*node).unwrap();
        }
    }
    assert_eq!(client.walk("share/8/a/moved").unwrap(), from);
}

#[test]
fn what_the_guest_forgets_is_forgotten() {
    let dir = folder();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let before = client.server.health();
    for number in 0..100 {
        std::fs::create_dir(dir.path().join(number.to_string())).unwrap();
        let node = client.lookup(root, &number.to_string()).unwrap().node;
        client.ask(op::OPENDIR, node, &[&[0; 8]]).unwrap();
        client.lookup(root, &number.to_string()).unwrap();
        client.forget(node, 1);
        assert!(client.attr(node).is_ok(), "one reference is left");
        client.forget(node, 1);
        assert_eq!(client.attr(node).unwrap_err(), Errno::STALE);
    }
    client.forget(root, u64::MAX);
    assert_eq!(client.server.health().nodes, before.nodes);
    client.server.reset();
    assert_eq!(client.server.health().watched, 0);
    assert_eq!(
        client.attr(root).unwrap_err(),
        Errno::INVAL,
        "nothing works before INIT"
    );
    client.greet().unwrap();
    assert!(client.walk("share").is_ok());
}

#[test]
fn a_guest_that_forgets_nothing_is_refused_more_than_the_bound() {
    let dir = folder();
    for number in 0..100 {
        std::fs::write(dir.path().join(number.to_string()), b"").unwrap();
    }
    let config = Config {
        max_nodes: 50,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", dir.path(), false)]);
    let root = client.walk("share").unwrap();
    let mut known = Vec::new();
    let refused = (0..100).find_map(|number| match client.lookup(root, &number.to_string()) {
        Ok(entry) => {
            known.push(entry.node);
            None
        }
        Err(errno) => Some(errno),
    });
    assert_eq!(
        (refused, known.len()),
        (Some(Errno::NFILE), 49),
        "with the share itself"
    );
    assert!(client.server.health().nodes_exhausted);
    // What is known goes on, and a directory can be read; nothing is made that could not be told of.
    assert_eq!(client.lookup(root, "0").unwrap().node, known[0]);
    assert_eq!(names(&client, root).len(), 102);
    assert_eq!(client.create(root, "new", 0o644).unwrap_err(), Errno::NFILE);
    let request = abi::MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let made = client.ask(op::MKDIR, root, &[request.as_bytes(), b"new\0"]);
    assert_eq!(made.unwrap_err(), Errno::NFILE);
    assert!(!dir.path().join("new").exists());
    client.forget(known[1], 1);
    assert!(client.create(root, "new", 0o644).is_ok());
    assert_eq!(client.server.health().nodes, 50);
}

#[test]
fn an_inode_number_used_again_is_another_node() {
    let dir = folder();
    let client = client(dir.path());
    let mut seen = std::collections::HashMap::new();
    let mut reused = false;
    for _ in 0..200 {
        std::fs::write(dir.path().join("f"), b"").unwrap();
        let entry = client.walk("share/f").unwrap();
        let ino = client.attr(entry).unwrap().ino;
        std::fs::remove_file(dir.path().join("f")).unwrap();
        if let Some(other) = seen.insert(ino, entry) {
            assert_ne!(other, entry, "two files under one node");
            reused = true;
        }
    }
    if !reused {
        eprintln!("this file system did not use an inode number again: nothing was tested");
    }
}

/// The guest asks no more once it was told that nobody knows.
#[test]
fn birth_times_are_told_and_asking_the_root_does_not_end_that() {
    let dir = folder();
    let client = client(dir.path());
    let ask = |node| {
        let request = abi::StatxIn::default();
        let reply = client.ask(op::STATX, node, &[request.as_bytes()]).unwrap();
        let answer: abi::StatxOut = parse(&reply);
        answer.stat
    };
    let root = ask(ROOT_ID);
    let knows_birth = |shown: &abi::Statx| shown.mask & rustix::fs::StatxFlags::BTIME.bits() != 0;
    assert_eq!((root.mode, knows_birth(&root)), (0o040_555, false));
    let share = ask(client.walk("share").unwrap());
    let born = dir.path().metadata().unwrap().created();
    assert_eq!(knows_birth(&share), born.is_ok());
    if let Ok(born) = born {
        let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
        let shown = (share.btime.sec.cast_unsigned(), share.btime.nsec);
        assert_eq!(shown, (born.as_secs(), born.subsec_nanos()));
    }
}

#[test]
fn a_lock_is_not_let_go_by_a_handle_through_which_its_owners_number_locked_before() {
    let dir = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, b"").unwrap();
    let client = client(dir.path());
    let node = client.walk("share/f").unwrap();
    let handles = [client.open(node, 2).unwrap(), client.open(node, 2).unwrap()];
    let lock = |fh| {
        let request = abi::LkIn {
            fh,
            owner: 7,
            lock: abi::FileLock {
                start: 0,
                end: i64::MAX.cast_unsigned(),
                kind: 1,
                pid: 0,
            },
            ..Default::default()
        };
        client.ask(op::SETLK, node, &[request.as_bytes()]).unwrap();
    };
    let flush = |fh| {
        let request = abi::FlushIn {
            fh,
            lock_owner: 7,
            ..Default::default()
        };
        client.ask(op::FLUSH, node, &[request.as_bytes()]).unwrap();
    };
    lock(handles[0]);
    // A process ends, and another one has its number.
    flush(handles[0]);
    lock(handles[1]);
    let request = abi::ReleaseIn {
        fh: handles[0],
        ..Default::default()
    };
    client.ask(op::RELEASE, node, &[request.as_bytes()]).unwrap();
    let host = std::fs::File::options().write(true).open(path).unwrap();
    let is_free =
        || rustix::fs::fcntl_lock(&host, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
    assert!(!is_free(), "the lock went with another process's handle");
    flush(handles[1]);
    assert!(is_free(), "a lock outlived the close");
}

#[test]
fn a_lock_that_waits_is_granted_or_interrupted() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    let client = client(dir.path());
    let node = client.walk("share/f").unwrap();
    let fh = client.open(node, 2).unwrap();
    let lock = |owner, kind| abi::LkIn {
        fh,
        owner,
        lock: abi::FileLock {
            start: 0,
            end: i64::MAX.cast_unsigned(),
            kind,
            pid: 0,
        },
        ..Default::default()
    };
    client.ask(op::SETLK, node, &[lock(1, 1).as_bytes()]).unwrap();
    assert_eq!(
        client.ask(op::SETLK, node, &[lock(2, 0).as_bytes()]).unwrap_err(),
        Errno::AGAIN
    );
    let (answers, answered) = mpsc::channel();
    for owner in [2, 3] {
        let (unique, pending) = client.ask_waiting(op::SETLKW, node, &[lock(owner, 1).as_bytes()]);
        let answers = answers.clone();
        pending.deliver(move |answer| {
            let header: abi::OutHeader = parse(&answer);
            answers.send((header.unique, header.error)).unwrap();
        });
        assert_eq!(client.server.waiting().last(), Some(&(unique, 7)));
    }
    assert!(answered.recv_timeout(Duration::from_millis(60)).is_err());
    let told = client.server.await_waiting(Duration::from_millis(1));
    assert_eq!(told, client.server.waiting());
    let (first, second) = (client.server.waiting()[0].0, client.server.waiting()[1].0);
    client
        .ask(
            op::INTERRUPT,
            0,
            &[abi::InterruptIn { unique: second }.as_bytes()],
        )
        .unwrap();
    assert_eq!(
        answered.recv_timeout(Duration::from_secs(5)).unwrap(),
        (second, -4)
    );
    client.ask(op::SETLK, node, &[lock(1, 2).as_bytes()]).unwrap();
    assert_eq!(answered.recv_timeout(Duration::from_secs(5)).unwrap(), (first, 0));
    // The host sees it as well, and closing lets it go.
    let host = std::fs::File::options()
        .write(true)
        .open(dir.path().join("f"))
        .unwrap();
    // The server's locks belong to open files, so that those of this very process stand against them.
    let is_free =
        || rustix::fs::fcntl_lock(&host, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
    assert!(!is_free(), "the host does not see the lock");
    let flush = abi::FlushIn {
        fh,
        lock_owner: 2,
        ..Default::default()
    };
    client.ask(op::FLUSH, node, &[flush.as_bytes()]).unwrap();
    assert!(is_free(), "a lock outlived the close");
    assert!(client.server.waiting().is_empty());
    // A guest that restarts numbers its requests anew: an interrupt that comes too late must not meet one of these.
    drop(host);
    client.ask(op::SETLK, node, &[lock(1, 1).as_bytes()]).unwrap();
    for late in first..first + 50 {
        client.server.interrupt(late);
    }
    let (unique, pending) = client.ask_waiting(op::SETLKW, node, &[lock(2, 1).as_bytes()]);
    pending.deliver(move |answer| {
        let header: abi::OutHeader = parse(&answer);
        answers.send((header.unique, header.error)).unwrap();
    });
    assert_eq!(client.server.waiting(), [(unique, 7)]);
    client.server.interrupt(unique);
    let answer = answered.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(answer, (unique, -4));
    client.server.end_changes();
    assert!(client.server.await_waiting(Duration::from_mins(1)).is_empty());
}

#[test]
fn what_is_left_out_is_not_watched_nor_what_is_below_it() {
    let dir = folder();
    std::fs::create_dir_all(dir.path().join("own/below")).unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    let client = client(dir.path());
    client.server.leave_unwatched(&dir.path().join("own")).unwrap();
    assert!(client.server.leave_unwatched(&dir.path().join("none")).is_err());
    client.walk("share/own/below").unwrap();
    client
        .lookup(client.walk("share/own/below").unwrap(), "x")
        .unwrap_err();
    let before = client.server.health().watched;
    assert_eq!(before, 1, "the share alone: {:?}", client.server.health());
    client
        .lookup(client.walk("share/other").unwrap(), "x")
        .unwrap_err();
    assert_eq!(client.server.health().watched, before + 1);
}
