//! What the host changed is told, whatever was lost on the way.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use cove_fs::abi::{self, op};
use cove_fs::{ChangeKind, Config, EntryKind, REPLAY_UID};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, parse};

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
    client.server.set_repeating(true);
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

/// Plays the agent for the files in `dir`, see [`take`].
fn repeat(client: &Client, dir: u64, is_all: impl Fn(&[ChangeKind]) -> bool) -> Vec<ChangeKind> {
    take(client, is_all, |kind| {
        let uid = client.uid.replace(REPLAY_UID);
        if let ChangeKind::Created {
            name,
            entry: EntryKind::File,
        } = kind
        {
            let (entry, fh) = client.create(dir, name.to_str().unwrap(), 0o644).unwrap();
            client.release(entry.node, fh).unwrap();
        }
        client.uid.set(uid);
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
        "mkdir sub; echo 1 > written; echo 1 > chmodded; : > gone; : > same",
    );
    // Later than the time at which the server may rely on timestamps.
    std::thread::sleep(Duration::from_millis(100));
    let Some(client) = watching(dir.path(), 1000) else {
        return;
    };
    let root = client.walk("share").unwrap();
    for name in ["written", "chmodded", "gone", "same", "sub"] {
        let entry = client.lookup(root, name).unwrap();
        client.attr(entry.node).unwrap();
    }
    client.lookup(root, "new").unwrap_err();
    client.server.set_repeating(false);
    on_host(
        dir.path(),
        "echo 22 > written; chmod 600 chmodded; rm gone; : > new; : > sub/new",
    );
    // Nobody looked into `sub`.
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
    client.server.set_repeating(true);
    let mut told = lines(&repeat(&client, root, is_all));
    told.sort();
    assert_eq!(told, expected);
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
    let uid = client.uid.replace(REPLAY_UID);
    let both = |told: &[ChangeKind]| told.len() >= 2;
    let told = take(&client, both, |kind| match kind {
        ChangeKind::Deleted { .. } => {
            let gone = client.lookup(root, "d").unwrap().node;
            assert_ne!(gone, new, "what is there would go");
            client.ask(op::RMDIR, root, &[b"d\0"]).unwrap();
        }
        ChangeKind::Created { .. } => {
            assert_eq!(client.lookup(root, "d").unwrap_err(), Errno::NOENT);
            let request = abi::MkdirIn {
                mode: 0o755,
                umask: 0,
            };
            let made = client.ask(op::MKDIR, root, &[request.as_bytes(), b"d\0"]);
            assert_eq!(parse::<abi::EntryOut>(&made.unwrap()).node, new);
        }
        _ => {}
    });
    client.uid.set(uid);
    assert!(told.len() >= 2, "{told:?}");
    assert_eq!(client.lookup(root, "d").unwrap().node, new);
    assert!(client.lookup(new, "f").is_ok());
}
