//! How long it takes until a program in a container has heard of a change on the host: from just before the change to
//! the line that the program, woken by inotify, has written and its Docker client has passed on. So what is measured is
//! more than the event's own way, by that of the line back.

use super::{
    Reasons,
    record::{About, Record},
    table::{self, Row, Target, percentile},
};
use crate::harness::{Cove, Running};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

/// How often each kind of change is made.
const ROUNDS: usize = 100;
/// Longer than anything lasts that a change leaves behind.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the slowest but one in twenty, in milliseconds.
const TARGET: f64 = 100.0;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[];

/// What it is called, what is done in the folder, and what the watcher says of it.
type Change = (
    &'static str,
    fn(&Path) -> std::io::Result<()>,
    &'static [&'static str],
);

const CHANGES: [Change; 5] = [
    (
        "create",
        |folder| fs::File::create(folder.join("new")).map(drop),
        &["create new"],
    ),
    (
        // One write, and no truncation, which is a change of its own.
        "modify",
        |folder| {
            let file = fs::OpenOptions::new().append(true).open(folder.join("new"));
            file?.write_all(b"words")
        },
        &["modify new"],
    ),
    (
        "chmod",
        |folder| fs::set_permissions(folder.join("new"), fs::Permissions::from_mode(0o751)),
        &["attrib new"],
    ),
    (
        "rename",
        |folder| fs::rename(folder.join("new"), folder.join("old")),
        &["from new", "to old"],
    ),
    (
        "delete",
        |folder| fs::remove_file(folder.join("old")),
        &["delete old"],
    ),
];

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    let cove = Cove::new("bench-events");
    cove.start();
    let (folder, tools) = (cove.scratch().join("watched"), cove.scratch().join("tools"));
    fs::create_dir(&folder)?;
    fs::create_dir(&tools)?;
    let program = tools.join("posix");
    let built = cove.kit().posix.as_ref().context("COVE_TEST_POSIX is not set")?;
    fs::copy(built, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let binds = [
        format!("{}:/src", folder.display()),
        format!("{}:/tools:ro", tools.display()),
    ];
    let words = ["run", "--rm", "-v", &binds[0], "-v", &binds[1]];
    let words = words
        .into_iter()
        .chain(["alpine", "/tools/posix", "watch", "/src"]);
    let mut watcher = Running(cove.docker(words).spawn());
    let lines = watcher.0.stdout.take().context("the client has no output")?;
    let mut lines = BufReader::new(lines).lines();
    let mut expect = |wanted: &str| -> Result<()> {
        let line = lines.next().context("the container ended")??;
        ensure!(line == wanted, "`{line}` came instead of `{wanted}`");
        Ok(())
    };
    expect("watching")?;

    let mut times = CHANGES.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((_, change, told), times) in CHANGES.iter().zip(&mut times) {
            sleep(PAUSE);
            let began = Instant::now();
            change(&folder)?;
            for line in *told {
                expect(line)?;
            }
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut rows = Vec::new();
    for ((kind, ..), times) in CHANGES.iter().zip(&times) {
        for (percent, label) in [(50, "median"), (95, "95th percentile")] {
            rows.push(Row {
                name: format!("{kind}, {label}"),
                unit: "ms",
                ours: percentile(times, percent),
                peer: None,
                target: Some(Target::OursAtMost(TARGET)),
            });
        }
    }
    let about = About {
        backend: cove.backend(),
        peers: Vec::new(),
        notes: Vec::new(),
        details: json!({ "rounds": ROUNDS }),
    };
    drop(watcher);
    table::report(&rows, about, record)
}
