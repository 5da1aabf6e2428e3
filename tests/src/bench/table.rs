//! A table of figures, ours beside a peer's, and what they should be.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::record::{About, Record, Results};

/// A figure of both, and what it should be.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) ours: f64,
    pub(super) peer: Option<f64>,
    pub(super) target: Option<Target>,
}

#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Times the peer's.
    AtLeast(f64),
    AtMost(f64),
    /// A value of ours alone, to be reached.
    Ours(f64),
    /// A value of ours alone, not to be passed.
    OursAtMost(f64),
}

/// A row as it is saved.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) ours: f64,
    pub(super) peer: Option<f64>,
    /// Ours to the peer's; nothing where there is none, or where the peer's is nought.
    pub(super) ratio: Option<f64>,
    /// In words, such as `≥ 1.5×`.
    pub(super) goal: Option<String>,
    /// Nothing where there is no goal, or where a peer was missing that it is about.
    pub(super) met: Option<bool>,
}

/// Prints the table, says in the last line how many goals were missed or not measured and which, and saves it all with
/// what `about` says. A missed goal is a result and no error: whoever wants to fail for it reads `met` there.
pub(super) fn report(rows: &[Row], about: About, record: &Record) -> Result<()> {
    print(rows);
    let with_goals = || rows.iter().filter(|row| row.target.is_some());
    let names = |met: Option<bool>| -> Vec<String> {
        let rows = with_goals().filter(|row| row.met() == met);
        rows.map(|row| row.name.clone()).collect()
    };
    let (missed, unmeasured) = (names(Some(false)), names(None));
    let verdict = verdict(with_goals().count(), &missed, &unmeasured);
    record.save(&Results {
        circumstances: record.circumstances.clone(),
        about,
        rows: rows.iter().map(Row::to_line).collect(),
        met: missed.is_empty() && unmeasured.is_empty(),
        missed,
        unmeasured,
    })?;
    println!("\nwritten to {}\n{verdict}", record.out.display());
    Ok(())
}

fn verdict(goals: usize, missed: &[String], unmeasured: &[String]) -> String {
    let told: Vec<String> = [("missed", missed), ("not measured", unmeasured)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(how, names)| format!("{} of {goals} goals {how}: {}", names.len(), names.join("; ")))
        .collect();
    match (goals, told.is_empty()) {
        (0, _) => "there are no goals".to_owned(),
        (_, true) => format!("all {goals} goals met"),
        (_, false) => told.join("; "),
    }
}

pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The sample that so many in a hundred do not exceed: the worst of all by 100.
pub(super) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(place).copied().unwrap_or_default()
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| self.ours / peer)
    }

    fn met(&self) -> Option<bool> {
        match self.target? {
            Target::AtLeast(target) => Some(self.ratio()? >= target),
            Target::AtMost(target) => Some(self.ratio()? <= target),
            Target::Ours(target) => Some(self.ours >= target),
            Target::OursAtMost(target) => Some(self.ours <= target),
        }
    }

    fn to_line(&self) -> Line {
        Line {
            name: self.name.clone(),
            unit: self.unit.to_owned(),
            ours: self.ours,
            peer: self.peer,
            ratio: self.ratio(),
            goal: self.target.map(|target| target.to_string()),
            met: self.met(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(target) => write!(formatter, "≥ {target}×"),
            Self::AtMost(target) => write!(formatter, "≤ {target}×"),
            Self::Ours(target) => write!(formatter, "ours ≥ {target}"),
            Self::OursAtMost(target) => write!(formatter, "ours ≤ {target}"),
        }
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<52} {:>8} {:>9} {:>9} {:>7}  target",
        "", "", "ours", "peer", "ratio"
    );
    for row in rows {
        let optional =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let target = row.target.map_or_else(String::new, |target| target.to_string());
        let verdict = match row.met() {
            Some(true) => " met",
            Some(false) => " MISSED",
            None if row.target.is_some() => " not measured",
            None => "",
        };
        println!(
            "{:<52} {:>8} {:>9.2} {:>9} {:>7}  {target}{verdict}",
            row.name,
            row.unit,
            row.ours,
            optional(row.peer),
            optional(row.ratio()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;

    #[test]
    fn percentiles_are_samples_in_their_order() {
        let samples = [9.0, 1.0, 5.0, 3.0, 7.0];
        let at = |percent| percentile(&samples, percent);
        assert!([at(0), at(50), at(95), at(100)].map(f64::to_bits) == [1.0, 5.0, 7.0, 9.0].map(f64::to_bits));
        assert_eq!(percentile(&[], 50).to_bits(), 0);
    }

    fn row(name: &str, ours: f64, peer: Option<f64>, target: Option<Target>) -> Row {
        Row {
            name: name.into(),
            unit: "s",
            ours,
            peer,
            target,
        }
    }

    /// What is saved of these rows.
    fn saved(rows: &[Row]) -> Results {
        let place = tempfile::tempdir().unwrap();
        let record = Record {
            out: place.path().join("some.json"),
            circumstances: record::sample(),
        };
        let about = About {
            backend: "emulated".into(),
            peers: Vec::new(),
            notes: Vec::new(),
            details: serde_json::json!({ "rounds": 3 }),
        };
        report(rows, about, &record).unwrap();
        serde_json::from_slice(&std::fs::read(&record.out).unwrap()).unwrap()
    }

    #[test]
    fn a_missed_goal_is_counted_named_and_written() {
        let goal = Some(Target::AtMost(1.0));
        let results = saved(&[
            row("quick", 1.0, Some(2.0), goal),
            row("slow", 5.0, Some(2.0), goal),
            row("told", 5.0, Some(2.0), None),
        ]);
        assert!(!results.met && results.unmeasured.is_empty());
        assert_eq!(results.missed, ["slow"]);
        assert_eq!(results.circumstances.date, "2026-03-01");
        assert_eq!(results.about.details["rounds"], 3);
        let goals: Vec<_> = results
            .rows
            .iter()
            .map(|line| (line.goal.as_deref(), line.met))
            .collect();
        assert_eq!(
            goals,
            [
                (Some("≤ 1×"), Some(true)),
                (Some("≤ 1×"), Some(false)),
                (None, None)
            ]
        );
        assert_eq!(verdict(2, &results.missed, &[]), "1 of 2 goals missed: slow");
        assert_eq!(verdict(2, &[], &[]), "all 2 goals met");
    }

    #[test]
    fn a_goal_without_a_figure_is_not_met() {
        let goal = Some(Target::AtLeast(1.5));
        let results = saved(&[row("alone", 5.0, None, goal), row("told", 5.0, None, None)]);
        assert!(!results.met && results.missed.is_empty());
        assert_eq!(results.unmeasured, ["alone"]);
        assert_eq!(
            verdict(1, &[], &results.unmeasured),
            "1 of 1 goals not measured: alone"
        );
        // Our own figure needs no peer.
        let results = saved(&[row("own", 5.0, None, Some(Target::Ours(4.0)))]);
        assert!(results.met);
    }

    #[test]
    fn a_peer_that_takes_nothing_leaves_no_ratio() {
        let results = saved(&[row("idle", 0.1, Some(0.0), None)]);
        assert_eq!(results.rows[0].ratio, None);
    }
}
