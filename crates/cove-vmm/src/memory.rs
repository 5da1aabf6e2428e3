//! The guest's memory: anonymous pages in one or two regions, around the 32-bit hole.

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::layout::{HOLE, HOLE_END};

/// The guest's memory.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Maps `size` bytes of guest memory. Pages come into being when the guest touches them.
pub fn map(size: usize) -> Result<GuestMemory, vm_memory::mmap::FromRangesError> {
    GuestMemory::from_ranges(&regions(size))
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
    fn memory_beyond_the_hole_goes_on_above_it() {
        assert_eq!(regions(1 << 30), [(GuestAddress(0), 1 << 30)]);
        assert_eq!(
            regions(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }
}
