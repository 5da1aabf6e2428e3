//! A driver for the file system device, request by request.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use cove_fs::abi::{self, EntryOut, InHeader, InitExtIn, InitIn, OutHeader, op};
use cove_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

use super::memory::SharedMemory;
use super::queue::{Buffer, DriverQueue};
use super::transport::Transport;

/// Entries of each queue, as Linux and QEMU have it.
const QUEUE_SIZE: u16 = 128;
/// Bytes of each request's place in memory, and as many for its answer: the 128 KiB that Linux reads ahead, and
/// headers.
const SLOT: u32 = 132 * 1024;
/// How many requests may be in flight.
const SLOTS: u16 = 32;

/// An answer's data, or the error number.
pub type Reply = std::result::Result<Vec<u8>, i32>;

/// The body of a guest's first request: INIT of 7.41 with every flag.
fn init() -> Vec<u8> {
    let init = InitIn {
        major: 7,
        minor: 41,
        max_readahead: 1 << 17,
        flags: u32::MAX,
    };
    let extension = InitExtIn {
        flags2: u32::MAX,
        unused: [0; 11],
    };
    [init.as_bytes(), extension.as_bytes()].concat()
}

/// A guest's first request to a file server.
pub fn greeting() -> Vec<u8> {
    fs_request(op::INIT, 0, &[&init()])
}

/// A request to a file server by root, with everything in front of its body.
pub fn fs_request(opcode: u32, node: u64, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let header = InHeader {
        len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap_or(u32::MAX),
        opcode,
        unique: 1,
        node,
        ..InHeader::default()
    };
    [header.as_bytes(), &body].concat()
}

/// A guest with a file system device. Requests are numbered from 1.
pub struct FsGuest {
    transport: Box<dyn Transport>,
    /// Its memory.
    pub memory: SharedMemory,
    /// Queue 0, for what must not wait.
    pub urgent: DriverQueue,
    /// Queue 1, for requests.
    pub requests: DriverQueue,
    /// The user and group that requests come from; root's at first.
    pub caller: (u32, u32),
    features: u64,
    area: u64,
    free: Vec<u16>,
    in_flight: HashMap<u16, (u16, u64)>,
    unique: u64,
}

impl FsGuest {
    /// Negotiates features, starts the queues and says INIT.
    pub fn boot(transport: impl Transport + 'static) -> Result<Self> {
        let mut transport: Box<dyn Transport> = Box::new(transport);
        let mut memory = SharedMemory::new(16 << 20)?;
        let features = transport.features()? & (FEATURE_VERSION_1 | FEATURE_EVENT_IDX);
        ensure!(
            features & FEATURE_VERSION_1 != 0,
            "the device is not a modern one"
        );
        let mut urgent = DriverQueue::new(&mut memory, 0, QUEUE_SIZE)?;
        let mut requests = DriverQueue::new(&mut memory, 1, QUEUE_SIZE)?;
        for queue in [&mut urgent, &mut requests] {
            queue.clear(features & FEATURE_EVENT_IDX != 0)?;
        }
        let area = memory.allocate(u64::from(SLOTS) * 2 * u64::from(SLOT))?;
        transport.start(features, &memory, &[&urgent, &requests])?;
        let mut guest = Self {
            transport,
            memory,
            urgent,
            requests,
            caller: (0, 0),
            features,
            area,
            free: (0..SLOTS).collect(),
            in_flight: HashMap::new(),
            unique: 0,
        };
        guest.greet()?;
        Ok(guest)
    }

    /// INIT.
    pub fn greet(&mut self) -> Result<()> {
        let reply = self.ask(op::INIT, 0, &[&init()])?;
        ensure!(reply.is_ok(), "the device refused INIT: {reply:?}");
        Ok(())
    }

    /// Puts a request into the queue, its answer's buffer cut in two as Linux does. Returns its number.
    pub fn submit(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Result<u64> {
        self.submit_sized(opcode, node, body, (0, SLOT - 16))
    }

    /// The same with data as Linux has it, whose bytes are whatever the memory held before: so many after the body, and
    /// room for so many in the answer. For measurements, which are not to be of how fast this driver copies.
    pub fn submit_sized(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[&[u8]],
        (stale, room): (u32, u32),
    ) -> Result<u64> {
        self.unique += 1;
        let body = body.concat();
        let len = u32::try_from(size_of::<InHeader>() + body.len())?
            .checked_add(stale)
            .context("the request is too large")?;
        ensure!(
            len <= SLOT && room <= SLOT - 16,
            "the request is too large for this driver"
        );
        let header = InHeader {
            len,
            opcode,
            unique: self.unique,
            node,
            uid: self.caller.0,
            gid: self.caller.1,
            pid: 7,
            ..InHeader::default()
        };
        let slot = self.free.pop().context("too many requests in flight")?;
        let (request, answer) = self.places(slot);
        let guest = &self.memory.memory;
        guest.write_slice(header.as_bytes(), GuestAddress(request))?;
        guest.write_slice(&body, GuestAddress(request + size_of::<InHeader>() as u64))?;
        let buffers = [
            buffer(request, len, false),
            buffer(answer, 16, true),
            buffer(answer + 16, room, true),
        ];
        let head = self.requests.add(&buffers)?.context("the queue is full")?;
        self.in_flight.insert(head, (slot, self.unique));
        self.requests.publish()?;
        Ok(self.unique)
    }

    /// Waits for the next answer: the request's number, and what it says.
    pub fn next_answer(&mut self) -> Result<(u64, Reply)> {
        self.next_answer_start(SLOT)
    }

    /// The same with no more than the first `most` bytes of what it says.
    pub fn next_answer_start(&mut self, most: u32) -> Result<(u64, Reply)> {
        let used = self.requests.next_used()?;
        let (slot, unique) = self
            .in_flight
            .remove(&used.head)
            .context("the device returned a chain twice")?;
        self.free.push(slot);
        ensure!(used.written >= 16, "request {unique} came back without an answer");
        ensure!(
            used.written <= SLOT,
            "the device claims to have written past the end"
        );
        let mut bytes = vec![0; used.written.min(most.saturating_add(16)) as usize];
        let (_, answer) = self.places(slot);
        self.memory.memory.read_slice(&mut bytes, GuestAddress(answer))?;
        let (header, data) = OutHeader::read_from_prefix(&bytes)
            .ok()
            .context("the answer is too short")?;
        ensure!(header.unique == unique, "the answer is another request's");
        ensure!(
            header.len == used.written,
            "the answer's length is not the chain's"
        );
        let reply = if header.error == 0 {
            Ok(data.to_vec())
        } else {
            Err(-header.error)
        };
        Ok((unique, reply))
    }

    /// One request and its answer, with nothing else in flight.
    pub fn ask(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Result<Reply> {
        let unique = self.submit(opcode, node, body)?;
        let (answered, reply) = self.next_answer()?;
        ensure!(answered == unique, "another request was answered");
        Ok(reply)
    }

    /// The node of a path from the virtual root, or the error number.
    pub fn walk(&mut self, path: &str) -> Result<std::result::Result<u64, i32>> {
        let mut node = abi::ROOT_ID;
        for name in path.split('/') {
            match self.ask(op::LOOKUP, node, &[name.as_bytes(), b"\0"])? {
                Err(errno) => return Ok(Err(errno)),
                Ok(data) => {
                    let (entry, _) = EntryOut::read_from_prefix(&data)
                        .ok()
                        .context("LOOKUP answered too little")?;
                    if entry.node == 0 {
                        return Ok(Err(rustix::io::Errno::NOENT.raw_os_error()));
                    }
                    node = entry.node;
                }
            }
        }
        Ok(Ok(node))
    }

    /// Takes the queues from the device and gives them back, as a machine that is paused and resumed.
    pub fn pause(&mut self) -> Result<Vec<u16>> {
        self.transport.stop()
    }

    /// Gives the queues back.
    pub fn resume(&mut self) -> Result<()> {
        self.transport
            .start(self.features, &self.memory, &[&self.urgent, &self.requests])
    }

    /// Reboots: the device is reset, the queues are made anew, and INIT is said.
    pub fn reboot(&mut self) -> Result<()> {
        self.transport.reset()?;
        for queue in [&mut self.urgent, &mut self.requests] {
            queue.clear(self.features & FEATURE_EVENT_IDX != 0)?;
        }
        self.in_flight.clear();
        self.free = (0..SLOTS).collect();
        self.resume()?;
        self.greet()
    }

    /// How many requests are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn places(&self, slot: u16) -> (u64, u64) {
        let request = self.area + u64::from(slot) * 2 * u64::from(SLOT);
        (request, request + u64::from(SLOT))
    }
}

fn buffer(address: u64, len: u32, writable: bool) -> Buffer {
    Buffer {
        address,
        len,
        writable,
    }
}
