//! One request to a disk (virtio 1.2, section 5.2.6): a header to read, data either way, a status to write.
//!
//! How the driver cuts these into buffers is its own affair: the header is the first sixteen bytes to read, the status
//! the last byte to write. Header and ranges are copied out of guest memory once, so that the guest cannot change them
//! between check and use.

use vm_memory::VolatileSlice;

use super::disk::{Disk, Refusal};
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

/// Carries out a request whose buffers are `readable` and `writable`, for a driver that agreed on `features`. Returns
/// how many bytes it wrote from the start of `writable` on, and why the request was refused, if it was. Of one that finds
/// the host full the driver is told nothing: it can be carried out anew from its beginning.
pub(super) fn serve<'m>(
    disk: &Disk,
    features: u64,
    readable: Vec<VolatileSlice<'m>>,
    mut writable: Vec<VolatileSlice<'m>>,
) -> (u32, Result<(), Refusal>) {
    let Some(status) = take_status(&mut writable) else {
        return (0, Err(Refusal::Buffers));
    };
    let done = execute(disk, features, readable, writable);
    let code = match done {
        Err(full @ Refusal::Full { .. }) => return (0, Err(full)),
        Ok(_) => STATUS_OK,
        Err(Refusal::Unsupported(_)) => STATUS_UNSUPPORTED,
        Err(_) => STATUS_ERROR,
    };
    status.copy_from(&[code]);
    match done {
        // The status follows the data.
        Ok(data) => (data.saturating_add(1), Ok(())),
        Err(refusal) => (0, Err(refusal)),
    }
}

/// Returns how many bytes of data were written to guest memory.
fn execute<'m>(
    disk: &Disk,
    features: u64,
    mut readable: Vec<VolatileSlice<'m>>,
    mut writable: Vec<VolatileSlice<'m>>,
) -> Result<u32, Refusal> {
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
    match operation {
        READ if given == 0 => disk.read(sector, &mut writable)?,
        WRITE if wanted == 0 => {
            disk.write(sector, &mut readable)?;
            settle(disk, features)?;
        }
        FLUSH if given == 0 && wanted == 0 => {
            agreed(FEATURE_FLUSH)?;
            disk.flush()?;
        }
        GET_ID if given == 0 => return Ok(fill(&writable, disk.id())),
        DISCARD if wanted == 0 => {
            agreed(FEATURE_DISCARD)?;
            for range in ranges(&mut readable, MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS)? {
                if range.flags != 0 {
                    return Err(Refusal::Unsupported(operation));
                }
                disk.discard(range.sector, range.count)?;
            }
            settle(disk, features)?;
        }
        WRITE_ZEROES if wanted == 0 => {
            agreed(FEATURE_WRITE_ZEROES)?;
            for range in ranges(&mut readable, 1, MAX_ZERO_SECTORS)? {
                if range.flags & !UNMAP != 0 {
                    return Err(Refusal::Unsupported(operation));
                }
                disk.write_zeroes(range.sector, range.count, range.flags & UNMAP != 0)?;
            }
            settle(disk, features)?;
        }
        READ | WRITE | FLUSH | GET_ID | DISCARD | WRITE_ZEROES => return Err(Refusal::Buffers),
        unknown => return Err(Refusal::Unsupported(unknown)),
    }
    Ok(wanted)
}

/// A driver that knows no flush takes what is complete for safe (section 5.2.6.2).
fn settle(disk: &Disk, features: u64) -> Result<(), Refusal> {
    if features & FEATURE_FLUSH == 0 {
        return disk.flush();
    }
    Ok(())
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
