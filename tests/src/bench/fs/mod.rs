//! The file system device side by side with `virtiofsd`, both driven by the same userspace driver over vhost-user, each
//! in a process of its own, in turns, on one directory tree.
//!
//! The driver asks what a Linux guest would ask (the requests of an open and a close, reads as large as its
//! read-ahead) but does not touch file data, so that what is measured is the device and not the driver. Each
//! measurement is made twice: with one request at a time, where a server that sleeps in between mostly wakes up; and with
//! many in flight, where it is never idle.

mod guest;
mod measure;
mod subject;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use self::subject::Subject;
pub use self::subject::serve;
use super::Reasons;
use super::peer::{self, Kind};
use super::record::{About, Record};
use super::table::{self, Row, Target, median};

/// Each figure is the median of this many runs.
const ROUNDS: usize = 7;
/// At least this many times the peer's throughput of data.
const DATA_TARGET: f64 = 1.0;
/// At least this many times the peer's rate of everything else.
const METADATA_TARGET: f64 = 1.5;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[
    ("sequential write, 16 in flight", ONE_AT_A_TIME),
    ("random write of 4 KiB, 16 in flight", ONE_AT_A_TIME),
    ("random read of 4 KiB, 16 in flight", ON_TWO_PROCESSORS),
    ("getattr, 16 in flight", ON_TWO_PROCESSORS),
    ("open and close, 16 in flight", ON_TWO_PROCESSORS),
    ("readdir, entries, 16 in flight", ON_TWO_PROCESSORS),
    (guest::UNPACK, MOSTLY_THE_GUEST),
    (guest::WALK, MOSTLY_THE_GUEST),
    (guest::NPM, MOSTLY_THE_GUEST),
];
const ONE_AT_A_TIME: &str = "most likely since two threads of ours write to one file, which its file system lets one of \
                             them do at a time, beside a driver that wants a processor of the two as well; the peer has \
                             one thread. A lock in front of that was tried, and had a third of the rate";
const ON_TWO_PROCESSORS: &str = "with sixteen in flight nobody sleeps, and what is left is the work itself beside the \
                                 driver's, on two processors: the peer's one thread and the driver have one each, two \
                                 threads of ours and the driver share them. One thread of ours had 0.92, 1.25, 1.12 and \
                                 1.36 times the peer's rates in these four rows, and lost a third of its lookups; the \
                                 peer's own figures differ by a quarter from run to run";
const MOSTLY_THE_GUEST: &str = "most of it is the emulated guest's own work, of which no server can save anything, as \
                                the row below shows. Ours keeps extended attributes, too, which the peer does only \
                                with `--xattr`: for each file that is unpacked the guest's kernel asks ours one request \
                                more than the peer's six";

/// What is measured, in order, with its unit.
const FIGURES: [(&str, &str, f64); 15] = [
    ("sequential read", "MiB/s", DATA_TARGET),
    ("sequential write", "MiB/s", DATA_TARGET),
    ("random read of 4 KiB", "1000/s", DATA_TARGET),
    ("random write of 4 KiB", "1000/s", DATA_TARGET),
    ("first lookup", "1000/s", METADATA_TARGET),
    ("lookup", "1000/s", METADATA_TARGET),
    ("lookup of what is not there", "1000/s", METADATA_TARGET),
    ("getattr", "1000/s", METADATA_TARGET),
    ("open and close", "1000/s", METADATA_TARGET),
    ("readdir, entries", "1000/s", METADATA_TARGET),
    ("readdirplus, entries", "1000/s", METADATA_TARGET),
    ("create and close", "1000/s", METADATA_TARGET),
    ("rename", "1000/s", METADATA_TARGET),
    ("unlink", "1000/s", METADATA_TARGET),
    ("mkdir and rmdir", "1000/s", METADATA_TARGET),
];

/// How many requests are in flight at most, and what that is called.
const DEPTHS: [(usize, &str); 2] = [(1, "one at a time"), (16, "16 in flight")];

/// What one run found, by name.
type Figures = BTreeMap<&'static str, f64>;

/// A new folder, in memory where files have extended attributes there: servers are to be compared, and not how long a
/// disk's file system looks for a free inode. Ext4, for one, passes over each that was freed in the last seconds, and
/// every run frees thousands.
fn folder() -> Result<TempDir> {
    if let Ok(dir) = tempfile::tempdir_in("/dev/shm")
        && rustix::fs::setxattr(dir.path(), "user.cove", b"tried", rustix::fs::XattrFlags::empty()).is_ok()
    {
        return Ok(dir);
    }
    Ok(tempfile::tempdir()?)
}

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    let peer = subject::PEER.find_or_say(&peer::tools_beside(&record.out));
    let peers = peer.iter().map(|_| subject::PEER.title()).collect();
    let mut kinds = vec![Kind::Ours];
    kinds.extend(peer.map(Kind::Peer));
    let tree = measure::Tree::make(folder()?)?;

    let mut rows = Vec::new();
    for (depth, label) in DEPTHS {
        let mut samples: Vec<Vec<Figures>> = kinds.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (kind, samples) in kinds.iter().zip(&mut samples) {
                let mut subject = Subject::start(kind, tree.path())?;
                let figures = measure::all(&mut subject, &tree, depth);
                samples.push(figures.with_context(|| format!("measuring {kind}, {label}"))?);
            }
        }
        let figure = |kind: usize, name: &str| {
            let of_kind: Vec<f64> = samples
                .get(kind)?
                .iter()
                .filter_map(|run| run.get(name))
                .copied()
                .collect();
            (!of_kind.is_empty()).then(|| median(&of_kind))
        };
        for (name, unit, target) in FIGURES {
            rows.push(Row {
                name: format!("{name}, {label}"),
                unit,
                ours: figure(0, name).with_context(|| format!("nobody measured: {name}"))?,
                peer: figure(1, name),
                target: Some(Target::AtLeast(target)),
            });
        }
    }
    println!("in a guest, emulated: {}", guest::ABOUT);
    rows.extend(guest::rows(&kinds)?);
    let about = About {
        backend: "none: a program drives the devices; QEMU's emulation for what is in a guest".into(),
        peers,
        notes: vec![
            format!("what is in a guest was measured {}", guest::ABOUT),
            format!(
                "otherwise the folder lay below {}",
                tree.path().parent().unwrap_or(tree.path()).display()
            ),
        ],
        details: json!({ "rounds": ROUNDS }),
    };
    table::report(&rows, about, record)
}
