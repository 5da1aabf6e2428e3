//! One request to a disk (virtio 1.2, section 5.2.6): a header to read, data either way, a status to write.
//!
//! How the driver cuts these into buffers is its own affair: the header is the first sixteen bytes to read, the status
//! the last byte to write. Header and ranges are copied out of guest memory once, so that the guest cannot change them
//! between check and use.
//!
//! A request comes down to jobs for the disk, one after the other. Whoever has it makes their calls, in whatever way,
//! and tells it what came of each.

use vm_memory::VolatileSlice;

use super::disk::{Call, Disk, Job, Refusal};
use super::{
    FEATURE_DISCARD, FEATURE_FLUSH, FEATURE_WRITE_ZEROES, MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS,
    MAX_ZERO_SECTORS, SEG_MAX, SIZE_MAX,
};
use crate::scatter;

/// `VIRTIO_BLK_T_*`.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// `VIRTIO_BLK_S_*`.
const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// Bytes of the header: a type and a reserved word, then the sector.
const HEADER_LEN: usize = 16;
/// Bytes of a range: first sector, number of sectors, flags.
const RANGE_LEN: usize = 16;
/// The flag of a range whose space may be given back.
const UNMAP: u32 = 1;

/// A range of sectors, as the driver gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    sector: u64,
    count: u32,
    flags: u32,
}

/// A request that makes sense, and how far it has come.
pub(super) struct Request<'m> {
    status: VolatileSlice<'m>,
    /// Bytes of data that the driver finds in its buffers if all goes well.
    data: u32,
    jobs: Vec<Job<'m>>,
}

impl<'m> Request<'m> {
    /// Takes a request whose buffers are `readable` and `writable` apart, for a driver that agreed on `features`. What
    /// is refused has been answered, if there was a place for the answer.
    pub(super) fn new(
        disk: &Disk,
        features: u64,
        readable: Vec<VolatileSlice<'m>>,
        mut writable: Vec<VolatileSlice<'m>>,
    ) -> Result<Self, Refusal> {
        let status = take_status(&mut writable).ok_or(Refusal::Buffers)?;
        let mut request = Self {
            status,
            data: 0,
            jobs: Vec::new(),
        };
        match request.plan(disk, features, readable, writable) {
            Ok(()) => Ok(request),
            Err(refusal) => {
                request.refuse(&refusal);
                Err(refusal)
            }
        }
    }

    /// The call that is next; none when the request is over.
    pub(super) fn call(&self) -> Option<Call<'_, 'm>> {
        self.jobs.iter().find_map(Job::call)
    }

    /// Takes what came of its call. After a refusal the request is over, unless the host was full: then the driver is
    /// told nothing, and the request can be carried out anew from its beginning.
    pub(super) fn took(&mut self, result: std::io::Result<usize>) -> Result<(), Refusal> {
        let job = self.jobs.iter_mut().find(|job| job.call().is_some());
        job.map_or(Ok(()), |job| job.took(result))
    }

    /// Tells the driver that all went well. Returns how many bytes were written to its buffers.
    pub(super) fn confirm(&self) -> u32 {
        self.status.copy_from(&[STATUS_OK]);
        // The status follows the data.
        self.data.saturating_add(1)
    }

    /// Tells the driver that it did not.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        let code = match refusal {
            Refusal::Unsupported(_) => STATUS_UNSUPPORTED,
            _ => STATUS_ERROR,
        };
        self.status.copy_from(&[code]);
    }

    /// Whether it may yet come to wait for space on the host.
    pub(super) fn may_starve(&self) -> bool {
        self.jobs.iter().any(Job::may_starve)
    }

    /// Whether the driver takes its success for a promise that nothing is lost.
    pub(super) fn flushes(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Flush { .. }))
    }

    /// Bytes that it has yet to move.
    pub(super) fn bytes(&self) -> u64 {
        self.jobs.iter().map(Job::bytes).sum()
    }

    /// Finds out what is to be done. Nothing has been done while anything may yet be refused.
    fn plan(
        &mut self,
        disk: &Disk,
        features: u64,
        mut readable: Vec<VolatileSlice<'m>>,
        writable: Vec<VolatileSlice<'m>>,
    ) -> Result<(), Refusal> {
        let mut header = [0; HEADER_LEN];
        if !take(&mut readable, &mut header) {
            return Err(Refusal::Buffers);
        }
        let [operation, _reserved, low, high] = words(header);
        let sector = u64::from(high) << 32 | u64::from(low);
        let (given, wanted) = (len(&readable)?, len(&writable)?);
        // No operation moves data both ways.
        if given > 0 && wanted > 0 {
            return Err(Refusal::Buffers);
        }
        let agreed = |feature| {
            if features & feature == 0 {
                return Err(Refusal::Unsupported(operation));
            }
            Ok(())
        };
        // A driver that knows no flush takes what is complete for safe (section 5.2.6.2).
        let settle = || {
            let settles = features & FEATURE_FLUSH == 0;
            settles.then(|| disk.flush()).transpose()
        };
        match operation {
            READ if given == 0 => {
                self.jobs.push(disk.read(sector, writable)?);
                self.data = wanted;
            }
            WRITE if wanted == 0 => {
                self.jobs.push(disk.write(sector, readable)?);
                self.jobs.extend(settle()?);
            }
            FLUSH if given == 0 && wanted == 0 => {
                agreed(FEATURE_FLUSH)?;
                self.jobs.push(disk.flush()?);
            }
            GET_ID if given == 0 => self.data = fill(&writable, disk.id()),
            DISCARD if wanted == 0 => {
                agreed(FEATURE_DISCARD)?;
                for range in ranges(&mut readable, MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS)? {
                    if range.flags != 0 {
                        return Err(Refusal::Unsupported(operation));
                    }
                    self.jobs.push(disk.discard(range.sector, range.count)?);
                }
                self.jobs.extend(settle()?);
            }
            WRITE_ZEROES if wanted == 0 => {
                agreed(FEATURE_WRITE_ZEROES)?;
                for range in ranges(&mut readable, 1, MAX_ZERO_SECTORS)? {
                    if range.flags & !UNMAP != 0 {
                        return Err(Refusal::Unsupported(operation));
                    }
                    let unmap = range.flags & UNMAP != 0;
                    self.jobs
                        .push(disk.write_zeroes(range.sector, range.count, unmap)?);
                }
                self.jobs.extend(settle()?);
            }
            READ | WRITE | FLUSH | GET_ID | DISCARD | WRITE_ZEROES => return Err(Refusal::Buffers),
            unknown => return Err(Refusal::Unsupported(unknown)),
        }
        Ok(())
    }
}

/// The ranges that the buffers consist of.
fn ranges(
    readable: &mut Vec<VolatileSlice<'_>>,
    most: u32,
    most_sectors: u32,
) -> Result<Vec<Range>, Refusal> {
    let bytes = len(readable)? as usize;
    let count = bytes / RANGE_LEN;
    if count == 0 || !bytes.is_multiple_of(RANGE_LEN) || count > most as usize {
        return Err(Refusal::Buffers);
    }
    let mut ranges = Vec::with_capacity(count);
    let mut bytes = [0; RANGE_LEN];
    while take(readable, &mut bytes) {
        let [low, high, count, flags] = words(bytes);
        let sector = u64::from(high) << 32 | u64::from(low);
        if count > most_sectors {
            return Err(Refusal::Range {
                sector,
                bytes: u64::from(count) * super::SECTOR,
            });
        }
        ranges.push(Range { sector, count, flags });
    }
    Ok(ranges)
}

/// Bytes that the slices hold together, if no more than a request may have.
fn len(slices: &[VolatileSlice<'_>]) -> Result<u32, Refusal> {
    let total = slices
        .iter()
        .try_fold(0, |sum: usize, slice| sum.checked_add(slice.len()));
    total
        .and_then(|total| u32::try_from(total).ok())
        .filter(|total| *total <= SEG_MAX * SIZE_MAX)
        .ok_or(Refusal::Buffers)
}

/// Takes the last byte off the slices.
fn take_status<'m>(writable: &mut Vec<VolatileSlice<'m>>) -> Option<VolatileSlice<'m>> {
    let last = writable.pop()?;
    let rest = last.len().checked_sub(1)?;
    if rest > 0 {
        writable.push(last.subslice(0, rest).ok()?);
    }
    last.subslice(rest, 1).ok()
}

/// Fills `bytes` from the front of the slices, and takes that off them; false when they hold too little.
fn take(slices: &mut Vec<VolatileSlice<'_>>, bytes: &mut [u8]) -> bool {
    let mut taken = 0;
    for slice in slices.iter() {
        taken += slice.copy_to(&mut bytes[taken..]);
        if taken == bytes.len() {
            break;
        }
    }
    if taken < bytes.len() {
        return false;
    }
    scatter::advance(slices, taken);
    true
}

/// Copies as much of `bytes` into the slices as fits, and returns how much that was.
fn fill(slices: &[VolatileSlice<'_>], bytes: &[u8]) -> u32 {
    let mut written = 0u32;
    let mut rest = bytes;
    for slice in slices {
        let now = rest.len().min(slice.len());
        slice.copy_from(&rest[..now]);
        rest = &rest[now..];
        written += u32::try_from(now).unwrap_or(0);
    }
    written
}

/// Sixteen bytes as little-endian words.
fn words(bytes: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|word| {
        let at = 4 * word;
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    })
}
