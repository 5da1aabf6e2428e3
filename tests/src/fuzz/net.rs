//! The network device.

use super::script::{Mode, Step, script};
use super::subject::act;
use super::{Seeds, device, seeds};
use crate::driver::kind::Kind;

/// Plays a script to the device, behind which a program sends and takes frames.
pub fn fuzz(input: &[u8]) {
    device::fuzz("net", Kind::Net, input);
}

/// What every device is asked, and frames both ways.
pub fn seeds() -> Seeds {
    let mode = Mode::default();
    let mut seeds = seeds::of(Kind::Net);
    seeds.extend([
        ("frames-to-the-guest", script(mode, &arriving())),
        ("frames-of-the-guest", script(mode, &leaving())),
    ]);
    seeds
}

fn host(what: u8, bytes: &[u8]) -> Step {
    Step::Host {
        what,
        bytes: bytes.to_vec(),
    }
}

fn arriving() -> Vec<Step> {
    let mut steps = vec![Step::Settle, host(act::ACCEPT, &[])];
    steps.extend(seeds::post(0, 4, 200));
    for len in [60, 1, 0, 255] {
        steps.extend([host(act::FRAME, &vec![5; len]), Step::Settle]);
    }
    steps.extend(seeds::post(0, 8, 13));
    // A length in front of too little, one that no frame has, and half of one.
    for bytes in [&[0, 0, 0, 100, 1, 2][..], &[0xff; 8], &[0, 0]] {
        steps.extend([host(act::SEND, bytes), Step::Settle, host(act::HANG_UP, &[])]);
        steps.extend([Step::Settle, host(act::ACCEPT, &[])]);
    }
    steps
}

fn leaving() -> Vec<Step> {
    let mut steps = vec![Step::Settle, host(act::ACCEPT, &[])];
    for len in [12 + 60, 12 + 1514, 12 + 1515, 12, 11, 13] {
        steps.extend(seeds::ask(1, &vec![0; len], 0));
        steps.push(host(act::DRAIN, &[]));
    }
    // A header that asks for offloads.
    steps.extend(seeds::ask(1, &[0xff; 100], 0));
    steps.push(host(act::HANG_UP, &[]));
    steps.extend(seeds::good(Kind::Net));
    steps
}
