//! The ways into and out of a container, side by side in one machine: a published port of Cove's, over vsock, beside a
//! port that passt forwards itself, through its network device, and beside an ssh tunnel, as those who forward ports by
//! ssh have it. They lead to the same program in the same container, and are measured in turns.
//!
//! ```text
//!  published:  this program ─▶ daemon ═ vsock ═▶ agent ─▶ container
//!  passt:      this program ─▶ passt ─ QEMU's network device ─▶ guest's kernel ─▶ container
//!  ssh:        this program ─▶ ssh ─▶ passt ─ QEMU's network device ─▶ guest's kernel ─▶ sshd in the container
//! ```
//!
//! The way out of an emulated machine is passt on QEMU's own network device and nothing else, so that it has no other
//! to be measured against here; its figures stand for themselves.

mod measure;
mod site;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use site::{Site, Way};
use std::{fs, path::Path};

/// Each figure is the median of this many runs.
const ROUNDS: usize = 5;

/// At least this many times the other's throughput.
const PASST_TARGET: f64 = 1.5;
const SSH_TARGET: f64 = 3.0;

/// One run of a measurement.
type Measured = fn(&Site, Way) -> Result<f64>;

/// A figure, for each way.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// Whether more is better.
    more: bool,
    figures: Vec<(Way, f64)>,
}

/// Measures, prints a table, and writes everything to `out` as JSON.
pub fn run(out: &Path) -> Result<()> {
    let site = Site::begin()?;
    let ways = site.ways();
    for way in [Way::Passt, Way::Ssh] {
        if !ways.contains(&way) {
            println!("{way} is missing and not measured");
        }
    }
    let kinds: [(&str, &str, bool, Measured); 4] = [
        ("into the container", "MiB/s", true, measure::inward),
        ("out of the container", "MiB/s", true, measure::outward),
        (
            "connections made one after the other",
            "/s",
            true,
            measure::connections,
        ),
        ("round trip of one byte", "µs", false, measure::round_trip),
    ];
    let mut rows = Vec::new();
    for (name, unit, more, measured) in kinds {
        println!("measuring: {name}");
        rows.push(Row {
            name,
            unit,
            more,
            figures: in_turns(&site, &ways, measured)?,
        });
    }
    println!("measuring: the way out");
    let own: [(&str, Measured); 2] = [
        ("from the container to this computer", measure::upload),
        ("from this computer to the container", measure::download),
    ];
    for (name, measured) in own {
        rows.push(Row {
            name,
            unit: "MiB/s",
            more: true,
            figures: in_turns(&site, &[Way::Out], measured)?,
        });
    }
    print(&rows);
    let missed: Vec<String> = rows.iter().flat_map(Row::missed).collect();
    let unmeasured: Vec<String> = rows.iter().flat_map(Row::unmeasured).collect();
    let report = json!({
        "rounds": ROUNDS,
        "backend": site.backend(),
        "targets": { "passt": PASST_TARGET, "ssh": SSH_TARGET },
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        "met": missed.is_empty() && unmeasured.is_empty(),
        "missed": missed,
        "unmeasured": unmeasured,
    });
    fs::write(out, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("\nwritten to {}", out.display());
    let told: Vec<String> = [("missed", &missed), ("not measured", &unmeasured)]
        .into_iter()
        .filter(|(_, goals)| !goals.is_empty())
        .map(|(how, goals)| format!("{} goals {how}: {}", goals.len(), goals.join("; ")))
        .collect();
    if told.is_empty() {
        println!("all goals met");
    } else {
        println!("{}", told.join("; "));
    }
    Ok(())
}

/// The medians of each way's runs.
fn in_turns(site: &Site, ways: &[Way], measured: Measured) -> Result<Vec<(Way, f64)>> {
    let mut samples = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, samples) in ways.iter().zip(&mut samples) {
            samples.push(measured(site, *way).with_context(|| format!("measuring {way}"))?);
        }
    }
    let median = |mut samples: Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().unwrap_or_default()
    };
    Ok(ways
        .iter()
        .copied()
        .zip(samples.into_iter().map(median))
        .collect())
}

impl Row {
    fn of(&self, way: Way) -> Option<f64> {
        self.figures
            .iter()
            .find_map(|(known, figure)| (*known == way).then_some(*figure))
    }

    /// How many times as good the published port is as `other`.
    fn ratio(&self, other: Way) -> Option<f64> {
        let (ours, theirs) = (self.of(Way::Published)?, self.of(other)?);
        Some(if self.more { ours / theirs } else { theirs / ours })
    }

    /// Targets are set for throughput; the others are told beside it.
    fn target(&self, other: Way) -> Option<f64> {
        match other {
            _ if self.unit != "MiB/s" => None,
            Way::Passt => Some(PASST_TARGET),
            Way::Ssh => Some(SSH_TARGET),
            Way::Published | Way::Out => None,
        }
    }

    /// The ways that the published port is to be better than, and how many times.
    fn goals(&self) -> impl Iterator<Item = (Way, f64)> {
        // The way out has none.
        let others = self.of(Way::Published).map(|_| [Way::Passt, Way::Ssh]);
        let others = others.into_iter().flatten();
        others.filter_map(move |other| Some((other, self.target(other)?)))
    }

    fn missed(&self) -> Vec<String> {
        let missed = |(other, target): &(Way, f64)| self.ratio(*other).is_some_and(|ratio| ratio < *target);
        self.named(missed)
    }

    /// What a way that is missing leaves open.
    fn unmeasured(&self) -> Vec<String> {
        self.named(|(other, _)| self.ratio(*other).is_none())
    }

    /// The goals of which `which` is true, by name.
    fn named(&self, which: impl Fn(&(Way, f64)) -> bool) -> Vec<String> {
        let goals = self.goals().filter(which);
        goals
            .map(|(other, _)| format!("{} against {other}", self.name))
            .collect()
    }

    fn to_json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(way, figure)| (way.to_string(), json!(figure)))
            .collect();
        json!({
            "name": self.name,
            "unit": self.unit,
            "figures": figures,
            "times_passt": self.ratio(Way::Passt),
            "times_ssh": self.ratio(Way::Ssh),
        })
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:<38} {:>6} {:>10} {:>8} {:>8} {:>7} {:>7}",
        "", "", "published", "passt", "ssh", "×passt", "×ssh"
    );
    for row in rows {
        let shown =
            |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}"));
        let ours = row.of(Way::Published).or_else(|| row.of(Way::Out));
        println!(
            "{:<38} {:>6} {:>10} {:>8} {:>8} {:>7} {:>7}",
            row.name,
            row.unit,
            shown(ours),
            shown(row.of(Way::Passt)),
            shown(row.of(Way::Ssh)),
            shown(row.ratio(Way::Passt)),
            shown(row.ratio(Way::Ssh)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_without_a_figure_is_not_met() {
        let row = |unit, figures: &[(Way, f64)]| Row {
            name: "into",
            unit,
            more: true,
            figures: figures.to_vec(),
        };
        let half = row("MiB/s", &[(Way::Published, 3.0), (Way::Passt, 2.5)]);
        assert_eq!(half.missed(), ["into against passt"]);
        assert_eq!(half.unmeasured(), ["into against ssh"]);
        let good = row(
            "MiB/s",
            &[(Way::Published, 3.0), (Way::Passt, 2.0), (Way::Ssh, 1.0)],
        );
        assert!(good.missed().is_empty() && good.unmeasured().is_empty());
        for told in [
            row("/s", &[(Way::Published, 3.0)]),
            row("MiB/s", &[(Way::Out, 3.0)]),
        ] {
            assert!(told.missed().is_empty() && told.unmeasured().is_empty());
        }
    }
}
