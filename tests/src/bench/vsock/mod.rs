//! The socket device side by side with `vhost-device-vsock`, both driven by the same userspace driver over
//! vhost-user, each in a process of its own, in turns.
//!
//! The driver does what a Linux guest does to the queues (its buffer sizes, credit and interrupt suppression) but
//! does not touch payload, so that what is measured is the device and not the driver.

mod measure;
mod subject;

use anyhow::{Context, Result};
use serde_json::json;

use self::measure::{Crowd, RoundTrip};
use self::subject::Subject;
pub use self::subject::serve;
use super::Reasons;
use super::peer::{self, Kind};
use super::record::{About, Record};
use super::table::{self, Row, Target, median};

/// Each figure is the median of this many runs.
const ROUNDS: usize = 7;
const SIZES: [(usize, &str); 3] = [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];
/// Bytes moved in one run of a stream.
const STREAM: usize = 256 << 20;
/// Connections at once, and bytes that each carries.
const CROWD: (usize, usize) = (1000, 256 << 10);

/// At least this many times the peer's throughput.
const STREAM_TARGET: f64 = 1.5;
/// At most this many times the peer's round trip.
const ROUND_TRIP_TARGET: f64 = 0.8;
/// When half of a crowd's bytes have moved, nobody has less than this share of the mean.
const SHARE_TARGET: f64 = 0.25;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(super) const WHY: Reasons = &[];

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From a host program to the guest.
    ToGuest,
    /// From the guest to a host program.
    ToHost,
}

/// Measures, prints a table, and writes everything to `record`.
pub(super) fn run(record: &Record) -> Result<()> {
    subject::raise_descriptor_limit()?;
    let peer = subject::PEER.find_or_say(&peer::tools_beside(&record.out));
    let peers = peer.iter().map(|_| subject::PEER.title()).collect();
    let mut kinds = vec![Kind::Ours];
    kinds.extend(peer.map(Kind::Peer));

    let mut rows = Vec::new();
    for (size, label) in SIZES {
        for way in [Way::ToGuest, Way::ToHost] {
            let direction = if way == Way::ToGuest {
                "host to guest"
            } else {
                "guest to host"
            };
            let name = format!("{direction}, {label} writes");
            let samples = rounds(&kinds, &name, |subject| {
                measure::stream(subject, way, size, STREAM)
            })?;
            rows.push(Row {
                name,
                unit: "MiB/s",
                ours: median(&samples[0]),
                peer: samples.get(1).map(|samples| median(samples)),
                target: Some(Target::AtLeast(STREAM_TARGET)),
            });
        }
    }
    let samples = rounds(&kinds, "round trip", measure::round_trip)?;
    for (name, percentile, target) in [
        (
            "median",
            RoundTrip::median as fn(&RoundTrip) -> f64,
            Some(Target::AtMost(ROUND_TRIP_TARGET)),
        ),
        ("99th percentile", RoundTrip::late, None),
    ] {
        let pick = |trips: &Vec<RoundTrip>| median(&trips.iter().map(percentile).collect::<Vec<_>>());
        rows.push(Row {
            name: format!("round trip of 64 bytes, {name}"),
            unit: "µs",
            ours: pick(&samples[0]),
            peer: samples.get(1).map(pick),
            target,
        });
    }
    rows.extend(crowd(&kinds)?);

    let about = About {
        backend: "none: a program drives the devices, and there is no guest".into(),
        peers,
        notes: Vec::new(),
        details: json!({ "rounds": ROUNDS }),
    };
    table::report(&rows, about, record)
}

/// A crowd of connections at once.
fn crowd(kinds: &[Kind]) -> Result<Vec<Row>> {
    let name = format!("{} connections at once", CROWD.0);
    let crowds: Vec<Option<Crowd>> = kinds
        .iter()
        .map(|kind| {
            let result =
                Subject::start(kind).and_then(|mut subject| measure::crowd(&mut subject, CROWD.0, CROWD.1));
            match result {
                Ok(crowd) => Ok(Some(crowd)),
                Err(error) if matches!(kind, Kind::Peer(_)) => {
                    println!("the peer fails with {name}: {error:#}");
                    Ok(None)
                }
                Err(error) => Err(error.context(name.clone())),
            }
        })
        .collect::<Result<_>>()?;
    let figure = |pick: fn(&Crowd) -> f64| {
        let mut figures = crowds.iter().map(|crowd| crowd.as_ref().map(pick));
        (
            figures.next().flatten().unwrap_or_default(),
            figures.next().flatten(),
        )
    };
    let row = |what: &str, unit, target, (ours, peer)| Row {
        name: format!("{name}, {what}"),
        unit,
        ours,
        peer,
        target,
    };
    Ok(vec![
        row("throughput", "MiB/s", None, figure(|crowd| crowd.throughput)),
        row(
            "least served at half time",
            "of mean",
            Some(Target::Ours(SHARE_TARGET)),
            figure(|crowd| crowd.least_share),
        ),
        row("first to last finished", "s", None, figure(|crowd| crowd.spread)),
    ])
}

/// Runs one measurement on each kind in turns; the samples of each kind.
fn rounds<T>(kinds: &[Kind], name: &str, measure: impl Fn(&mut Subject) -> Result<T>) -> Result<Vec<Vec<T>>> {
    let mut samples: Vec<Vec<T>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (kind, samples) in kinds.iter().zip(&mut samples) {
            let mut subject = Subject::start(kind)?;
            samples.push(measure(&mut subject).with_context(|| format!("{name} of {kind}"))?);
        }
    }
    Ok(samples)
}
