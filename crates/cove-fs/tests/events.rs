//! What the host does is seen by inotify in the mount, exactly once; what the guest does itself is not repeated.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
// UNSAFETY: a mapping is raw memory.
#![expect(unsafe_code, reason = "what is mapped is read")]

#[path = "kernel/mod.rs"]
mod kernel;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use cove_fs::Config;
use kernel::agent::Agent;
use kernel::{Shared, USER, as_user};
use rustix::fs::{Mode, inotify};

/// Events seen in a directory of the mount.
struct Seen {
    inotify: OwnedFd,
}

impl Seen {
    fn watch(dirs: &[&Path]) -> Self {
        use inotify::WatchFlags as W;
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        for dir in dirs {
            let mask = W::CREATE | W::DELETE | W::MODIFY | W::ATTRIB | W::MOVED_FROM | W::MOVED_TO;
            inotify::add_watch(&inotify, *dir, mask).unwrap();
        }
        Self { inotify }
    }

    /// Waits until nothing has come for `quiet`, and returns what came.
    fn drain(&self, quiet: Duration) -> Vec<(inotify::ReadFlags, OsString)> {
        let mut events = Vec::new();
        let mut last = Instant::now();
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 16384];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while last.elapsed() < quiet {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| {
                        let bytes: &std::ffi::OsStr =
                            std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
                        bytes.to_owned()
                    });
                    events.push((event.events(), name.unwrap_or_default()));
                    last = Instant::now();
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        events
    }
}

fn shown(events: &[(inotify::ReadFlags, OsString)]) -> Vec<String> {
    use inotify::ReadFlags as R;
    let names = [
        (R::CREATE, "CREATE"),
        (R::DELETE, "DELETE"),
        (R::MODIFY, "MODIFY"),
        (R::ATTRIB, "ATTRIB"),
        (R::MOVED_FROM, "MOVED_FROM"),
        (R::MOVED_TO, "MOVED_TO"),
    ];
    events
        .iter()
        .map(|(flags, name)| {
            let kind = names
                .iter()
                .find(|(flag, _)| flags.contains(*flag))
                .map_or("?", |(_, kind)| kind);
            format!("{kind} {}", name.to_string_lossy())
        })
        .collect()
}

/// Runs a shell script in a folder of the host, in a process of its own: that is how the server tells it from
/// the guest.
fn on_host(dir: &Path, script: &str) {
    let script = format!("umask 022; {script}");
    let status = as_user(USER, || {
        std::process::Command::new("sh")
            .arg("-ec")
            .arg(script)
            .current_dir(dir)
            .status()
    });
    assert!(status.unwrap().success());
}

const QUIET: Duration = Duration::from_millis(300);

/// Long enough that a stale cache would be seen.
fn patient() -> Config {
    Config {
        long_entries: Duration::from_hours(1),
        long_attributes: Duration::from_hours(1),
        ..Config::default()
    }
}

#[test]
#[ignore = "it mounts, for which it takes root"]
fn each_kind_of_change_on_the_host_is_seen_once_and_the_caches_are_right_after() {
    let shared = Shared::new(patient());
    assert!(
        shared.server.health().watching,
        "this kernel cannot watch by fanotify"
    );
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.as_path(), shared.guest.as_path());
    // The guest looks, so the server watches, and both name and absence are cached.
    assert_eq!(std::fs::read_dir(guest).unwrap().count(), 0);
    assert!(!guest.join("new").exists());
    let seen = Seen::watch(&[guest]);
    let expect = |script: &str, events: &[&str]| {
        on_host(host, script);
        assert_eq!(shown(&seen.drain(QUIET)), events, "{script}");
    };

    expect(": > new", &["CREATE new"]);
    assert!(guest.join("new").exists(), "a cached absence outlived the change");
    expect("printf first >> new", &["MODIFY new"]);
    assert_eq!(std::fs::read(guest.join("new")).unwrap(), b"first");
    expect(
        "printf FIRST | dd of=new conv=notrunc status=none",
        &["MODIFY new"],
    );
    assert_eq!(std::fs::read(guest.join("new")).unwrap(), b"FIRST", "stale pages");
    expect(": > new", &["MODIFY new"]);
    assert_eq!(std::fs::metadata(guest.join("new")).unwrap().len(), 0);
    expect("chmod 751 new", &["ATTRIB new"]);
    assert_eq!(
        rustix::fs::stat(guest.join("new")).unwrap().st_mode & 0o7777,
        0o751
    );
    expect("mv new moved", &["MOVED_FROM new", "MOVED_TO moved"]);
    assert!(!guest.join("new").exists() && guest.join("moved").exists());
    expect("rm moved", &["DELETE moved"]);
    assert!(!guest.join("moved").exists(), "a removed file is still there");
    expect("mkdir dir", &["CREATE dir"]);
    expect("ln -s dir link", &["CREATE link"]);
    assert_eq!(std::fs::read_link(guest.join("link")).unwrap(), Path::new("dir"));
    expect("mkfifo pipe", &["CREATE pipe"]);
    expect("rm pipe", &["DELETE pipe"]);
    expect("mv dir folder", &["MOVED_FROM dir", "MOVED_TO folder"]);
    expect("rmdir folder", &["DELETE folder"]);
    expect("rm link", &["DELETE link"]);
    // As editors save: a new file over the old one.
    on_host(host, "printf one > text; printf two > .text.swp");
    seen.drain(QUIET);
    assert_eq!(std::fs::read(guest.join("text")).unwrap(), b"one");
    expect("mv .text.swp text", &["MOVED_FROM .text.swp", "MOVED_TO text"]);
    assert_eq!(std::fs::read(guest.join("text")).unwrap(), b"two");
    // Whoever watches the file, and not its folder, hears that it has lost its name.
    let text = guest.join("text");
    let of_the_file = Seen::watch(&[&text]);
    on_host(host, "printf three > .text.swp; mv .text.swp text");
    let heard = shown(&of_the_file.drain(QUIET));
    assert_eq!(heard.first().map(String::as_str), Some("ATTRIB "), "{heard:?}");
    assert_eq!(std::fs::read(&text).unwrap(), b"three");
    assert_eq!(agent.finish(), Vec::<String>::new());
    assert_eq!(
        std::fs::read(host.join("text")).unwrap(),
        b"three",
        "the host was changed by a repetition"
    );
}

#[test]
#[ignore = "it mounts, for which it takes root"]
fn what_moves_between_directories_and_over_the_edge_of_the_share_is_seen_once() {
    let shared = Shared::new(patient());
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.as_path(), shared.guest.as_path());
    let outside = tempfile::Builder::new()
        .prefix("cove-fs-outside-")
        .tempdir_in("/var/tmp")
        .unwrap();
    std::os::unix::fs::chown(outside.path(), Some(USER), Some(USER)).unwrap();
    let out = outside.path().display();
    on_host(host, "mkdir a b; printf first > a/f");
    let (a, b) = (guest.join("a"), guest.join("b"));
    let seen = Seen::watch(&[&a, &b]);
    let expect = |script: &str, events: &[&str]| {
        on_host(host, script);
        assert_eq!(shown(&seen.drain(QUIET)), events, "{script}");
    };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.kind());
    let gone = Err(std::io::ErrorKind::NotFound);

    expect("mv a/f b/f", &["MOVED_FROM f", "MOVED_TO f"]);
    assert_eq!(
        (read(&a.join("f")), read(&b.join("f"))),
        (gone.clone(), Ok("first".into()))
    );
    expect("ln b/f a/g", &["CREATE g"]);
    expect("printf , >> a/g", &["MODIFY g"]);
    assert_eq!(
        (read(&a.join("g")), read(&b.join("f"))),
        (Ok("first,".into()), Ok("first,".into()))
    );
    expect(&format!("mv b/f {out}/f"), &["DELETE f"]);
    assert_eq!(
        (read(&a.join("g")), read(&b.join("f"))),
        (Ok("first,".into()), gone.clone())
    );
    expect(&format!("mv {out}/f b/h"), &["CREATE h"]);
    assert_eq!(read(&b.join("h")), Ok("first,".into()));
    // A directory comes with what is in it.
    on_host(host, &format!("mkdir {out}/d; printf inner > {out}/d/i"));
    expect(&format!("mv {out}/d a/d"), &["CREATE d"]);
    assert_eq!(read(&a.join("d/i")), Ok("inner".into()));
    expect("mv a/d b/e", &["MOVED_FROM d", "MOVED_TO e"]);
    assert_eq!(
        (read(&a.join("d/i")), read(&b.join("e/i"))),
        (gone.clone(), Ok("inner".into()))
    );
    expect(&format!("mv b/e {out}/e"), &["DELETE e"]);
    assert_eq!(read(&b.join("e/i")), gone);
    assert_eq!(agent.finish(), Vec::<String>::new());
    assert_eq!(std::fs::read(host.join("a/g")).unwrap(), b"first,");
    assert_eq!(std::fs::read(outside.path().join("e/i")).unwrap(), b"inner");
}

#[test]
#[ignore = "it mounts, for which it takes root"]
fn what_the_guest_does_is_not_repeated() {
    let shared = Shared::new(patient());
    let guest = &shared.guest;
    rustix::fs::chmod(guest, Mode::from_raw_mode(0o777)).unwrap();
    as_user(1234, || {
        for round in 0..200 {
            let path = guest.join(format!("f{round}"));
            std::fs::write(&path, b"content").unwrap();
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o600)).unwrap();
            let moved = guest.join(format!("g{round}"));
            std::fs::rename(&path, &moved).unwrap();
            if round % 2 == 0 {
                std::fs::remove_file(&moved).unwrap();
            }
        }
    });
    assert_eq!(shared.server.take_changes(10, Duration::from_millis(200)), []);
}

/// To set a watch asks the server for next to nothing, and it did not watch for that.
#[test]
#[ignore = "it mounts, for which it takes root"]
fn who_watches_a_folder_is_told_though_nobody_has_listed_it() {
    let shared = Shared::new(patient());
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.as_path(), shared.guest.as_path());
    on_host(host, "mkdir named listed");
    // The folder itself, which nobody asked for more than its name.
    let of_the_share = Seen::watch(&[guest]);
    on_host(host, ": > new");
    assert_eq!(shown(&of_the_share.drain(QUIET)), ["CREATE new"]);
    let of_the_named = Seen::watch(&[&guest.join("named")]);
    // One that is known from the list that it is in, within the second for which that is believed.
    assert_eq!(std::fs::read_dir(guest).unwrap().count(), 3);
    let of_the_listed = Seen::watch(&[&guest.join("listed")]);
    on_host(host, ": > named/f; : > listed/f");
    for seen in [of_the_named, of_the_listed] {
        assert_eq!(shown(&seen.drain(QUIET)), ["CREATE f"]);
    }
    // And one that the host has just made.
    on_host(host, "mkdir made");
    assert_eq!(shown(&of_the_share.drain(QUIET)), ["CREATE made"]);
    let of_the_made = Seen::watch(&[&guest.join("made")]);
    on_host(host, ": > made/f");
    assert_eq!(shown(&of_the_made.drain(QUIET)), ["CREATE f"]);
    assert_eq!(agent.finish(), Vec::<String>::new());
}

/// Host and guest work in one directory at once, on files of their own; each of the host's creations and removals
/// must be seen exactly once, and none of the guest's twice.
#[test]
#[ignore = "it mounts, for which it takes root"]
fn under_stress_from_both_sides_no_event_is_lost_or_doubled() {
    const FILES: usize = 400;
    let shared = Shared::new(patient());
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.clone(), shared.guest.clone());
    rustix::fs::chmod(&guest, Mode::from_raw_mode(0o777)).unwrap();
    let seen = Seen::watch(&[&guest]);
    let events = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The kernel may merge what comes in one breath, hence the pause before a removal.
            let script = "i=0; while [ $i -lt 400 ]; do echo x > host-$i
                if [ $((i % 2)) = 0 ]; then mv host-$i host-$i-moved; else sleep 0.002; rm host-$i; fi
                i=$((i + 1)); done";
            on_host(&host, script);
        });
        scope.spawn(|| {
            as_user(USER, || {
                for round in 0..FILES {
                    let path = guest.join(format!("guest-{round}"));
                    std::fs::write(&path, b"x").unwrap();
                    if round % 2 == 0 {
                        std::fs::rename(&path, guest.join(format!("guest-{round}-moved"))).unwrap();
                    } else {
                        std::thread::sleep(Duration::from_millis(3));
                        std::fs::remove_file(&path).unwrap();
                    }
                }
            });
        });
        seen.drain(Duration::from_secs(1))
    });
    let failures = agent.finish();
    assert_eq!(failures, Vec::<String>::new());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in shown(&events) {
        if !event.starts_with("MODIFY") && !event.starts_with("ATTRIB") {
            *counts.entry(event).or_default() += 1;
        }
    }
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for side in ["host", "guest"] {
        for round in 0..FILES {
            expected.insert(format!("CREATE {side}-{round}"), 1);
            if round % 2 == 0 {
                expected.insert(format!("MOVED_FROM {side}-{round}"), 1);
                expected.insert(format!("MOVED_TO {side}-{round}-moved"), 1);
            } else {
                expected.insert(format!("DELETE {side}-{round}"), 1);
            }
        }
    }
    let differing: Vec<_> = expected
        .iter()
        .filter(|(event, count)| counts.get(*event) != Some(*count))
        .map(|(event, count)| (event, count, counts.get(event)))
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} differ: {:?}",
        differing.len(),
        expected.len(),
        &differing[..differing.len().min(10)]
    );
    assert_eq!(counts.len(), expected.len(), "invented");
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&host), names(&guest));
}

/// As `-v ~/app.conf:/etc/app.conf` has it, which holds the file and not its name.
#[test]
#[ignore = "it mounts, for which it takes root"]
fn a_file_mounted_by_itself_follows_its_name_when_an_editor_replaces_it() {
    let shared = Shared::new(patient());
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.as_path(), shared.guest.as_path());
    on_host(host, "echo one > app.conf");
    let target = tempfile::NamedTempFile::new().unwrap();
    rustix::mount::mount_bind(guest.join("app.conf"), target.path()).unwrap();
    let before = std::fs::read(target.path());
    // Longer than what the guest believes the file to be.
    let lines: Vec<String> = (0..2000).map(|line| line.to_string()).collect();
    let two = lines.join("\n") + "\n";
    on_host(host, "seq 0 1999 > .app.conf.swp; mv .app.conf.swp app.conf");
    let start = Instant::now();
    let mut after = std::fs::read(target.path());
    while !after.as_ref().is_ok_and(|content| content == two.as_bytes())
        && start.elapsed() < Duration::from_secs(5)
    {
        std::thread::sleep(Duration::from_millis(5));
        after = std::fs::read(target.path());
    }
    rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(before.unwrap(), b"one\n");
    assert_eq!(String::from_utf8(after.unwrap()).unwrap(), two);
    assert_eq!(agent.finish(), Vec::<String>::new());
}

/// Same size, same place, caches that hold for an hour: only the event can tell the guest.
#[test]
#[ignore = "it mounts, for which it takes root"]
fn once_the_event_is_there_no_read_sees_what_was_before() {
    const ROUNDS: u8 = 100;
    let shared = Shared::new(patient());
    let agent = Agent::start(&shared.server, &shared.guest);
    let (host, guest) = (shared.host.clone(), shared.guest.clone());
    on_host(&host, "head -c 16000 /dev/zero > f");
    let file = guest.join("f");
    assert_eq!(std::fs::read(&file).unwrap(), [0; 16_000]);
    let seen = Seen::watch(&[&guest]);
    let open = std::fs::File::open(&file).unwrap();
    let (protection, shared_map) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 16_000, protection, shared_map, &open, 0) };
    let map = map.unwrap();
    // SAFETY: within the mapping, which stays until the last use of this, and of a file that stays as long.
    let mapped = || unsafe { map.cast::<u8>().add(12_000).read_volatile() };
    let mut writer = as_user(USER, || {
        // Writes one version for each line that it reads.
        let script = "n=0; while read -r _; do n=$((n + 1))
            head -c 16000 /dev/zero | tr '\\0' \"\\\\$(printf %03o $n)\" | dd of=f bs=16000 iflag=fullblock conv=notrunc status=none
            done";
        let mut command = std::process::Command::new("sh");
        command
            .arg("-ec")
            .arg(script)
            .current_dir(&host)
            .stdin(std::process::Stdio::piped());
        command.spawn().unwrap()
    });
    let mut slowest = Duration::ZERO;
    for version in 1..=ROUNDS {
        use std::io::Write;
        use std::os::unix::fs::FileExt;
        // A page of the old version is in the guest's cache.
        let mut page = [0; 4096];
        open.read_exact_at(&mut page, 8192).unwrap();
        assert_eq!(mapped(), version - 1);
        let start = Instant::now();
        writer.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        while seen.drain(Duration::from_millis(1)).is_empty() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "no event for version {version}"
            );
        }
        slowest = slowest.max(start.elapsed());
        open.read_exact_at(&mut page, 8192).unwrap();
        assert!(
            page == [version; 4096],
            "version {} instead of {version} through an open file",
            page[0]
        );
        assert_eq!(mapped(), version, "through a mapping");
        assert!(
            std::fs::read(&file).unwrap() == [version; 16_000],
            "not version {version} through a new one"
        );
    }
    // The mount lives for as long as anything is mapped from it, and its end is waited for.
    // SAFETY: this very mapping, which nothing reads after this.
    unsafe { rustix::mm::munmap(map, 16_000) }.unwrap();
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    println!("slowest event: {slowest:?}, with the time that the writing took");
    assert_eq!(agent.finish(), Vec::<String>::new());
}
