//! What the host changed is told, whatever was lost on the way.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use cove_fs::abi::{self, op};
use cove_fs::{ChangeKind, Config, EntryKind, REPLAY_UID};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, TASK, c, parse};

/// How long it has to be quiet before nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);
/// Longer than the server takes to notice anything, however busy this computer is.
const LONG: Duration = Duration::from_secs(20);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// A client with an agent, of a server that can watch; none where this kernel cannot.
fn watching(path: &Path, max_queued: usize) -> Option<Client> {
    let config = Config {
        max_queued,
        ..Config::default()
    };
    let client = Client::new(config, &[("share", path, false)]);
    client.server.set_repeater(Some(TASK));
    if !client.server.health().watching {
        eprintln!("SKIPPED: this kernel cannot watch by fanotify");
        return None;
    }
    Some(client)
}

/// Runs a script in a process of its own: that is how the server tells the host from the guest.
fn on_host(dir: &Path, script: &str) {
    let mut command = std::process::Command::new("sh");
    let status = command.arg("-ec").arg(script).current_dir(dir).status().unwrap();
    assert!(status.success());
}

/// Takes changes until what was told `is_all`, and then until nothing follows. `act` is what becomes of each.
fn take(
    client: &Client,
    is_all: impl Fn(&[ChangeKind]) -> bool,
    act: impl Fn(&ChangeKind),
) -> Vec<ChangeKind> {
    let end = Instant::now() + LONG;
    let mut told = Vec::new();
    loop {
        let changes = client.server.take_changes(16, QUIET);
        if changes.is_empty() && (is_all(&told) || Instant::now() > end) {
            return told;
        }
        for change in changes {
            act(&change.kind);
            client.server.finish_change(change.id);
            told.push(change.kind);
        }
    }
}

/// The same, where `act` asks as the agent does.
fn as_agent(
    client: &Client,
    is_all: impl Fn(&[ChangeKind]) -> bool,
    act: impl Fn(&ChangeKind),
) -> Vec<ChangeKind> {
    take(client, is_all, |kind| {
        let uid = client.uid.replace(REPLAY_UID);
        act(kind);
        client.uid.set(uid);
    })
}

/// Plays the agent for the files in `dir`, see [`take`].
fn repeat(client: &Client, dir: u64, is_all: impl Fn(&[ChangeKind]) -> bool) -> Vec<ChangeKind> {
    as_agent(client, is_all, |kind| {
        if let ChangeKind::Created {
            name,
            entry: EntryKind::File,
        } = kind
        {
            let (entry, fh) = client.create(dir, name.to_str().unwrap(), 0o644).unwrap();
            client.release(entry.node, fh).unwrap();
        }
    })
}

/// Waits until there are changes to take, and no more come.
fn wait_for_changes(client: &Client) {
    let end = Instant::now() + LONG;
    loop {
        let before = client.server.health().queued_changes;
        std::thread::sleep(QUIET);
        let settled = before > 0 && client.server.health().queued_changes == before;
        if settled || Instant::now() > end {
            return;
        }
    }
}

/// The names that were told as created.
fn created(told: &[ChangeKind]) -> BTreeSet<String> {
    told.iter()
        .filter_map(|kind| match kind {
            ChangeKind::Created { name, .. } => name.to_str().map(str::to_owned),
            _ => None,
        })
        .collect()
}

/// The queue became one Overflow, and what was in it was told by nobody.
#[test]
fn what_a_full_queue_dropped_is_found_by_comparing() {
    let dir = folder();
    std::fs::write(dir.path().join("old"), b"").unwrap();
    let Some(client) = watching(dir.path(), 64) else {
        return;
    };
    let root = client.walk("share").unwrap();
    client.lookup(root, "old").unwrap();
    client.lookup(root, "new-0").unwrap_err();
    on_host(
        dir.path(),
        "rm old; i=0; while [ $i -lt 300 ]; do : > new-$i; i=$((i + 1)); done",
    );
    wait_for_changes(&client);
    let expected: BTreeSet<_> = (0..300).map(|number| format!("new-{number}")).collect();
    let deleted = ChangeKind::Deleted {
        name: "old".into(),
        entry: EntryKind::File,
    };
    let told = repeat(&client, root, |told| {
        created(told) == expected && told.contains(&deleted)
    });
    assert!(told.contains(&ChangeKind::Overflow), "nothing was lost: {told:?}");
    assert_eq!(created(&told), expected);
    assert!(told.contains(&deleted), "{told:?}");
    assert_eq!(repeat(&client, root, |_| true), [], "a difference is told once");
}

/// What the guest was given before its agent went away, it may believe for minutes after.
#[test]
fn what_changed_while_nobody_repeated_is_told_to_the_next_who_does() {
    let dir = folder();
    on_host(
        dir.path(),
        "echo 1 > written; echo 1 > chmodded; : > gone; : > same",
    );
    // Later than the time at which the server may rely on timestamps.
    std::thread::sleep(Duration::from_millis(100));
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    for name in ["written", "chmodded", "gone", "same"] {
        let entry = client.lookup(root, name).unwrap();
        client.attr(entry.node).unwrap();
    }
    client.lookup(root, "new").unwrap_err();
    client.server.set_repeater(None);
    on_host(
        dir.path(),
        "echo 22 > written; chmod 600 chmodded; rm gone; : > new",
    );
    let expected = [
        r#"Attributes { name: "chmodded" }"#,
        r#"Created { name: "new", entry: File }"#,
        r#"Deleted { name: "gone", entry: File }"#,
        r#"Modified { name: "written" }"#,
    ];
    let lines = |told: &[ChangeKind]| -> Vec<_> { told.iter().map(|kind| format!("{kind:?}")).collect() };
    let is_all = |told: &[ChangeKind]| {
        let told = lines(told);
        expected.iter().all(|line| told.iter().any(|told| told == line))
    };
    // As the machine process does while no agent is there.
    take(&client, is_all, |_| ());
    client.server.set_repeater(Some(TASK));
    let mut told = lines(&repeat(&client, root, is_all));
    told.sort();
    assert_eq!(told, expected);
}

/// The guest's kernel had removed it, and let nobody make anything in it any more when it was there again.
#[test]
fn a_directory_that_went_out_of_view_and_came_back_is_another_one() {
    let (dir, outside) = (folder(), folder());
    on_host(dir.path(), "mkdir -p d/sub; : > d/f; : > d/sub/f");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let old = client.lookup(root, "d").unwrap().node;
    client.lookup(old, "f").unwrap();
    let sub = client.lookup(old, "sub").unwrap().node;
    let believed = || client.lookup(sub, "f").unwrap().entry_valid;
    // The first answer about a file that has just been made is not for long.
    believed();
    assert!(believed() > 1);
    on_host(dir.path(), &format!("mv d {}", outside.path().display()));
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |kind| {
            if matches!(kind, ChangeKind::Deleted { .. }) {
                assert_eq!(client.lookup(root, "d").unwrap().node, old);
                client.ask(op::RMDIR, root, &[b"d\0"]).unwrap();
            }
        },
    );
    assert!(matches!(&told[..], [ChangeKind::Deleted { .. }]), "{told:?}");
    assert!(believed() <= 1, "nobody can be told of what happens there now");
    on_host(dir.path(), &format!("mv {}/d .", outside.path().display()));
    let new = Cell::new(0);
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |kind| {
            if matches!(kind, ChangeKind::Created { .. }) {
                new.set(make_directory(&client, root, "d"));
            }
        },
    );
    assert!(matches!(&told[..], [ChangeKind::Created { .. }]), "{told:?}");
    assert!(new.get() != 0 && new.get() != old);
    assert_eq!(client.lookup(root, "d").unwrap().node, new.get());
    client.lookup(new.get(), "f").unwrap();
    on_host(dir.path(), ": > d/g");
    let told = take(&client, |told| !told.is_empty(), |_| ());
    assert_eq!(created(&told), BTreeSet::from(["g".to_owned()]));
    assert_eq!(told.len(), 1, "told once: {told:?}");
}

/// The guest was told that the first one was where it had been, and found nothing of what was in the other.
#[test]
fn directories_that_the_host_exchanged_have_each_others_names() {
    let dir = folder();
    on_host(dir.path(), "mkdir a b; : > a/of-a; : > b/of-b");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let [a, b] = ["a", "b"].map(|name| client.lookup(root, name).unwrap().node);
    client.lookup(a, "of-a").unwrap();
    client.lookup(b, "of-b").unwrap();
    let is_known = "mv --help | grep -q -- --exchange";
    if !std::process::Command::new("sh")
        .args(["-c", is_known])
        .status()
        .unwrap()
        .success()
    {
        eprintln!("SKIPPED: this mv cannot exchange");
        return;
    }
    on_host(dir.path(), "mv --exchange --no-target-directory a b");
    let came = Cell::new(0);
    let told = as_agent(
        &client,
        |told| told.len() >= 2,
        |kind| match kind {
            ChangeKind::Renamed { .. } => {
                assert_eq!(client.lookup(root, "a").unwrap().node, a);
                assert_eq!(client.lookup(root, "b").unwrap().node, b);
                let rename = abi::RenameIn { new_parent: root };
                let names = b"a\0b\0";
                client.ask(op::RENAME, root, &[rename.as_bytes(), names]).unwrap();
            }
            ChangeKind::Created { .. } => came.set(make_directory(&client, root, "a")),
            _ => {}
        },
    );
    assert!(
        matches!(
            &told[..],
            [ChangeKind::Renamed { .. }, ChangeKind::Created { .. }]
        ),
        "{told:?}"
    );
    assert_eq!(client.lookup(root, "b").unwrap().node, a);
    client.lookup(a, "of-a").unwrap();
    assert_eq!(client.lookup(root, "a").unwrap().node, came.get());
    assert_ne!(came.get(), b, "which the guest's kernel takes for removed");
    client.lookup(came.get(), "of-b").unwrap();
    on_host(dir.path(), ": > a/new-b; : > b/new-a");
    let told = take(&client, |told| told.len() >= 2, |_| ());
    assert_eq!(told.len(), 2, "{told:?}");
}

/// The guest's kernel took the new directory for the old one, and for dead.
#[test]
fn a_removal_takes_away_nothing_that_came_after_it() {
    let dir = folder();
    on_host(dir.path(), "mkdir d");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let old = client.lookup(root, "d").unwrap().node;
    on_host(dir.path(), "rmdir d; mkdir d; : > d/f");
    let new = client.lookup(root, "d").unwrap().node;
    assert_ne!(new, old);
    let both = |told: &[ChangeKind]| told.len() >= 2;
    let told = as_agent(&client, both, |kind| match kind {
        ChangeKind::Deleted { .. } => {
            let gone = client.lookup(root, "d").unwrap().node;
            assert_ne!(gone, new, "what is there would go");
            client.ask(op::RMDIR, root, &[b"d\0"]).unwrap();
        }
        ChangeKind::Created { .. } => {
            assert_eq!(make_directory(&client, root, "d"), new);
        }
        _ => {}
    });
    assert!(told.len() >= 2, "{told:?}");
    assert_eq!(client.lookup(root, "d").unwrap().node, new);
    assert!(client.lookup(new, "f").is_ok());
}

/// Readers saw an empty file: the guest's kernel had the size from the agent's lookup of the name that it had before,
/// and took what a lookup by its new name said at the same time for older.
#[test]
fn the_old_name_of_what_was_moved_says_of_the_file_what_the_guest_was_told_last() {
    let dir = folder();
    on_host(dir.path(), "printf first > f; chmod 640 f");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let known = client.lookup(root, "f").unwrap();
    on_host(dir.path(), "mv f g");
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |_| {
            let moved = client.lookup(root, "f").unwrap();
            assert_eq!(moved.node, known.node);
            let of = |attr: &abi::Attr| (attr.size, attr.mode, attr.uid, attr.gid);
            assert_eq!(of(&moved.attr), of(&known.attr));
            assert_eq!((moved.attr_valid, moved.attr_valid_nsec), (0, 0), "nobody looked");
        },
    );
    assert!(matches!(&told[..], [ChangeKind::Renamed { .. }, ..]), "{told:?}");
}

/// Whoever used such a file was given errors: the guest's kernel takes one of another type for another file. A link's
/// was the plain file's that stood in for it.
#[test]
fn what_was_moved_is_of_the_type_that_the_guest_knows() {
    let dir = folder();
    on_host(dir.path(), "ln -s target link");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    make_null(&client, root);
    let known = ["null", "link"].map(|name| client.lookup(root, name).unwrap());
    on_host(dir.path(), "mv null moved; mv link there");
    let told = as_agent(
        &client,
        |told| told.len() >= 2,
        |kind| {
            let ChangeKind::Renamed { name, .. } = kind else {
                return;
            };
            let known = known[usize::from(name == "link")];
            let moved = client.lookup(root, name.to_str().unwrap()).unwrap();
            let of = |entry: &abi::EntryOut| (entry.node, entry.attr.ino, entry.attr.mode, entry.attr.rdev);
            assert_eq!(of(&moved), of(&known), "{name:?}");
            assert_eq!(client.attr(known.node).unwrap().mode, known.attr.mode, "{name:?}");
        },
    );
    let renamed = told
        .iter()
        .filter(|kind| matches!(kind, ChangeKind::Renamed { .. }));
    assert_eq!(renamed.count(), 2, "{told:?}");
}

/// The guest's kernel told those who watched a file that it was deleted, while it had another name.
#[test]
fn a_name_that_goes_is_counted_until_the_guest_takes_it_off() {
    let dir = folder();
    on_host(dir.path(), ": > closed; : > open; ln closed one; ln open other");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let [closed, open] = ["closed", "open"].map(|name| client.lookup(root, name).unwrap().node);
    let fh = client.open(open, 0).unwrap();
    on_host(dir.path(), "rm closed open");
    assert_eq!(client.attr(open).unwrap().nlink, 1, "as it is");
    let told = as_agent(
        &client,
        |told| told.len() >= 2,
        |kind| {
            let ChangeKind::Deleted { name, .. } = kind else {
                return;
            };
            let gone = client.lookup(root, name.to_str().unwrap()).unwrap();
            let node = if name == "open" { open } else { closed };
            assert_eq!((gone.node, gone.attr.nlink), (node, 2), "{name:?}");
        },
    );
    client.release(open, fh).unwrap();
    let deleted = told
        .iter()
        .filter(|kind| matches!(kind, ChangeKind::Deleted { .. }));
    assert_eq!(deleted.count(), 2, "{told:?}");
}

/// The directory had lost its name, and changes in it were dropped for want of a path.
#[test]
fn changes_in_a_moved_directory_are_told_though_the_guest_found_its_new_name_first() {
    let dir = folder();
    on_host(dir.path(), "mkdir d");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    let known = client.lookup(root, "d").unwrap().node;
    client.lookup(known, "f").unwrap_err();
    on_host(dir.path(), "mv d e");
    assert_eq!(client.lookup(root, "e").unwrap().node, known);
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |kind| {
            if matches!(kind, ChangeKind::Renamed { .. }) {
                assert_ne!(client.lookup(root, "d").unwrap().node, known);
                assert_eq!(client.lookup(root, "e").unwrap_err(), Errno::NOENT);
                let rename = abi::RenameIn { new_parent: root };
                let names = b"d\0e\0";
                client.ask(op::RENAME, root, &[rename.as_bytes(), names]).unwrap();
            }
        },
    );
    assert!(matches!(&told[..], [ChangeKind::Renamed { .. }, ..]), "{told:?}");
    on_host(dir.path(), ": > e/f");
    let is_told = |told: &[ChangeKind]| created(told).contains("f");
    let told = take(&client, is_told, |_| ());
    assert!(is_told(&told), "{told:?}");
}

/// The guest's kernel refused the answer, and let go of neither the file nor the handle that came with it.
#[test]
fn what_stands_for_a_device_is_not_told_as_a_file_that_was_made() {
    let dir = folder();
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    make_null(&client, root);
    on_host(dir.path(), "cp -a null copy");
    wait_for_changes(&client);
    let nodes = client.server.health().nodes;
    let refused = Cell::new(None);
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |kind| {
            if matches!(kind, ChangeKind::Created { .. }) {
                refused.set(client.create(root, "copy", 0o644).err());
            }
        },
    );
    assert_eq!(created(&told), BTreeSet::from(["copy".to_owned()]));
    let known = client.server.health().nodes;
    if client.lookup(root, "copy").unwrap().attr.mode & 0o170_000 == 0o100_000 {
        eprintln!("SKIPPED: what a file stands for is not copied with it here");
        return;
    }
    assert_eq!((refused.get(), known), (Some(Errno::NODEV), nodes));
}

/// The guest's kernel, which believed in the name that it had made, took the new directory for dead.
#[test]
fn a_removal_that_is_repeated_late_leaves_what_the_guest_made_since() {
    let dir = folder();
    on_host(dir.path(), "mkdir d");
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    client.lookup(root, "d").unwrap();
    on_host(dir.path(), "rmdir d");
    let request = abi::MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let made = client.ask(op::MKDIR, root, &[request.as_bytes(), b"d\0"]);
    let made = parse::<abi::EntryOut>(&made.unwrap()).node;
    let told = as_agent(
        &client,
        |told| !told.is_empty(),
        |kind| {
            if matches!(kind, ChangeKind::Deleted { .. }) {
                let removed = client.ask(op::RMDIR, root, &[b"d\0"]);
                assert_eq!(removed.unwrap_err(), Errno::BUSY);
                assert_ne!(client.lookup(root, "d").unwrap().node, made);
                client.ask(op::RMDIR, root, &[b"d\0"]).unwrap();
            }
        },
    );
    assert!(matches!(&told[..], [ChangeKind::Deleted { .. }, ..]), "{told:?}");
    assert_eq!(client.lookup(root, "d").unwrap().node, made);
}

/// Plays the agent that repeats how a directory came to be.
fn make_directory(client: &Client, dir: u64, name: &str) -> u64 {
    assert_eq!(client.lookup(dir, name).unwrap_err(), Errno::NOENT);
    let request = abi::MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let made = client.ask(op::MKDIR, dir, &[request.as_bytes(), &c(name)]);
    parse::<abi::EntryOut>(&made.unwrap()).node
}

/// Has the guest make a device as `null`.
fn make_null(client: &Client, dir: u64) {
    let request = abi::MknodIn {
        mode: 0o020_644,
        rdev: 0x0103,
        ..abi::MknodIn::default()
    };
    let made = client.ask(op::MKNOD, dir, &[request.as_bytes(), b"null\0"]);
    assert_eq!(parse::<abi::EntryOut>(&made.unwrap()).attr.mode, 0o020_644);
}
