//! The disk device through its queue, called directly and over vhost-user, with its requests in flight together and one
//! at a time. Where this computer has no rings (`io_uring`) that is one at a time in any case.

mod disk;
mod together;

use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Result, ensure};
use cove_tests::driver::block::{Status, buffer, op, range};
use cove_tests::driver::memory::{START, SharedMemory};
use cove_tests::driver::queue::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, DriverQueue};
use cove_tests::driver::transport::{InProcess, Transport as _};
use cove_tests::driver::vsock::PATIENCE;
use cove_virtio::block::{Access, Block};
use cove_virtio::device::FEATURE_EVENT_IDX;
use disk::{DISK, Rig, SECTOR, SECTORS, WAYS, content, done, refused};
use vm_memory::{Bytes, GuestAddress};

const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_QUEUES: u64 = 1 << 12;
const FEATURE_DISCARD: u64 = 1 << 13;

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
