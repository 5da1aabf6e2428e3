//! Cove's monitor side by side with QEMU's `microvm`, both on KVM: the same kernel, initramfs, disks, memory and
//! number of vCPUs, in turns, on this computer's KVM or, where there is none, on that of an emulated machine
//! (`crate::nested`).
//!
//! ```text
//!  bench vmm ── here, or in the outer machine ──▶ bench vmm-here ──▶ cove machine-process ─▶ monitor ─▶ cove-exercise
//!      ▲                                               │        └──▶ QEMU ─────────────────────────▶ cove-exercise
//!      └────────────── a line for each machine ────────┘ consoles, and what /proc says of the processes
//! ```
//!
//! Ours is the machine as the daemon starts it, with everything that locks it in, from the start of the machine
//! process on. QEMU has only what the guest's program works with, and nothing around it. What the guest does with its
//! disk is measured another time where the system lets our machine have no rings (`io_uring`): what these bring shows
//! beside it. A peer that fails at its disk is started once more without that, so that the rest has a peer. The network
//! has machines of its own, after all others ([`net`]).
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`subject`] | a machine of either kind |
//! | [`console`] | what its guest says |
//! | [`process`](super::process) | what the kernel says of its processes |
//! | [`measure`] | what one machine is measured for |
//! | [`figures`] | the rows of the table |
//! | [`net`] | what is measured of its network, and QEMU's way to a passt |

mod console;
mod figures;
mod measure;
mod net;
mod subject;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) use self::figures::WHY;
use self::figures::{FIGURES, Figure};
use self::measure::Figures;
use self::subject::{BOARDS, Board, Kind, Place, Subject, Task};
use super::initramfs;
use super::installed;
use super::record::{About, Record};
use super::table::{self, Row, median};
use crate::nested::outer;

/// Machines of each kind. Each figure is the median of all that have it.
const ROUNDS: usize = 5;
/// Of these, so many begin with a machine that may have no rings.
const ROUNDS_WITHOUT_RINGS: usize = 3;
/// For everything together. In an emulated machine it takes twenty minutes.
const LIMIT: Duration = Duration::from_hours(1);
/// For a guest's init, whichever the monitor.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// Begins a line that is meant for `bench vmm`.
const MARK: &str = "@vmm ";
const QEMU: &str = "qemu-system-x86_64";
const PROGRAM: &str = "cove-exercise";
const NESTED: &str = "in an emulated machine with nested virtualisation: what counts is how two monitors compare \
                      on one emulated processor, and no time or rate by itself";
/// Failures of the peer without the disk's work after which there is none any more.
const PEER_FAILURES: usize = 3;
const PEER_FAILED: &str = "the peer failed; what it did not come to is not measured from there on";
const PEER_WITHOUT_DISK: &str = "the peer failed at its disk; its memory, what it gave back and its idleness are those \
                                 of a machine that passes the disk over, and ours of one that has done its work";
const NO_MEMORY: &str = "memory is not measured: a monitor shows what it maps to nobody but root";
const NO_PASST: &str = "the network is not measured: there is no passt";

/// Whose machine was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Ours,
    WithoutRings,
    Peer,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ours => "Cove's monitor",
            Self::WithoutRings => "Cove's monitor without rings",
            Self::Peer => "QEMU",
        })
    }
}

/// What `bench vmm-here` tells, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// What there is to compare with.
    Peer(String),
    /// Why there is nothing to compare with, or no more.
    PeerFailed(String),
    /// Why one machine's network could not be measured.
    NetworkFailed(String),
    /// One machine.
    Sample { side: Side, figures: Figures },
    /// Why it could not be done.
    Failed(String),
    /// That was all.
    Done,
}

/// What was told.
#[derive(Debug, Default)]
struct Findings {
    peer: Option<String>,
    peer_failed: Option<String>,
    /// How many machines' networks could not be measured.
    networks_failed: usize,
    samples: Vec<(Side, Figures)>,
    failed: Option<String>,
    done: bool,
    /// Everything else that was written.
    console: String,
}

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    if let Some(why) = outer::unfit() {
        bail!("there is no KVM to measure on: {why}");
    }
    let mut notes = Vec::new();
    let nested = !outer::has_kvm();
    if nested {
        println!("{NESTED}");
        notes.push(NESTED.to_owned());
    }
    let image = variable("COVE_TEST_IMAGE")?;
    let passt = installed::passt();
    let arguments: [OsString; 5] = [
        "vmm-here".into(),
        variable("COVE_TEST_PROGRAM")?.into(),
        variable("COVE_BENCH_EXERCISE")?.into(),
        find_qemu().into(),
        // Where there is none, there is no such program there either.
        passt.clone().unwrap_or_default().into(),
    ];
    let program = std::env::current_exe().context("this very program is not to be found")?;
    let mut findings = Findings::default();
    outer::run(&image, &program, &arguments, LIMIT, |line| findings.hear(line))?;
    if let Some(why) = &findings.failed {
        bail!("{why}");
    }
    ensure!(
        findings.done,
        "it broke off; what ran it wrote: {}",
        findings.console
    );
    if findings.median(Side::Ours, measure::BEYOND).is_none() {
        println!("{NO_MEMORY}");
        notes.push(NO_MEMORY.to_owned());
    }
    if findings.peer_failed.is_some() {
        // Why names paths of this computer, and was printed.
        let note = if findings.median(Side::Peer, measure::IDLE_CPU).is_some() {
            PEER_WITHOUT_DISK
        } else {
            PEER_FAILED
        };
        notes.push(note.to_owned());
    }
    if passt.is_none() {
        println!("{NO_PASST}");
        notes.push(NO_PASST.to_owned());
    }
    if findings.networks_failed > 0 {
        // Why names paths of this computer, too.
        notes.push(format!(
            "the network of {} of {} machines could not be measured",
            findings.networks_failed,
            findings.networks_failed + findings.networks()
        ));
    }
    let passt = passt.map(|program| format!("{} behind both networks", installed::passt_version(&program)));
    let about = About {
        backend: if nested {
            "kvm, in an emulated machine".into()
        } else {
            "kvm".into()
        },
        peers: findings.peer.iter().cloned().chain(passt).collect(),
        notes,
        details: json!({ "rounds": ROUNDS, "samples": findings.samples }),
    };
    table::report(&findings.rows(), about, record)
}

impl Findings {
    /// Takes a line of what `bench vmm-here` wrote, or of the outer machine's console.
    fn hear(&mut self, line: &str) {
        let report = line.split_once(MARK).map(|(_, report)| report);
        match report.map(serde_json::from_str::<Report>) {
            Some(Ok(Report::Peer(peer))) => {
                println!("beside {peer}");
                self.peer = Some(peer);
            }
            Some(Ok(Report::PeerFailed(why))) => {
                println!("the peer failed: {why}");
                self.peer_failed = Some(why);
            }
            Some(Ok(Report::NetworkFailed(why))) => {
                println!("not measured: {why}");
                self.networks_failed += 1;
            }
            Some(Ok(Report::Sample { side, figures })) => {
                match figures.get(measure::START) {
                    Some(start) => println!("measured {side}: its guest's init after {start:.3} s"),
                    None if figures.contains_key(net::SENDING) => println!("measured the network of {side}"),
                    None => println!("measured {side}"),
                }
                self.samples.push((side, figures));
            }
            Some(Ok(Report::Failed(why))) => self.failed = Some(why),
            Some(Ok(Report::Done)) => self.done = true,
            Some(Err(_)) | None => {
                self.console.push_str(line);
                self.console.push('\n');
            }
        }
    }

    /// How many machines' networks were measured.
    fn networks(&self) -> usize {
        let samples = self.samples.iter();
        samples
            .filter(|(_, figures)| figures.contains_key(net::SENDING))
            .count()
    }

    fn median(&self, side: Side, key: &str) -> Option<f64> {
        let of_side = self.samples.iter().filter(|(of, _)| *of == side);
        let values: Vec<f64> = of_side
            .filter_map(|(_, figures)| figures.get(key))
            .copied()
            .collect();
        (!values.is_empty()).then(|| median(&values))
    }

    fn rows(&self) -> Vec<Row> {
        let rows = |figure: &Figure| {
            let value = |side| self.median(side, figure.key).map(|value| value / figure.scale);
            let row = |name, ours, target| Row {
                name,
                unit: figure.unit,
                ours,
                peer: value(Side::Peer),
                target,
            };
            let ours = value(Side::Ours).map(|ours| row(figure.name.into(), ours, figure.target));
            let name = || format!("{}, without rings", figure.name);
            let without_rings = value(Side::WithoutRings).map(|ours| row(name(), ours, None));
            [ours, without_rings]
        };
        let of_names = [
            (
                measure::IDLE_WAKES_OF,
                "idle: wake-ups of the monitor's threads called",
            ),
            (measure::GUEST_WAKES_OF, "idle: the guest's own, by"),
        ];
        let by_names = of_names
            .into_iter()
            .flat_map(|(prefix, name)| self.wakes(prefix, name));
        FIGURES.iter().flat_map(rows).flatten().chain(by_names).collect()
    }

    /// A row for each figure of ours that begins with `prefix`, called `name` and what follows there; the most frequent
    /// first.
    fn wakes(&self, prefix: &str, name: &str) -> Vec<Row> {
        let ours = self.samples.iter().filter(|(side, _)| *side == Side::Ours);
        let keys: BTreeSet<&str> = ours
            .flat_map(|(_, figures)| figures.keys().map(String::as_str))
            .filter(|key| key.starts_with(prefix))
            .collect();
        let row = |key: &str| {
            Some(Row {
                name: format!("{name} {}", key.strip_prefix(prefix)?),
                unit: "1/s",
                ours: self.median(Side::Ours, key)?,
                peer: self.median(Side::Peer, key),
                target: None,
            })
        };
        let mut rows: Vec<Row> = keys.into_iter().filter_map(row).collect();
        rows.sort_by(|one, other| other.ours.total_cmp(&one.ours));
        rows
    }
}

/// What [`run`] has run where there is a KVM: measures machines of `image` with the programs `cove` and `qemu`, whose
/// guest runs `exercise`, and with `passt`, which may be missing; tells on standard output. Writes below `scratch`.
pub fn here(
    cove: &Path,
    exercise: &Path,
    qemu: &Path,
    passt: &Path,
    image: &Path,
    scratch: &Path,
) -> Result<()> {
    let measured = initramfs::with_program(image, exercise, PROGRAM).and_then(|archive| {
        let initramfs = scratch.join("initramfs");
        std::fs::write(&initramfs, archive)?;
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")
        };
        measure_all(&Place {
            image,
            initramfs: &initramfs,
            scratch,
            cove,
            qemu,
            passt,
            runtime: &runtime()?,
            without_rings: &runtime()?,
        })
    });
    tell(&match measured {
        Ok(()) => Report::Done,
        Err(error) => Report::Failed(format!("{error:#}")),
    })
}

fn measure_all(place: &Place<'_>) -> Result<()> {
    // The first machine of each kind has everything read into the page cache, and is not counted.
    let mut first = Subject::start(place, Kind::Ours, Task::All)?;
    measure::start(&mut first, START_PATIENCE).with_context(|| Side::Ours.to_string())?;
    drop(first);
    let mut peer = match find_board(place) {
        Ok((board, title)) => {
            tell(&Report::Peer(title))?;
            Some(board)
        }
        Err(error) => {
            tell(&Report::PeerFailed(format!("{error:#}")))?;
            None
        }
    };
    // What becomes of it at other work says nothing of its network.
    let board = peer;
    let mut of_peer = Extent {
        disk: true,
        rest: true,
    };
    let mut failures = 0;
    for round in 0..ROUNDS {
        if round < ROUNDS_WITHOUT_RINGS {
            let figures = disk_without_rings(place).with_context(|| Side::WithoutRings.to_string())?;
            tell(&Report::Sample {
                side: Side::WithoutRings,
                figures,
            })?;
        }
        let extent = Extent {
            disk: true,
            rest: round == 0,
        };
        let (figures, outcome) = one(place, Kind::Ours, extent);
        outcome.with_context(|| Side::Ours.to_string())?;
        tell(&Report::Sample {
            side: Side::Ours,
            figures,
        })?;
        if let Some(board) = peer
            && !measure_peer(place, board, &mut of_peer, &mut failures)?
        {
            peer = None;
        }
    }
    if place.passt.is_file() {
        measure_networks(place, board)?;
    }
    Ok(())
}

/// Measures a machine of the peer's, and another without the disk's work where that was what it failed at. Keeps in
/// `extent` what the next one is measured for, and in `failures` how often it failed without a disk's work; false when
/// there is no point in another.
fn measure_peer(place: &Place<'_>, board: Board, extent: &mut Extent, failures: &mut usize) -> Result<bool> {
    loop {
        let (figures, outcome) = one(place, Kind::Peer(board), *extent);
        if !figures.is_empty() {
            tell(&Report::Sample {
                side: Side::Peer,
                figures,
            })?;
        }
        let Err(error) = outcome else {
            extent.rest = false;
            return Ok(true);
        };
        tell(&Report::PeerFailed(format!("{error:#}")))?;
        if !std::mem::take(&mut extent.disk) {
            *failures += 1;
            return Ok(*failures < PEER_FAILURES);
        }
    }
}

/// Measures the networks of both kinds of machines, in turns. One that fails is tried again the next time.
fn measure_networks(place: &Place<'_>, board: Option<Board>) -> Result<()> {
    let ours = (Side::Ours, Kind::Ours);
    let peer = board.map(|board| (Side::Peer, Kind::Peer(board)));
    for _ in 0..net::ROUNDS {
        for (side, kind) in [Some(ours), peer].into_iter().flatten() {
            tell(&match net::one(place, kind) {
                Ok(figures) => Report::Sample { side, figures },
                Err(error) => Report::NetworkFailed(format!("the network of {side}: {error:#}")),
            })?;
        }
    }
    Ok(())
}

/// What a machine is measured for beside its start.
#[derive(Clone, Copy)]
struct Extent {
    /// What it does with its disk.
    disk: bool,
    /// Memory and idleness, which take long and vary little.
    rest: bool,
}

/// Measures one machine from its start to its end, or to where it fails.
fn one(place: &Place<'_>, kind: Kind, extent: Extent) -> (Figures, Result<()>) {
    let mut figures = Figures::new();
    let mut steps = || -> Result<()> {
        let task = if extent.disk { Task::All } else { Task::Rest };
        let mut subject = Subject::start(place, kind, task)?;
        figures = measure::start(&mut subject, START_PATIENCE)?;
        if extent.disk {
            measure::disk(&mut subject, &mut figures)?;
        }
        if extent.rest {
            measure::rest(&mut subject, &mut figures)?;
        }
        Ok(())
    };
    let outcome = steps();
    (figures, outcome)
}

/// Measures what a machine without rings does with its disk, and nothing else.
fn disk_without_rings(place: &Place<'_>) -> Result<Figures> {
    let mut subject = Subject::start(place, Kind::WithoutRings, Task::All)?;
    measure::start(&mut subject, START_PATIENCE)?;
    let mut figures = Figures::new();
    measure::disk(&mut subject, &mut figures)?;
    Ok(figures)
}

/// The first board that this QEMU boots the guest on, and what it is called.
fn find_board(place: &Place<'_>) -> Result<(Board, String)> {
    let version = Command::new(place.qemu)
        .arg("--version")
        .output()
        .with_context(|| format!("{} cannot be started", place.qemu.display()))?;
    let version = String::from_utf8_lossy(&version.stdout);
    let version = version.lines().next().unwrap_or_default();
    let mut failures = Vec::new();
    for board in BOARDS {
        let called = format!("-machine {} -cpu {}", board.machine, board.cpu);
        let booted = Subject::start(place, Kind::Peer(board), Task::All)
            .and_then(|mut subject| measure::start(&mut subject, START_PATIENCE));
        match booted {
            Ok(_) => return Ok((board, format!("{version}, {called}"))),
            Err(error) => failures.push(format!("{called}: {error:#}")),
        }
    }
    bail!("{version} does not boot the guest: {}", failures.join("; "))
}

fn tell(report: &Report) -> Result<()> {
    println!("{MARK}{}", serde_json::to_string(report)?);
    Ok(())
}

/// QEMU by its path: where the outer machine runs the bench, there is no list of directories to look in.
fn find_qemu() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(QEMU))
        .find(|program| program.is_file())
        // Where it is missing, this is what is said to be.
        .unwrap_or_else(|| QEMU.into())
}

/// A path that `cargo xtask bench` names.
fn variable(name: &str) -> Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set; run this by: cargo xtask bench vmm"))
}

#[cfg(test)]
mod tests {
    use super::figures::MIB;
    use super::*;

    fn sample(side: Side, start: f64) -> String {
        let figures = Figures::from([
            (measure::START.to_owned(), start),
            (measure::DISK[2].to_owned(), 8_192_000.0),
        ]);
        let report = serde_json::to_string(&Report::Sample { side, figures }).unwrap();
        format!("[ 1.0] {MARK}{report}")
    }

    #[test]
    fn what_was_told_makes_a_row_of_medians_for_each_figure_that_we_have() {
        let mut findings = Findings::default();
        for start in [3.0, 1.0, 2.0] {
            findings.hear(&sample(Side::Ours, start));
        }
        findings.hear(&sample(Side::Peer, 8.0));
        findings.hear("a kernel's line");
        findings.hear(&format!("{MARK}\"done\""));
        assert!(findings.done && findings.console == "a kernel's line\n");
        let rows = findings.rows();
        assert_eq!(rows.len(), 2, "what nobody measured has no row");
        assert_eq!((rows[0].ours, rows[0].peer), (2.0, Some(8.0)));
        assert_eq!((rows[1].ours, rows[1].unit), (2.0, "1000/s"));
    }

    #[test]
    fn what_a_machine_without_rings_does_stands_below_what_ours_does() {
        let mut findings = Findings::default();
        findings.hear(&sample(Side::Ours, 3.0));
        let figures = Figures::from([(measure::DISK[2].to_owned(), 4_096_000.0)]);
        let side = Side::WithoutRings;
        let report = serde_json::to_string(&Report::Sample { side, figures }).unwrap();
        findings.hear(&format!("{MARK}{report}"));
        let rows = findings.rows();
        assert_eq!(rows.len(), 3);
        assert!(rows[2].name.ends_with(", without rings") && rows[2].target.is_none());
        assert_eq!((rows[1].ours, rows[2].ours), (2.0, 1.0));
    }

    #[test]
    fn networks_have_rows_in_their_units_and_one_that_failed_is_kept_apart() {
        let mut findings = Findings::default();
        let figures = Figures::from([
            (net::SENDING.to_owned(), 3.0 * MIB),
            (net::ROUND_TRIP.to_owned(), 0.002),
        ]);
        for side in [Side::Ours, Side::Peer] {
            let figures = figures.clone();
            let report = serde_json::to_string(&Report::Sample { side, figures }).unwrap();
            findings.hear(&format!("{MARK}{report}"));
        }
        findings.hear(&format!("{MARK}{{\"network_failed\":\"QEMU: it ended\"}}"));
        let rows = findings.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].ours, rows[0].peer, rows[0].unit),
            (3.0, Some(3.0), "MiB/s")
        );
        assert!(rows[0].target.is_some() && rows[1].target.is_none());
        assert!((rows[1].ours - 2000.0).abs() < 1e-6, "{} µs", rows[1].ours);
        assert_eq!((findings.networks(), findings.networks_failed), (2, 1));
    }

    #[test]
    fn without_a_peer_our_own_figures_are_told() {
        let mut findings = Findings::default();
        findings.hear(&sample(Side::Ours, 3.0));
        findings.hear(&format!("{MARK}{{\"peer_failed\":\"no QEMU\"}}"));
        assert_eq!(findings.peer_failed.as_deref(), Some("no QEMU"));
        assert!(findings.rows().iter().all(|row| row.peer.is_none()));
    }
}
