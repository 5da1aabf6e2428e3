//! What the host does in a shared folder, as programs in containers that watch it see it.

use crate::at_home;
use cove_tests::harness::{self, Cove};
use std::{
    fs,
    io::{Seek as _, Write as _},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// A container that watches a folder with busybox's `inotifyd`, whose letters are: `n` created, `d` deleted, `m` moved
/// away, `y` moved here, `c` modified, `e` attributes, `o` overflow.
struct Watcher<'a> {
    cove: &'a Cove,
    name: &'static str,
    /// Lines of its log that were looked at.
    seen: std::cell::Cell<usize>,
}

impl<'a> Watcher<'a> {
    /// `handler` is what `inotifyd` runs for each event, with the letters, the folder and the name; `-` prints them.
    fn start(cove: &'a Cove, name: &'static str, folder: &Path, handler: &str) -> Self {
        let bind = format!("{}:/src", folder.display());
        // Nothing looks into the folder before it is watched.
        let watched = format!("exec inotifyd {handler} /src:ndmyceo");
        let run = [
            "run", "-d", "--init", "--name", name, "-v", &bind, "alpine", "sh", "-c", &watched,
        ];
        cove.docker(run).ok();
        let watcher = Self {
            cove,
            name,
            seen: 0.into(),
        };
        harness::eventually("the watch", || {
            let watches = "grep -qs '^inotify wd' /proc/[0-9]*/fdinfo/*";
            cove.docker(["exec", name, "sh", "-c", watches]).run().code == Some(0)
        });
        watcher.seen.set(watcher.log().len());
        watcher
    }

    fn log(&self) -> Vec<String> {
        let log = self.cove.docker(["logs", self.name]).ok();
        log.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits for as many lines as there are in `expected`, and a little longer for one too many.
    fn expect(&self, what: &str, expected: &[&str]) {
        harness::eventually(what, || self.log().len() >= self.seen.get() + expected.len());
        std::thread::sleep(std::time::Duration::from_millis(500));
        let log = self.log();
        assert_eq!(log[self.seen.get()..], *expected, "{what}");
        self.seen.set(log.len());
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.cove.docker(["rm", "-f", self.name]).run();
    }
}

pub(crate) fn each_change_on_the_host_is_seen_by_inotify_in_a_container_once(cove: &Cove) {
    let folder = at_home(cove, "watched");
    let watcher = Watcher::start(cove, "watcher", &folder, "-");
    let at = |name: &str| folder.join(name);
    fs::File::create(at("new")).unwrap();
    watcher.expect("create", &["n\t/src\tnew"]);
    let mut file = fs::OpenOptions::new().append(true).open(at("new")).unwrap();
    file.write_all(b"words").unwrap();
    drop(file);
    watcher.expect("modify", &["c\t/src\tnew"]);
    fs::set_permissions(at("new"), fs::Permissions::from_mode(0o751)).unwrap();
    watcher.expect("chmod", &["e\t/src\tnew"]);
    fs::rename(at("new"), at("moved")).unwrap();
    watcher.expect("rename", &["m\t/src\tnew", "y\t/src\tmoved"]);
    fs::remove_file(at("moved")).unwrap();
    watcher.expect("delete", &["d\t/src\tmoved"]);
    fs::create_dir(at("dir")).unwrap();
    watcher.expect("mkdir", &["n\t/src\tdir"]);
    fs::remove_dir(at("dir")).unwrap();
    watcher.expect("rmdir", &["d\t/src\tdir"]);
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        0,
        "telling changed the host"
    );
    // Moved over the old one, as editors save.
    fs::write(at("text"), "one").unwrap();
    fs::write(at(".text.swp"), "two").unwrap();
    harness::eventually("both files", || {
        watcher
            .log()
            .iter()
            .any(|line| line.starts_with("c\t/src\t.text.swp"))
    });
    watcher.seen.set(watcher.log().len());
    fs::rename(at(".text.swp"), at("text")).unwrap();
    watcher.expect("replace", &["m\t/src\t.text.swp", "y\t/src\ttext"]);
    let read = cove.docker(["exec", "watcher", "cat", "/src/text"]).ok();
    assert_eq!(read, "two");
}

/// The handler reads within moments of the event, long before what the guest keeps would have expired.
pub(crate) fn what_is_read_after_an_event_is_never_what_was_before(cove: &Cove) {
    let folder = at_home(cove, "coherent");
    let handler = folder.join("handler");
    fs::write(
        &handler,
        "#!/bin/sh\necho \"$1 $3 $(cat /src/file) $(ls /src | tr '\\n' ' ')\"\n",
    )
    .unwrap();
    fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
    let mut file = fs::File::create(folder.join("file")).unwrap();
    file.write_all(b"00").unwrap();
    let watcher = Watcher::start(cove, "reader", &folder, "/src/handler");
    for version in 1..=10 {
        // In place and of the same size: neither name nor length give the change away.
        file.rewind().unwrap();
        file.write_all(format!("{version:02}").as_bytes()).unwrap();
        let line = format!("c file {version:02} file handler");
        watcher.expect("a new version", &[&line]);
    }
    fs::remove_file(folder.join("file")).unwrap();
    harness::eventually("the removal", || {
        watcher.log().iter().any(|line| line == "d file  handler")
    });
}

pub(crate) fn what_containers_do_themselves_is_not_told_twice(cove: &Cove) {
    let folder = at_home(cove, "own");
    let watcher = Watcher::start(cove, "observer", &folder, "-");
    let script = "echo x > a; sleep 1; chmod 600 a; mv a b; rm b; mkdir d; rmdir d";
    cove.docker(["exec", "-w", "/src", "observer", "sh", "-c", script])
        .ok();
    let expected = [
        "n\t/src\ta",
        "c\t/src\ta",
        "e\t/src\ta",
        "m\t/src\ta",
        "y\t/src\tb",
        "d\t/src\tb",
        "n\t/src\td",
        "d\t/src\td",
    ];
    std::thread::sleep(std::time::Duration::from_secs(2));
    watcher.expect("its own changes", &expected);
}

/// In a namespace of users that may watch few directories.
pub(crate) fn where_watches_run_out_changes_are_seen_within_moments_and_doctor_says_so(_: &Cove) {
    const LIMIT: usize = 30;
    let cove = Cove::new("folders-few-watches");
    let few = format!("echo {LIMIT} > /proc/sys/user/max_fanotify_marks && exec \"$0\" start");
    let words = ["--user", "--map-current-user", "--keep-caps", "sh", "-c", &few];
    let program = cove.kit().program.clone();
    cove.program("unshare")
        .args(words)
        .arg(program)
        .limit(std::time::Duration::from_mins(5))
        .ok();
    let folder = at_home(&cove, "large");
    for number in 0..2 * LIMIT {
        fs::create_dir(folder.join(number.to_string())).unwrap();
        fs::write(folder.join(number.to_string()).join("file"), "before").unwrap();
    }
    // The guest forgets what has come just now as soon as it has looked, and nothing of it stays watched.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let bind = format!("{}:/src", folder.display());
    let run = [
        "run", "-d", "--init", "--name", "looker", "-v", &bind, "alpine", "sleep", "1000",
    ];
    cove.docker(run).ok();
    let read_all = "cat /src/*/file | grep -o before | wc -l";
    let read = |script: &str| cove.docker(["exec", "looker", "sh", "-c", script]).ok();
    assert_eq!(read(read_all), (2 * LIMIT).to_string());
    let looked_at = cove.cove(["doctor"]).run().text();
    let line = looked_at.lines().find(|line| line.contains("folders of default"));
    assert!(
        line.is_some_and(|line| line.contains("and no more can be")),
        "{looked_at}"
    );
    for number in 0..2 * LIMIT {
        let file = folder.join(number.to_string()).join("file");
        // Of the same length, and some by replacement.
        if number % 2 == 0 {
            fs::write(file, "behind").unwrap();
        } else {
            fs::write(file.with_extension("new"), "behind").unwrap();
            fs::rename(file.with_extension("new"), file).unwrap();
        }
    }
    // What is not watched is believed for a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(
        read("cat /src/*/file | grep -o behind | wc -l"),
        (2 * LIMIT).to_string()
    );
}
