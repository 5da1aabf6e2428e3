//! Inputs to begin with for any device: the classes of broken descriptors, and drivers without manners, one a seed.

use super::script::{Agreed, Mode, Spec, Step, place, script};
use super::{Seeds, register};
use crate::driver::kind::Kind;
use crate::driver::queue::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, request_chain};

/// Where in the arena an answer goes.
pub(super) const ANSWER: u16 = 0x8000;

const NEXT: u8 = DESC_NEXT.to_le_bytes()[0];
const WRITE: u8 = DESC_WRITE.to_le_bytes()[0];
const INDIRECT: u8 = DESC_INDIRECT.to_le_bytes()[0];

/// What every device is asked.
pub(super) fn of(kind: Kind) -> Seeds {
    let ring = kind.request().queue.to_le_bytes()[0];
    let fenced = Mode::default();
    let wild = Mode { wild: true, ..fenced };
    let least = Mode {
        agreed: Agreed::Least,
        ..fenced
    };
    let polled = Mode {
        agreed: Agreed::WithoutEventIdx,
        ..fenced
    };
    let good = good(kind);
    let twice = [good.clone(), good.clone()].concat();
    vec![
        ("good", script(fenced, &twice)),
        ("least-features", script(least, &twice)),
        (
            "without-event-idx",
            script(polled, &[wishes(ring), good.clone()].concat()),
        ),
        ("loops", script(fenced, &loops(ring))),
        ("out-of-bounds", script(fenced, &out_of_bounds(ring))),
        ("zero-length", script(fenced, &zero_length(ring))),
        ("wrong-direction", script(fenced, &wrong_direction(ring))),
        ("longer-than-the-queue", script(fenced, &longer(ring))),
        ("indirect", script(fenced, &indirect(ring))),
        (
            "configured-after-driver-ok",
            script(fenced, &[configured(), good.clone()].concat()),
        ),
        ("reset-in-flight", script(fenced, &reset_in_flight(ring, &good))),
        ("forged-indices", script(fenced, &forged(ring, &good))),
        ("pauses", script(fenced, &pauses(ring, &good))),
        ("over-its-own-queues", script(wild, &over_queues(ring))),
        ("queues-anywhere", script(wild, &[moved(ring), good].concat())),
    ]
}

/// What a good driver asks.
pub(super) fn good(kind: Kind) -> Vec<Step> {
    let request = kind.request();
    let room = u16::try_from(request.room).unwrap_or(u16::MAX);
    ask(request.queue.to_le_bytes()[0], &request.given, room)
}

/// One request: what the device reads, and how much it may write.
pub(super) fn ask(ring: u8, given: &[u8], room: u16) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..)
        .zip(given.chunks(255))
        .map(|(piece, bytes)| Step::Bytes {
            at: piece * 255,
            bytes: bytes.to_vec(),
        })
        .collect();
    let len = u16::try_from(given.len()).unwrap_or(u16::MAX);
    let chain = request_chain((0, len.into()), (ANSWER.into(), room.into()));
    let entries = (0..).zip(chain).map(|(index, descriptor)| Step::Descriptor {
        ring,
        index,
        spec: in_arena(descriptor),
    });
    steps.extend(entries);
    steps.extend([Step::Chain { ring, head: 0 }, Step::Settle]);
    steps
}

/// A descriptor whose buffer lies in the arena, so far from its beginning.
fn in_arena(descriptor: Descriptor) -> Spec {
    Spec {
        place: place::ARENA,
        at: u16::try_from(descriptor.address).unwrap_or(u16::MAX),
        len: u16::try_from(descriptor.len).unwrap_or(u16::MAX),
        flags: descriptor.flags.to_le_bytes()[0],
        next: descriptor.next.to_le_bytes()[0],
    }
}

/// Receive buffers for a device that fills them when it has something.
pub(super) fn post(ring: u8, count: u8, len: u16) -> Vec<Step> {
    (0..count)
        .flat_map(|index| {
            let spec = writable(ANSWER + u16::from(index) * 0x400, len);
            [
                Step::Descriptor { ring, index, spec },
                Step::Chain { ring, head: index },
            ]
        })
        .collect()
}

fn readable(at: u16, len: u16) -> Spec {
    Spec {
        place: place::ARENA,
        at,
        len,
        flags: 0,
        next: 0,
    }
}

fn writable(at: u16, len: u16) -> Spec {
    Spec {
        flags: WRITE,
        ..readable(at, len)
    }
}

fn followed(spec: Spec, next: u8) -> Spec {
    Spec {
        flags: spec.flags | NEXT,
        next,
        ..spec
    }
}

/// A chain of descriptors from `first` on.
fn linked(ring: u8, first: u8, chain: &[Spec]) -> Vec<Step> {
    let last = chain.len().saturating_sub(1);
    let entries = (first..).zip(chain).enumerate();
    entries
        .map(|(at, (index, spec))| Step::Descriptor {
            ring,
            index,
            spec: if at < last {
                followed(*spec, index + 1)
            } else {
                *spec
            },
        })
        .collect()
}

/// Each of the chains offered from descriptor 0 on, one after another.
fn each(ring: u8, chains: &[&[Spec]]) -> Vec<Step> {
    let mut steps = Vec::new();
    for chain in chains {
        steps.extend(linked(ring, 0, chain));
        steps.extend([Step::Chain { ring, head: 0 }, Step::Settle]);
    }
    steps
}

fn loops(ring: u8) -> Vec<Step> {
    let descriptor = |index, spec| Step::Descriptor { ring, index, spec };
    let mut steps = vec![
        descriptor(0, followed(readable(0, 16), 0)),
        descriptor(1, followed(writable(ANSWER, 16), 1)),
        descriptor(2, followed(readable(0, 16), 3)),
        descriptor(3, followed(writable(ANSWER, 16), 2)),
        descriptor(4, followed(readable(0, 16), 15)),
        descriptor(15, followed(readable(0, 16), 16)),
    ];
    steps.extend((0..5).map(|head| Step::Chain { ring, head }));
    steps.push(Step::Settle);
    steps
}

fn out_of_bounds(ring: u8) -> Vec<Step> {
    let placed = |place, at, flags| Spec {
        place,
        at,
        len: 64,
        flags,
        next: 0,
    };
    let mut chains = Vec::new();
    for flags in [0, WRITE] {
        for (place, at) in [
            (place::BEFORE_END, 8),
            (place::PAST_END, 0),
            (place::LAST, 8),
            (place::BEFORE, 0),
            (place::ARENA | place::HUGE, 0),
            (place::ARENA | place::LARGE, 0),
            (place::LAST | place::HUGE, 0),
        ] {
            chains.push(vec![placed(place, at, flags)]);
            chains.push(vec![
                readable(0, 16),
                placed(place, at, flags),
                writable(ANSWER, 16),
            ]);
        }
    }
    let chains: Vec<&[Spec]> = chains.iter().map(Vec::as_slice).collect();
    each(ring, &chains)
}

fn zero_length(ring: u8) -> Vec<Step> {
    let (nothing, nowhere) = (readable(0, 0), writable(ANSWER, 0));
    each(
        ring,
        &[
            &[nothing],
            &[nowhere],
            &[nothing, nowhere],
            &[
                nothing,
                readable(0, 16),
                nothing,
                nowhere,
                writable(ANSWER, 16),
                nowhere,
            ],
        ],
    )
}

fn wrong_direction(ring: u8) -> Vec<Step> {
    let (read, write) = (readable(0, 64), writable(ANSWER, 64));
    each(
        ring,
        &[
            &[read],
            &[write],
            &[write, read],
            &[read, write, read],
            &[write, read, write],
        ],
    )
}

fn longer(ring: u8) -> Vec<Step> {
    let entry = |index: u8| Step::Entry {
        index,
        spec: followed(
            if index < 100 {
                readable(u16::from(index) * 16, 16)
            } else {
                writable(ANSWER + u16::from(index) * 16, 16)
            },
            index.wrapping_add(1),
        ),
    };
    let mut steps: Vec<Step> = (0..=199).map(entry).collect();
    steps.push(Step::Descriptor {
        ring,
        index: 0,
        spec: Spec {
            place: place::TABLES,
            at: 0,
            len: 16 * 200,
            flags: INDIRECT,
            next: 0,
        },
    });
    steps.extend([Step::Chain { ring, head: 0 }, Step::Settle]);
    steps
}

fn indirect(ring: u8) -> Vec<Step> {
    let table = |place, at, len, flags| Spec {
        place,
        at,
        len,
        flags: flags | INDIRECT,
        next: 0,
    };
    let mut steps = vec![
        Step::Entry {
            index: 0,
            spec: followed(readable(0, 16), 1),
        },
        Step::Entry {
            index: 1,
            spec: writable(ANSWER, 64),
        },
        // A table in a table, a loop, and one that leaves the table.
        Step::Entry {
            index: 4,
            spec: table(place::TABLES, 0, 32, 0),
        },
        Step::Entry {
            index: 5,
            spec: followed(readable(0, 16), 1),
        },
        Step::Entry {
            index: 6,
            spec: followed(readable(0, 16), 0),
        },
    ];
    steps.extend(each(
        ring,
        &[
            &[table(place::TABLES, 0, 32, 0)],
            &[table(place::TABLES, 0, 32, WRITE)],
            &[readable(0, 16), table(place::TABLES, 0, 32, NEXT)],
            &[table(place::TABLES, 64, 16, 0)],
            &[table(place::TABLES, 80, 32, 0)],
            &[table(place::TABLES, 0, 0, 0)],
            &[table(place::TABLES, 0, 17, 0)],
            &[table(place::BEFORE_END, 8, 32, 0)],
            &[table(place::PAST_END, 0, 32, 0)],
            &[table(place::LAST, 0, 32, 0)],
            &[table(place::TABLES | place::HUGE, 0, 15, 0)],
        ],
    ));
    steps
}

/// A driver that writes whatever it can once the device is active.
fn configured() -> Vec<Step> {
    let mut steps: Vec<Step> = [
        (register::QUEUE, 0),
        (register::QUEUE_SIZE, 0),
        (register::QUEUE_READY, 0),
        (register::QUEUE_ADDRESSES[0], u32::MAX),
        (register::QUEUE_ADDRESSES[1], 0),
        (register::QUEUE_ADDRESSES[2], 1),
        (register::DRIVER_FEATURES, u32::MAX),
        (register::STATUS, register::DRIVER_OK),
        (register::STATUS, 0xff),
    ]
    .into_iter()
    .map(|(offset, value)| Step::WriteRegister {
        offset: u16::try_from(offset).unwrap_or(u16::MAX),
        value,
    })
    .collect();
    steps.extend([
        Step::WriteConfig {
            offset: 0,
            bytes: vec![0xff; 64],
        },
        Step::WriteConfig {
            offset: u32::MAX,
            bytes: vec![1],
        },
        Step::ReadConfig { offset: 0, len: 255 },
        Step::ReadConfig {
            offset: u32::MAX - 3,
            len: 8,
        },
        Step::ReadRegister {
            offset: 0x70,
            width: 3,
        },
    ]);
    steps
}

fn reset_in_flight(ring: u8, good: &[Step]) -> Vec<Step> {
    let mut steps = good.to_vec();
    for _ in 0..3 {
        steps.extend((0..12).map(|_| Step::Chain { ring, head: 0 }));
        steps.push(Step::WriteRegister {
            offset: 0x70,
            value: 0,
        });
        steps.push(Step::Kick { ring });
        steps.push(Step::Restart);
        steps.extend_from_slice(good);
    }
    steps
}

fn forged(ring: u8, good: &[Step]) -> Vec<Step> {
    let mut steps = good.to_vec();
    for index in [17, 1000, u16::MAX, 0x8000] {
        steps.extend([Step::Index { ring, index }, Step::Settle, Step::Kick { ring }]);
        steps.extend([Step::Suspend, Step::Resume, Step::Restart]);
        steps.extend_from_slice(good);
    }
    for head in [16, 5000, u16::MAX] {
        steps.extend([Step::Offer { ring, head }, Step::Chain { ring, head: 0 }]);
        steps.extend([Step::Settle, Step::Restart]);
    }
    steps
}

fn pauses(ring: u8, good: &[Step]) -> Vec<Step> {
    let mut steps = vec![Step::Suspend, Step::Resume];
    for _ in 0..4 {
        steps.extend_from_slice(good);
        steps.extend((0..6).map(|_| Step::Chain { ring, head: 0 }));
        steps.extend([Step::Suspend, Step::Suspend, Step::Chain { ring, head: 0 }]);
        steps.extend([Step::Resume, Step::Resume, Step::Settle]);
    }
    steps.extend([Step::Suspend, Step::Restart, Step::Resume]);
    steps.extend_from_slice(good);
    steps
}

fn wishes(ring: u8) -> Vec<Step> {
    vec![
        Step::Wishes {
            ring,
            flags: 1,
            event: 0,
        },
        Step::Wishes {
            ring,
            flags: u16::MAX,
            event: u16::MAX,
        },
    ]
}

/// Has the device write over its own queues, page by page.
fn over_queues(ring: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    for page in 0..8 {
        let spec = Spec {
            place: place::ANYWHERE,
            at: page * 1024,
            len: 4096,
            flags: WRITE,
            next: 0,
        };
        steps.extend(each(ring, &[&[readable(0, 16), spec], &[spec]]));
        steps.push(Step::Restart);
    }
    steps
}

/// Sets a queue up where a driver must not have it, and starts the device on it.
fn moved(ring: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    for address in [0x10_0000_u32, 0x10_0010, 0x13_fff0, 0x14_0000, 0, 0xffff_fff0] {
        let mut write = |offset: u64, value| {
            steps.push(Step::WriteRegister {
                offset: u16::try_from(offset).unwrap_or(u16::MAX),
                value,
            });
        };
        write(register::STATUS, 0);
        write(register::STATUS, register::ACKNOWLEDGE | register::DRIVER);
        write(register::DRIVER_FEATURES_PAGE, 1);
        write(register::DRIVER_FEATURES, 1);
        write(register::STATUS, register::FEATURES_OK);
        for queue in 0..=u32::from(ring) {
            write(register::QUEUE, queue);
            write(register::QUEUE_SIZE, 16);
            for place in register::QUEUE_ADDRESSES {
                write(place, address);
                write(place + 4, 0);
            }
            write(register::QUEUE_READY, 1);
        }
        write(register::STATUS, register::DRIVER_OK);
        steps.extend([Step::Chain { ring, head: 0 }, Step::Settle]);
    }
    steps.push(Step::Restart);
    steps
}
