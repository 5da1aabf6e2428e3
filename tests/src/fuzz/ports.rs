//! The I/O ports: the console, and what ends the machine. Any access of any width at any port.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use cove_vmm::End;
use cove_vmm::layout::{
    KEYBOARD_COMMAND_PORT, KEYBOARD_RESET, RESET_PORT, RESET_VALUE, SERIAL_PORT, SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT, SLEEP_TYPE_OFF,
};
use cove_vmm::ports::Ports;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Seeds;
use super::input::{Input, put_counted};
use super::watch::watched;

/// Most steps of an input.
const MOST_STEPS: usize = 256;
/// Registers of the console: what it writes and reads, its interrupts, how a byte is made up, and what it is wired to.
const DATA: u8 = 0;
const INTERRUPTS: u8 = 1;
const FORMAT: u8 = 3;
const WIRING: u8 = 4;
const STATUS: u8 = 5;
const REGISTERS: u8 = 8;
/// Of the format: the first registers say how fast it is.
const DIVISOR: u8 = 0x80;
/// Of the wiring: it hears itself.
const LOOP: u8 = 0x10;
/// What nobody answers with, so that bytes that were not filled show.
const UNTOUCHED: u8 = 0x5a;

/// What a guest does.
#[derive(Clone, Debug)]
enum Step {
    /// Writes a register of the console.
    Tell { register: u8, value: u8 },
    /// Reads a register of the console.
    Ask { register: u8 },
    /// Writes to any port.
    Write { port: u16, bytes: Vec<u8> },
    /// Reads from any port.
    Read { port: u16, width: u8 },
}

impl Step {
    fn parse(input: &mut Input<'_>) -> Option<Self> {
        Some(match input.byte()? % 4 {
            0 => Self::Tell {
                register: input.byte()?,
                value: input.byte()?,
            },
            1 => Self::Ask {
                register: input.byte()?,
            },
            2 => Self::Write {
                port: input.word()?,
                bytes: input.counted()?.to_vec(),
            },
            _ => Self::Read {
                port: input.word()?,
                width: input.byte()?,
            },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tell { register, value } => out.extend([0, *register, *value]),
            Self::Ask { register } => out.extend([1, *register]),
            Self::Write { port, bytes } => {
                out.push(2);
                out.extend(port.to_le_bytes());
                put_counted(out, bytes);
            }
            Self::Read { port, width } => {
                out.push(3);
                out.extend(port.to_le_bytes());
                out.push(*width);
            }
        }
    }
}

/// What the console wrote.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The ports of a machine, and what they were told.
struct Rig {
    ports: Ports,
    output: Output,
    /// Bytes for the console.
    told: usize,
}

/// Plays accesses. Whatever they are: only what is meant to end the machine does, the console writes no more than it is
/// told, every byte that is read is an answer, and the console works afterwards.
pub fn fuzz(input: &[u8]) {
    watched("ports", input, || play(input));
}

fn play(input: &[u8]) -> Result<()> {
    let interrupt = EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?;
    let output = Output::default();
    let mut rig = Rig {
        ports: Ports::new(interrupt, Box::new(output.clone())),
        output,
        told: 0,
    };
    let mut input = Input::new(input);
    for _ in 0..MOST_STEPS {
        let Some(step) = Step::parse(&mut input) else {
            break;
        };
        match step {
            Step::Tell { register, value } => rig.write(console(register), &[value])?,
            Step::Ask { register } => rig.read(console(register), 1)?,
            Step::Write { port, bytes } => rig.write(port, &bytes)?,
            Step::Read { port, width } => rig.read(port, width)?,
        }
    }
    rig.write(console(FORMAT), &[0])?;
    rig.write(console(WIRING), &[0])?;
    rig.output.bytes().clear();
    rig.write(console(DATA), b"!")?;
    ensure!(*rig.output.bytes() == b"!", "the console is silent");
    Ok(())
}

impl Rig {
    fn write(&mut self, port: u16, bytes: &[u8]) -> Result<()> {
        self.told += usize::from(port == SERIAL_PORT);
        let end = self.ports.write(port, bytes);
        let meant = meant(port, bytes);
        ensure!(
            end == meant,
            "{bytes:x?} at port {port:#x} is {end:?} instead of {meant:?}"
        );
        ensure!(
            self.output.bytes().len() <= self.told,
            "the console writes what nobody told it"
        );
        Ok(())
    }

    fn read(&self, port: u16, width: u8) -> Result<()> {
        let mut data = vec![UNTOUCHED; usize::from(width)];
        self.ports.read(port, &mut data);
        let of_console = (SERIAL_PORT..SERIAL_PORT + u16::from(REGISTERS)).contains(&port);
        if of_console && width == 1 {
            return Ok(());
        }
        let nothing = match port {
            SLEEP_STATUS_PORT | KEYBOARD_COMMAND_PORT => 0,
            _ => 0xff,
        };
        ensure!(
            data.iter().all(|byte| *byte == nothing),
            "port {port:#x} answers {data:x?}"
        );
        Ok(())
    }
}

/// How the machine is meant to end by a write.
fn meant(port: u16, bytes: &[u8]) -> Option<End> {
    // What goes to sleep: its kind, and that it is to be done.
    const OFF: u8 = SLEEP_TYPE_OFF << 2 | 1 << 5;
    match (port, bytes) {
        (RESET_PORT, [RESET_VALUE]) | (KEYBOARD_COMMAND_PORT, [KEYBOARD_RESET]) => Some(End::Reset),
        // The bits beside these are nobody's.
        (SLEEP_CONTROL_PORT, [value]) if value & 0x3c == OFF => Some(End::PoweredOff),
        _ => None,
    }
}

fn console(register: u8) -> u16 {
    SERIAL_PORT + u16::from(register % REGISTERS)
}

/// Anything anywhere, what ends the machine and what nearly does, a console that hears itself, and a kernel's first
/// words.
pub fn seeds() -> Seeds {
    let tell = |register, value| Step::Tell { register, value };
    let mut words = vec![
        tell(FORMAT, DIVISOR),
        tell(DATA, 1),
        tell(INTERRUPTS, 0),
        tell(FORMAT, 3),
        tell(INTERRUPTS, 0x0f),
    ];
    for byte in *b"Linux\n" {
        words.extend([Step::Ask { register: STATUS }, tell(DATA, byte)]);
    }
    // More than it can hold.
    let mut heard = vec![tell(INTERRUPTS, 1), tell(WIRING, LOOP)];
    heard.extend((0..80).map(|byte| tell(DATA, byte)));
    heard.extend((0..82).map(|_| Step::Ask { register: DATA }));
    let ends = [
        (RESET_PORT, vec![0]),
        (RESET_PORT, vec![RESET_VALUE, 0]),
        (RESET_PORT, vec![RESET_VALUE]),
        (KEYBOARD_COMMAND_PORT, vec![KEYBOARD_RESET - 1]),
        (KEYBOARD_COMMAND_PORT, vec![KEYBOARD_RESET]),
        (SLEEP_CONTROL_PORT, vec![1 << 5]),
        (SLEEP_CONTROL_PORT, vec![SLEEP_TYPE_OFF << 2]),
        (SLEEP_CONTROL_PORT, vec![SLEEP_TYPE_OFF << 2 | 1 << 5]),
    ];
    let ends = ends.map(|(port, bytes)| Step::Write { port, bytes });
    let mut anywhere = Vec::new();
    for port in [0, 0x3f7, 0x3f8, 0x3ff, 0x400, 0x600, 0x604, 0x605, 0xcf8, 0xffff] {
        for width in [0, 1, 2, 4, 8] {
            anywhere.push(Step::Read { port, width });
            anywhere.push(Step::Write {
                port,
                bytes: vec![0xff; usize::from(width)],
            });
        }
    }
    vec![
        ("anywhere", script(&anywhere)),
        ("ends", script(&ends)),
        ("hears-itself", script(&heard)),
        ("words", script(&words)),
    ]
}

fn script(steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in steps {
        step.write(&mut out);
    }
    out
}
