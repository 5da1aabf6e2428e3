//! A request's two halves in guest memory: what the guest wrote, and where the answer goes.
//!
//! The guest may change the memory at any time, so everything but file data is copied out once, before it is
//! looked at; file data is never looked at.

use rustix::io::Errno;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::OutHeader;

/// The readable half.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) slices: &'a [VolatileSlice<'a>],
}

impl Source<'_> {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.slices.iter().map(VolatileSlice::len).sum()
    }

    /// Copies `buffer.len()` bytes from `offset` on; false when there are not that many.
    pub(crate) fn copy(&self, mut offset: usize, mut buffer: &mut [u8]) -> bool {
        for slice in self.slices {
            if buffer.is_empty() {
                break;
            }
            if offset >= slice.len() {
                offset -= slice.len();
                continue;
            }
            let Ok(slice) = slice.offset(offset) else {
                return false;
            };
            offset = 0;
            let copied = slice.copy_to(buffer);
            buffer = &mut buffer[copied..];
        }
        buffer.is_empty()
    }

    /// Reads one structure at `offset`.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        if self.copy(offset, value.as_mut_bytes()) {
            Ok(value)
        } else {
            Err(Errno::INVAL)
        }
    }
}

/// The writable half, with the request that it answers.
#[derive(Clone, Copy)]
pub(crate) struct Sink<'a> {
    pub(crate) slices: &'a [VolatileSlice<'a>],
    pub(crate) unique: u64,
}

const HEADER_LEN: u32 = 16;
/// Bytes of the header that starts each answer.
pub(crate) const HEADER: usize = size_of::<OutHeader>();
const _: () = assert!(HEADER == HEADER_LEN as usize);

impl Sink<'_> {
    /// Room after the answer's header.
    pub(crate) fn room(&self) -> usize {
        self.slices
            .iter()
            .map(VolatileSlice::len)
            .sum::<usize>()
            .saturating_sub(HEADER)
    }

    /// Answers success without data. Returns the answer's length.
    pub(crate) fn done(self) -> Result<usize, Errno> {
        self.finish(0)
    }

    /// Answers with one structure.
    pub(crate) fn value<T: IntoBytes + Immutable>(self, value: &T) -> Result<usize, Errno> {
        self.bytes(value.as_bytes())
    }

    /// Answers with two structures, one after the other.
    pub(crate) fn values<A, B>(self, first: &A, second: &B) -> Result<usize, Errno>
    where
        A: IntoBytes + Immutable,
        B: IntoBytes + Immutable,
    {
        self.put(HEADER, first.as_bytes())?;
        self.put(HEADER + size_of::<A>(), second.as_bytes())?;
        self.finish(size_of::<A>() + size_of::<B>())
    }

    /// Answers with bytes.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<usize, Errno> {
        self.put(HEADER, bytes)?;
        self.finish(bytes.len())
    }

    /// Completes an answer whose `len` bytes of data are in place already.
    pub(crate) fn finish(self, len: usize) -> Result<usize, Errno> {
        let len = u32::try_from(HEADER + len).map_err(|_| Errno::OVERFLOW)?;
        self.put(
            0,
            OutHeader {
                len,
                error: 0,
                unique: self.unique,
            }
            .as_bytes(),
        )?;
        Ok(len as usize)
    }

    /// Answers failure. Returns 0 when there is not even room for that.
    pub(crate) fn error(self, errno: Errno) -> usize {
        let header = failure(self.unique, errno);
        if self.put(0, &header).is_ok() { HEADER } else { 0 }
    }

    fn put(&self, mut offset: usize, mut bytes: &[u8]) -> Result<(), Errno> {
        for slice in self.slices {
            if bytes.is_empty() {
                break;
            }
            if offset >= slice.len() {
                offset -= slice.len();
                continue;
            }
            let slice = slice.offset(offset).map_err(|_| Errno::FAULT)?;
            offset = 0;
            let count = bytes.len().min(slice.len());
            slice.copy_from(&bytes[..count]);
            bytes = &bytes[count..];
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Errno::OVERFLOW)
        }
    }
}

/// The bytes of an answer that is only a failure.
pub(crate) fn failure(unique: u64, errno: Errno) -> [u8; HEADER] {
    answer(unique, -errno.raw_os_error())
}

/// The bytes of an answer without data; `error` is 0 or a negative error number.
pub(crate) fn answer(unique: u64, error: i32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes.copy_from_slice(
        OutHeader {
            len: HEADER_LEN,
            error,
            unique,
        }
        .as_bytes(),
    );
    bytes
}
