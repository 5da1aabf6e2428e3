//! What a hostile driver does, as bytes: the input of every target that is a device.
//!
//! An input is a byte of [`Mode`], and then one step after another: a byte that says which, and its numbers. Numbers
//! that are too large are taken modulo what there is, so that nearly every input means something. The last step may be
//! cut off.

use super::input::{Input, put_counted};

/// Most steps of a script. More are not looked at, so that an input takes a bounded time.
pub(super) const MOST_STEPS: usize = 256;

/// How a script is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    /// Descriptors and writes of the driver may lie anywhere in guest memory, its queues included. Nothing can then be
    /// said of what the device may write to.
    pub(super) wild: bool,
    /// What driver and device agree on.
    pub(super) agreed: Agreed,
    /// A disk can only be read.
    pub(super) read_only: bool,
}

/// The features that a driver agrees on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Agreed {
    /// All that the device offers.
    #[default]
    All,
    /// All but `EVENT_IDX`.
    WithoutEventIdx,
    /// None that it need not.
    Least,
}

impl Mode {
    /// What the byte says.
    pub(super) fn of(byte: u8) -> Self {
        Self {
            wild: byte & 1 != 0,
            agreed: match byte >> 1 & 3 {
                0 | 1 => Agreed::All,
                2 => Agreed::WithoutEventIdx,
                _ => Agreed::Least,
            },
            read_only: byte & 8 != 0,
        }
    }

    /// The byte that says it.
    pub(super) fn byte(self) -> u8 {
        let agreed = match self.agreed {
            Agreed::All => 0,
            Agreed::WithoutEventIdx => 2,
            Agreed::Least => 3,
        };
        u8::from(self.wild) | agreed << 1 | u8::from(self.read_only) << 3
    }
}

/// A descriptor before it is known where things lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spec {
    /// The kinds of address, in the low half, and of length, in the high half; see `Driver::descriptor`.
    pub(super) place: u8,
    /// Where in the place of that kind.
    pub(super) at: u16,
    /// Bytes.
    pub(super) len: u16,
    /// `DESC_*`.
    pub(super) flags: u8,
    /// The next entry.
    pub(super) next: u8,
}

/// Kinds of address and length of a [`Spec`].
pub(super) mod place {
    /// In the arena.
    pub(in super::super) const ARENA: u8 = 0;
    /// So many bytes before the end of memory.
    pub(in super::super) const BEFORE_END: u8 = 9;
    /// So many bytes past the end of memory.
    pub(in super::super) const PAST_END: u8 = 10;
    /// So many bytes before the end of all addresses.
    pub(in super::super) const LAST: u8 = 11;
    /// Before memory begins.
    pub(in super::super) const BEFORE: u8 = 12;
    /// Anywhere in memory.
    pub(in super::super) const ANYWHERE: u8 = 13;
    /// In the indirect tables.
    pub(in super::super) const TABLES: u8 = 14;
    /// The length is that many times 64 KiB.
    pub(in super::super) const LARGE: u8 = 12 << 4;
    /// The length is the largest that there is, less that many.
    pub(in super::super) const HUGE: u8 = 13 << 4;
}

/// Something that the driver, or the host behind the device, does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes to guest memory.
    Bytes { at: u16, bytes: Vec<u8> },
    /// Writes an entry of a queue's descriptor table.
    Descriptor { ring: u8, index: u8, spec: Spec },
    /// Writes an entry of the indirect tables.
    Entry { index: u8, spec: Spec },
    /// Puts a head into an available ring without telling anybody.
    Offer { ring: u8, head: u16 },
    /// Offers a head that the table has, or the first that it has not; says so and notifies.
    Chain { ring: u8, head: u8 },
    /// Claims to have offered up to that index, and notifies.
    Index { ring: u8, index: u16 },
    /// Says when it wants to be interrupted: the available ring's flags and its used event.
    Wishes { ring: u8, flags: u16, event: u16 },
    /// Notifies.
    Kick { ring: u8 },
    /// Reads the configuration space.
    ReadConfig { offset: u32, len: u8 },
    /// Writes to it.
    WriteConfig { offset: u32, bytes: Vec<u8> },
    /// Reads a register, or across some.
    ReadRegister { offset: u16, width: u8 },
    /// Writes a register.
    WriteRegister { offset: u16, value: u32 },
    /// The machine is paused.
    Suspend,
    /// It goes on.
    Resume,
    /// Resets the device and sets it up anew.
    Restart,
    /// Waits until the device has done what there is to do, or a moment.
    Settle,
    /// The host does something, which depends on the device.
    Host { what: u8, bytes: Vec<u8> },
}

impl Step {
    /// The next step of an input; none at its end.
    pub(super) fn parse(input: &mut Input<'_>) -> Option<Self> {
        Some(match input.byte()? % 17 {
            0 => Self::Bytes {
                at: input.word()?,
                bytes: input.counted()?.to_vec(),
            },
            1 => Self::Descriptor {
                ring: input.byte()?,
                index: input.byte()?,
                spec: Spec::parse(input)?,
            },
            2 => Self::Entry {
                index: input.byte()?,
                spec: Spec::parse(input)?,
            },
            3 => Self::Offer {
                ring: input.byte()?,
                head: input.word()?,
            },
            4 => Self::Chain {
                ring: input.byte()?,
                head: input.byte()?,
            },
            5 => Self::Index {
                ring: input.byte()?,
                index: input.word()?,
            },
            6 => Self::Wishes {
                ring: input.byte()?,
                flags: input.word()?,
                event: input.word()?,
            },
            7 => Self::Kick { ring: input.byte()? },
            8 => Self::ReadConfig {
                offset: input.long()?,
                len: input.byte()?,
            },
            9 => Self::WriteConfig {
                offset: input.long()?,
                bytes: input.counted()?.to_vec(),
            },
            10 => Self::ReadRegister {
                offset: input.word()?,
                width: input.byte()?,
            },
            11 => Self::WriteRegister {
                offset: input.word()?,
                value: input.long()?,
            },
            12 => Self::Suspend,
            13 => Self::Resume,
            14 => Self::Restart,
            15 => Self::Settle,
            _ => Self::Host {
                what: input.byte()?,
                bytes: input.counted()?.to_vec(),
            },
        })
    }

    /// Appends it to an input.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, bytes } => {
                out.push(0);
                out.extend(at.to_le_bytes());
                put_counted(out, bytes);
            }
            Self::Descriptor { ring, index, spec } => {
                out.extend([1, *ring, *index]);
                spec.write(out);
            }
            Self::Entry { index, spec } => {
                out.extend([2, *index]);
                spec.write(out);
            }
            Self::Offer { ring, head } => {
                out.extend([3, *ring]);
                out.extend(head.to_le_bytes());
            }
            Self::Chain { ring, head } => out.extend([4, *ring, *head]),
            Self::Index { ring, index } => {
                out.extend([5, *ring]);
                out.extend(index.to_le_bytes());
            }
            Self::Wishes { ring, flags, event } => {
                out.extend([6, *ring]);
                out.extend(flags.to_le_bytes());
                out.extend(event.to_le_bytes());
            }
            Self::Kick { ring } => out.extend([7, *ring]),
            Self::ReadConfig { offset, len } => {
                out.push(8);
                out.extend(offset.to_le_bytes());
                out.push(*len);
            }
            Self::WriteConfig { offset, bytes } => {
                out.push(9);
                out.extend(offset.to_le_bytes());
                put_counted(out, bytes);
            }
            Self::ReadRegister { offset, width } => {
                out.push(10);
                out.extend(offset.to_le_bytes());
                out.push(*width);
            }
            Self::WriteRegister { offset, value } => {
                out.push(11);
                out.extend(offset.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Suspend => out.push(12),
            Self::Resume => out.push(13),
            Self::Restart => out.push(14),
            Self::Settle => out.push(15),
            Self::Host { what, bytes } => {
                out.extend([16, *what]);
                put_counted(out, bytes);
            }
        }
    }
}

impl Spec {
    fn parse(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            place: input.byte()?,
            at: input.word()?,
            len: input.word()?,
            flags: input.byte()?,
            next: input.byte()?,
        })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(self.place);
        out.extend(self.at.to_le_bytes());
        out.extend(self.len.to_le_bytes());
        out.extend([self.flags, self.next]);
    }
}

/// An input of these steps.
pub(super) fn script(mode: Mode, steps: &[Step]) -> Vec<u8> {
    let mut out = vec![mode.byte()];
    for step in steps {
        step.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_read() {
        let spec = Spec {
            place: place::BEFORE_END | place::HUGE,
            at: 300,
            len: 40_000,
            flags: 7,
            next: 200,
        };
        let bytes = vec![1, 2, 3];
        let steps = [
            Step::Bytes {
                at: 513,
                bytes: bytes.clone(),
            },
            Step::Descriptor {
                ring: 1,
                index: 2,
                spec,
            },
            Step::Entry { index: 9, spec },
            Step::Offer { ring: 2, head: 777 },
            Step::Chain { ring: 3, head: 16 },
            Step::Index { ring: 4, index: 5000 },
            Step::Wishes {
                ring: 0,
                flags: 1,
                event: 600,
            },
            Step::Kick { ring: 5 },
            Step::ReadConfig {
                offset: 70_000,
                len: 200,
            },
            Step::WriteConfig {
                offset: 80_000,
                bytes: bytes.clone(),
            },
            Step::ReadRegister {
                offset: 0x70,
                width: 4,
            },
            Step::WriteRegister {
                offset: 0x70,
                value: 0x0102_0304,
            },
            Step::Suspend,
            Step::Resume,
            Step::Restart,
            Step::Settle,
            Step::Host { what: 3, bytes },
        ];
        let mode = Mode {
            wild: false,
            agreed: Agreed::Least,
            read_only: true,
        };
        let written = script(mode, &steps);
        let mut input = Input::new(&written);
        assert_eq!(input.byte().map(Mode::of), Some(mode));
        let read: Vec<Step> = std::iter::from_fn(|| Step::parse(&mut input)).collect();
        assert_eq!(read, steps);
    }
}
