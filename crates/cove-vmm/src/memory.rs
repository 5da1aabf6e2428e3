//! The guest's memory: anonymous pages in one or two regions, around the 32-bit hole.

// UNSAFETY: `madvise` takes a raw address, and the guest's memory must not be seen through a reference.
#![expect(unsafe_code, reason = "madvise on guest memory takes raw addresses")]

use vm_memory::{GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestRegionMmap};

use crate::layout::{HOLE, HOLE_END};

/// The guest's memory.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Maps `size` bytes of guest memory. Pages come into being when the guest touches them: huge ones where the host has
/// them, which take fewer faults and shorter walks.
pub fn map(size: usize) -> Result<GuestMemory, vm_memory::mmap::FromRangesError> {
    let memory = GuestMemory::from_ranges(&regions(size))?;
    for region in memory.iter() {
        advise(region);
    }
    Ok(memory)
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
    fn memory_beyond_the_hole_goes_on_above_it() {
        assert_eq!(regions(1 << 30), [(GuestAddress(0), 1 << 30)]);
        assert_eq!(
            regions(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }
}
