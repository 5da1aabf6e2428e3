//! The guest's memory: anonymous pages in one or two regions, around the 32-bit hole.

// UNSAFETY: `madvise` takes a raw address, and the guest's memory must not be seen through a reference.
#![expect(unsafe_code, reason = "madvise on guest memory takes raw addresses")]

use vm_memory::mmap::FromRangesError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::layout::{HOLE, HOLE_END};

/// Bytes of a huge page, which covers only what lies on such a boundary.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a page.
const PAGE: usize = 4096;
/// How often a boundary of huge pages is aimed at. Twice will do, unless gaps or other threads take what was aimed at.
const TRIES: usize = 8;

/// The guest's memory.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Maps `size` bytes of guest memory. Pages come into being when the guest touches them: huge ones where the host has
/// them, which take fewer faults and shorter walks.
pub fn map(size: usize) -> Result<GuestMemory, FromRangesError> {
    let mut mapped = Vec::new();
    for (start, size) in regions(size) {
        let region =
            GuestRegionMmap::new(mapping(size)?, start).ok_or(FromRangesError::InvalidGuestRegion)?;
        advise(&region);
        mapped.push(region);
    }
    Ok(GuestMemory::from_regions(mapped)?)
}

/// Maps `size` bytes, where that can be had on a boundary of huge pages: a guest's own huge pages are such of the host
/// only if both begin at one. Kernels since 6.7 see to it by themselves for most sizes.
fn mapping(size: usize) -> Result<MmapRegion, FromRangesError> {
    let first = MmapRegion::new(size)?;
    let start = first.as_ptr().addr();
    if start.is_multiple_of(HUGE_PAGE) || size < HUGE_PAGE {
        return Ok(first);
    }
    // The kernel places mappings downwards, each at the top of the highest gap that holds it. Below the first go others
    // that are as large, so that they need the same gap, and by as much larger as the next is to lie lower.
    let reserved = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_PRIVATE;
    let mut lowest = start;
    let mut pads = Vec::new();
    for _ in 0..TRIES {
        // One of a whole number of huge pages would itself be placed on their boundary.
        let more = match lowest.wrapping_sub(size) % HUGE_PAGE {
            0 => PAGE,
            more => more,
        };
        let pad = size.next_multiple_of(HUGE_PAGE) + more;
        let Ok(pad) = MmapRegion::<()>::build(None, pad, libc::PROT_NONE, reserved) else {
            break;
        };
        lowest = pad.as_ptr().addr();
        pads.push(pad);
        if let Ok(next) = MmapRegion::new(size)
            && next.as_ptr().addr().is_multiple_of(HUGE_PAGE)
        {
            return Ok(next);
        }
    }
    // Something else takes the places, or there is none: the guest runs as well, if not as quickly.
    Ok(first)
}

/// Asks for huge pages, which many hosts give only to those who do. Without them everything works as well.
fn advise(region: &GuestRegionMmap) {
    // SAFETY: the range is that of the region's own mapping, which it keeps mapped. The advice changes no byte in it.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "the host has no huge pages for the guest's memory");
    }
}

/// The regions that `size` bytes of memory take.
fn regions(size: usize) -> Vec<(GuestAddress, usize)> {
    let below = size.min(usize::try_from(HOLE).unwrap_or(usize::MAX));
    let mut regions = vec![(GuestAddress(0), below)];
    if size > below {
        regions.push((GuestAddress(HOLE_END), size - below));
    }
    regions
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemory as _;

    use super::*;

    #[test]
    fn the_whole_of_it_may_have_huge_pages_where_the_host_has_any() {
        const SIZE: usize = 8 << 20;
        let memory = map(SIZE).unwrap();
        let address = memory
            .get_host_address(GuestAddress(SIZE as u64 - 1))
            .unwrap()
            .addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let flags = maps.lines().find_map(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |digits: &str| usize::from_str_radix(digits, 16).ok();
            if let Some((Some(start), Some(end))) = range.map(|(start, end)| (number(start), number(end))) {
                within = (start..end).contains(&address);
            }
            line.strip_prefix("VmFlags:").filter(|_| within)
        });
        let has_any = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        let flags = flags.unwrap_or_default();
        assert_eq!(
            flags.split_whitespace().any(|flag| flag == "hg"),
            has_any,
            "{flags}"
        );
    }

    #[test]
    fn it_begins_on_a_boundary_of_huge_pages() {
        // Of a size that no kernel places so by itself, too.
        for size in [64 << 20, (64 << 20) + (1 << 20)] {
            // Other tests map memory at the same time, and may take a place.
            let mut tries = (0..8).map(|_| map(size).unwrap());
            let found = tries.any(|memory| {
                let start = memory.get_host_address(GuestAddress(0)).unwrap();
                start.addr().is_multiple_of(HUGE_PAGE)
            });
            assert!(found, "{size:#x}");
        }
    }

    #[test]
    fn memory_beyond_the_hole_goes_on_above_it() {
        assert_eq!(regions(1 << 30), [(GuestAddress(0), 1 << 30)]);
        assert_eq!(
            regions(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }
}
