//! Guest memory given back to the host: what was in it is gone, and the guest finds zeroes where it touches it again.

// UNSAFETY: `madvise` takes a raw address, and the guest's memory must not be seen through a reference. `sysconf` is
// unsafe as every function of the C library is.
#![expect(unsafe_code, reason = "madvise on guest memory takes raw addresses")]

use rustix::mm::{Advice, madvise};
use vm_memory::VolatileSlice;

/// How guest memory is mapped, which decides how pages of it are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Pages of this process alone.
    Anonymous,
    /// Pages of a file in memory, which other processes map, too.
    Shared,
}

/// Gives back the whole pages within `slice`, and returns how many bytes that are.
pub(crate) fn discard(slice: &VolatileSlice<'_>, mapping: Mapping) -> rustix::io::Result<usize> {
    let page = page_size();
    let guard = slice.ptr_guard_mut();
    let skipped = guard.as_ptr().align_offset(page);
    let len = slice.len().saturating_sub(skipped) / page * page;
    if len == 0 {
        return Ok(0);
    }
    let advice = match mapping {
        Mapping::Anonymous => Advice::LinuxDontNeed,
        // Without this the pages would stay in the file.
        Mapping::Shared => Advice::LinuxRemove,
    };
    let start = guard.as_ptr().wrapping_add(skipped);
    // SAFETY: the `len` bytes at `start` lie within `slice`, which keeps them mapped for the duration of the call. They
    // are guest memory, seen through no reference, where any bytes are valid at any time: zeroes, too.
    unsafe { madvise(start.cast(), len, advice)? };
    Ok(len)
}

/// Bytes of a page of the host. From the C library, which has known it since the process began: where this runs,
/// nothing may be opened to find it out.
fn page_size() -> usize {
    // SAFETY: it takes a number, returns one, and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It fails for names that it does not know, which this is none of.
    usize::try_from(size).unwrap_or(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes as _, GuestAddress, GuestMemory as _, GuestMemoryMmap};

    #[test]
    fn whole_pages_within_are_zeroes_again_and_nothing_beside_them_is() {
        let page = page_size();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4 * page)]).unwrap();
        memory.write_slice(&vec![7; 4 * page], GuestAddress(0)).unwrap();
        let slice = memory.get_slice(GuestAddress(1), 3 * page).unwrap();
        assert_eq!(discard(&slice, Mapping::Anonymous), Ok(2 * page));
        let mut now = vec![1; 4 * page];
        memory.read_slice(&mut now, GuestAddress(0)).unwrap();
        assert!(now[..page].iter().all(|byte| *byte == 7), "before");
        assert!(now[page..3 * page].iter().all(|byte| *byte == 0), "within");
        assert!(now[3 * page..].iter().all(|byte| *byte == 7), "after");
    }

    #[test]
    fn less_than_a_page_is_kept() {
        let page = page_size();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 2 * page)]).unwrap();
        let slice = memory.get_slice(GuestAddress(1), page).unwrap();
        assert_eq!(discard(&slice, Mapping::Anonymous), Ok(0));
        let empty = memory.get_slice(GuestAddress(0), 0).unwrap();
        assert_eq!(discard(&empty, Mapping::Anonymous), Ok(0));
    }
}
