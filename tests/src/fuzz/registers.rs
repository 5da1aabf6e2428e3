//! The bus of devices: any access of any width at any address, while the machine is paused and goes on.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use cove_virtio::balloon::Balloon;
use cove_virtio::block::Access;
use cove_virtio::device::{Device, DeviceError};
use cove_virtio::rng::Rng;
use cove_vmm::layout::DEVICES;
use cove_vmm::memory::{GuestMemory, map};
use cove_vmm::mmio::{Bus, SIZE, Transport};
use cove_vmm::running::ControlError;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::{Input, put_counted};
use super::subject::disk_file;
use super::watch::watched;
use super::{Seeds, register};
use crate::driver::event::Event;
use crate::driver::kind;

/// Bytes of guest memory, from address 0 on.
const MEMORY: usize = 1 << 20;
/// Most steps of an input.
const MOST_STEPS: usize = 256;
/// The devices are numbered so.
const RNG: u8 = 0;
const BALLOON: u8 = 1;
const BLOCK: u8 = 2;
const COUNT: u8 = 3;

/// The registers that a step can name by its place here.
const REGISTERS: [u64; 16] = [
    register::STATUS,
    register::DRIVER_FEATURES_PAGE,
    register::DRIVER_FEATURES,
    register::QUEUE,
    register::QUEUE_SIZE,
    register::QUEUE_READY,
    0x80,
    0x84,
    0x90,
    0x94,
    0xa0,
    0xa4,
    0x14,
    0x50,
    0x64,
    register::CONFIG,
];

/// What a guest, or its machine, does.
#[derive(Clone, Debug)]
enum Step {
    /// Writes the register at that place of [`REGISTERS`].
    Register { device: u8, place: u8, value: u32 },
    /// Writes anything anywhere, counted from the page before the first device.
    Write { offset: u32, bytes: Vec<u8> },
    /// Reads from anywhere.
    Read { offset: u32, width: u8 },
    /// Writes to memory, sixteen bytes times `at` from its beginning.
    Memory { at: u16, bytes: Vec<u8> },
    /// The machine is paused.
    Suspend,
    /// It goes on.
    Resume,
    /// A device's configuration is said to have changed.
    Announce { device: u8 },
}

impl Step {
    fn parse(input: &mut Input<'_>) -> Option<Self> {
        Some(match input.byte()? % 8 {
            // Twice, being what most of a script is.
            0 | 1 => Self::Register {
                device: input.byte()?,
                place: input.byte()?,
                value: input.long()?,
            },
            2 => Self::Write {
                offset: input.long()?,
                bytes: input.counted()?.to_vec(),
            },
            3 => Self::Read {
                offset: input.long()?,
                width: input.byte()?,
            },
            4 => Self::Memory {
                at: input.word()?,
                bytes: input.counted()?.to_vec(),
            },
            5 => Self::Suspend,
            6 => Self::Resume,
            _ => Self::Announce {
                device: input.byte()?,
            },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Register { device, place, value } => {
                out.extend([0, *device, *place]);
                out.extend(value.to_le_bytes());
            }
            Self::Write { offset, bytes } => {
                out.push(2);
                out.extend(offset.to_le_bytes());
                put_counted(out, bytes);
            }
            Self::Read { offset, width } => {
                out.push(3);
                out.extend(offset.to_le_bytes());
                out.push(*width);
            }
            Self::Memory { at, bytes } => {
                out.push(4);
                out.extend(at.to_le_bytes());
                put_counted(out, bytes);
            }
            Self::Suspend => out.push(5),
            Self::Resume => out.push(6),
            Self::Announce { device } => out.extend([7, *device]),
        }
    }
}

/// Plays accesses to the bus. Whatever they are: a device starts with features that were agreed on alone, its queues do
/// not change while it runs, and it takes a reset.
pub fn fuzz(input: &[u8]) {
    watched("registers", input, || play(input));
}

fn play(input: &[u8]) -> Result<()> {
    let memory = Arc::new(map(MEMORY)?);
    let bus = bus(&memory)?;
    let mut input = Input::new(input);
    for _ in 0..MOST_STEPS {
        let Some(step) = Step::parse(&mut input) else {
            break;
        };
        take(&bus, &memory, &step)?;
        for device in 0..COUNT {
            check(&bus, device)?;
        }
    }
    for device in 0..COUNT {
        write(&bus, device, register::STATUS, 0);
        let status = read(&bus, device, register::STATUS);
        ensure!(
            status == 0,
            "a reset leaves device {device} with a status of {status:#x}"
        );
    }
    ensure!(
        bus.into_devices().len() == usize::from(COUNT),
        "a device is missing"
    );
    Ok(())
}

fn bus(memory: &Arc<GuestMemory>) -> Result<Bus> {
    let devices: [Box<dyn Device>; 3] = [
        Box::new(Rng::new()),
        Box::new(Balloon::new()),
        Box::new(kind::disk(disk_file()?, Access::ReadOnly)?),
    ];
    let transports = devices.into_iter().map(|device| {
        let kicks = device.queues().iter().map(|_| Event::new()?.duplicate());
        let kicks = kicks.collect::<Result<Vec<_>>>()?;
        let raise = EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?;
        Ok(Mutex::new(Transport::new(
            device,
            Arc::clone(memory),
            kicks,
            raise,
        )))
    });
    Ok(Bus(transports.collect::<Result<Vec<_>>>()?))
}

fn take(bus: &Bus, memory: &GuestMemory, step: &Step) -> Result<()> {
    match step {
        Step::Register { device, place, value } => {
            let device = device % COUNT;
            let offset = REGISTERS[usize::from(*place) % REGISTERS.len()];
            let before = (
                read(bus, device, register::STATUS),
                read(bus, device, register::QUEUE_READY),
            );
            write(bus, device, offset, *value);
            let after = read(bus, device, register::QUEUE_READY);
            let runs = before.0 & (register::DRIVER_OK | register::NEEDS_RESET) == register::DRIVER_OK;
            ensure!(
                !runs || offset == register::STATUS || offset == register::QUEUE || after == before.1,
                "a queue of device {device} changed while it ran"
            );
        }
        Step::Write { offset, bytes } => bus.write(DEVICES - SIZE + u64::from(*offset), bytes),
        Step::Read { offset, width } => {
            let mut data = vec![0; usize::from(*width)];
            bus.read(DEVICES - SIZE + u64::from(*offset), &mut data);
        }
        Step::Memory { at, bytes } => {
            // What lies past the end of memory is not written.
            let _ = memory.write(bytes, GuestAddress(16 * u64::from(*at)));
        }
        Step::Suspend => bus.suspend()?,
        Step::Resume => {
            if let Err(error) = bus.resume()
                && let ControlError::Device {
                    source: DeviceError::WorkerGone | DeviceError::Os { .. },
                    ..
                } = &error
            {
                return Err(error.into());
            }
        }
        Step::Announce { device } => bus.announce((*device).into()),
    }
    Ok(())
}

fn check(bus: &Bus, device: u8) -> Result<()> {
    ensure!(
        read(bus, device, 0) == register::MAGIC,
        "device {device} is no device"
    );
    let status = read(bus, device, register::STATUS);
    ensure!(
        status & register::DRIVER_OK == 0 || status & register::FEATURES_OK != 0,
        "device {device} was started without features"
    );
    Ok(())
}

fn address(device: u8, offset: u64) -> u64 {
    DEVICES + u64::from(device) * SIZE + offset
}

fn read(bus: &Bus, device: u8, offset: u64) -> u32 {
    let mut data = [0; 4];
    bus.read(address(device, offset), &mut data);
    u32::from_le_bytes(data)
}

fn write(bus: &Bus, device: u8, offset: u64, value: u32) {
    bus.write(address(device, offset), &value.to_le_bytes());
}

/// Drivers that follow the specification, that leave steps out, and that place queues where none can be.
pub fn seeds() -> Seeds {
    let mut anywhere = Vec::new();
    for offset in [0, 0xfff, 0x1000, 0x1070, 0x1100, 0x1ffe, 0x2fff, 0x4000, u32::MAX] {
        for width in [0, 1, 2, 3, 4, 8] {
            anywhere.push(Step::Read { offset, width });
            anywhere.push(Step::Write {
                offset,
                bytes: vec![0xff; usize::from(width)],
            });
        }
    }
    vec![
        (
            "followed",
            script(&[started(RNG, 1), started(BALLOON, 4), started(BLOCK, 1)].concat()),
        ),
        ("paused", script(&paused())),
        ("features-left-out", script(&left_out())),
        ("queues-nowhere", script(&nowhere())),
        ("anywhere", script(&anywhere)),
    ]
}

fn script(steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in steps {
        step.write(&mut out);
    }
    out
}

fn set(device: u8, offset: u64, value: u32) -> Step {
    let place = REGISTERS.iter().position(|register| *register == offset);
    Step::Register {
        device,
        place: place.and_then(|place| u8::try_from(place).ok()).unwrap_or(0),
        value,
    }
}

fn agreed(device: u8) -> Vec<Step> {
    vec![
        set(device, register::STATUS, register::ACKNOWLEDGE | register::DRIVER),
        set(device, register::DRIVER_FEATURES_PAGE, 1),
        set(device, register::DRIVER_FEATURES, 1),
        set(device, register::STATUS, register::FEATURES_OK),
    ]
}

fn queue(device: u8, queue: u32, address: u32) -> Vec<Step> {
    let mut steps = vec![
        set(device, register::QUEUE, queue),
        set(device, register::QUEUE_SIZE, 16),
    ];
    for (offset, place) in (0..).zip(register::QUEUE_ADDRESSES) {
        steps.push(set(device, place, address.wrapping_add(offset * 0x1000)));
        steps.push(set(device, place + 4, 0));
    }
    steps.push(set(device, register::QUEUE_READY, 1));
    steps
}

fn started(device: u8, queues: u32) -> Vec<Step> {
    let mut steps = agreed(device);
    for index in 0..queues {
        steps.extend(queue(device, index, 0x1_0000 + index * 0x4000));
    }
    steps.push(set(device, register::STATUS, register::DRIVER_OK));
    steps
}

fn paused() -> Vec<Step> {
    let mut steps = started(RNG, 1);
    steps.extend([Step::Suspend, Step::Resume, Step::Announce { device: RNG }]);
    steps.extend([Step::Suspend, set(RNG, register::STATUS, 0), Step::Resume]);
    steps.extend(started(RNG, 1));
    // A table that the device reads, and a ring that offers what is in it.
    steps.push(Step::Memory {
        at: 0x1000,
        bytes: [&0x8_0000_u64.to_le_bytes()[..], &[64, 0, 0, 0, 2, 0, 0, 0]].concat(),
    });
    steps.push(Step::Memory {
        at: 0x1100,
        bytes: vec![0, 0, 1, 0, 0, 0],
    });
    steps.extend([Step::Suspend, Step::Suspend, Step::Resume, Step::Resume]);
    steps
}

/// Starts a device before features are agreed on, and changes them afterwards.
fn left_out() -> Vec<Step> {
    let mut steps = vec![
        set(BLOCK, register::DRIVER_FEATURES_PAGE, 1),
        set(BLOCK, register::DRIVER_FEATURES, 1),
    ];
    steps.extend(queue(BLOCK, 0, 0x1_0000));
    steps.push(set(BLOCK, register::STATUS, register::DRIVER_OK));
    steps.push(set(BLOCK, register::DRIVER_FEATURES, u32::MAX));
    steps.extend([Step::Suspend, Step::Resume]);
    steps.push(set(BLOCK, register::STATUS, u32::MAX));
    steps
}

fn nowhere() -> Vec<Step> {
    let mut steps = Vec::new();
    for address in [0, 8, 0xf_fff0, 0x10_0000, 0xffff_f000] {
        steps.push(set(RNG, register::STATUS, 0));
        steps.extend(agreed(RNG));
        steps.extend(queue(RNG, 0, address));
        steps.push(set(RNG, register::STATUS, register::DRIVER_OK));
    }
    for size in [0, 3, 0x8000, u32::MAX] {
        steps.push(set(RNG, register::STATUS, 0));
        steps.extend(agreed(RNG));
        steps.extend(queue(RNG, 0, 0x1_0000));
        steps.push(set(RNG, register::QUEUE_SIZE, size));
        steps.push(set(RNG, register::STATUS, register::DRIVER_OK));
    }
    steps
}
