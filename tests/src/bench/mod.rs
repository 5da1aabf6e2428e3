//! Measurements: each prints a table and writes its figures as JSON, of which `docs/measurements.md` is made.
//!
//! ```text
//!  cargo xtask bench NAME ──▶ a bench's `run` ──▶ table::report ──▶ target/bench/NAME.json ──┐
//!  cargo xtask bench page ──▶ page::write ◀──────────────────────────────────────────────────┘
//! ```

mod boot;
mod events;
pub mod fs;
mod initramfs;
mod installed;
mod net;
mod page;
mod peer;
mod process;
mod record;
mod table;
mod ui;
#[cfg(target_arch = "x86_64")]
pub mod vmm;
pub mod vsock;

pub use self::page::write as write_page;

use self::record::Record;
use anyhow::{Context as _, Result};
use std::path::Path;

/// A measurement.
struct Bench {
    /// As `cargo xtask bench` knows it; its figures are saved under that name.
    name: &'static str,
    /// Heads its part of the page.
    title: &'static str,
    /// Measures, prints a table, and writes everything to the record.
    run: fn(&Record) -> Result<()>,
    why: Reasons,
}

/// Why goals are missed, as far as somebody knows: a row's name, and a sentence for the page. It stands in the code and
/// not in what was saved, since the reason is looked for once the figures are there.
type Reasons = &'static [(&'static str, &'static str)];

const BENCHES: &[Bench] = &[
    Bench {
        name: "boot",
        title: "Boot",
        run: boot::run,
        why: boot::WHY,
    },
    Bench {
        name: "events",
        title: "Changes in a folder",
        run: events::run,
        why: events::WHY,
    },
    Bench {
        name: "fs",
        title: "Folders",
        run: fs::run,
        why: fs::WHY,
    },
    Bench {
        name: "net",
        title: "Network",
        run: net::run,
        why: net::WHY,
    },
    Bench {
        name: "ui",
        title: "Window",
        run: ui::run,
        why: ui::WHY,
    },
    #[cfg(target_arch = "x86_64")]
    Bench {
        name: "vmm",
        title: "Monitor",
        run: vmm::run,
        why: vmm::WHY,
    },
    Bench {
        name: "vsock",
        title: "Sockets",
        run: vsock::run,
        why: vsock::WHY,
    },
];

/// Runs the bench of that name: prints a table, and writes everything to `out` as JSON, which stays as it was where
/// something fails. `cargo xtask bench` says by variables what it was built from and when, and where programs are.
pub fn run(name: &str, out: &Path) -> Result<()> {
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.with_context(|| format!("there is no bench `{name}`"))?;
    (bench.run)(&Record::begin(out)?)
}
