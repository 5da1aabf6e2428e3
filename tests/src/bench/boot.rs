//! How long a machine takes from `cove start` until its engine answers, stage by stage.
//!
//! The yardstick is the kernel's own time to its `/init`, which is the same work for everybody who boots this kernel
//! on this computer: the engine should answer within three times that.

use super::{
    Reasons,
    record::{About, Record},
    table::{self, Row, Target},
};
use crate::harness::Cove;
use anyhow::{Context as _, Result};
use cove_machine::{Preference, choose};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const BOOTS: usize = 5;
/// How often the state is asked for, and the median time that this may take.
const ASKS: usize = 100;
const STATUS_TARGET_MS: f64 = 20.0;
/// The engine answers when this stage ends.
const ENGINE: &str = "dockerd";
/// The kernel's own part: from its start to its `/init`.
const KERNEL: &str = "kernel";
const TARGET: f64 = 3.0;
/// The row with a goal.
const RATIO: &str = "kernel to engine, beside kernel to /init";
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[(
    RATIO,
    "most of it is dockerd and containerd, two large programs in Go whose code the emulation translates as it first \
     runs. Of dockerd's seven seconds one to two are 69 calls of iptables, 24 ms each, for its own rules of IPv4 and \
     IPv6; the agent's part, from `/init` to the engine's first instruction, is under two. Modules are loaded and the \
     disk is checked in parallel; both daemons have only the plugins they need. The kernel begins with one \
     processor, with which it is at its /init a third of a second sooner and the engine no later: the ratio is higher \
     for that",
)];

/// A stage's beginning and end in microseconds, on the clock of the start.
type Stages = BTreeMap<String, (u64, u64)>;

/// Boots a machine several times, prints a table of medians, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    let cove = Cove::new("bench-boot");
    let choice = choice_time();
    // The first start formats the data disk and loads the starter image: it is measured, but by itself.
    let first = boot(&cove)?;
    let boots = (0..BOOTS).map(|_| boot(&cove)).collect::<Result<Vec<_>>>()?;
    let medians = medians(&boots);
    let (kernel, ready) = yardstick(&medians)?;

    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>12}",
        "stage", "from", "to", "took", "first start"
    );
    let mut rows: Vec<_> = medians.iter().collect();
    rows.sort_by_key(|(_, (start, end))| (*start, *end));
    for (name, &(start, end)) in rows {
        let once = first
            .get(name)
            .map_or_else(String::new, |&(start, end)| seconds(end.saturating_sub(start)));
        println!(
            "{name:<24} {:>9} {:>9} {:>9} {once:>12}",
            seconds(start),
            seconds(end),
            seconds(end.saturating_sub(start))
        );
    }
    println!();
    cove.start();
    let answer = status_time(&cove);
    let backend = cove.backend();
    cove.cove(["stop"]).limit(Duration::from_mins(3)).ok();
    let rows = [
        Row {
            name: RATIO.into(),
            unit: "s",
            ours: micros(ready) / 1e6,
            peer: Some(micros(kernel) / 1e6),
            target: Some(Target::AtMost(TARGET)),
        },
        Row {
            name: format!("`cove status`, median of {ASKS}"),
            unit: "ms",
            ours: answer.as_secs_f64() * 1e3,
            peer: None,
            target: Some(Target::OursAtMost(STATUS_TARGET_MS)),
        },
        Row {
            name: "choice of a backend, the first of a process".into(),
            unit: "ms",
            ours: choice.as_secs_f64() * 1e3,
            peer: None,
            target: None,
        },
    ];
    let about = About {
        backend,
        peers: vec!["the kernel's own time to its /init, in the same boots".into()],
        notes: Vec::new(),
        details: json!({
            "boots": boots.iter().map(stages_as_json).collect::<Vec<_>>(),
            "first": stages_as_json(&first),
            "medians": stages_as_json(&medians),
        }),
    };
    table::report(&rows, about, record)
}

/// One start and stop.
fn boot(cove: &Cove) -> Result<Stages> {
    cove.start();
    let status = cove.status();
    let stages = stages_in(&status).context("the status has no timings")?;
    cove.cove(["stop"]).limit(Duration::from_mins(3)).ok();
    Ok(stages)
}

/// The time that it takes to look at every backend. A daemon asks QEMU for its version the first time alone.
fn choice_time() -> Duration {
    let began = Instant::now();
    let choice = choose(Preference::Auto, None);
    let took = began.elapsed();
    println!("{}", choice.reason);
    took
}

/// The median time from starting `cove status` to its end, while the machine runs.
fn status_time(cove: &Cove) -> Duration {
    let mut times: Vec<Duration> = (0..ASKS)
        .map(|_| {
            let began = Instant::now();
            cove.cove(["status"]).ok();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn stages_in(status: &Value) -> Option<Stages> {
    let stages = status["timings"].as_array()?.iter().map(|stage| {
        let name = stage["name"].as_str()?.to_owned();
        Some((name, (stage["start_us"].as_u64()?, stage["end_us"].as_u64()?)))
    });
    stages
        .collect::<Option<Stages>>()
        .filter(|stages| !stages.is_empty())
}

fn medians(boots: &[Stages]) -> Stages {
    let names = boots.iter().flat_map(|boot| boot.keys());
    names
        .map(|name| {
            let of = |pick: fn(&(u64, u64)) -> u64| {
                let mut values: Vec<u64> = boots.iter().filter_map(|boot| boot.get(name)).map(pick).collect();
                values.sort_unstable();
                values.get(values.len() / 2).copied().unwrap_or_default()
            };
            (name.clone(), (of(|stage| stage.0), of(|stage| stage.1)))
        })
        .collect()
}

/// The kernel's time to its `/init`, and to an engine that answers.
fn yardstick(stages: &Stages) -> Result<(u64, u64)> {
    let &(start, init) = stages.get(KERNEL).context("no stage `kernel` was reported")?;
    let &(_, ready) = stages.get(ENGINE).context("no stage `dockerd` was reported")?;
    Ok((init.saturating_sub(start).max(1), ready.saturating_sub(start)))
}

fn stages_as_json(stages: &Stages) -> Value {
    let map = stages
        .iter()
        .map(|(name, (start, end))| (name.clone(), json!({ "start_us": start, "end_us": end })));
    Value::Object(map.collect())
}

fn seconds(us: u64) -> String {
    format!("{:.3} s", micros(us) / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "a time for a table")]
fn micros(us: u64) -> f64 {
    us as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(kernel: u64, engine: u64) -> Stages {
        [
            (KERNEL.to_owned(), (100, kernel)),
            (ENGINE.to_owned(), (kernel, engine)),
        ]
        .into()
    }

    #[test]
    fn medians_are_taken_stage_by_stage() {
        let medians = medians(&[boot(200, 500), boot(210, 900), boot(190, 400)]);
        assert_eq!(medians[KERNEL], (100, 200));
        assert_eq!(medians[ENGINE], (200, 500));
        assert_eq!(yardstick(&medians).unwrap(), (100, 400));
    }

    #[test]
    fn a_status_without_timings_has_no_stages() {
        assert_eq!(stages_in(&json!({ "timings": [] })), None);
        assert_eq!(stages_in(&json!({})), None);
    }
}
