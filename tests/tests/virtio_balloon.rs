//! The balloon device through its queues, called directly and over vhost-user.

use anyhow::{Context, Result, ensure};
use cove_tests::driver::block::buffer;
use cove_tests::driver::memory::SharedMemory;
use cove_tests::driver::queue::{Buffer, DriverQueue, Used};
use cove_tests::driver::rig::{WAYS, Way};
use cove_tests::driver::transport::{InProcess, Transport, VhostUser};
use cove_virtio::balloon::Balloon;
use cove_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};
use cove_virtio::vhost_user::{self, Server};
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

/// Where Linux has the queue of reports, and where the specification does.
const REPORTING: [usize; 2] = [2, 4];
/// `VIRTIO_BALLOON_F_REPORTING`.
const FEATURE_REPORTING: u64 = 1 << 5;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`.
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
/// Where the configuration space has the pattern of free pages.
const POISON: u32 = 12;
/// Bytes of the place that is reported.
const PLACE: u32 = 2 << 20;
const PAGE: u64 = 4096;

/// A guest with a balloon. Fields are dropped in order: the guest before the device that it drives.
struct Rig {
    transport: Box<dyn Transport>,
    memory: SharedMemory,
    queues: Vec<DriverQueue>,
    features: u64,
    place: u64,
    _service: Option<Server>,
    _dir: TempDir,
}

impl Rig {
    fn new(way: Way) -> Result<Self> {
        Self::without(way, 0)
    }

    /// A driver that does not know the features `unknown`.
    fn without(way: Way, unknown: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (mut transport, service): (Box<dyn Transport>, _) = match way {
            Way::InProcess => (Box::new(InProcess::new(Balloon::new())), None),
            Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(Balloon::new(), &socket)?;
                (Box::new(VhostUser::connect(&socket, 5)?), Some(service))
            }
        };
        let features = transport.features()?;
        ensure!(features & FEATURE_VERSION_1 != 0 && features & FEATURE_REPORTING != 0);
        let features = features & !unknown;
        let mut memory = SharedMemory::new(8 << 20)?;
        let mut queues = (0..5)
            .map(|index| DriverQueue::new(&mut memory, index, 64))
            .collect::<Result<Vec<_>>>()?;
        for queue in &mut queues {
            queue.clear(features & FEATURE_EVENT_IDX != 0)?;
        }
        // At the memory's end, so that what reaches beyond it begins in the place.
        let place = memory.end() - u64::from(PLACE);
        let mut rig = Self {
            transport,
            memory,
            queues,
            features,
            place,
            _service: service,
            _dir: dir,
        };
        rig.resume()?;
        Ok(rig)
    }

    fn resume(&mut self) -> Result<()> {
        let queues: Vec<&DriverQueue> = self.queues.iter().collect();
        self.transport.start(self.features, &self.memory, &queues)
    }

    /// Puts a chain into a queue and waits for its return.
    fn submit(&mut self, queue: usize, chain: &[Buffer]) -> Result<Used> {
        let queue = &mut self.queues[queue];
        let head = queue.add(chain)?.context("the queue is full")?;
        queue.publish()?;
        let used = queue.next_used()?;
        ensure!(used.head == head, "another chain came back");
        Ok(used)
    }

    /// Writes to all of the place; returns how much memory the guest has then, in bytes.
    fn fill(&self) -> Result<u64> {
        let bytes = vec![0xa5; PLACE as usize];
        self.memory.memory.write_slice(&bytes, GuestAddress(self.place))?;
        self.resident()
    }

    /// What of the guest's memory takes the host's, in bytes.
    fn resident(&self) -> Result<u64> {
        Ok(self.memory.file.metadata()?.blocks() * 512)
    }

    /// How many bytes of the place are what was written.
    fn kept(&self) -> Result<usize> {
        let mut bytes = vec![0; PLACE as usize];
        self.memory
            .memory
            .read_slice(&mut bytes, GuestAddress(self.place))?;
        Ok(bytes.iter().map(|byte| usize::from(*byte == 0xa5)).sum())
    }
}

#[test]
fn what_is_reported_is_the_hosts_again_until_it_is_touched() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        let full = rig.fill()?;
        let half = PLACE / 2;
        // Two ranges in one report, as Linux sends up to 32.
        let (first, second) = (rig.place, rig.place + u64::from(half));
        for queue in REPORTING {
            let used = rig.submit(
                queue,
                &[buffer(first, half / 2, true), buffer(second, half, true)],
            )?;
            ensure!(used.written == 0, "{used:?}");
            let now = rig.resident()?;
            ensure!(
                full - now == u64::from(half + half / 2),
                "{way:?}: {full} to {now}"
            );
            ensure!(rig.kept()? == (half / 2) as usize, "{way:?}");
            rig.fill()?;
            ensure!(rig.kept()? == PLACE as usize, "{way:?}");
        }
    }
    Ok(())
}

#[test]
fn a_broken_report_gives_nothing_back_and_the_device_goes_on() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.fill()?;
        let (at, end) = (rig.place, rig.memory.end());
        for chain in [
            vec![buffer(at, PLACE, false)],
            vec![buffer(at, PLACE, true), buffer(at, PLACE, false)],
            vec![buffer(end - PAGE, 2 << 12, true)],
            vec![buffer(u64::MAX - PAGE + 1, PLACE, true)],
            vec![buffer(at, 0, true)],
            vec![buffer(at + 1, 4096, true)],
        ] {
            let used = rig.submit(REPORTING[0], &chain)?;
            ensure!(used.written == 0, "{used:?}");
            ensure!(
                rig.kept()? == PLACE as usize,
                "{way:?}: {chain:?} gave something back"
            );
        }
        rig.submit(REPORTING[0], &[buffer(at, PLACE, true)])?;
        ensure!(rig.kept()? == 0, "{way:?}");
    }
    Ok(())
}

#[test]
fn a_driver_that_did_not_say_that_it_reports_loses_nothing() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::without(way, FEATURE_REPORTING)?;
        rig.fill()?;
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        ensure!(rig.kept()? == PLACE as usize, "{way:?}");
    }
    Ok(())
}

/// Pages that come back are zeroes, which such a guest would take for somebody's writing.
#[test]
fn a_guest_with_a_pattern_in_its_free_pages_keeps_them() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.fill()?;
        // One byte of it is enough, and what lies beside the pattern is not the guest's to write.
        rig.transport.set_config(POISON + 3, &[0xaa])?;
        rig.transport.set_config(0, &[0xff; 4])?;
        ensure!(rig.transport.config(0, 16)? == [&[0; 15][..], &[0xaa]].concat());
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        ensure!(rig.kept()? == PLACE as usize, "{way:?}");

        rig.transport.set_config(POISON, &[0; 4])?;
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        ensure!(rig.kept()? == 0, "{way:?}");
    }
    Ok(())
}

/// A balloon that nobody asked to be inflated, which a guest without memory need not ask either.
#[test]
fn what_a_guest_inflates_and_deflates_comes_back_and_keeps_its_memory() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        ensure!(rig.features & FEATURE_DEFLATE_ON_OOM != 0, "{way:?}");
        rig.fill()?;
        let at = rig.place;
        for queue in [0, 1, 0] {
            rig.submit(queue, &[buffer(at, 1024, false)])?;
        }
        ensure!(rig.kept()? == PLACE as usize, "{way:?}");
        ensure!(rig.transport.config(0, 8)? == [0; 8], "pages are asked for");
    }
    Ok(())
}

#[test]
fn a_pause_and_a_reboot_leave_it_working() -> Result<()> {
    for way in WAYS {
        let mut rig = Rig::new(way)?;
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        rig.transport.stop()?;
        rig.resume()?;
        rig.fill()?;
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        ensure!(rig.kept()? == 0, "{way:?}");
        rig.transport.reset()?;
        for queue in &mut rig.queues {
            queue.clear(rig.features & FEATURE_EVENT_IDX != 0)?;
        }
        rig.resume()?;
        rig.fill()?;
        rig.submit(REPORTING[0], &[buffer(rig.place, PLACE, true)])?;
        ensure!(rig.kept()? == 0, "{way:?}");
    }
    Ok(())
}
