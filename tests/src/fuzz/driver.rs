//! A driver without any manners, before the registers of a device, and what must hold of the device all the same.
//!
//! ```text
//!  guest memory:  gap │ table, available, used │ gap │ … │ gap │ arena │ gap … │ indirect tables │ end
//!                       for each queue
//! ```
//!
//! Memory is filled before the device is there, and a shadow keeps what the driver wrote since. When the script is
//! over, every byte that the device was never offered for writing must be what the shadow says. So that this can be
//! told, a fenced driver (one that is not wild) never offers its tables and rings for writing, and has indirect tables
//! nowhere but in their place, which is the last of memory: what a device takes for a descriptor is one that the driver
//! wrote.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cove_virtio::device::{Device, DeviceError, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1};
use cove_vmm::mmio::{SIZE as REGISTERS, Transport};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::register;
use super::script::{Agreed, Mode, Spec, Step};
use super::subject::Subject;
use crate::driver::event::Event;
use crate::driver::kind::Request;
use crate::driver::memory::{START, SharedMemory};
use crate::driver::queue::{DESC_INDIRECT, DESC_WRITE, Descriptor};
use crate::driver::vsock::PATIENCE;

/// Entries of each queue: few, so that scripts hit them.
const ENTRIES: u16 = 16;
const PAGE: u64 = 4096;
/// Bytes of guest memory.
const MEMORY: u64 = 256 * 1024;
/// Bytes of the arena.
const ARENA: u64 = 64 * 1024;
/// Bytes of the indirect tables: 256 entries.
const TABLES: u64 = 16 * 256;
/// Where the room for the answer of a good request begins in the arena.
const ANSWER: u64 = 32 * 1024;
/// What memory holds at first.
const FILL: u8 = 0xc5;
/// How long a device is left alone at a time to do what there is to do.
const MOMENT: Duration = Duration::from_micros(100);
/// For how many moments a script waits in all.
const MOMENTS: u32 = 40;
/// After so many moments in which nothing was returned, nothing more is expected.
const QUIET: u32 = 3;

/// A queue.
struct Ring {
    descriptors: u64,
    available: u64,
    used: u64,
    /// The available ring's index, as the driver claims it.
    next: u16,
    kick: Event,
}

/// See the module's header.
pub(super) struct Driver {
    transport: Transport,
    memory: SharedMemory,
    rings: Vec<Ring>,
    arena: u64,
    tables: u64,
    /// What the driver made of memory.
    shadow: Vec<u8>,
    /// The bytes that the device may write to.
    offered: Vec<bool>,
    fenced: bool,
    features: u64,
    /// The device is active with the queues that the driver laid out, and so nothing can move them.
    up: bool,
    /// Moments that the script may still wait.
    moments: u32,
}

impl Driver {
    /// Puts `device` behind registers and sets it up.
    pub(super) fn new(device: Box<dyn Device>, mode: Mode) -> Result<Self> {
        let mut memory = SharedMemory::new(MEMORY)?;
        let mut rings = Vec::new();
        for _ in device.queues() {
            memory.allocate(PAGE)?;
            rings.push(Ring {
                descriptors: memory.allocate(PAGE)?,
                available: memory.allocate(PAGE)?,
                used: memory.allocate(PAGE)?,
                next: 0,
                kick: Event::new()?,
            });
        }
        memory.allocate(PAGE)?;
        let arena = memory.allocate(ARENA)?;
        let tables = memory.end() - TABLES;
        ensure!(arena + ARENA + PAGE <= tables, "guest memory is too small");
        let shadow = vec![FILL; usize::try_from(MEMORY)?];
        memory.memory.write_slice(&shadow, GuestAddress(START))?;
        let kicks = rings.iter().map(|ring| ring.kick.duplicate());
        let kicks = kicks.collect::<Result<Vec<_>>>()?;
        let features = device.features()
            & match mode.agreed {
                Agreed::All => u64::MAX,
                Agreed::WithoutEventIdx => !FEATURE_EVENT_IDX,
                Agreed::Least => FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC,
            };
        let raise = EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?;
        let transport = Transport::new(device, Arc::clone(&memory.memory), kicks, raise);
        let mut driver = Self {
            transport,
            memory,
            rings,
            arena,
            tables,
            offered: vec![false; shadow.len()],
            shadow,
            fenced: !mode.wild,
            features,
            up: false,
            moments: MOMENTS,
        };
        for (address, len) in [(arena, ARENA), (tables, TABLES)] {
            driver.put(address, &vec![0; usize::try_from(len)?])?;
        }
        let used: Vec<u64> = driver.rings.iter().map(|ring| ring.used).collect();
        for address in used {
            driver.offer_bytes(address, 6 + 8 * u64::from(ENTRIES));
        }
        driver.set_up()?;
        Ok(driver)
    }

    /// Resets the device, lays its queues out anew and starts it, as the specification wants it.
    fn set_up(&mut self) -> Result<()> {
        self.reset()?;
        let entries = usize::from(ENTRIES);
        for at in 0..self.rings.len() {
            let ring = &mut self.rings[at];
            ring.next = 0;
            let places = [
                (ring.descriptors, 16 * entries),
                (ring.available, 6 + 2 * entries),
                (ring.used, 6 + 8 * entries),
            ];
            for (address, len) in places {
                self.put(address, &vec![0; len])?;
            }
        }
        self.write_register(register::STATUS, register::ACKNOWLEDGE);
        self.write_register(register::STATUS, register::ACKNOWLEDGE | register::DRIVER);
        for page in 0..2 {
            self.write_register(register::DRIVER_FEATURES_PAGE, page);
            self.write_register(register::DRIVER_FEATURES, half(self.features, page));
        }
        self.write_register(register::STATUS, register::FEATURES_OK);
        ensure!(
            self.status() & register::FEATURES_OK != 0,
            "the device refuses features that it offers"
        );
        for at in 0..self.rings.len() {
            let ring = &self.rings[at];
            let addresses = [ring.descriptors, ring.available, ring.used];
            self.write_register(register::QUEUE, u32::try_from(at)?);
            self.write_register(register::QUEUE_SIZE, ENTRIES.into());
            for (register, address) in register::QUEUE_ADDRESSES.into_iter().zip(addresses) {
                self.write_register(register, half(address, 0));
                self.write_register(register + 4, half(address, 1));
            }
            self.write_register(register::QUEUE_READY, 1);
        }
        self.write_register(register::STATUS, register::DRIVER_OK);
        ensure!(
            self.status() & register::NEEDS_RESET == 0,
            "the device refuses a driver that follows the specification"
        );
        self.up = true;
        Ok(())
    }

    /// Does one step.
    pub(super) fn play(&mut self, step: &Step, subject: &mut Subject) -> Result<()> {
        match step {
            Step::Bytes { at, bytes } => self.write_bytes(*at, bytes)?,
            Step::Descriptor { ring, index, spec } => {
                let table = self.rings[self.ring(*ring)].descriptors;
                let place = table + 16 * (u64::from(*index) % u64::from(ENTRIES));
                let descriptor = self.descriptor(*spec);
                self.put(place, &descriptor.to_bytes())?;
            }
            Step::Entry { index, spec } => {
                let place = self.tables + 16 * u64::from(*index);
                let descriptor = self.descriptor(*spec);
                self.put(place, &descriptor.to_bytes())?;
            }
            Step::Offer { ring, head } => self.offer(self.ring(*ring), *head)?,
            Step::Chain { ring, head } => {
                let ring = self.ring(*ring);
                self.offer(ring, u16::from(*head) % (ENTRIES + 1))?;
                self.publish(ring)?;
            }
            Step::Index { ring, index } => {
                let ring = self.ring(*ring);
                self.rings[ring].next = *index;
                self.publish(ring)?;
            }
            Step::Wishes { ring, flags, event } => {
                let available = self.rings[self.ring(*ring)].available;
                self.put(available, &flags.to_le_bytes())?;
                self.put(available + 4 + 2 * u64::from(ENTRIES), &event.to_le_bytes())?;
            }
            Step::Kick { ring } => self.rings[self.ring(*ring)].kick.ring()?,
            Step::ReadConfig { offset, len } => {
                let mut data = vec![0; usize::from(*len)];
                self.transport
                    .read(register::CONFIG + u64::from(*offset), &mut data);
            }
            Step::WriteConfig { offset, bytes } => {
                self.transport.write(register::CONFIG + u64::from(*offset), bytes);
            }
            Step::ReadRegister { offset, width } => {
                let mut data = vec![0; usize::from(*width % 9)];
                self.transport.read(u64::from(*offset) % REGISTERS, &mut data);
            }
            Step::WriteRegister { offset, value } => {
                self.forge_register(u64::from(*offset) % REGISTERS, *value);
            }
            Step::Suspend => self.transport.suspend().context("cannot suspend the device")?,
            Step::Resume => {
                // Of other failures the driver is told, and resets the device.
                if let Err(error @ (DeviceError::WorkerGone | DeviceError::Os { .. })) =
                    self.transport.resume()
                {
                    return Err(error).context("cannot resume the device");
                }
            }
            Step::Restart => self.set_up()?,
            Step::Settle => self.settle()?,
            Step::Host { what, bytes } => subject.act(*what, bytes)?,
        }
        Ok(())
    }

    /// Ends the script: the device must take a reset, and must have written nothing but what it was offered.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.moments = self.moments.max(2 * QUIET);
        self.settle()?;
        self.reset()?;
        if self.fenced { self.check_memory() } else { Ok(()) }
    }

    /// Sets the device up and has it answer a good driver.
    pub(super) fn prove_alive(&mut self, request: &Request) -> Result<()> {
        self.set_up()?;
        let (given, answer) = (self.arena, self.arena + ANSWER);
        self.put(given, &request.given)?;
        self.offer_bytes(answer, request.room.into());
        let chain = request.chain(given, answer)?;
        let ring = usize::from(request.queue);
        let (table, used) = (self.rings[ring].descriptors, self.rings[ring].used);
        for (index, descriptor) in (0..).zip(chain) {
            self.put(table + 16 * index, &descriptor.to_bytes())?;
        }
        self.offer(ring, 0)?;
        self.publish(ring)?;
        let deadline = Instant::now() + PATIENCE;
        while self.used_index(ring)? == 0 {
            ensure!(
                self.status() & register::NEEDS_RESET == 0,
                "a good request broke the device"
            );
            ensure!(Instant::now() < deadline, "a good request is not answered");
            sleep(MOMENT);
        }
        let mut entry = [0; 8];
        self.memory
            .memory
            .read_slice(&mut entry, GuestAddress(used + 4))?;
        let [head, written] =
            [0, 4].map(|at| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
        ensure!(head == 0, "chain {head} came back, which was not offered");
        ensure!(
            (request.least..=request.room).contains(&written),
            "a good request was answered with {written} bytes"
        );
        self.reset()?;
        if self.fenced { self.check_memory() } else { Ok(()) }
    }

    /// All of guest memory.
    pub(super) fn memory(&self) -> Result<Vec<u8>> {
        let mut now = vec![0; self.shadow.len()];
        self.memory.memory.read_slice(&mut now, GuestAddress(START))?;
        Ok(now)
    }

    fn check_memory(&self) -> Result<()> {
        let now = self.memory()?;
        let wrong = now
            .iter()
            .zip(&self.shadow)
            .zip(&self.offered)
            .position(|((now, shadow), offered)| now != shadow && !offered);
        if let Some(at) = wrong {
            bail!(
                "the device wrote to {:#x}, which it was not offered",
                START + at as u64
            );
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.up = false;
        self.write_register(register::STATUS, 0);
        ensure!(
            self.status() == 0,
            "a reset leaves a status of {:#x}",
            self.status()
        );
        Ok(())
    }

    /// Writes a register as a hostile driver does. A fenced one moves no queue while the device would let it.
    fn forge_register(&mut self, offset: u64, value: u32) {
        let moves = [register::QUEUE_SIZE, register::QUEUE_READY].contains(&offset)
            || register::QUEUE_PLACES.contains(&offset);
        if self.fenced && !self.up && moves {
            return;
        }
        if offset == register::STATUS && value == 0 {
            self.up = false;
        }
        self.write_register(offset, value);
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn status(&self) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register::STATUS, &mut data);
        u32::from_le_bytes(data)
    }

    /// The descriptor that `spec` means, and what it offers noted.
    fn descriptor(&mut self, spec: Spec) -> Descriptor {
        let (at, end) = (u64::from(spec.at), self.memory.end());
        let in_tables = self.tables + ((at % TABLES) & !15);
        let mut address = match spec.place & 15 {
            0..=8 => self.arena + at % ARENA,
            9 => end - (at & 0xff),
            10 => end + at,
            11 => u64::MAX - at,
            12 => at,
            13 => START + 4 * at % MEMORY,
            14 => in_tables,
            _ => at << 48,
        };
        let len = match spec.place >> 4 {
            0..=11 => u32::from(spec.len),
            12 => u32::from(spec.len) << 16,
            13 => u32::MAX - u32::from(spec.len),
            _ => u32::from(spec.len & 0xff),
        };
        let mut flags = u16::from(spec.flags);
        let last = address.checked_add(len.into());
        let inside = address >= START && last.is_some_and(|last| last <= end);
        if self.fenced && flags & DESC_INDIRECT != 0 {
            if (START..end).contains(&address) {
                address = in_tables;
            }
        } else if self.fenced && flags & DESC_WRITE != 0 && inside {
            if self.holds_queues(address, len.into()) {
                flags &= !DESC_WRITE;
            } else {
                self.offer_bytes(address, len.into());
            }
        }
        Descriptor {
            address,
            len,
            flags,
            next: spec.next.into(),
        }
    }

    /// Whether some of those bytes are a queue's, or the indirect tables'.
    fn holds_queues(&self, address: u64, len: u64) -> bool {
        let touches = |start, end| address < end && address + len > start;
        let mut rings = self.rings.iter();
        rings.any(|ring| touches(ring.descriptors, ring.used + PAGE))
            || touches(self.tables, self.memory.end())
    }

    /// Notes that the device may write to those bytes, which lie in memory.
    fn offer_bytes(&mut self, address: u64, len: u64) {
        let first = usize::try_from(address - START).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        for offered in self.offered.iter_mut().skip(first).take(len) {
            *offered = true;
        }
    }

    fn write_bytes(&mut self, at: u16, bytes: &[u8]) -> Result<()> {
        let (address, end) = if self.fenced {
            (self.arena + u64::from(at) % ARENA, self.arena + ARENA)
        } else {
            (START + 4 * u64::from(at) % MEMORY, self.memory.end())
        };
        let len = bytes.len().min(usize::try_from(end - address)?);
        self.put(address, &bytes[..len])
    }

    /// Writes to guest memory and to its shadow.
    fn put(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.memory.write_slice(bytes, GuestAddress(address))?;
        let first = usize::try_from(address - START)?;
        self.shadow[first..first + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn ring(&self, number: u8) -> usize {
        usize::from(number) % self.rings.len()
    }

    /// Puts a head into an available ring.
    fn offer(&mut self, ring: usize, head: u16) -> Result<()> {
        let place = &mut self.rings[ring];
        let address = place.available + 4 + 2 * u64::from(place.next % ENTRIES);
        place.next = place.next.wrapping_add(1);
        self.put(address, &head.to_le_bytes())
    }

    /// Shows the device what was offered, and notifies it whether it wants to hear of it or not.
    fn publish(&mut self, ring: usize) -> Result<()> {
        let (address, next) = (self.rings[ring].available + 2, self.rings[ring].next);
        fence(Ordering::SeqCst);
        self.put(address, &next.to_le_bytes())?;
        self.rings[ring].kick.ring()
    }

    fn used_index(&self, ring: usize) -> Result<u16> {
        let address = GuestAddress(self.rings[ring].used + 2);
        Ok(u16::from_le(self.memory.memory.load(address, Ordering::Acquire)?))
    }

    /// Waits until every chain is returned, or none has been for a while, or the script has waited enough.
    fn settle(&mut self) -> Result<()> {
        let mut before = None;
        let mut quiet = 0;
        while self.moments > 0 && quiet < QUIET {
            let used = (0..self.rings.len()).map(|ring| self.used_index(ring));
            let used = used.collect::<Result<Vec<_>>>()?;
            if used
                .iter()
                .zip(&self.rings)
                .all(|(used, ring)| *used == ring.next)
            {
                return Ok(());
            }
            quiet = if before.as_ref() == Some(&used) {
                quiet + 1
            } else {
                0
            };
            before = Some(used);
            self.moments -= 1;
            sleep(MOMENT);
        }
        Ok(())
    }
}

fn half(value: u64, page: u32) -> u32 {
    u32::try_from(value >> (32 * page) & u64::from(u32::MAX)).unwrap_or(0)
}
