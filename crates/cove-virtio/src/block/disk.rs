//! A disk's file, and the bounds of what may be done to it.
//!
//! Every operation checks its range against the size that the disk had when it was last measured, and whether the disk may be
//! written, before the file is touched.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::{Access, BlockError, ID_LEN, SECTOR};
use crate::scatter;

/// Zeroes, to be written where the file system cannot make them.
const ZEROES: &[u8] = &[0; 64 * 1024];

/// A disk.
pub(super) struct Disk {
    file: File,
    access: Access,
    /// It only ever grows, so that a request that was checked against it stays within the file.
    sectors: AtomicU64,
    id: [u8; ID_LEN],
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The device does not know it, or the driver did not say that it does.
    #[error("there is no operation {0}, or not with these flags")]
    Unsupported(u32),
    /// Its buffers do not fit the operation.
    #[error("the buffers do not fit the operation")]
    Buffers,
    /// It reaches past the disk's end.
    #[error("{bytes} bytes at sector {sector} do not lie on the disk")]
    Range {
        /// The first sector.
        sector: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The host has no space for it.
    #[error("cannot {operation} the disk's file for want of space")]
    Full {
        /// What was attempted.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The host's file refused.
    #[error("cannot {operation} the disk's file")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Refusal {
    /// The host's file refused an operation that can be tried again as it is.
    fn of(operation: &'static str, source: std::io::Error) -> Self {
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { operation, source },
            _ => Self::Io { operation, source },
        }
    }
}

/// The size of the file in sectors. Unlike the metadata, seeking also tells that of a block device.
fn sectors_of(mut file: &File) -> Result<u64, BlockError> {
    let size = file.seek(SeekFrom::End(0)).map_err(|source| BlockError::Os {
        operation: "ask for the size of the disk's file",
        source,
    })?;
    if !size.is_multiple_of(SECTOR) || i64::try_from(size).is_err() {
        return Err(BlockError::Size(size));
    }
    Ok(size / SECTOR)
}

/// A range of the file, known to lie on the disk. In bytes.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

impl Disk {
    pub(super) fn new(file: File, access: Access, id: &str) -> Result<Self, BlockError> {
        let os = |operation| move |source| BlockError::Os { operation, source };
        if id.is_empty() || id.len() > ID_LEN || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BlockError::Id(id.to_owned()));
        }
        let flags = rustix::fs::fcntl_getfl(&file)
            .map_err(|error| os("ask how the disk's file was opened")(error.into()))?;
        if access == Access::ReadWrite && !flags.intersects(OFlags::RDWR) {
            return Err(BlockError::NotWritable);
        }
        let sectors = sectors_of(&file)?;
        let mut name = [0; ID_LEN];
        name[..id.len()].copy_from_slice(id.as_bytes());
        Ok(Self {
            file,
            access,
            sectors: AtomicU64::new(sectors),
            id: name,
        })
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Acquire)
    }

    /// Takes note of a file that has grown, and returns the disk's size in sectors. One that has shrunk is no smaller a
    /// disk: reads past its end fail one by one.
    pub(super) fn measure(&self) -> Result<u64, BlockError> {
        let now = sectors_of(&self.file)?;
        Ok(self.sectors.fetch_max(now, Ordering::AcqRel).max(now))
    }

    pub(super) const fn access(&self) -> Access {
        self.access
    }

    /// The name, padded with zeroes.
    pub(super) const fn id(&self) -> &[u8; ID_LEN] {
        &self.id
    }

    /// Fills `slices` from `sector` on.
    pub(super) fn read(&self, sector: u64, slices: &mut Vec<VolatileSlice<'_>>) -> Result<(), Refusal> {
        let extent = self.extent(sector, total(slices))?;
        transfer("read", extent, slices, |slices, offset| {
            scatter::read_at(self.file.as_fd(), slices, offset)
        })
    }

    /// Writes `slices` from `sector` on.
    pub(super) fn write(&self, sector: u64, slices: &mut Vec<VolatileSlice<'_>>) -> Result<(), Refusal> {
        self.check_writable()?;
        let extent = self.extent(sector, total(slices))?;
        transfer("write", extent, slices, |slices, offset| {
            scatter::write_at(self.file.as_fd(), slices, offset)
        })
    }

    /// Makes everything written so far outlast a power failure. What fails once may not fail a second time, and still be
    /// lost, so that this is never tried again.
    pub(super) fn flush(&self) -> Result<(), Refusal> {
        self.file.sync_data().map_err(|source| Refusal::Io {
            operation: "flush",
            source,
        })
    }

    /// Gives the space of `count` sectors back. What they read as afterwards is not promised.
    pub(super) fn discard(&self, sector: u64, count: u32) -> Result<(), Refusal> {
        self.check_writable()?;
        let extent = self.extent(sector, u64::from(count) * SECTOR)?;
        // Only advice: a file that cannot have holes keeps its bytes, and so does one whose file system is so full that
        // it cannot even write down that there is a hole.
        match self.fallocate("discard from", FallocateFlags::PUNCH_HOLE, extent) {
            Ok(_) | Err(Refusal::Full { .. }) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Makes `count` sectors read as zeroes; with `unmap`, by giving back their space where possible.
    pub(super) fn write_zeroes(&self, sector: u64, count: u32, unmap: bool) -> Result<(), Refusal> {
        const OPERATION: &str = "write zeroes to";
        self.check_writable()?;
        let extent = self.extent(sector, u64::from(count) * SECTOR)?;
        if unmap && self.fallocate(OPERATION, FallocateFlags::PUNCH_HOLE, extent)? {
            return Ok(());
        }
        if self.fallocate(OPERATION, FallocateFlags::ZERO_RANGE, extent)? {
            return Ok(());
        }
        let end = extent.offset + extent.len;
        let mut offset = extent.offset;
        while offset < end {
            let now = usize::try_from(end - offset).map_or(ZEROES.len(), |rest| rest.min(ZEROES.len()));
            self.file
                .write_all_at(&ZEROES[..now], offset)
                .map_err(|source| Refusal::of(OPERATION, source))?;
            offset += now as u64;
        }
        Ok(())
    }

    /// False when the file system cannot do it.
    fn fallocate(
        &self,
        operation: &'static str,
        mode: FallocateFlags,
        extent: Extent,
    ) -> Result<bool, Refusal> {
        // The system call takes no empty range.
        if extent.len == 0 {
            return Ok(true);
        }
        let mode = mode | FallocateFlags::KEEP_SIZE;
        loop {
            match rustix::fs::fallocate(&self.file, mode, extent.offset, extent.len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => {
                    return Err(Refusal::of(operation, error.into()));
                }
            }
        }
    }

    fn check_writable(&self) -> Result<(), Refusal> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Refusal::ReadOnly),
        }
    }

    /// The range in bytes, if it consists of whole sectors of the disk.
    fn extent(&self, sector: u64, bytes: u64) -> Result<Extent, Refusal> {
        let refusal = Refusal::Range { sector, bytes };
        if !bytes.is_multiple_of(SECTOR) {
            return Err(refusal);
        }
        match sector.checked_add(bytes / SECTOR) {
            // No overflow: the disk's size in bytes is within 63 bits.
            Some(end) if end <= self.sectors() => Ok(Extent {
                offset: sector * SECTOR,
                len: bytes,
            }),
            _ => Err(refusal),
        }
    }
}

/// Bytes that the slices hold together.
fn total(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

/// Calls `call` until all of `slices` have been moved.
fn transfer<'m>(
    operation: &'static str,
    extent: Extent,
    slices: &mut Vec<VolatileSlice<'m>>,
    call: impl Fn(&[VolatileSlice<'m>], i64) -> std::io::Result<usize>,
) -> Result<(), Refusal> {
    let failed = |source| Refusal::of(operation, source);
    let mut offset = extent.offset;
    while !slices.is_empty() {
        let place = i64::try_from(offset).map_err(|_| failed(ErrorKind::InvalidInput.into()))?;
        let moved = call(slices, place).map_err(failed)?;
        if moved == 0 {
            // Somebody has cut the file short.
            return Err(failed(ErrorKind::UnexpectedEof.into()));
        }
        scatter::advance(slices, moved);
        offset += moved as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(sectors: u64, access: Access) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(sectors * SECTOR).unwrap();
        Disk::new(file, access, "disk").unwrap()
    }

    #[test]
    fn a_name_or_size_that_does_not_fit_is_refused() {
        let file = || tempfile::tempfile().unwrap();
        for id in ["", "twenty-one-characters", "a b", "a\0"] {
            let made = Disk::new(file(), Access::ReadWrite, id);
            assert!(matches!(made, Err(BlockError::Id(_))), "{id:?}");
        }
        let odd = file();
        odd.set_len(700).unwrap();
        let made = Disk::new(odd, Access::ReadOnly, "disk");
        assert!(matches!(made, Err(BlockError::Size(700))));
    }

    #[test]
    fn a_file_opened_for_reading_cannot_be_a_writable_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = || File::open(&path).unwrap();
        assert!(matches!(
            Disk::new(open(), Access::ReadWrite, "disk"),
            Err(BlockError::NotWritable)
        ));
        assert!(Disk::new(open(), Access::ReadOnly, "disk").is_ok());
    }

    #[test]
    fn a_disk_grows_with_its_file_once_measured_and_never_shrinks() {
        let disk = disk(8, Access::ReadWrite);
        disk.file.set_len(16 * SECTOR).unwrap();
        assert!(disk.extent(8, SECTOR).is_err(), "not measured yet");
        assert_eq!(disk.measure().unwrap(), 16);
        assert!(disk.extent(15, SECTOR).is_ok());
        disk.file.set_len(SECTOR).unwrap();
        assert_eq!(disk.measure().unwrap(), 16);
        disk.file.set_len(700).unwrap();
        assert!(matches!(disk.measure(), Err(BlockError::Size(700))));
    }

    #[test]
    fn an_empty_disk_has_only_the_empty_range() {
        let disk = disk(0, Access::ReadWrite);
        assert!(disk.extent(0, 0).is_ok());
        assert!(disk.extent(0, SECTOR).is_err() && disk.extent(1, 0).is_err());
    }

    proptest! {
        #[test]
        fn an_extent_never_leaves_the_disk(sectors in 0u64..100, sector: u64, bytes: u64, near in 0u64..120, few in 0u64..60_000) {
            let disk = disk(sectors, Access::ReadWrite);
            for (sector, bytes) in [(sector, bytes), (near, few), (near, few - few % SECTOR), (u64::MAX - near, few)] {
                let fits = bytes % SECTOR == 0
                    && u128::from(sector) * 512 + u128::from(bytes) <= u128::from(sectors) * 512;
                match disk.extent(sector, bytes) {
                    Ok(extent) => {
                        prop_assert!(fits);
                        prop_assert_eq!((extent.offset, extent.len), (sector * SECTOR, bytes));
                    }
                    Err(_) => prop_assert!(!fits),
                }
            }
        }
    }
}
