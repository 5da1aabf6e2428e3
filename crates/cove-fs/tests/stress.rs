//! Several mounts and the host write into one folder at once. Nobody may see content that was never written as a whole,
//! or go back to what was before; and in the end everybody sees the same.
//!
//! Each mount is served by a process of its own, as each machine's is, since a server tells its own guest from all
//! others by process. All are the program of this test.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_fs::{Config, Server, ShareOptions};
use cove_posix::{tree, write_and_read};
use kernel::agent::Agent;
use kernel::{Mount, USER, as_user};
use rustix::fs::Mode;

/// How long everybody writes.
const WRITING: Duration = Duration::from_secs(8);
/// How long it may take after that until everybody sees the same.
const SETTLING: Duration = Duration::from_secs(6);
/// Writers, numbered from 0. The first ones work through mounts.
const WRITERS: u32 = 4;
const MOUNTS: u32 = 2;
/// What a process prints when it could begin to write. Nobody does until all can, however long it takes to mount.
const READY: &str = "ready to write";
/// What a process prints when it has written all it had.
const WRITTEN: &str = "all is written";
const FOLDER: &str = "COVE_FS_STRESS_FOLDER";
const WRITER: &str = "COVE_FS_STRESS_WRITER";

#[test]
#[ignore = "it mounts, for which it takes root"]
fn nobody_sees_torn_or_stale_content_while_mounts_and_the_host_write_at_once() {
    let folder = tempfile::Builder::new()
        .prefix("cove-fs-stress-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let host = folder.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::os::unix::fs::chown(&host, Some(USER), Some(USER)).unwrap();
    for (path, mode) in [(folder.path(), 0o755), (host.as_path(), 0o777)] {
        rustix::fs::chmod(path, Mode::from_raw_mode(mode)).unwrap();
    }
    let mut processes: Vec<_> = (0..WRITERS).map(|writer| begin(folder.path(), writer)).collect();
    let mut said: Vec<_> = processes
        .iter_mut()
        .map(|process| BufReader::new(process.stdout.take().unwrap()))
        .collect();
    for output in &mut said {
        wait_for(READY, output);
    }
    for process in &mut processes {
        // Fails where it ended before, which its end says.
        let _ = writeln!(process.stdin.as_mut().unwrap());
    }
    for output in &mut said {
        wait_for(WRITTEN, output);
    }
    for process in &mut processes {
        drop(process.stdin.take());
    }
    let ends: Vec<_> = processes
        .iter_mut()
        .map(|process| process.wait().unwrap())
        .collect();
    for (writer, (end, mut output)) in ends.into_iter().zip(said).enumerate() {
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(end.success(), "writer {writer}: {rest}");
    }
}

/// Reads until a process says so, or ends: that it failed, its end says.
fn wait_for(word: &str, output: &mut impl BufRead) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        if output.read_line(&mut line).unwrap() == 0 {
            return;
        }
    }
}

/// Waits in one of the processes until all are ready.
fn wait_for_all() {
    println!("{READY}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn begin(folder: &Path, writer: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "one_of_the_processes", "--nocapture"])
        .env(FOLDER, folder)
        .env(WRITER, writer.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the test above starts it"]
fn one_of_the_processes() {
    let (Some(folder), Ok(writer)) = (std::env::var_os(FOLDER), std::env::var(WRITER)) else {
        return;
    };
    let writer: u32 = writer.parse().unwrap();
    let host = PathBuf::from(&folder).join("host");
    if writer >= MOUNTS {
        wait_for_all();
        let faults = as_user(USER, || {
            write_and_read(&host, writer, WRITERS, WRITING, Duration::ZERO)
        });
        println!("{WRITTEN}");
        assert_eq!(faults, Vec::<String>::new());
        return;
    }
    let target = PathBuf::from(folder).join(format!("mount-{writer}"));
    let (_mount, server) = attach(&host, &target, writer);
    let guest = target.join("share");
    let agent = Agent::start(&server, &guest);
    wait_for_all();
    let faults = as_user(USER + 1 + writer, || {
        write_and_read(&guest, writer, WRITERS, WRITING, Duration::ZERO)
    });
    println!("{WRITTEN}");
    // Until everybody has written all.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let settled = settle(&host, &guest);
    // It may fail to repeat what others have undone meanwhile.
    agent.finish();
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(settled, Vec::<String>::new());
}

/// Serves the folder, with caches that hold for longer than the test runs. The second mount has so little room for
/// changes that it loses some again and again.
fn attach(host: &Path, target: &Path, writer: u32) -> (Mount, Arc<Server>) {
    let config = Config {
        long_entries: Duration::from_hours(1),
        long_attributes: Duration::from_hours(1),
        max_queued: if writer == 0 { 65_536 } else { 16 },
        ..Config::default()
    };
    std::fs::create_dir(target).unwrap();
    let mut mount = Mount::prepare(target);
    let server = as_user(USER, || {
        let server = Arc::new(Server::new(config).unwrap());
        let options = ShareOptions {
            name: "share".into(),
            read_only: false,
        };
        server.add_share(host, options).unwrap();
        mount.serve(&server, 3);
        server
    });
    (mount, server)
}

/// Waits until the mount shows what is on the host; returns what differs if that takes too long.
fn settle(host: &Path, guest: &Path) -> Vec<String> {
    let end = Instant::now() + SETTLING;
    loop {
        let (there, shown) = (tree(host), tree(guest));
        if there == shown {
            return Vec::new();
        }
        if Instant::now() > end {
            let paths = there.keys().chain(shown.keys());
            return paths
                .filter(|path| there.get(*path) != shown.get(*path))
                .map(|path| format!("{} differs", path.display()))
                .collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
