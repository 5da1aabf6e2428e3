//! The desktop application as a person meets it: how soon its list can be used, what it takes while nothing happens,
//! how soon it shows what another client does, and how evenly it scrolls.
//!
//! ```text
//!  start    real application, emulated machine   process's start ──▶ rows ──▶ a click answered     host's clock
//!  memory   the same                             PSS of its process and of all that it started
//!  latency  the same                             engine's event ──▶ row                            clock.rs joins them
//!  frames   the page, host in memory, WebKit     wheel of the display's pointer ──▶ frames         page's clock
//! ```
//!
//! All of it is drawn by the processor, on a display that nobody looks at: a computer with a graphics card does better.
//! There is no peer's column, since no other desktop for containers can be had from the registries that this
//! repository's tools are fetched from.

mod clock;
mod frames;
mod latency;
mod memory;
mod pages;
mod start;

use super::{
    Reasons,
    record::{About, Record},
    table::{self, Row, Target, median, percentile},
};
use crate::harness::{
    Cove,
    webdriver::{self, Window},
};
use anyhow::{Context as _, Result};
use frames::Scroll;
use latency::Latency;
use memory::Memory;
use serde_json::json;
use start::Start;
use std::{env, path::Path, time::Duration};

/// Containers that the real list has.
const CONTAINERS: u64 = 8;
/// Starts that are measured. One more goes before, which makes the web view's caches.
const STARTS: usize = 7;
/// From an engine's event to the row, in milliseconds.
const LATENCY_TARGET: f64 = 100.0;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[];

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    webdriver::program().context("COVE_TEST_DESKTOP names no program; run this by: cargo xtask bench ui")?;
    let pages = env::var_os("COVE_BENCH_PAGES").context("COVE_BENCH_PAGES is not set")?;
    let cove = Cove::new("bench-ui");
    cove.start();
    let backend = cove.backend();
    for number in 0..CONTAINERS {
        let name = container(number);
        cove.docker(["run", "--detach", "--init", "--name", &name])
            .args(["alpine", "sleep", "86400"])
            .ok();
    }
    let (window, starts) = all_starts(&cove)?;
    let memory = memory::at_rest(start::process(&cove)?)?;
    let latency = latency::measure(&cove, &window)?;
    drop(window);
    // It would take of the processor what the page needs to scroll.
    cove.cove(["stop"]).limit(Duration::from_mins(3)).ok();
    let scrolls = frames::measure(&cove, Path::new(&pages))?;

    let rows = [
        rows_of_starts(&starts),
        rows_of_memory(&memory),
        rows_of_latency(&latency),
        rows_of_scrolls(&scrolls),
    ];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let notes = [
        "no peer: none of the other desktops can be had from the registries",
        "all of it is drawn by the processor, without a graphics card",
    ];
    for note in notes {
        println!("{note}");
    }
    let about = About {
        backend,
        peers: Vec::new(),
        notes: notes.map(str::to_owned).into(),
        details: json!({
            "containers": CONTAINERS,
            "starts": starts.iter().map(Start::to_json).collect::<Vec<_>>(),
            "memory": memory.to_json(),
            "latency": latency.to_json(),
            "frames": scrolls.iter().map(Scroll::to_json).collect::<Vec<_>>(),
        }),
    };
    table::report(&rows, about, record)
}

/// Starts the application [`STARTS`] times and once before, and leaves the last window open.
fn all_starts(cove: &Cove) -> Result<(Window, Vec<Start>)> {
    drop(start::measure(cove)?);
    let mut starts = Vec::with_capacity(STARTS);
    let mut window = None;
    for _ in 0..STARTS {
        // The one before ends first: there is one window of a Cove at a time.
        drop(window.take());
        let (opened, start) = start::measure(cove)?;
        starts.push(start);
        window = Some(opened);
    }
    Ok((window.context("nothing was started")?, starts))
}

fn rows_of_starts(starts: &[Start]) -> Vec<Row> {
    let seconds = |pick: fn(&Start) -> Duration| -> Vec<f64> {
        starts.iter().map(|start| pick(start).as_secs_f64()).collect()
    };
    let mut rows = Vec::new();
    for (what, times) in [
        (format!("start to {CONTAINERS} rows"), seconds(|start| start.rows)),
        ("start to a click answered".into(), seconds(|start| start.answer)),
    ] {
        rows.push(told(format!("{what}, median"), "s", median(&times)));
        rows.push(told(format!("{what}, worst"), "s", percentile(&times, 100)));
    }
    rows
}

fn rows_of_memory(memory: &Memory) -> Vec<Row> {
    [
        ("memory at rest, all of it", memory.total()),
        ("of which the application's process", memory.own),
        ("of which the web view's processes", memory.others),
    ]
    .map(|(name, mib)| told(name.into(), "MiB", mib))
    .into()
}

fn rows_of_latency(latency: &Latency) -> Vec<Row> {
    let mut rows = Vec::new();
    for (change, times) in [("a start", &latency.starts), ("an end", &latency.ends)] {
        for (percent, label) in [(50, "median"), (95, "95th percentile")] {
            rows.push(Row {
                target: Some(Target::OursAtMost(LATENCY_TARGET)),
                ..told(
                    format!("engine's event of {change} to its row, {label}"),
                    "ms",
                    percentile(times, percent),
                )
            });
        }
    }
    let heard = percentile(&latency.heard, 50);
    rows.push(told(
        "of which until another client has it, median".into(),
        "ms",
        heard,
    ));
    rows.push(told(
        "how far the clocks may be apart, worst".into(),
        "ms",
        latency.doubt,
    ));
    rows
}

fn rows_of_scrolls(scrolls: &[Scroll]) -> Vec<Row> {
    let mut rows = Vec::new();
    for scroll in scrolls {
        let what = scroll.what;
        let share = |limit| 100.0 * scroll.later_than(limit);
        for (label, unit, figure) in [
            ("frame, median", "ms", percentile(&scroll.frames, 50)),
            ("frame, 95th percentile", "ms", percentile(&scroll.frames, 95)),
            ("frame, worst", "ms", percentile(&scroll.frames, 100)),
            ("frames over 16.7 ms", "%", share(1000.0 / 60.0)),
            ("frames over 33.3 ms", "%", share(1000.0 / 30.0)),
        ] {
            rows.push(told(format!("{what}: {label}"), unit, figure));
        }
    }
    rows
}

/// A container's name, by its number.
fn container(number: u64) -> String {
    format!("bench-{number}")
}

/// A figure without a goal.
fn told(name: String, unit: &'static str, ours: f64) -> Row {
    Row {
        name,
        unit,
        ours,
        peer: None,
        target: None,
    }
}
