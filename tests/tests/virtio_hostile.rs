//! Every device, called directly and over vhost-user, before a driver whose descriptors break the rules. What each
//! device makes of what is in them, its own suite tells.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cove_tests::driver::event;
use cove_tests::driver::kind::{KINDS, Kind};
use cove_tests::driver::memory::{START, SharedMemory};
use cove_tests::driver::queue::{
    DESC_INDIRECT, Descriptor, DriverQueue, Used, followed, linked, readable, writable,
};
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::Transport;
use cove_tests::driver::vsock::PATIENCE;
use cove_virtio::device::FEATURE_EVENT_IDX;
use cove_virtio::vhost_user;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

/// Entries of each queue.
const ENTRIES: u16 = 64;
/// Entries of an indirect table that is longer than any queue here.
const TABLE: u16 = 200;
const PAGE: u64 = 4096;
/// How long a device that was stopped is watched: much longer than any request here takes.
const QUIET: Duration = Duration::from_millis(5);
/// What memory around the driver's places holds.
const CANARY: u8 = 0xc5;

/// A guest with a device. Fields are dropped in order: the guest before the device that it drives.
struct Rig {
    transport: Box<dyn Transport>,
    memory: SharedMemory,
    queues: Vec<DriverQueue>,
    features: u64,
    kind: Kind,
    /// Where what is read lies, a page.
    given: u64,
    /// Where answers go, a page.
    answer: u64,
    /// Where indirect tables lie, a page.
    tables: u64,
    /// Pages that no descriptor names.
    canaries: Vec<u64>,
    _service: Option<vhost_user::Server>,
    _dir: TempDir,
}

impl Rig {
    fn new(kind: Kind, way: Way) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (mut transport, service) = kind.connect(way, dir.path())?;
        let features = transport.features()?;
        let mut memory = SharedMemory::new(1 << 20)?;
        let mut canaries = vec![memory.allocate(PAGE)?];
        let mut queues = Vec::new();
        for index in 0..kind.queues() {
            queues.push(DriverQueue::new(&mut memory, index, ENTRIES)?);
            canaries.push(memory.allocate(PAGE)?);
        }
        let mut place = || -> Result<u64> {
            let place = memory.allocate(PAGE)?;
            canaries.push(memory.allocate(PAGE)?);
            Ok(place)
        };
        let (given, answer, tables) = (place()?, place()?, place()?);
        for canary in &canaries {
            let bytes = vec![CANARY; usize::try_from(PAGE)?];
            memory.memory.write_slice(&bytes, GuestAddress(*canary))?;
        }
        let mut rig = Self {
            transport,
            memory,
            queues,
            features,
            kind,
            given,
            answer,
            tables,
            canaries,
            _service: service,
            _dir: dir,
        };
        rig.boot()?;
        Ok(rig)
    }

    /// Makes the queues as new and hands them to the device.
    fn boot(&mut self) -> Result<()> {
        for queue in &mut self.queues {
            queue.clear(self.features & FEATURE_EVENT_IDX != 0)?;
        }
        let queues: Vec<&DriverQueue> = self.queues.iter().collect();
        self.transport.start(self.features, &self.memory, &queues)
    }

    fn reboot(&mut self) -> Result<()> {
        self.transport.reset()?;
        self.boot()
    }

    /// The queue that requests go into.
    fn requests(&mut self) -> &mut DriverQueue {
        &mut self.queues[usize::from(self.kind.request().queue)]
    }

    /// Writes the descriptors from the table's first on, and offers that.
    fn offer(&mut self, chain: &[Descriptor]) -> Result<()> {
        let queue = self.requests();
        for (index, descriptor) in (0..).zip(chain) {
            queue.write_descriptor(index, *descriptor)?;
        }
        queue.offer(0)?;
        queue.publish()
    }

    /// A good request, as descriptors.
    fn good(&self) -> Result<Vec<Descriptor>> {
        let request = self.kind.request();
        self.memory
            .memory
            .write_slice(&request.given, GuestAddress(self.given))?;
        request.chain(self.given, self.answer)
    }

    /// The device answers a good request, and has written to no canary before.
    fn prove_alive(&mut self) -> Result<()> {
        let chain = self.good()?;
        self.offer(&chain)?;
        let used = self.requests().next_used()?;
        ensure!(
            used.head == 0 && used.written >= self.kind.request().least,
            "{used:?} answers a good request"
        );
        for canary in &self.canaries {
            let mut bytes = vec![0; usize::try_from(PAGE)?];
            self.memory.memory.read_slice(&mut bytes, GuestAddress(*canary))?;
            ensure!(
                bytes.iter().all(|byte| *byte == CANARY),
                "the device wrote to {canary:#x}"
            );
        }
        Ok(())
    }

    /// The device, which was just stopped or reset, writes nothing any more: what it was given is the driver's again.
    fn prove_quiet(&self) -> Result<()> {
        let canary = vec![CANARY; usize::try_from(PAGE)?];
        let answer = GuestAddress(self.answer);
        self.memory.memory.write_slice(&canary, answer)?;
        let used = || {
            self.queues
                .iter()
                .map(DriverQueue::used_index)
                .collect::<Result<Vec<_>>>()
        };
        let before = used()?;
        sleep(QUIET);
        let mut bytes = vec![0; canary.len()];
        self.memory.memory.read_slice(&mut bytes, answer)?;
        ensure!(bytes == canary, "the device answers after its end");
        ensure!(used()? == before, "the device returns chains after its end");
        Ok(())
    }

    /// Offers a chain that must come back once, whatever is wrong with it.
    fn submit(&mut self, chain: &[Descriptor]) -> Result<Used> {
        self.offer(chain)?;
        let queue = self.requests();
        let used = queue.next_used()?;
        ensure!(used.head == 0, "{used:?} came back instead");
        ensure!(
            queue.used_index()? == queue.available_index(),
            "the chain came back twice"
        );
        Ok(used)
    }

    /// Writes the entries of an indirect table; returns the descriptor that names it.
    fn table(&self, entries: &[Descriptor]) -> Result<Descriptor> {
        for (index, entry) in (0..).zip(entries) {
            let place = GuestAddress(self.tables + 16 * index);
            self.memory.memory.write_slice(&entry.to_bytes(), place)?;
        }
        Ok(Descriptor {
            address: self.tables,
            len: 16 * u32::try_from(entries.len())?,
            flags: DESC_INDIRECT,
            next: 0,
        })
    }
}

/// Does `trial` to every device, both ways.
fn each(trial: impl Fn(&mut Rig) -> Result<()>) -> Result<()> {
    for kind in KINDS {
        for way in WAYS {
            let tried = Rig::new(kind, way).and_then(|mut rig| {
                trial(&mut rig)?;
                rig.prove_alive()
            });
            tried.with_context(|| format!("{kind:?}, {way:?}"))?;
        }
    }
    Ok(())
}

/// Offers each of the chains, and a good one after each.
fn survive(rig: &mut Rig, chains: &[Vec<Descriptor>]) -> Result<()> {
    for chain in chains {
        rig.submit(chain)
            .and_then(|_| rig.prove_alive())
            .with_context(|| format!("{chain:x?}"))?;
    }
    Ok(())
}

#[test]
fn chains_that_loop_or_leave_the_table_come_back_once() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 16), writable(rig.answer, 16));
        survive(
            rig,
            &[
                vec![followed(read, 0)],
                vec![followed(write, 0)],
                vec![followed(read, 1), followed(read, 0)],
                vec![followed(read, 1), followed(write, 0)],
                vec![followed(read, 1), followed(write, 1)],
                vec![followed(read, ENTRIES)],
                vec![followed(write, u16::MAX)],
            ],
        )
    })
}

#[test]
fn buffers_outside_of_memory_are_neither_read_nor_written() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 16), writable(rig.answer, 16));
        let end = rig.memory.end();
        let mut chains = Vec::new();
        for (address, len) in [
            (0, 64),
            (START - 8, 64),
            (end - 8, 64),
            (end, 64),
            (rig.answer, u32::MAX),
            (u64::MAX - 8, 64),
            (u64::MAX, u32::MAX),
        ] {
            for outside in [readable(address, len), writable(address, len)] {
                chains.push(vec![outside]);
                chains.push(linked(&[read, outside, write]));
            }
        }
        survive(rig, &chains)
    })
}

#[test]
fn buffers_of_nothing_come_back() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 16), writable(rig.answer, 16));
        let (nothing, nowhere) = (readable(rig.given, 0), writable(rig.answer, 0));
        survive(
            rig,
            &[
                vec![nothing],
                vec![nowhere],
                linked(&[nothing, nowhere]),
                linked(&[nothing, read, nothing, nowhere, write, nowhere]),
                vec![readable(0, 0)],
                vec![writable(u64::MAX, 0)],
            ],
        )
    })
}

#[test]
fn buffers_of_the_wrong_direction_come_back() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 64), writable(rig.answer, 64));
        survive(
            rig,
            &[
                vec![read],
                vec![write],
                linked(&[write, read]),
                linked(&[read, write, read]),
                linked(&[write, read, write]),
            ],
        )
    })
}

#[test]
fn chains_as_long_as_the_queue_and_tables_longer_than_it_come_back() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 1), writable(rig.answer, 1));
        let full = usize::from(ENTRIES);
        let table = |rig: &Rig, entry: Descriptor| rig.table(&linked(&vec![entry; usize::from(TABLE)]));
        survive(rig, &[linked(&vec![read; full]), linked(&vec![write; full])])?;
        // Whatever the device makes of so many, it is the driver's own bytes, and it ends.
        let reading = table(rig, read)?;
        survive(rig, &[vec![reading]])?;
        let writing = table(rig, write)?;
        survive(rig, &[vec![writing]])
    })
}

#[test]
fn indirect_tables_that_make_no_sense_come_back() -> Result<()> {
    each(|rig| {
        let (read, write) = (readable(rig.given, 16), writable(rig.answer, 16));
        let end = rig.memory.end();
        let good = rig.table(&linked(&[read, write]))?;
        let named = |address, len| Descriptor { address, len, ..good };
        survive(
            rig,
            &[
                vec![good],
                vec![named(good.address, 0)],
                vec![named(good.address, 17)],
                vec![named(good.address, 16 * 65_536)],
                vec![named(good.address, u32::MAX - 15)],
                vec![named(end, 32)],
                vec![named(end - 16, 32)],
                vec![named(u64::MAX - 15, 32)],
                vec![followed(read, 1), good],
                vec![followed(good, 1), write],
            ],
        )?;
        // A table in a table, one that names itself, a loop in a table, and a way out of it.
        for entries in [
            vec![good],
            vec![followed(read, 0)],
            vec![followed(read, 7), write],
        ] {
            let table = rig.table(&entries)?;
            survive(rig, &[vec![table]])?;
        }
        Ok(())
    })
}

#[test]
fn a_reset_with_requests_in_flight_returns_and_the_next_driver_is_served() -> Result<()> {
    each(|rig| {
        for round in 0..20 {
            let chain = rig.good()?;
            let queue = rig.requests();
            for (index, descriptor) in (0..).zip(&chain) {
                queue.write_descriptor(index, *descriptor)?;
            }
            // The same chain again and again, which no driver does either.
            for _ in 0..ENTRIES - round {
                queue.offer(0)?;
            }
            queue.publish()?;
            rig.transport.reset()?;
            rig.prove_quiet()?;
            rig.boot()?;
            rig.prove_alive()?;
            rig.reboot()?;
        }
        Ok(())
    })
}

#[test]
fn a_pause_with_requests_in_flight_loses_and_repeats_none() -> Result<()> {
    each(|rig| {
        let chain = rig.good()?;
        for _ in 0..10 {
            let queue = rig.requests();
            for (index, descriptor) in (0..).zip(&chain) {
                queue.write_descriptor(index, *descriptor)?;
            }
            for _ in 0..8 {
                queue.offer(0)?;
            }
            queue.publish()?;
            rig.transport.stop()?;
            rig.prove_quiet()?;
            let queues: Vec<&DriverQueue> = rig.queues.iter().collect();
            rig.transport.start(rig.features, &rig.memory, &queues)?;
            let queue = rig.requests();
            for _ in 0..8 {
                queue.next_used()?;
            }
            ensure!(
                queue.take_used()?.is_none(),
                "a chain came back that was not offered"
            );
        }
        Ok(())
    })
}

#[test]
fn a_broken_queue_is_told_and_a_reset_repairs_it() -> Result<()> {
    each(|rig| {
        let damages: [fn(&mut DriverQueue) -> Result<()>; 3] = [
            |queue| queue.forge_available_index(queue.available_index().wrapping_add(ENTRIES + 1)),
            |queue| queue.forge_available_index(queue.available_index().wrapping_sub(1)),
            |queue| {
                queue.offer(ENTRIES)?;
                queue.publish()
            },
        ];
        for damage in damages {
            let queue = rig.requests();
            damage(queue)?;
            queue.kick.ring()?;
            ensure!(
                event::wait(&[&queue.broken], PATIENCE)?,
                "nobody says that the queue is broken"
            );
            rig.reboot()?;
            rig.prove_alive()?;
            rig.reboot()?;
        }
        Ok(())
    })
}
