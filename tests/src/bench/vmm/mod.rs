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
//! beside it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`subject`] | a machine of either kind |
//! | [`console`] | what its guest says |
//! | [`process`] | what the kernel says of its processes |
//! | [`measure`] | what one machine is measured for |

mod console;
mod measure;
mod process;
mod subject;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::measure::Figures;
use self::subject::{BOARDS, Board, Kind, Place, Subject};
use super::Reasons;
use super::initramfs;
use super::record::{About, Record};
use super::table::{self, Row, Target, median};
use crate::nested::outer;

/// Machines of each kind. Each figure is the median of all that have it.
const ROUNDS: usize = 5;
/// Of these, so many begin with a machine that may have no rings.
const ROUNDS_WITHOUT_RINGS: usize = 3;
/// For everything together. In an emulated machine it takes a quarter of an hour.
const LIMIT: Duration = Duration::from_hours(1);
/// For a guest's init, whichever the monitor.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// Begins a line that is meant for `bench vmm`.
const MARK: &str = "@vmm ";
const QEMU: &str = "qemu-system-x86_64";
const PROGRAM: &str = "cove-exercise";
const NESTED: &str = "in an emulated machine with nested virtualisation: what counts is how two monitors compare \
                      on one emulated processor, and no time or rate by itself";
const NO_MEMORY: &str = "memory is not measured: a monitor shows what it maps to nobody but root";

const MIB: f64 = 1_048_576.0;
/// Thousand requests of the guest's random work, in bytes.
const THOUSAND_PAGES: f64 = 4_096_000.0;

/// At most this part of QEMU's time to the guest's init.
const START_TARGET: f64 = 0.5;
/// At most so many MiB beyond the guest's memory, and this part of QEMU's.
const BEYOND_TARGET: f64 = 5.0;
const BEYOND_PEER_TARGET: f64 = 0.1;
/// At least this many times QEMU's reads and writes.
const DISK_TARGET: f64 = 1.0;
/// At least so many per cent of what was freed.
const GIVEN_BACK_TARGET: f64 = 90.0;
/// At most so many per cent of a processor for a guest that does nothing.
const IDLE_TARGET: f64 = 0.1;
/// Nothing wakes up again and again, if only every ten seconds.
const IDLE_WAKES_TARGET: f64 = 0.1;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[];

/// A row of the table.
struct Figure {
    /// Its name among [`Figures`].
    key: &'static str,
    name: &'static str,
    unit: &'static str,
    /// How many of what was measured make one of that unit.
    scale: f64,
    target: Option<Target>,
}

const fn figure(key: &'static str, name: &'static str, unit: &'static str, target: Option<Target>) -> Figure {
    Figure {
        key,
        name,
        unit,
        scale: 1.0,
        target,
    }
}

const fn disk(at: usize, name: &'static str, unit: &'static str, scale: f64) -> Figure {
    Figure {
        key: measure::DISK[at],
        name,
        unit,
        scale,
        target: Some(Target::AtLeast(DISK_TARGET)),
    }
}

const FIGURES: [Figure; 19] = [
    figure(
        measure::START,
        "process start to the guest's init",
        "s",
        Some(Target::AtMost(START_TARGET)),
    ),
    figure(
        measure::FIRST_INSTRUCTION,
        "of it, to the guest's first instruction",
        "s",
        None,
    ),
    figure(
        measure::BEYOND,
        "monitor's memory beyond the guest's",
        "MiB",
        Some(Target::OursAtMost(BEYOND_TARGET)),
    ),
    figure(
        measure::BEYOND,
        "the same beside QEMU's",
        "MiB",
        Some(Target::AtMost(BEYOND_PEER_TARGET)),
    ),
    figure(
        measure::BEYOND_OF_ALL,
        "the same with the machine process",
        "MiB",
        None,
    ),
    disk(0, "disk: sequential read", "MiB/s", MIB),
    disk(1, "disk: sequential write", "MiB/s", MIB),
    disk(2, "disk: random read of 4 KiB", "1000/s", THOUSAND_PAGES),
    disk(3, "disk: random write of 4 KiB", "1000/s", THOUSAND_PAGES),
    disk(4, "disk: sequential read, 8 in flight", "MiB/s", MIB),
    disk(5, "disk: sequential write, 8 in flight", "MiB/s", MIB),
    disk(
        6,
        "disk: random read of 4 KiB, 8 in flight",
        "1000/s",
        THOUSAND_PAGES,
    ),
    disk(
        7,
        "disk: random write of 4 KiB, 8 in flight",
        "1000/s",
        THOUSAND_PAGES,
    ),
    // On virtio-mmio each takes the guest's driver two exits to the monitor, to read why and to acknowledge it.
    figure(
        measure::INTERRUPTS[2],
        "disk: interrupts for each random read of 4 KiB",
        "",
        None,
    ),
    figure(
        measure::INTERRUPTS[6],
        "disk: interrupts for each, 8 in flight",
        "",
        None,
    ),
    figure(
        measure::GIVEN_BACK,
        "given back 10 s after 512 MiB were freed",
        "%",
        Some(Target::Ours(GIVEN_BACK_TARGET)),
    ),
    figure(
        measure::IDLE_CPU,
        "idle: of a processor",
        "%",
        Some(Target::OursAtMost(IDLE_TARGET)),
    ),
    figure(
        measure::IDLE_WAKES,
        "idle: wake-ups of all threads but vCPUs",
        "1/s",
        Some(Target::OursAtMost(IDLE_WAKES_TARGET)),
    ),
    figure(measure::IDLE_VCPU_WAKES, "idle: wake-ups of vCPUs", "1/s", None),
];

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
    let arguments: [OsString; 4] = [
        "vmm-here".into(),
        variable("COVE_TEST_PROGRAM")?.into(),
        variable("COVE_BENCH_EXERCISE")?.into(),
        find_qemu().into(),
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
        notes.push("the peer failed; what it did not come to is not measured from there on".to_owned());
    }
    let about = About {
        backend: if nested {
            "kvm, in an emulated machine".into()
        } else {
            "kvm".into()
        },
        peers: findings.peer.iter().cloned().collect(),
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
            Some(Ok(Report::Sample { side, figures })) => {
                match figures.get(measure::START) {
                    Some(start) => println!("measured {side}: its guest's init after {start:.3} s"),
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
        FIGURES.iter().flat_map(rows).flatten().collect()
    }
}

/// What [`run`] has run where there is a KVM: measures machines of `image` with the programs `cove` and `qemu`, whose
/// guest runs `exercise`, and tells on standard output. Writes below `scratch`.
pub fn here(cove: &Path, exercise: &Path, qemu: &Path, image: &Path, scratch: &Path) -> Result<()> {
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
    let mut first = Subject::start(place, Kind::Ours)?;
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
    let mut of_peer = Extent {
        disk: true,
        rest: true,
    };
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
        let Some(board) = peer else { continue };
        let (figures, outcome) = one(place, Kind::Peer(board), of_peer);
        if !figures.is_empty() {
            tell(&Report::Sample {
                side: Side::Peer,
                figures,
            })?;
        }
        match outcome {
            Ok(()) => of_peer.rest = false,
            Err(error) => {
                tell(&Report::PeerFailed(format!("{error:#}")))?;
                // One that fails without a disk's work fails at all.
                if !std::mem::take(&mut of_peer.disk) {
                    peer = None;
                }
            }
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
        let mut subject = Subject::start(place, kind)?;
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
    let mut subject = Subject::start(place, Kind::WithoutRings)?;
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
        let booted = Subject::start(place, Kind::Peer(board))
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
    fn without_a_peer_our_own_figures_are_told() {
        let mut findings = Findings::default();
        findings.hear(&sample(Side::Ours, 3.0));
        findings.hear(&format!("{MARK}{{\"peer_failed\":\"no QEMU\"}}"));
        assert_eq!(findings.peer_failed.as_deref(), Some("no QEMU"));
        assert!(findings.rows().iter().all(|row| row.peer.is_none()));
    }
}
