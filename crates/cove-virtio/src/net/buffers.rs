//! A frame as it lies in a driver's buffers: behind a header (virtio 1.2, section 5.1.6), which without offloads says
//! nothing but how many chains a received frame takes.

use vm_memory::VolatileSlice;

use super::frames::{MIN_FRAME, Outgoing};
use crate::device::GuestMemory;
use crate::queue::{BrokenQueue, Chain, DeviceQueue, Direction, gather};
use crate::scatter::advance;

/// Bytes of the header.
pub(super) const HEADER: usize = 12;
/// Where it says how many chains there are.
const NUM_BUFFERS: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`.
const NOT_SEGMENTED: u8 = 0;

/// What became of a frame for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The guest has it, or will never.
    Done,
    /// The driver has too few buffers in the queue, and notifies when it adds some.
    Starved,
}

/// Chains taken for one frame.
#[derive(Default)]
struct Taken<'m> {
    slices: Vec<VolatileSlice<'m>>,
    /// Heads, and bytes that the chains have room for.
    chains: Vec<(u16, usize)>,
    /// Heads of chains that a frame cannot be put into.
    useless: Vec<u16>,
    room: usize,
}

/// Puts a frame into the driver's buffers, over several chains if the driver is `mergeable`.
pub(super) fn deliver(
    queue: &mut DeviceQueue,
    memory: &GuestMemory,
    mergeable: bool,
    frame: &[u8],
) -> Result<Delivery, BrokenQueue> {
    let needed = HEADER + frame.len();
    let size = usize::from(virtio_queue::QueueT::size(&queue.queue));
    let mut taken = Taken::default();
    let mut count = 0u16;
    while taken.room < needed && usize::from(count) < size && (mergeable || taken.chains.is_empty()) {
        match queue.next_chain(memory)? {
            Some(chain) => {
                taken.add(memory, chain);
                count += 1;
            }
            // Asked while they are out of the queue, so that the notification is for those that follow them.
            None if queue.arm(memory)? => {}
            None => {
                queue.put_back(count);
                return Ok(Delivery::Starved);
            }
        }
    }
    for head in taken.useless {
        queue.complete(memory, head, 0)?;
    }
    let mut rest = if taken.room < needed {
        tracing::debug!(
            len = frame.len(),
            "left out a frame that is too long for the driver's buffers"
        );
        0
    } else {
        write(&taken.slices, taken.chains.len(), frame);
        needed
    };
    for (head, room) in taken.chains {
        let written = room.min(rest);
        rest -= written;
        queue.complete(memory, head, u32::try_from(written).unwrap_or(u32::MAX))?;
    }
    Ok(Delivery::Done)
}

impl<'m> Taken<'m> {
    fn add(&mut self, memory: &'m GuestMemory, chain: Chain<'m>) {
        let head = chain.head_index();
        let before = self.slices.len();
        match gather(memory, chain, Direction::Writable, &mut self.slices) {
            Ok(room) if room >= HEADER => {
                self.chains.push((head, room));
                self.room += room;
            }
            other => {
                tracing::debug!(?other, "a buffer for frames is malformed");
                self.slices.truncate(before);
                self.useless.push(head);
            }
        }
    }
}

/// Writes header and frame over the slices, which have room for them.
fn write(slices: &[VolatileSlice<'_>], chains: usize, frame: &[u8]) {
    let mut header = [0; HEADER];
    // No queue has more entries than this can count.
    header[NUM_BUFFERS..].copy_from_slice(&u16::try_from(chains).unwrap_or(u16::MAX).to_le_bytes());
    let (mut part, mut later) = (&header[..], frame);
    for slice in slices {
        let mut at = 0;
        while at < slice.len() {
            if part.is_empty() {
                part = std::mem::take(&mut later);
                if part.is_empty() {
                    return;
                }
            }
            let count = part.len().min(slice.len() - at);
            if let Ok(place) = slice.subslice(at, count) {
                place.copy_from(&part[..count]);
            }
            part = &part[count..];
            at += count;
        }
    }
}

/// Takes the frame, of `longest` bytes at most, that the driver left in a chain. What is none is left out.
pub(super) fn collect(memory: &GuestMemory, chain: Chain<'_>, longest: usize, outgoing: &mut Outgoing) {
    let mut slices = Vec::new();
    let total = match gather(memory, chain, Direction::Readable, &mut slices) {
        Ok(total) => total,
        Err(error) => {
            tracing::debug!(%error, "a buffer with a frame is malformed");
            return;
        }
    };
    if !(HEADER + MIN_FRAME..=HEADER + longest).contains(&total) {
        tracing::debug!(total, "left out a frame of the guest that has no possible length");
        return;
    }
    let mut header = [0; HEADER];
    read(&slices, &mut header);
    let [flags, segmentation, ..] = header;
    if flags & NEEDS_CHECKSUM != 0 || segmentation != NOT_SEGMENTED {
        tracing::debug!("left out a frame that asks for what was not agreed on");
        return;
    }
    advance(&mut slices, HEADER);
    outgoing.push(total - HEADER, |place| read(&slices, place));
}

/// Fills `place` from the beginning of the slices.
fn read(slices: &[VolatileSlice<'_>], mut place: &mut [u8]) {
    for slice in slices {
        let count = slice.len().min(place.len());
        let (now, later) = place.split_at_mut(count);
        slice.copy_to(now);
        place = later;
    }
}
