//! A driver for the disk device, request by request.

use anyhow::{Context, Result, ensure};
use cove_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};
use vm_memory::{Bytes, GuestAddress};

use super::memory::SharedMemory;
use super::queue::{Buffer, DriverQueue, Used};
use super::transport::Transport;

/// Entries of the queue.
const QUEUE_SIZE: u16 = 64;
/// Bytes of the place for data.
const DATA: u32 = 1 << 20;
/// What the status byte holds before the device has answered.
const UNANSWERED: u8 = 0xaa;

/// `VIRTIO_BLK_T_*`: the operations.
pub mod op {
    /// Reads sectors.
    pub const READ: u32 = 0;
    /// Writes sectors.
    pub const WRITE: u32 = 1;
    /// Makes what was written last.
    pub const FLUSH: u32 = 4;
    /// Reads the disk's name.
    pub const GET_ID: u32 = 8;
    /// Gives ranges of sectors back.
    pub const DISCARD: u32 = 11;
    /// Zeroes a range of sectors.
    pub const WRITE_ZEROES: u32 = 13;
}

/// `VIRTIO_BLK_S_*`: what the status byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// Not done.
    Error,
    /// The device does not know the operation.
    Unsupported,
}

/// What the device answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status byte.
    pub status: Status,
    /// The data that the device wrote.
    pub data: Vec<u8>,
}

/// A guest with a disk.
pub struct BlockGuest {
    transport: Box<dyn Transport>,
    /// Its memory.
    pub memory: SharedMemory,
    /// The only queue.
    pub requests: DriverQueue,
    /// What driver and device agreed on.
    pub features: u64,
    header: u64,
    status: u64,
    /// Where the data lies, [`DATA`] bytes.
    pub data: u64,
}

impl BlockGuest {
    /// Agrees on all that the device offers apart from `unknown`, and starts the queue.
    pub fn boot(transport: impl Transport + 'static, unknown: u64) -> Result<Self> {
        let mut transport: Box<dyn Transport> = Box::new(transport);
        let mut memory = SharedMemory::new(4 << 20)?;
        let features = transport.features()? & !unknown;
        ensure!(
            features & FEATURE_VERSION_1 != 0,
            "the device is not a modern one"
        );
        let mut requests = DriverQueue::new(&mut memory, 0, QUEUE_SIZE)?;
        requests.clear(features & FEATURE_EVENT_IDX != 0)?;
        let (header, status) = (memory.allocate(16)?, memory.allocate(1)?);
        let data = memory.allocate(u64::from(DATA))?;
        transport.start(features, &memory, &[&requests])?;
        Ok(Self {
            transport,
            memory,
            requests,
            features,
            header,
            status,
            data,
        })
    }

    /// `len` bytes of the configuration space.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        self.transport.config(offset, len)
    }

    /// The header and the status byte of a request, as buffers, filled in.
    pub fn frame(&self, operation: u32, sector: u64) -> Result<(Buffer, Buffer)> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&operation.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let guest = &self.memory.memory;
        guest.write_slice(&header, GuestAddress(self.header))?;
        guest.write_slice(&[UNANSWERED], GuestAddress(self.status))?;
        Ok((buffer(self.header, 16, false), buffer(self.status, 1, true)))
    }

    /// One request that gives `given` to the device and has room for `wanted` bytes of its answer.
    pub fn ask(&mut self, operation: u32, sector: u64, given: &[u8], wanted: u32) -> Result<Answer> {
        let given_len = u32::try_from(given.len())?;
        ensure!(given_len + wanted <= DATA, "too much for this driver");
        let (header, status) = self.frame(operation, sector)?;
        self.memory.memory.write_slice(given, GuestAddress(self.data))?;
        let mut chain = vec![header];
        if given_len > 0 {
            chain.push(buffer(self.data, given_len, false));
        }
        if wanted > 0 {
            chain.push(buffer(self.data + u64::from(given_len), wanted, true));
        }
        chain.push(status);
        let used = self.submit(&chain)?;
        let status = self.status()?.context("the device left no status")?;
        let answered = used.written.saturating_sub(1);
        ensure!(answered <= wanted, "the device claims to have written {used:?}");
        let mut data = vec![0; answered as usize];
        let place = GuestAddress(self.data + u64::from(given_len));
        self.memory.memory.read_slice(&mut data, place)?;
        Ok(Answer { status, data })
    }

    /// Puts a chain into the queue and waits for its return.
    pub fn submit(&mut self, chain: &[Buffer]) -> Result<Used> {
        let head = self.requests.add(chain)?.context("the queue is full")?;
        self.requests.publish()?;
        let used = self.requests.next_used()?;
        ensure!(used.head == head, "another chain came back");
        Ok(used)
    }

    /// What the status byte says; none when the device has not written it.
    pub fn status(&self) -> Result<Option<Status>> {
        match self.memory.memory.read_obj(GuestAddress(self.status))? {
            0u8 => Ok(Some(Status::Ok)),
            1 => Ok(Some(Status::Error)),
            2 => Ok(Some(Status::Unsupported)),
            UNANSWERED => Ok(None),
            other => anyhow::bail!("there is no status {other}"),
        }
    }

    /// Takes the queue from the device, as a machine that is paused. Returns how many chains the device has taken.
    pub fn pause(&mut self) -> Result<u16> {
        Ok(self.transport.stop()?.first().copied().unwrap_or_default())
    }

    /// Gives the queue back.
    pub fn resume(&mut self) -> Result<()> {
        self.transport
            .start(self.features, &self.memory, &[&self.requests])
    }

    /// Reboots: the device is reset, and the queue made anew.
    pub fn reboot(&mut self) -> Result<()> {
        self.transport.reset()?;
        self.requests.clear(self.features & FEATURE_EVENT_IDX != 0)?;
        self.resume()
    }
}

/// A buffer of a chain.
pub fn buffer(address: u64, len: u32, writable: bool) -> Buffer {
    Buffer {
        address,
        len,
        writable,
    }
}

/// A range of sectors, as the device takes it.
pub fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}
