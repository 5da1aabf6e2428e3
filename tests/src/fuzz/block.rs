//! The disk device.

use super::script::{Mode, Step, script};
use super::{Seeds, device, seeds};
use crate::driver::block::{op, range};
use crate::driver::kind::Kind;

/// Plays a script to the device, whichever way it serves its queue.
pub fn fuzz(input: &[u8]) {
    device::fuzz("block", Kind::Block, input);
    device::fuzz("block", Kind::BlockInFlight, input);
}

/// What every device is asked, and every operation with what bounds it.
pub fn seeds() -> Seeds {
    let writable = Mode::default();
    let read_only = Mode {
        read_only: true,
        ..writable
    };
    let mut seeds = seeds::of(Kind::Block);
    seeds.extend([
        ("operations", script(writable, &operations())),
        (
            "operations-on-what-can-only-be-read",
            script(read_only, &operations()),
        ),
    ]);
    seeds
}

fn operations() -> Vec<Step> {
    let mut steps = Vec::new();
    for sector in [0, 127, 128, u64::MAX] {
        for (operation, data, room) in [
            (op::READ, Vec::new(), 1025),
            (op::WRITE, vec![7; 512], 1),
            (op::FLUSH, Vec::new(), 1),
            (op::GET_ID, Vec::new(), 21),
            (op::DISCARD, range(sector, 8, 0), 1),
            (op::WRITE_ZEROES, range(sector, 8, 1), 1),
            (99, Vec::new(), 1),
        ] {
            let mut given = operation.to_le_bytes().to_vec();
            given.extend([0; 4]);
            given.extend(sector.to_le_bytes());
            given.extend(data);
            steps.extend(seeds::ask(0, &given, room));
        }
    }
    steps
}
