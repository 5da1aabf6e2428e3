//! The socket device.

use cove_virtio::vsock::packet::{HOST_CID, Header, Op, SHUTDOWN_BOTH, TYPE_STREAM};

use super::script::{Mode, Step, script};
use super::subject::{PORT, act};
use super::{Seeds, device, seeds};
use crate::driver::kind::Kind;
use crate::driver::rig::CID;

/// Plays a script to the device, behind which programs connect, listen, send and hang up.
pub fn fuzz(input: &[u8]) {
    device::fuzz("vsock", Kind::Vsock, input);
}

/// What every device is asked, and connections from both sides.
pub fn seeds() -> Seeds {
    let mode = Mode::default();
    let mut seeds = seeds::of(Kind::Vsock);
    seeds.extend([
        ("the-guest-connects", script(mode, &connecting())),
        ("the-host-connects", script(mode, &accepting())),
        ("packets-of-nobody", script(mode, &strange())),
    ]);
    seeds
}

fn host(what: u8, bytes: &[u8]) -> Step {
    Step::Host {
        what,
        bytes: bytes.to_vec(),
    }
}

/// A packet of the guest's with `payload`, its header changed by `change`.
fn packet(op: Op, payload: &[u8], change: impl FnOnce(&mut Header)) -> Vec<Step> {
    let mut header = Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: 11,
        dst_port: PORT,
        len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        kind: TYPE_STREAM,
        op: op as u16,
        flags: 0,
        buf_alloc: 64 * 1024,
        fwd_cnt: 0,
    };
    change(&mut header);
    seeds::ask(1, &[&header.to_bytes()[..], payload].concat(), 0)
}

fn connecting() -> Vec<Step> {
    let mut steps = seeds::post(0, 8, 0x400);
    steps.extend(packet(Op::Request, &[], |_| {}));
    steps.push(host(act::ACCEPT, &[]));
    steps.extend(packet(Op::Rw, b"to the host", |_| {}));
    steps.extend([
        host(act::DRAIN, &[]),
        host(act::SEND, b"to the guest"),
        Step::Settle,
    ]);
    steps.extend(packet(Op::CreditUpdate, &[], |header| header.fwd_cnt = 12));
    steps.extend(packet(Op::CreditRequest, &[], |_| {}));
    steps.extend([Step::Suspend, Step::Resume]);
    steps.extend(packet(Op::Shutdown, &[], |header| header.flags = SHUTDOWN_BOTH));
    steps.extend([host(act::HANG_UP, &[]), Step::Settle]);
    // More than was granted, and a length that the chain has not.
    steps.extend(packet(Op::Request, &[], |header| header.src_port = 12));
    steps.push(host(act::ACCEPT, &[]));
    steps.extend(packet(Op::Rw, b"cut off", |header| {
        (header.src_port, header.len) = (12, 1 << 20);
    }));
    steps
}

fn accepting() -> Vec<Step> {
    let mut steps = seeds::post(0, 8, 0x400);
    steps.extend([host(act::CONNECT, &[11]), Step::Settle]);
    // The device counts its own ports from some number on, which a script cannot know: all it can do is refuse.
    for port in [1024, 1 << 30, 1 << 31] {
        steps.extend(packet(Op::Response, &[], |header| header.dst_port = port));
    }
    steps.extend([host(act::SEND, b"early"), Step::Settle, host(act::HANG_UP, &[])]);
    steps.extend([host(act::CONNECT, &[0]), host(act::CONNECT, &[255]), Step::Settle]);
    steps
}

fn strange() -> Vec<Step> {
    let mut steps = seeds::post(0, 4, 44);
    for op in [
        Op::Response,
        Op::Rst,
        Op::Shutdown,
        Op::Rw,
        Op::CreditUpdate,
        Op::CreditRequest,
    ] {
        steps.extend(packet(op, b"x", |_| {}));
    }
    steps.extend(packet(Op::Request, &[], |header| header.op = 99));
    steps.extend(packet(Op::Request, &[], |header| header.kind = 2));
    steps.extend(packet(Op::Request, &[], |header| header.dst_cid = u64::MAX));
    steps.extend(packet(Op::Request, &[], |header| header.dst_port = 9));
    steps
}
