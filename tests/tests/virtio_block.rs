//! The disk device through its queue, called directly and over vhost-user, with its requests in flight together and one
//! at a time. Where this computer has no rings (`io_uring`) that is one at a time in any case.

use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow, ensure};
use cove_tests::driver::block::{Answer, BlockGuest, Status, buffer, op, range};
use cove_tests::driver::memory::{START, SharedMemory};
use cove_tests::driver::queue::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, DriverQueue};
use cove_tests::driver::rig;
use cove_tests::driver::transport::{InProcess, Transport as _, VhostUser};
use cove_tests::driver::vsock::PATIENCE;
use cove_tests::rings;
use cove_virtio::block::{Access, Block};
use cove_virtio::device::FEATURE_EVENT_IDX;
use cove_virtio::vhost_user;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

const SECTOR: usize = 512;
/// Sectors of the disk.
const SECTORS: u64 = 2048;
/// Bytes of the disk.
const DISK: usize = 2048 * SECTOR;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_QUEUES: u64 = 1 << 12;
const FEATURE_DISCARD: u64 = 1 << 13;

/// A way to the disk, and on to its file.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// How the driver reaches the device.
    device: rig::Way,
    /// Whether the requests of a queue are in flight together.
    together: bool,
}

/// All of them.
const WAYS: [Way; 4] = [
    Way::new(rig::Way::InProcess, false),
    Way::new(rig::Way::InProcess, true),
    Way::new(rig::Way::VhostUser, false),
    Way::new(rig::Way::VhostUser, true),
];

impl Way {
    const fn new(device: rig::Way, together: bool) -> Self {
        Self { device, together }
    }

    /// A disk that serves its queue so.
    fn disk(self, file: File, access: Access) -> Result<Block> {
        let disk = Block::new(file, access, "the-disk")?;
        Ok(if self.together { disk.with_rings() } else { disk })
    }
}

/// A guest before its disk. Fields are dropped in order.
struct Rig {
    guest: BlockGuest,
    _service: Option<vhost_user::Server>,
    file: File,
    _dir: TempDir,
}

impl Rig {
    fn new(way: Way) -> Result<Self> {
        Self::with(way, Access::ReadWrite, 0)
    }

    /// A disk of random-looking content, and a driver that does not know the features `unknown`.
    fn with(way: Way, access: Access, unknown: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        std::fs::write(&path, content(0, DISK))?;
        let file = File::options().read(true).write(true).open(&path)?;
        let device = way.disk(file.try_clone()?, access)?;
        Self::before(way, device, file, dir, unknown)
    }

    /// A driver before a disk on `file`.
    fn before(way: Way, device: Block, file: File, dir: TempDir, unknown: u64) -> Result<Self> {
        let (guest, service) = match way.device {
            rig::Way::InProcess => (BlockGuest::boot(InProcess::new(device), unknown)?, None),
            rig::Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(device, &socket)?;
                (
                    BlockGuest::boot(VhostUser::connect(&socket, 1)?, unknown)?,
                    Some(service),
                )
            }
        };
        Ok(Self {
            guest,
            _service: service,
            file,
            _dir: dir,
        })
    }

    /// What the file holds.
    fn file(&self, sector: u64, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        self.file.read_exact_at(&mut data, sector * SECTOR as u64)?;
        Ok(data)
    }

    /// That the disk holds what it held at first, and still answers.
    fn check_untouched(&mut self) -> Result<()> {
        ensure!(self.file(0, DISK)? == content(0, DISK), "the disk was written to");
        let answer = self.guest.ask(op::READ, 1, &[], 512)?;
        ensure!(answer == done(content(1, 512)), "the device does not go on");
        Ok(())
    }
}

/// What the disk holds at first, from `sector` on.
fn content(sector: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (sector * 512 + at).wrapping_mul(2_654_435_761).to_le_bytes()[2] | 1)
        .collect()
}

fn done(data: Vec<u8>) -> Answer {
    Answer {
        status: Status::Ok,
        data,
    }
}

fn refused(status: Status) -> Answer {
    Answer {
        status,
        data: Vec::new(),
    }
}

/// A request with a place of its own in guest memory, so that many can be in flight.
struct Asked {
    header: u64,
    status: u64,
    data: u64,
    len: usize,
    /// The device writes the data.
    wanted: bool,
}

impl Asked {
    /// A request for `len` bytes of data, either way.
    fn new(rig: &mut Rig, operation: u32, sector: u64, len: usize) -> Result<Self> {
        let memory = &mut rig.guest.memory;
        let (header, status) = (memory.allocate(16)?, memory.allocate(1)?);
        let data = memory.allocate(len as u64)?;
        let asked = Self {
            header,
            status,
            data,
            len,
            wanted: operation == op::READ,
        };
        asked.say(rig, operation, sector)?;
        Ok(asked)
    }

    /// Writes the header, and takes the answer away.
    fn say(&self, rig: &Rig, operation: u32, sector: u64) -> Result<()> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&operation.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let memory = &rig.guest.memory.memory;
        memory.write_slice(&header, GuestAddress(self.header))?;
        memory.write_slice(&[0xaa], GuestAddress(self.status))?;
        Ok(())
    }

    /// Puts it into the queue. Returns the first descriptor of its chain, none if the queue is full.
    fn offer(&self, rig: &mut Rig) -> Result<Option<u16>> {
        let mut chain = vec![buffer(self.header, 16, false)];
        if self.len > 0 {
            chain.push(buffer(self.data, u32::try_from(self.len)?, self.wanted));
        }
        chain.push(buffer(self.status, 1, true));
        rig.guest.requests.add(&chain)
    }

    /// The status byte and the data.
    fn answer(&self, rig: &Rig) -> Result<(u8, Vec<u8>)> {
        let memory = &rig.guest.memory.memory;
        let mut data = vec![0; self.len];
        memory.read_slice(&mut data, GuestAddress(self.data))?;
        Ok((memory.read_obj(GuestAddress(self.status))?, data))
    }
}

#[test]
fn many_requests_at_once_each_move_their_own_bytes() -> Result<()> {
    /// Bytes of a request.
    const LEN: usize = 8 * SECTOR;
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let place = |number: u64| number * (LEN / SECTOR) as u64;
        let mut asked = Vec::new();
        // Reads and writes in turn, each of a range of its own.
        for number in 0..20_u64 {
            let operation = if number.is_multiple_of(2) {
                op::READ
            } else {
                op::WRITE
            };
            asked.push((
                operation,
                place(number),
                Asked::new(&mut rig, operation, place(number), LEN)?,
            ));
        }
        for round in 0u8..100 {
            let mut heads = BTreeSet::new();
            for (operation, sector, request) in &asked {
                request.say(&rig, *operation, *sector)?;
                let memory = &rig.guest.memory.memory;
                let before = if request.wanted {
                    vec![0; LEN]
                } else {
                    vec![round; LEN]
                };
                memory.write_slice(&before, GuestAddress(request.data))?;
                heads.insert(request.offer(&mut rig)?.context("the queue is full")?);
            }
            rig.guest.requests.publish()?;
            for _ in &asked {
                let used = rig.guest.requests.next_used()?;
                ensure!(heads.remove(&used.head), "{way:?}: {used:?} came back twice");
            }
            for (_, sector, request) in &asked {
                let (status, data) = request.answer(&rig)?;
                ensure!(status == 0, "{way:?}: {status} of sector {sector}");
                let expected = if request.wanted {
                    content(*sector, LEN)
                } else {
                    vec![round; LEN]
                };
                ensure!(data == expected, "{way:?}: the data of sector {sector}");
                ensure!(
                    rig.file(*sector, LEN)? == expected,
                    "{way:?}: the file at {sector}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_read_overtakes_a_flush_where_requests_are_in_flight_together() -> Result<()> {
    for device in [rig::Way::InProcess, rig::Way::VhostUser] {
        let way = Way::new(device, true);
        if !way.disk(tempfile::tempfile()?, Access::ReadWrite)?.has_rings() {
            println!("this computer has no rings, so that nothing can be overtaken");
            return Ok(());
        }
        let mut rig = Rig::new(way)?;
        let write = Asked::new(&mut rig, op::WRITE, 0, 64 * SECTOR)?;
        let flush = Asked::new(&mut rig, op::FLUSH, 0, 0)?;
        let read = Asked::new(&mut rig, op::READ, 1024, SECTOR)?;
        let mut overtaken = false;
        // Which is first is the kernel's affair: a flush takes a thread of its own, which nearly always comes too late.
        for _ in 0..200 {
            write.offer(&mut rig)?;
            rig.guest.requests.publish()?;
            rig.guest.requests.next_used()?;
            let first = flush.offer(&mut rig)?;
            read.offer(&mut rig)?;
            rig.guest.requests.publish()?;
            overtaken |= Some(rig.guest.requests.next_used()?.head) != first;
            rig.guest.requests.next_used()?;
            ensure!(flush.answer(&rig)?.0 == 0, "{way:?}: the flush failed");
            ensure!(read.answer(&rig)? == (0, content(1024, SECTOR)), "{way:?}");
        }
        ensure!(overtaken, "{way:?}: requests are served one at a time");
    }
    Ok(())
}

#[test]
fn after_a_reset_with_requests_in_flight_nothing_writes_to_the_guests_memory() -> Result<()> {
    const LEN: usize = 64 * 1024;
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, status) = rig.guest.frame(op::READ, 0)?;
        let data = buffer(rig.guest.data, u32::try_from(LEN)?, true);
        let (memory, place) = (rig.guest.memory.memory.clone(), GuestAddress(rig.guest.data));
        for _ in 0..50 {
            for _ in 0..20 {
                rig.guest.requests.add(&[header, data, status])?;
            }
            rig.guest.requests.publish()?;
            rig.guest.reboot()?;
            memory.write_slice(&vec![0xbb; LEN], place)?;
            // Something goes through the same ring, and still nothing of before it comes.
            ensure!(rig.guest.ask(op::FLUSH, 0, &[], 0)? == done(vec![]), "{way:?}");
            let mut now = vec![0; LEN];
            memory.read_slice(&mut now, place)?;
            ensure!(now.iter().all(|byte| *byte == 0xbb), "{way:?}: it was written to");
            rig.guest.frame(op::READ, 0)?;
        }
        rig.check_untouched()?;
    }
    Ok(())
}

/// As where the system, or the list of calls of a container around it, forbids rings.
#[test]
fn a_disk_that_may_have_no_ring_serves_one_request_after_the_other() -> Result<()> {
    for errno in [rustix::io::Errno::PERM, rustix::io::Errno::NOSYS] {
        // Only this thread and those that it starts are bound by it.
        let thread = std::thread::spawn(move || -> Result<()> {
            rings::forbid(errno)?;
            let way = Way::new(rig::Way::InProcess, true);
            let disk = way.disk(tempfile::tempfile()?, Access::ReadWrite)?;
            ensure!(!disk.has_rings(), "it got one");
            Rig::new(way)?.check_untouched()
        });
        thread.join().map_err(|_| anyhow!("it panicked"))??;
    }
    Ok(())
}

#[test]
fn a_guest_reads_what_the_file_holds_and_the_file_gets_what_it_writes() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let answer = rig.guest.ask(op::READ, 8, &[], 64 * 1024)?;
        ensure!(answer == done(content(8, 64 * 1024)), "{way:?}");
        let data = vec![0x5a; 3 * SECTOR];
        ensure!(rig.guest.ask(op::WRITE, SECTORS - 3, &data, 0)? == done(vec![]));
        ensure!(rig.guest.ask(op::FLUSH, 0, &[], 0)? == done(vec![]));
        ensure!(rig.file(SECTORS - 3, data.len())? == data, "{way:?}");
        let before = rig.file(SECTORS - 4, SECTOR)?;
        ensure!(
            before == content(SECTORS - 4, SECTOR),
            "{way:?}: the sector before"
        );
    }
    Ok(())
}

#[test]
fn the_configuration_tells_size_and_limits_and_the_name_can_be_asked_for() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        ensure!(rig.guest.config(0, 8)? == SECTORS.to_le_bytes());
        let limits = rig.guest.config(8, 16)?;
        ensure!(limits[4..8] == 254u32.to_le_bytes() && limits[12..16] == 512u32.to_le_bytes());
        let answer = rig.guest.ask(op::GET_ID, 0, &[], 20)?;
        ensure!(
            answer == done(b"the-disk\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            "{answer:?}"
        );
        ensure!(rig.guest.ask(op::GET_ID, 0, &[], 3)? == done(b"the".to_vec()));
    }
    Ok(())
}

#[test]
fn a_request_means_the_same_however_it_is_cut_into_buffers() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, status) = rig.guest.frame(op::READ, 2)?;
        let data = rig.guest.data;
        // A header in three parts, data in uneven ones with the status in the last.
        let mut chain = vec![
            buffer(header.address, 3, false),
            buffer(header.address + 3, 0, false),
            buffer(header.address + 3, 13, false),
        ];
        chain.extend([buffer(data, 100, true), buffer(data + 100, 924, true), status]);
        let used = rig.guest.submit(&chain)?;
        ensure!(used.written == 1025, "{way:?}: {used:?}");
        ensure!(rig.guest.status()? == Some(Status::Ok), "{way:?}");
        let answer = rig.guest.ask(op::GET_ID, 0, &[], 1)?;
        ensure!(answer == done(b"t".to_vec()), "{way:?}");
    }
    Ok(())
}

#[test]
fn zeroes_are_written_and_discarded_space_is_given_back() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        for flags in [0, 1] {
            let first = 8 + u64::from(flags) * 64;
            let request = range(first, 32, flags);
            ensure!(rig.guest.ask(op::WRITE_ZEROES, 0, &request, 0)? == done(vec![]));
            ensure!(rig.file(first, 32 * SECTOR)? == vec![0; 32 * SECTOR], "{way:?}");
            ensure!(rig.file(first - 1, SECTOR)? == content(first - 1, SECTOR));
            ensure!(rig.file(first + 32, SECTOR)? == content(first + 32, SECTOR));
        }
        rig.file.sync_all()?;
        let blocks = rig.file.metadata()?.blocks();
        let request = [range(256, 256, 0), range(1024, 1024, 0)].concat();
        ensure!(rig.guest.ask(op::DISCARD, 0, &request, 0)? == done(vec![]));
        let given_back = blocks - rig.file.metadata()?.blocks();
        // Less a few, where the file system has to note the holes.
        ensure!(
            given_back >= 1280 - 64,
            "{way:?}: {given_back} blocks were given back"
        );
        ensure!(rig.file.metadata()?.len() == SECTORS * 512);
    }
    Ok(())
}

#[test]
fn nothing_outside_of_the_disk_can_be_reached() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let data = vec![7; 2 * SECTOR];
        for sector in [
            SECTORS - 1,
            SECTORS,
            u64::MAX,
            u64::MAX - 1,
            u64::MAX / 512,
            1 << 55,
        ] {
            let answer = rig.guest.ask(op::READ, sector, &[], 1024)?;
            ensure!(answer == refused(Status::Error), "{way:?}: {sector}: {answer:?}");
            let answer = rig.guest.ask(op::WRITE, sector, &data, 0)?;
            ensure!(answer == refused(Status::Error), "{way:?}: {sector}: {answer:?}");
            for operation in [op::DISCARD, op::WRITE_ZEROES] {
                let answer = rig.guest.ask(operation, 0, &range(sector, 2, 0), 0)?;
                ensure!(answer == refused(Status::Error), "{way:?}: {sector}: {answer:?}");
            }
        }
        for operation in [op::DISCARD, op::WRITE_ZEROES] {
            let answer = rig.guest.ask(operation, 0, &range(0, u32::MAX, 0), 0)?;
            ensure!(answer == refused(Status::Error), "{way:?}: {answer:?}");
        }
        rig.check_untouched()?;
        ensure!(
            rig.file.metadata()?.len() == SECTORS * 512,
            "{way:?}: the file grew"
        );
    }
    Ok(())
}

#[test]
fn what_is_no_request_is_refused_and_leaves_the_disk_alone() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let byte = [1];
        for (operation, given, wanted, status) in [
            (op::READ, &[][..], 511, Status::Error),
            (op::WRITE, &byte[..], 0, Status::Error),
            (op::READ, &byte[..], 512, Status::Error),
            (op::WRITE, &[0; 512][..], 512, Status::Error),
            (op::FLUSH, &byte[..], 0, Status::Error),
            (op::GET_ID, &byte[..], 0, Status::Error),
            (op::DISCARD, &[][..], 0, Status::Error),
            (op::DISCARD, &[0; 17][..], 0, Status::Error),
            (op::DISCARD, &range(0, 1, 1)[..], 0, Status::Unsupported),
            (op::DISCARD, &[0; 65 * 16][..], 0, Status::Error),
            (op::WRITE_ZEROES, &[0; 32][..], 0, Status::Error),
            (op::WRITE_ZEROES, &range(0, 1, 2)[..], 0, Status::Unsupported),
            (2, &[0; 512][..], 0, Status::Unsupported),
            (u32::MAX, &[][..], 512, Status::Unsupported),
        ] {
            let answer = rig.guest.ask(operation, 0, given, wanted)?;
            ensure!(answer == refused(status), "{way:?}: {operation}: {answer:?}");
        }
        rig.check_untouched()?;
    }
    Ok(())
}

#[test]
fn malformed_chains_come_back_and_the_device_goes_on() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let end = rig.guest.memory.end();
        let (header, status) = rig.guest.frame(op::WRITE, 0)?;
        let data = buffer(rig.guest.data, 512, false);
        for chain in [
            vec![header],
            vec![status],
            vec![buffer(header.address, 15, false), status],
            vec![header, data, buffer(status.address, 0, true)],
            vec![header, buffer(end, 512, false), status],
            vec![header, buffer(end - 8, 512, false), status],
            vec![header, buffer(u64::MAX - 8, 512, false), status],
            vec![header, buffer(START, u32::MAX, false), status],
            vec![status, header, data],
            vec![header, status, data],
            vec![header, data, buffer(end, 1, true)],
        ] {
            let used = rig.guest.submit(&chain)?;
            ensure!(used.written <= 1, "{way:?}: {used:?} for {chain:?}");
        }
        rig.check_untouched()?;
    }
    Ok(())
}

#[test]
fn a_chain_that_loops_comes_back_and_moves_no_more_than_a_request_may() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, _) = rig.guest.frame(op::WRITE, 0)?;
        let table = rig.guest.data + 4096;
        let link = |address, flags, next| Descriptor {
            address,
            len: 16,
            flags: flags | DESC_NEXT,
            next,
        };
        // A header that follows itself; one whose two halves follow each other; a table that names itself.
        let indirect = Descriptor {
            address: table,
            len: 16 * 3,
            flags: DESC_INDIRECT,
            next: 0,
        };
        for (place, first) in [
            (10, link(header.address, 0, 10)),
            (20, link(header.address, 0, 21)),
            (30, indirect),
            (40, link(header.address, DESC_WRITE, 40)),
        ] {
            rig.guest.requests.write_descriptor(place, first)?;
            rig.guest
                .requests
                .write_descriptor(21, link(header.address, 0, 20))?;
            vm_memory::Bytes::write_slice(
                rig.guest.memory.memory.as_ref(),
                &indirect.to_bytes(),
                vm_memory::GuestAddress(table),
            )?;
            rig.guest.requests.offer(place)?;
            rig.guest.requests.publish()?;
            let used = rig.guest.requests.next_used()?;
            ensure!(used.head == place && used.written <= 1, "{way:?}: {used:?}");
        }
        rig.check_untouched()?;
    }
    Ok(())
}

#[test]
fn a_read_only_disk_cannot_be_changed_whatever_the_driver_claims() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::with(way, Access::ReadOnly, 0)?;
        ensure!(rig.guest.features & FEATURE_READ_ONLY != 0, "{way:?}");
        let answer = rig.guest.ask(op::WRITE, 0, &[0; 512], 0)?;
        ensure!(answer == refused(Status::Error), "{way:?}: {answer:?}");
        for operation in [op::DISCARD, op::WRITE_ZEROES] {
            let answer = rig.guest.ask(operation, 0, &range(0, 8, 0), 0)?;
            ensure!(answer.status != Status::Ok, "{way:?}: {answer:?}");
        }
        rig.check_untouched()?;
    }
    Ok(())
}

#[test]
fn an_operation_that_was_not_agreed_on_is_not_carried_out() -> Result<()> {
    for way in WAYS {
        let unknown = FEATURE_DISCARD | FEATURE_FLUSH | FEATURE_EVENT_IDX;
        let mut rig = Rig::with(way, Access::ReadWrite, unknown)?;
        for (operation, given) in [(op::DISCARD, range(0, 8, 0)), (op::FLUSH, Vec::new())] {
            let answer = rig.guest.ask(operation, 0, &given, 0)?;
            ensure!(answer == refused(Status::Unsupported), "{way:?}: {answer:?}");
        }
        rig.check_untouched()?;
        ensure!(rig.guest.ask(op::WRITE, 4, &[9; 512], 0)? == done(vec![]));
        ensure!(rig.file(4, 512)? == vec![9; 512], "{way:?}");
    }
    Ok(())
}

#[test]
fn requests_in_flight_survive_a_pause_and_each_is_answered_once() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let (header, status) = rig.guest.frame(op::READ, 0)?;
        let data = buffer(rig.guest.data, 64 * 1024, true);
        for _ in 0..50 {
            for _ in 0..20 {
                rig.guest.requests.add(&[header, data, status])?;
            }
            rig.guest.requests.publish()?;
            let taken = rig.guest.pause()?;
            let answered = rig.guest.requests.used_index()?;
            ensure!(
                taken == answered,
                "{way:?}: {taken} taken, but {answered} answered"
            );
            rig.guest.resume()?;
            for _ in 0..20 {
                ensure!(
                    rig.guest.requests.next_used()?.written == 64 * 1024 + 1,
                    "{way:?}"
                );
            }
            ensure!(rig.guest.requests.take_used()?.is_none(), "{way:?}");
        }
    }
    Ok(())
}

#[test]
fn a_broken_queue_is_signalled_and_a_reset_repairs_it() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let index = rig.guest.requests.available_index();
        rig.guest
            .requests
            .forge_available_index(index.wrapping_add(1000))?;
        rig.guest.requests.kick.ring()?;
        let told = cove_tests::driver::event::wait(&[&rig.guest.requests.broken], PATIENCE)?;
        ensure!(told, "{way:?}: nobody says that the queue is broken");
        rig.guest.reboot()?;
        rig.check_untouched()?;
    }
    Ok(())
}

/// On a file system of one mebibyte, in a namespace in which an ordinary user may mount one: the test calls itself
/// there.
#[test]
fn a_write_waits_while_the_host_has_no_space_and_is_whole_afterwards() -> Result<()> {
    const SMALL: &str = "COVE_TEST_SMALL_FILE_SYSTEM";
    const WRITTEN: usize = 512 * 1024;
    let Some(small) = env::var_os(SMALL) else {
        let place = tempfile::tempdir()?;
        let mount = r#"mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@""#;
        let inside = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount])
            .arg(place.path())
            .arg(env::current_exe()?)
            .arg("a_write_waits_while_the_host_has_no_space_and_is_whole_afterwards")
            .args(["--exact", "--nocapture"])
            .env(SMALL, place.path())
            .output()?;
        let said = String::from_utf8_lossy(&inside.stdout);
        ensure!(
            inside.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&inside.stderr)
        );
        ensure!(said.contains("1 passed"), "it did not find itself: {said}");
        return Ok(());
    };
    for way in WAYS {
        let dir = tempfile::tempdir_in(&small)?;
        let ballast = dir.path().join("ballast");
        std::fs::write(&ballast, vec![1; 768 * 1024])?;
        let path = dir.path().join("disk");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.set_len(DISK as u64)?;
        let mut device = way.disk(file.try_clone()?, Access::ReadWrite)?;
        let (tell, full) = mpsc::channel();
        device.on_full(move || {
            let _ = tell.send(());
        });
        let mut rig = Rig::before(way, device, file, dir, 0)?;

        let data = content(0, WRITTEN);
        rig.guest
            .memory
            .memory
            .write_slice(&data, GuestAddress(rig.guest.data))?;
        let (header, status) = rig.guest.frame(op::WRITE, 0)?;
        let body = buffer(rig.guest.data, u32::try_from(WRITTEN)?, false);
        ensure!(rig.guest.requests.add(&[header, body, status])?.is_some());
        // What comes after it waits with it, and is not lost.
        let later = Asked::new(&mut rig, op::READ, SECTORS - 1, SECTOR)?;
        ensure!(later.offer(&mut rig)?.is_some());
        rig.guest.requests.publish()?;
        full.recv_timeout(PATIENCE)?;
        ensure!(
            rig.guest.status()?.is_none(),
            "{way:?}: the guest was told something"
        );
        ensure!(
            rig.guest.pause()? == 0,
            "{way:?}: the request is not in the queue"
        );
        rig.guest.resume()?;
        full.recv_timeout(PATIENCE)?;

        std::fs::remove_file(ballast)?;
        for _ in 0..2 {
            rig.guest.requests.next_used()?;
        }
        ensure!(rig.guest.status()? == Some(Status::Ok), "{way:?}");
        ensure!(later.answer(&rig)? == (0, vec![0; SECTOR]), "{way:?}");
        ensure!(rig.file(0, WRITTEN)? == data, "{way:?}");
        // A ring lets go of its file only a while after its end, and the next one needs the space.
        File::options().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

#[test]
fn a_disk_answers_on_each_of_its_queues_and_hands_all_of_them_back() -> Result<()> {
    for together in [false, true] {
        let file = tempfile::tempfile()?;
        file.write_all_at(&content(0, DISK), 0)?;
        let device = Block::new(file, Access::ReadOnly, "the-disk")?.with_queues(3);
        answers_on_each_queue(if together { device.with_rings() } else { device })?;
    }
    Ok(())
}

fn answers_on_each_queue(device: Block) -> Result<()> {
    let mut transport = InProcess::new(device);
    let features = transport.features()?;
    ensure!(features & FEATURE_QUEUES != 0, "{features:#x}");
    ensure!(transport.config(34, 2)? == [3, 0]);

    let mut memory = SharedMemory::new(4 << 20)?;
    let mut queues = Vec::new();
    // The one in between the driver leaves alone.
    for index in [0, 2] {
        let mut queue = DriverQueue::new(&mut memory, index, 16)?;
        queue.clear(features & FEATURE_EVENT_IDX != 0)?;
        queues.push(queue);
    }
    let (header, data, status) = (memory.allocate(16)?, memory.allocate(512)?, memory.allocate(1)?);
    let refused = transport.start(features, &memory, &[&queues[1]]);
    ensure!(refused.is_err(), "it goes without the first one");
    for round in 1..=2 {
        let all: Vec<_> = queues.iter().collect();
        transport.start(features, &memory, &all)?;
        for (queue, sector) in queues.iter_mut().zip([5u64, 9]) {
            let mut request = [0; 16];
            request[..4].copy_from_slice(&op::READ.to_le_bytes());
            request[8..].copy_from_slice(&sector.to_le_bytes());
            memory.memory.write_slice(&request, GuestAddress(header))?;
            let head = queue.add(&[
                buffer(header, 16, false),
                buffer(data, 512, true),
                buffer(status, 1, true),
            ])?;
            queue.publish()?;
            ensure!(Some(queue.next_used()?.head) == head, "another chain came back");
            let mut read = vec![0; SECTOR];
            memory.memory.read_slice(&mut read, GuestAddress(data))?;
            ensure!(read == content(sector, SECTOR), "queue {}", queue.index);
        }
        ensure!(transport.stop()? == [round, 0, round]);
    }
    Ok(())
}

#[test]
fn a_file_that_was_cut_short_fails_the_request_and_not_the_device() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.file.set_len(1024)?;
        let answer = rig.guest.ask(op::READ, 1, &[], 1024)?;
        ensure!(answer == refused(Status::Error), "{way:?}: {answer:?}");
        let answer = rig.guest.ask(op::READ, 1, &[], 512)?;
        ensure!(answer == done(content(1, 512)), "{way:?}");
    }
    Ok(())
}
