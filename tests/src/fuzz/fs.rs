//! The file system device.

use cove_fs::abi::{FileLock, LkIn, OpenIn, ROOT_ID, ReadIn, op};
use zerocopy::IntoBytes;

use super::script::{Mode, Step, script};
use super::{Seeds, device, seeds};
use crate::driver::fs::{fs_request, greeting};
use crate::driver::kind::Kind;

/// The share's root, and the first file that is looked up in it: nodes are counted.
pub(super) const SHARE: u64 = ROOT_ID + 1;
/// See [`SHARE`].
pub(super) const FILE: u64 = ROOT_ID + 2;

/// Plays a script to the device, whose folder has another one beside it that must stay as it is, and unread.
pub fn fuzz(input: &[u8]) {
    device::fuzz("fs", Kind::Fs, input);
}

/// What every device is asked, and a file that is opened, read and locked.
pub fn seeds() -> Seeds {
    let mode = Mode::default();
    let mut seeds = seeds::of(Kind::Fs);
    seeds.extend([
        ("a-file", script(mode, &file())),
        ("a-lock-that-is-waited-for", script(mode, &waiting())),
    ]);
    seeds
}

fn request(opcode: u32, node: u64, body: &[&[u8]]) -> Vec<Step> {
    seeds::ask(1, &fs_request(opcode, node, body), 512)
}

/// Opens the file `f` twice.
fn opened() -> Vec<Step> {
    let open = OpenIn {
        flags: 2,
        open_flags: 0,
    };
    let mut steps = seeds::ask(1, &greeting(), 256);
    steps.extend(request(op::LOOKUP, ROOT_ID, &[b"share\0"]));
    steps.extend(request(op::LOOKUP, SHARE, &[b"f\0"]));
    steps.extend(request(op::OPEN, FILE, &[open.as_bytes()]));
    steps.extend(request(op::OPEN, FILE, &[open.as_bytes()]));
    steps
}

fn file() -> Vec<Step> {
    let read = ReadIn {
        fh: 1,
        size: 100,
        ..ReadIn::default()
    };
    let mut steps = opened();
    steps.extend(request(op::READ, FILE, &[read.as_bytes()]));
    steps.extend([Step::Suspend, Step::Resume]);
    steps.extend(request(op::READ, FILE, &[read.as_bytes()]));
    for name in [&b"out\0"[..], b"file\0", b"magic\0", b"..\0", b"../outside\0"] {
        steps.extend(request(op::LOOKUP, SHARE, &[name]));
        steps.extend(request(op::LOOKUP, FILE + 1, &[b"secret\0"]));
    }
    steps
}

/// The second lock waits until the device is paused, and reset.
fn waiting() -> Vec<Step> {
    let lock = |fh| LkIn {
        fh,
        owner: fh,
        lock: FileLock {
            start: 0,
            end: i64::MAX.cast_unsigned(),
            kind: 1,
            pid: 7,
        },
        flags: 0,
        padding: 0,
    };
    let mut steps = opened();
    steps.extend(request(op::SETLKW, FILE, &[lock(1).as_bytes()]));
    steps.extend(request(op::SETLKW, FILE, &[lock(2).as_bytes()]));
    steps.extend([Step::Suspend, Step::Resume]);
    steps.extend(request(op::SETLKW, FILE, &[lock(2).as_bytes()]));
    steps.push(Step::Restart);
    steps
}
