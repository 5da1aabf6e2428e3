//! Devices that have nothing to do, whose threads are to sleep until somebody wants something.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cove_tests::driver::kind::{KINDS, Kind};
use cove_tests::driver::memory::SharedMemory;
use cove_tests::driver::queue::DriverQueue;
use cove_tests::driver::rig::Way;
use cove_tests::driver::transport::Transport;
use cove_virtio::device::FEATURE_EVENT_IDX;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

/// How long they are watched at a time. Whatever wakes them more often than that is seen.
const WATCHED: Duration = Duration::from_secs(3);
/// How often that is tried: what they were asked before may keep them a little longer on a busy computer.
const LOOKS: u32 = 4;
const ENTRIES: u16 = 64;
/// How many requests, one after the other, make a shared folder look for the next without being notified.
const BRISK: u32 = 100;
const PAGE: u64 = 4096;

/// The threads of this process, by their numbers.
type Threads = BTreeMap<String, Thread>;

/// A thread at some moment.
struct Thread {
    name: String,
    /// How often it has waited for something.
    waits: u64,
}

/// A device with a driver that wants nothing any more. Fields are dropped in order: the driver's end first.
struct Idle {
    kind: Kind,
    threads: Threads,
    _transport: Box<dyn Transport>,
    _queues: Vec<DriverQueue>,
    _memory: SharedMemory,
    /// Without anybody there, the network device goes on looking for somebody.
    _network: UnixListener,
    _dir: TempDir,
}

impl Idle {
    /// Starts a device, and asks it something; a shared folder as often as it takes to change how it waits.
    fn new(kind: Kind) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let network = UnixListener::bind(dir.path().join("net"))?;
        let others = threads()?;
        let (mut transport, _) = kind.connect(Way::InProcess, dir.path())?;
        let features = transport.features()?;
        let mut memory = SharedMemory::new(1 << 20)?;
        let mut queues = (0..kind.queues())
            .map(|index| DriverQueue::new(&mut memory, index, ENTRIES))
            .collect::<Result<Vec<_>>>()?;
        for queue in &mut queues {
            queue.clear(features & FEATURE_EVENT_IDX != 0)?;
        }
        let (given, answer) = (memory.allocate(PAGE)?, memory.allocate(PAGE)?);
        transport.start(features, &memory, &queues.iter().collect::<Vec<_>>())?;

        let request = kind.request();
        memory.memory.write_slice(&request.given, GuestAddress(given))?;
        let queue = &mut queues[usize::from(request.queue)];
        for (index, descriptor) in (0..).zip(request.chain(given, answer)?) {
            queue.write_descriptor(index, descriptor)?;
        }
        let times = if kind == Kind::Fs { BRISK } else { 1 };
        for _ in 0..times {
            queue.offer(0)?;
            queue.publish()?;
            queue.next_used()?;
        }

        let mut threads = threads()?;
        threads.retain(|number, _| !others.contains_key(number));
        ensure!(!threads.is_empty(), "{kind:?} has no thread");
        Ok(Self {
            kind,
            threads,
            _transport: transport,
            _queues: queues,
            _memory: memory,
            _network: network,
            _dir: dir,
        })
    }

    /// How often its threads have waited. That of a ring, and those that the kernel lends it, end without work, and
    /// then do so no more. No other may be gone.
    fn waits(&self, all: &Threads) -> Result<Vec<Option<u64>>> {
        let mut waits = Vec::new();
        for (number, Thread { name, .. }) in &self.threads {
            let now = all.get(number).map(|thread| thread.waits);
            let may_end = name == "disk-ring" || name.starts_with("iou-");
            ensure!(
                now.is_some() || may_end,
                "{:?} has lost its thread {name}",
                self.kind
            );
            waits.push(now);
        }
        Ok(waits)
    }
}

/// All threads of this process, and so those that the kernel lends a ring.
fn threads() -> Result<Threads> {
    let mut threads = Threads::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
            // It has ended meanwhile.
            continue;
        };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let name = field("Name:\t").context("a thread has no name")?.to_owned();
        let waits = field("voluntary_ctxt_switches:\t")
            .context("a thread does not say how often it has waited")?
            .parse()?;
        let number = thread.file_name().to_string_lossy().into_owned();
        threads.insert(number, Thread { name, waits });
    }
    Ok(threads)
}

#[test]
fn a_device_with_nothing_to_do_does_not_wake_up() -> Result<()> {
    let mut busy = KINDS.into_iter().map(Idle::new).collect::<Result<Vec<_>>>()?;
    for _ in 0..LOOKS {
        let before = threads()?;
        sleep(WATCHED);
        let after = threads()?;
        let mut still = Vec::new();
        for device in busy {
            if device.waits(&before)? != device.waits(&after)? {
                still.push(device);
            }
        }
        // Nor is anything done by threads that come and go.
        if still.is_empty() && before.keys().eq(after.keys()) {
            return Ok(());
        }
        busy = still;
    }
    let busy: Vec<_> = busy.iter().map(|device| device.kind).collect();
    anyhow::bail!("{busy:?}, or threads that come and go, wake up again and again")
}
