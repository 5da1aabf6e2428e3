//! What the application takes while nothing happens.
//!
//! Proportional set size, as `smaps_rollup` has it: a page that several processes share is counted in parts, so that
//! the sum is what would come free.

use crate::harness::stat;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, thread::sleep, time::Duration};

/// After what the start left has been done.
const REST: Duration = Duration::from_secs(20);
/// The place of a process's parent in `/proc/PID/stat`, proc(5).
const PARENT: usize = 4;

/// In MiB.
pub(super) struct Memory {
    /// The application's own process.
    pub(super) own: f64,
    /// What it started: the web view's.
    pub(super) others: f64,
    /// Each by the name that the kernel knows it by.
    processes: Vec<(String, f64)>,
}

impl Memory {
    pub(super) fn total(&self) -> f64 {
        self.own + self.others
    }

    pub(super) fn to_json(&self) -> Value {
        let processes = self.processes.iter();
        json!({
            "processes": processes.map(|(name, mib)| json!({ "name": name, "mib": mib })).collect::<Vec<_>>(),
            "rest_s": REST.as_secs(),
        })
    }
}

/// Waits until the application rests, and adds up what its process and those that it started take.
pub(super) fn at_rest(application: i32) -> Result<Memory> {
    sleep(REST);
    let own = share(application).with_context(|| format!("process {application} hides its memory"))?;
    let mut memory = Memory {
        own,
        others: 0.0,
        processes: vec![(name(application), own)],
    };
    for process in started_by(application, &parents()) {
        // One may have ended since.
        let Some(mib) = share(process) else { continue };
        memory.others += mib;
        memory.processes.push((name(process), mib));
    }
    Ok(memory)
}

/// Every process's parent.
fn parents() -> BTreeMap<i32, i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            Some((process, i32::try_from(stat(process, PARENT)?).ok()?))
        })
        .collect()
}

/// The processes that one has started, and those that these have.
fn started_by(first: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = Vec::new();
    let mut from = vec![first];
    while let Some(parent) = from.pop() {
        let children = parents.iter().filter(|(_, of)| **of == parent);
        let children: Vec<i32> = children.map(|(child, _)| *child).collect();
        found.extend_from_slice(&children);
        from.extend(children);
    }
    found
}

fn name(process: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// A process's proportional set size in MiB.
fn share(process: i32) -> Option<f64> {
    share_in(&fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?)
}

fn share_in(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_its_share_of_memory() {
        let rollup =
            "5581e0-7ffc8 ---p 00000000 00:00 0    [rollup]\nRss: 90112 kB\nPss: 20480 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(share_in(rollup), Some(20.0));
        assert_eq!(share_in("Rss: 1 kB\n"), None);
        assert!(share(std::process::id().cast_signed()).is_some_and(|mib| mib > 0.1));
    }

    #[test]
    fn what_was_started_by_what_was_started_is_counted_and_nothing_else() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 2)]);
        let mut found = started_by(2, &parents);
        found.sort_unstable();
        assert_eq!(found, [3, 4, 6]);
    }
}
