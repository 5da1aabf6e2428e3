//! Several mounts and the host write into one folder at once. Nobody may see content that was never written as a whole,
//! or go back to what was before; and in the end everybody sees the same.
//!
//! Each mount is served by a process of its own, as each machine's is, since a server tells its own guest from all
//! others by process. All are the program of this test.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_fs::{Config, Server, ShareOptions};
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
fn nobody_sees_torn_or_stale_content_while_mounts_and_the_host_write_at_once() {
    if !kernel::available() {
        return;
    }
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
        let faults = as_user(USER, || write_and_read(&host, writer));
        println!("{WRITTEN}");
        assert_eq!(faults, Vec::<String>::new());
        return;
    }
    let target = PathBuf::from(folder).join(format!("mount-{writer}"));
    let (_mount, server) = attach(&host, &target, writer);
    let guest = target.join("share");
    let agent = Agent::start(&server, &guest);
    wait_for_all();
    let faults = as_user(USER + 1 + writer, || write_and_read(&guest, writer));
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

/// Replaces a file of its own over and over, appends to another, makes and removes directories, and reads what all
/// others replace. Returns what it saw and should not have.
fn write_and_read(dir: &Path, writer: u32) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen = BTreeMap::new();
    let end = Instant::now() + WRITING;
    let mut log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("log-{writer}")))
        .unwrap();
    let mut version = 0;
    while Instant::now() < end && faults.len() < 10 {
        version += 1;
        let new = dir.join(format!(".new-{writer}"));
        std::fs::write(&new, content(writer, version)).unwrap();
        std::fs::rename(&new, dir.join(format!("file-{writer}"))).unwrap();
        writeln!(log, "{version}").unwrap();
        let made = dir.join(format!("dir-{writer}"));
        if version % 8 == 0 {
            std::fs::create_dir(&made).unwrap();
            std::fs::write(made.join("f"), content(writer, version)).unwrap();
        } else if version % 8 == 4 && version > 8 {
            std::fs::remove_dir_all(&made).unwrap();
        }
        for other in 0..WRITERS {
            let found = match std::fs::read(dir.join(format!("file-{other}"))) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound && !seen.contains_key(&other) => continue,
                // Replaced between the lookup and the open, and again at the kernel's second try.
                Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => continue,
                Err(error) => {
                    faults.push(format!("{writer} cannot read the file of {other}: {error}"));
                    continue;
                }
            };
            let Some(found) = version_of(other, &found) else {
                faults.push(format!(
                    "{writer} read {} bytes of {other} that it never wrote",
                    found.len()
                ));
                continue;
            };
            let before = seen.insert(other, found).unwrap_or(0);
            if found < before {
                faults.push(format!("{writer} read {found} of {other} after {before}"));
            }
            if other == writer && found != version {
                faults.push(format!("{writer} wrote {version} and read {found}"));
            }
        }
    }
    if seen.len() < WRITERS as usize || version < 20 {
        faults.push(format!(
            "{writer} wrote {version} versions and saw {seen:?}: that is no stress"
        ));
    }
    faults
}

/// What a writer writes: its number and the version, then bytes that follow from both, across page boundaries.
fn content(writer: u32, version: u32) -> Vec<u8> {
    let mut state = u64::from(writer) << 32 | u64::from(version);
    let mut content = format!("{writer} {version}\n").into_bytes();
    content.resize_with(100 + version as usize * 7919 % 40_000, || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    content
}

/// The version, if this is all of it and nothing else.
fn version_of(writer: u32, found: &[u8]) -> Option<u32> {
    let line = found.split(|byte| *byte == b'\n').next()?;
    let (who, version) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let version = version.parse().ok()?;
    (who.parse() == Ok(writer) && found == content(writer, version)).then_some(version)
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

/// Everything below a folder by its path in it, with the content of files; what cannot be read is not there.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(folder.join(&dir))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = dir.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(path.clone());
                found.insert(path, None);
            } else if let Ok(content) = std::fs::read(entry.path()) {
                found.insert(path, Some(content));
            }
        }
    }
    found
}
