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
//! to be measured against here; its figures stand for themselves. `bench vmm` has the network device of Cove's own
//! monitor beside QEMU's.

mod measure;
mod site;

use super::{
    Reasons,
    record::{About, Record},
    table::{self, Row, Target, median},
};
use anyhow::{Context as _, Result};
use serde_json::json;
use site::{Site, Way};

/// Each figure is the median of this many runs.
const ROUNDS: usize = 5;

/// At least this many times the other's throughput.
const PASST_TARGET: f64 = 1.5;
const SSH_TARGET: f64 = 3.0;
/// At least as many connections a minute.
const AT_ONCE_TARGET: f64 = 10_000.0;
/// Its row, which stands for itself.
const AT_ONCE: &str = "connections made by 32 clients at once";
/// Why the way out stands beside nobody's, for a report.
const OWN_WAY_OUT: &str = "the way out of an emulated machine is passt on QEMU's own network device, so that its \
                           figures have nothing to stand beside; the network device of Cove's own monitor is \
                           measured by `cargo xtask bench vmm`";
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[(
    AT_ONCE,
    "most likely the emulated guest's own processors. Made alone, a connection takes some 12 ms, as the rows of those \
     made one after the other tell: the guest's kernel takes it from the socket device, the agent connects to the \
     container, and both are torn down again, all in code that is translated. Clients at once save what was waiting \
     and nothing of that work. Where the guest is not emulated, it was not measured",
)];

/// One run of a measurement.
type Measured = fn(&Site, Way) -> Result<f64>;

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    let site = Site::begin()?;
    let ways = site.ways();
    for way in [Way::Passt, Way::Ssh] {
        if !ways.contains(&way) {
            println!("{way} is missing and not measured");
        }
    }
    let kinds: [(&str, &str, Measured); 4] = [
        ("into the container", "MiB/s", measure::inward),
        ("out of the container", "MiB/s", measure::outward),
        ("connections made one after the other", "/s", measure::connections),
        ("round trip of one byte", "µs", measure::round_trip),
    ];
    let mut rows = Vec::new();
    for (name, unit, measured) in kinds {
        println!("measuring: {name}");
        rows.extend(beside(name, unit, &in_turns(&site, &ways, measured)?));
    }
    println!("measuring: {AT_ONCE}");
    let figures = in_turns(&site, &[Way::Published], measure::connections_at_once)?;
    let target = Some(Target::Ours(AT_ONCE_TARGET));
    rows.extend(alone(AT_ONCE, "/min", target, &figures));
    println!("measuring: the way out");
    let own: [(&str, Measured); 2] = [
        ("from the container to this computer", measure::upload),
        ("from this computer to the container", measure::download),
    ];
    for (name, measured) in own {
        let figures = in_turns(&site, &[Way::Out], measured)?;
        rows.extend(alone(name, "MiB/s", None, &figures));
    }
    let about = About {
        backend: site.backend(),
        peers: site.peers(),
        notes: vec![OWN_WAY_OUT.to_owned()],
        details: json!({ "rounds": ROUNDS }),
    };
    table::report(&rows, about, record)
}

/// The medians of each way's runs.
fn in_turns(site: &Site, ways: &[Way], measured: Measured) -> Result<Vec<(Way, f64)>> {
    let mut samples = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, samples) in ways.iter().zip(&mut samples) {
            samples.push(measured(site, *way).with_context(|| format!("measuring {way}"))?);
        }
    }
    let medians = samples.iter().map(|samples| median(samples));
    Ok(ways.iter().copied().zip(medians).collect())
}

/// The published port beside each of the other ways, without a figure for one that is missing. Goals are set for
/// throughput; the others are told.
fn beside(name: &str, unit: &'static str, figures: &[(Way, f64)]) -> Vec<Row> {
    let of = |way: Way| {
        let mut figures = figures.iter();
        figures.find_map(|(known, figure)| (*known == way).then_some(*figure))
    };
    let row = |(other, target): (Way, f64)| {
        Some(Row {
            name: format!("{name}, beside {other}"),
            unit,
            ours: of(Way::Published)?,
            peer: of(other),
            target: (unit == "MiB/s").then_some(Target::AtLeast(target)),
        })
    };
    [(Way::Passt, PASST_TARGET), (Way::Ssh, SSH_TARGET)]
        .into_iter()
        .filter_map(row)
        .collect()
}

/// What has nothing to stand beside.
fn alone(name: &str, unit: &'static str, target: Option<Target>, figures: &[(Way, f64)]) -> Vec<Row> {
    let row = |(_, ours): &(Way, f64)| Row {
        name: name.into(),
        unit,
        ours: *ours,
        peer: None,
        target,
    };
    figures.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_port_stands_beside_each_other_way_even_a_missing_one() {
        let rows = beside("into", "MiB/s", &[(Way::Published, 3.0), (Way::Passt, 2.0)]);
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.ours, row.peer, row.target.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                ("into, beside passt", 3.0, Some(2.0), true),
                ("into, beside ssh", 3.0, None, true)
            ]
        );
    }

    #[test]
    fn goals_are_for_throughput() {
        let figures = [(Way::Published, 3.0), (Way::Passt, 2.0), (Way::Ssh, 1.0)];
        assert!(
            beside("made", "/s", &figures)
                .iter()
                .all(|row| row.target.is_none())
        );
    }
}
