//! The rows of the table: what they are called, the units, and what is asked of them.

use super::{measure, net};
use crate::bench::Reasons;
use crate::bench::table::Target;

pub(super) const MIB: f64 = 1_048_576.0;
/// Thousand requests of the guest's random work, in bytes.
const THOUSAND_PAGES: f64 = 4_096_000.0;
/// In seconds.
const MICROSECOND: f64 = 1e-6;

/// At most this part of QEMU's time to the guest's init.
const START_TARGET: f64 = 0.5;
/// At most so many MiB beyond the guest's memory, and this part of QEMU's.
const BEYOND_TARGET: f64 = 5.0;
const BEYOND_PEER_TARGET: f64 = 0.1;
/// At least this many times QEMU's reads and writes.
const DISK_TARGET: f64 = 1.0;
/// At least this many times what QEMU's network device brings.
const NETWORK_TARGET: f64 = 1.0;
/// At least so many per cent of what was freed.
const GIVEN_BACK_TARGET: f64 = 90.0;
/// At most so many per cent of a processor for a guest that does nothing.
const IDLE_TARGET: f64 = 0.1;
/// Nothing wakes up again and again, if only every ten seconds.
const IDLE_WAKES_TARGET: f64 = 0.1;
/// Why goals are missed, as far as it is known, by their rows' names.
pub(in crate::bench) const WHY: Reasons = &[(
    "monitor's memory beyond the guest's",
    "most of it are pages of files. Every process of Cove's is the same program, whose file they share: once \
     it and its libraries are linked, 2.5 MiB are resident, before the first instruction of its own, and what the \
     monitor runs through lies scattered over 13 MiB of code",
)];

/// A row of the table.
pub(super) struct Figure {
    /// Its name among [`measure::Figures`].
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// How many of what was measured make one of that unit.
    pub(super) scale: f64,
    pub(super) target: Option<Target>,
}

impl Figure {
    const fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
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
    let target = Some(Target::AtLeast(DISK_TARGET));
    figure(measure::DISK[at], name, unit, target).scaled(scale)
}

pub(super) const FIGURES: [Figure; 26] = [
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
    figure(measure::ANONYMOUS, "of it, in no file", "MiB", None),
    figure(
        measure::PROGRAM,
        "of it, of the program's file, which other processes share",
        "MiB",
        None,
    ),
    figure(
        measure::SHARED,
        "of it, of libraries, and shared with the kernel",
        "MiB",
        None,
    ),
    figure(
        measure::BEYOND_OF_ALL,
        "all of it, with the machine process",
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
        net::SENDING,
        "network: sending",
        "MiB/s",
        Some(Target::AtLeast(NETWORK_TARGET)),
    )
    .scaled(MIB),
    figure(
        net::RECEIVING,
        "network: receiving",
        "MiB/s",
        Some(Target::AtLeast(NETWORK_TARGET)),
    )
    .scaled(MIB),
    figure(net::ROUND_TRIP, "network: round trip of one byte", "µs", None).scaled(MICROSECOND),
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
        measure::IDLE_VCPU_CPU,
        "idle: of a processor, by vCPUs",
        "%",
        None,
    ),
    figure(
        measure::IDLE_WAKES,
        "idle: wake-ups of all threads but vCPUs",
        "1/s",
        Some(Target::OursAtMost(IDLE_WAKES_TARGET)),
    ),
    figure(measure::IDLE_VCPU_WAKES, "idle: wake-ups of vCPUs", "1/s", None),
];
