//! A table of figures, ours beside a peer's, and what they should be.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

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

/// Prints the table, says in the last line how many goals were missed and which, and writes it all to `out` as JSON,
/// beside what `about` says. A missed goal is a result and no error: whoever wants to fail for it reads `met` there.
pub(super) fn report(rows: &[Row], mut about: Value, out: &Path) -> Result<()> {
    print(rows);
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.met() == Some(false))
        .map(|row| row.name.as_str())
        .collect();
    let goals = rows.iter().filter(|row| row.met().is_some()).count();
    about["rows"] = rows.iter().map(Row::to_json).collect();
    about["missed"] = json!(missed);
    about["met"] = json!(missed.is_empty());
    std::fs::write(out, serde_json::to_vec_pretty(&about)?)
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("\nwritten to {}\n{}", out.display(), verdict(goals, &missed));
    Ok(())
}

fn verdict(goals: usize, missed: &[&str]) -> String {
    match (goals, missed) {
        (0, _) => "there are no goals".to_owned(),
        (_, []) => format!("all {goals} goals met"),
        _ => format!("{} of {goals} goals missed: {}", missed.len(), missed.join("; ")),
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

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio(),
            "met": self.met(),
        })
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
        let target = match row.target {
            Some(Target::AtLeast(target)) => format!("≥ {target}×"),
            Some(Target::AtMost(target)) => format!("≤ {target}×"),
            Some(Target::Ours(target)) => format!("ours ≥ {target}"),
            Some(Target::OursAtMost(target)) => format!("ours ≤ {target}"),
            None => String::new(),
        };
        let verdict = match row.met() {
            Some(true) => " met",
            Some(false) => " MISSED",
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
    use super::*;

    #[test]
    fn percentiles_are_samples_in_their_order() {
        let samples = [9.0, 1.0, 5.0, 3.0, 7.0];
        let at = |percent| percentile(&samples, percent);
        assert!([at(0), at(50), at(95), at(100)].map(f64::to_bits) == [1.0, 5.0, 7.0, 9.0].map(f64::to_bits));
        assert_eq!(percentile(&[], 50).to_bits(), 0);
    }

    #[test]
    fn a_missed_goal_is_counted_named_and_written() {
        let row = |name: &str, ours, target| Row {
            name: name.into(),
            unit: "s",
            ours,
            peer: Some(2.0),
            target,
        };
        let rows = [
            row("quick", 1.0, Some(Target::AtMost(1.0))),
            row("slow", 5.0, Some(Target::AtMost(1.0))),
            row("told", 5.0, None),
        ];
        let out = std::env::temp_dir().join(format!("cove-table-{}.json", std::process::id()));
        report(&rows, json!({}), &out).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        std::fs::remove_file(&out).unwrap();
        assert_eq!(written["met"], json!(false));
        assert_eq!(written["missed"], json!(["slow"]));
        assert_eq!(verdict(2, &["slow"]), "1 of 2 goals missed: slow");
        assert_eq!(verdict(2, &[]), "all 2 goals met");
    }
}
