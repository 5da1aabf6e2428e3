//! Several at once: containers and the host write into one folder, and lock one file.

use crate::{at_home, habits::tools};
use cove_tests::harness::{Cmd, Cove, Running, eventually, within, within_telling};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Child,
    thread::sleep,
    time::Duration,
};

/// What may take long in an emulated machine that has much to do.
const LONG: Duration = Duration::from_mins(5);

const WRITERS: [&str; 4] = ["writer-0", "writer-1", "writer-2", "writer-3"];
/// How many more there are on the host.
const HOSTS: usize = 2;
/// For how many seconds each of them writes: long enough that the last to begin meets the first.
const WRITING: &str = "40";
/// How many milliseconds the host's rest after each version. Without, they would write as much as this computer can,
/// and the guest would hear of nothing else.
const REST: &str = "100";

/// Starts containers that do nothing of themselves, with the folder at `/src`.
fn start(cove: &Cove, names: &[&str], folder: &Path) {
    let tools = tools(cove);
    let bind = format!("{}:/src", folder.display());
    for &name in names {
        let words = ["run", "-d", "--init", "--name", name, "-v", &tools, "-v", &bind];
        cove.docker(words).args(["alpine", "sleep", "100000"]).ok();
    }
}

fn remove(cove: &Cove, names: &[&str]) {
    cove.docker(["rm", "-f"].iter().chain(names)).ok();
}

/// The test program in a container, and on the host.
fn inside(cove: &Cove, name: &str) -> Cmd {
    cove.docker(["exec", name, "/tools/posix"])
}

fn outside(cove: &Cove) -> Cmd {
    cove.program(cove.kit().posix.as_ref().unwrap().to_str().unwrap())
}

pub(crate) fn containers_and_the_host_see_no_torn_or_stale_content_and_the_same_in_the_end(cove: &Cove) {
    let folder = at_home(cove, "together");
    let path = folder.to_str().unwrap();
    start(cove, &WRITERS, &folder);
    let of = (WRITERS.len() + HOSTS).to_string();
    let mut running = Vec::new();
    for (number, name) in WRITERS.into_iter().enumerate() {
        let number = number.to_string();
        running.push(
            inside(cove, name)
                .args(["write", "/src", &number, &of, WRITING, "0"])
                .spawn(),
        );
    }
    for number in WRITERS.len()..WRITERS.len() + HOSTS {
        let number = number.to_string();
        running.push(
            outside(cove)
                .args(["write", path, &number, &of, WRITING, REST])
                .spawn(),
        );
    }
    for mut writer in running {
        within(LONG, "a writer to end", || writer.try_wait().unwrap());
        let output = writer.wait_with_output().unwrap();
        let (found, failed) = (&output.stdout, &output.stderr);
        let words = [found, failed].map(|words| String::from_utf8_lossy(words));
        assert!(output.status.success(), "{} {}", words[0], words[1]);
    }
    let there = outside(cove).args(["summary", path]).ok();
    assert!(there.contains("file-0 ") && there.contains("file-5 "), "{there}");
    for name in WRITERS {
        within_telling(Duration::from_mins(2), || {
            let shown = inside(cove, name).args(["summary", "/src"]).limit(LONG).ok();
            if shown == there {
                Ok(())
            } else {
                Err(format!("{name} to show\n{there}\ninstead of\n{shown}"))
            }
        });
    }
    remove(cove, &WRITERS);
}

/// Has the host take a lock of a file, and keep it.
fn hold(cove: &Cove, kind: &str, path: &str) -> Running {
    let mut held = Running(outside(cove).args(["lock", kind, path]).spawn());
    let mut line = String::new();
    let output = held.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n", "{kind}");
    held
}

pub(crate) fn locks_hold_between_containers_and_the_host(cove: &Cove) {
    let (one, two) = ("locker-1", "locker-2");
    let folder = at_home(cove, "locked");
    let file = folder.join("file");
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    start(cove, &[one, two], &folder);
    for kind in ["flock", "posix"] {
        let lock = format!("exec /tools/posix lock {kind} /src/file > /tmp/{kind}");
        let begin = |name| cove.docker(["exec", "-d", name, "sh", "-c", &lock]).ok();
        let end = |name| cove.docker(["exec", name, "killall", "posix"]).ok();
        let said = format!("/tmp/{kind}");
        let has_it = |name| cove.docker(["exec", name, "cat", &said]).run().text() == "locked";
        let tried_in = |name| inside(cove, name).args(["try", kind, "/src/file"]).ok();
        let tried = || outside(cove).args(["try", kind, path]).ok();

        begin(one);
        eventually("a container to have the lock", || has_it(one));
        assert_eq!([tried_in(one), tried_in(two), tried()], ["taken"; 3], "{kind}");
        end(one);
        eventually("the host to find the lock free", || tried() == "free");
        assert_eq!([tried_in(one), tried_in(two)], ["free"; 2], "{kind}");

        let held = hold(cove, kind, path);
        assert_eq!([tried_in(one), tried_in(two)], ["taken"; 2], "{kind}");
        begin(two);
        sleep(Duration::from_secs(1));
        assert!(!has_it(two), "{kind} was granted twice");
        // Whoever waits can be ended, and somebody else waits on.
        end(two);
        eventually("who was killed to be gone", || {
            cove.docker(["exec", two, "pgrep", "posix"]).run().code == Some(1)
        });
        begin(two);
        sleep(Duration::from_secs(1));
        drop(held);
        eventually("who waited to have the lock", || has_it(two));
        assert_eq!([tried_in(one), tried()], ["taken"; 2], "{kind}");
        end(two);
    }
    remove(cove, &[one, two]);
}

/// What a program that disturbed itself says of its wait for a lock. One that a signal ended has the exit code that
/// shells and engines make of that.
fn said(mut disturbed: Child) -> String {
    within(LONG, "a program to see what a signal does", || {
        disturbed.try_wait().unwrap()
    });
    let output = disturbed.wait_with_output().unwrap();
    let code = output
        .status
        .code()
        .or(output.status.signal().map(|signal| 128 + signal));
    let (found, failed) = (&output.stdout, &output.stderr);
    let words = [found, failed].map(|words| String::from_utf8_lossy(words));
    format!(
        "{}, {}{}",
        code.unwrap(),
        words[0].trim_end(),
        words[1].trim_end()
    )
}

/// Only the guest's kernel knows who got a signal, and virtio-fs has no way to say so. Of a process with two threads
/// one waits; whoever takes the signal, and whatever comes after the handler, it is as on this computer beside it. A
/// container is paused by stopping its tasks where they wait, without any signal.
pub(crate) fn who_waits_for_a_lock_takes_signals_as_natively_and_can_be_paused(cove: &Cove) {
    let name = "disturbed";
    let kinds = ["flock", "posix", "ofd"];
    let folder = at_home(cove, "disturbed");
    start(cove, &[name], &folder);
    let held: Vec<_> = kinds
        .into_iter()
        .map(|kind| {
            let file = folder.join(kind);
            fs::write(&file, "").unwrap();
            hold(cove, kind, file.to_str().unwrap())
        })
        .collect();
    for (disturbance, expected) in [
        (["first", "process", "fail"], "0, interrupted"),
        (["first", "process", "restart"], "0, waits on"),
        (["second", "process", "fail"], "0, waits on"),
        (["second", "thread", "fail"], "0, interrupted"),
        (["second", "thread", "restart"], "0, waits on"),
        (["first", "process", "kill"], "137, "),
        (["second", "process", "kill"], "137, "),
    ] {
        let disturbed = kinds.map(|kind| {
            let (host, shared) = (folder.join(kind), format!("/src/{kind}"));
            let disturb =
                |program: Cmd, file: &str| program.args(["disturb", kind, file]).args(disturbance).spawn();
            (
                disturb(outside(cove), host.to_str().unwrap()),
                disturb(inside(cove, name), &shared),
            )
        });
        for (kind, (natively, shared)) in kinds.into_iter().zip(disturbed) {
            assert_eq!(said(natively), expected, "{kind}, natively, {disturbance:?}");
            assert_eq!(said(shared), expected, "{kind}, {disturbance:?}");
        }
    }

    for kind in kinds {
        let lock = format!("exec /tools/posix lock {kind} /src/{kind} > /tmp/{kind}");
        cove.docker(["exec", "-d", name, "sh", "-c", &lock]).ok();
    }
    sleep(Duration::from_secs(1));
    cove.docker(["pause", name]).ok();
    cove.docker(["unpause", name]).ok();
    // All of the machine, in which nobody is told of it.
    cove.cove(["pause"]).ok();
    cove.cove(["resume"]).ok();
    drop(held);
    for kind in kinds {
        eventually("who was paused to have the lock", || {
            let said = format!("/tmp/{kind}");
            cove.docker(["exec", name, "cat", &said]).run().text() == "locked"
        });
    }
    remove(cove, &[name]);
}
