//! A disk's file, and the bounds of what may be done to it.
//!
//! Whatever is to be done becomes a [`Job`], for which its range is checked against the size that the disk had when it
//! was last measured, and whether the disk may be written. How a job's calls reach the file is not its affair: here
//! one after the other ([`Disk::carry_out`]), or through a ring with those of others.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use vm_memory::VolatileSlice;

use super::flushes::Flushes;
use super::{Access, BlockError, ID_LEN, SECTOR};
use crate::scatter;

/// Zeroes, to be written where the file system cannot make them.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// A disk.
pub(super) struct Disk {
    file: File,
    access: Access,
    /// It only ever grows, so that a request that was checked against it stays within the file.
    sectors: AtomicU64,
    /// A flush has failed.
    lost: AtomicBool,
    flushes: Flushes,
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
    /// What was written before may be lost, which the system says only once.
    #[error("cannot flush the disk's file")]
    Lost(#[source] std::io::Error),
    /// It was lost earlier, so that no flush can be vouched for.
    #[error("an earlier flush of the disk's file failed")]
    LostEarlier,
}

impl Refusal {
    /// The host's file refused an operation that takes space, and that can be tried again as it is.
    fn of(operation: &'static str, source: std::io::Error) -> Self {
        if is_full(&source) {
            Self::Full { operation, source }
        } else {
            Self::Io { operation, source }
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

/// A range of the file, known to lie on the disk. In bytes, and within 63 bits.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Extent {
    /// Takes `count` bytes off its front.
    fn advance(&mut self, count: usize) {
        let count = self.len.min(count as u64);
        self.offset += count;
        self.len -= count;
    }

    /// Nothing of it is left.
    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Something to be done to the disk, and how much of it is left.
pub(super) enum Job<'m> {
    /// Fills the slices, which hold as many bytes as the range has.
    Read(Extent, Vec<VolatileSlice<'m>>),
    /// Writes the slices, which hold as many bytes as the range has.
    Write(Extent, Vec<VolatileSlice<'m>>),
    /// Gives the space back.
    Discard(Extent),
    /// Makes it read as zeroes.
    Zero(Extent, Zeroing),
    /// Makes everything that was complete when it began outlast a power failure.
    Flush {
        /// It has.
        over: bool,
    },
}

/// How a range comes to read as zeroes. What the file system cannot do is done by the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeroing {
    /// It becomes a hole.
    Hole,
    /// The file system notes that it is zero.
    Note,
    /// Zeroes are written.
    Write,
}

/// A call by which a job goes on. The system moves as many bytes as it likes, and says how many.
pub(super) enum Call<'j, 'm> {
    /// Fills the slices from this offset on.
    Read(u64, &'j [VolatileSlice<'m>]),
    /// Writes the slices at this offset.
    Write(u64, &'j [VolatileSlice<'m>]),
    /// Writes these bytes at this offset.
    WriteBytes(u64, &'static [u8]),
    /// Changes which of the file's ranges have space.
    Allocate(FallocateFlags, Extent),
    /// Writes down what the page cache holds.
    Flush,
}

impl<'m> Job<'m> {
    /// The call that is next; none when the job is over.
    pub(super) fn call(&self) -> Option<Call<'_, 'm>> {
        let allocate =
            |mode: FallocateFlags, extent: &Extent| Call::Allocate(mode | FallocateFlags::KEEP_SIZE, *extent);
        Some(match self {
            Self::Flush { over: true } => return None,
            Self::Read(extent, _)
            | Self::Write(extent, _)
            | Self::Discard(extent)
            | Self::Zero(extent, _)
                if extent.is_empty() =>
            {
                return None;
            }
            Self::Read(extent, slices) => Call::Read(extent.offset, slices),
            Self::Write(extent, slices) => Call::Write(extent.offset, slices),
            Self::Discard(extent) | Self::Zero(extent, Zeroing::Hole) => {
                allocate(FallocateFlags::PUNCH_HOLE, extent)
            }
            Self::Zero(extent, Zeroing::Note) => allocate(FallocateFlags::ZERO_RANGE, extent),
            Self::Zero(extent, Zeroing::Write) => {
                let now = usize::try_from(extent.len).map_or(ZEROES.len(), |rest| rest.min(ZEROES.len()));
                Call::WriteBytes(extent.offset, &ZEROES[..now])
            }
            Self::Flush { over: false } => Call::Flush,
        })
    }

    /// Takes what came of its call: how many bytes it moved, if it moves any. The job is to go on while it has a call.
    pub(super) fn took(&mut self, result: std::io::Result<usize>) -> Result<(), Refusal> {
        const ZERO: &str = "write zeroes to";
        if let Err(error) = &result
            && matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
        {
            // The same again.
            return Ok(());
        }
        match self {
            // Whatever it fails for, it waits for no space.
            Self::Read(extent, slices) => moved(extent, Some(slices), result).map_err(|source| Refusal::Io {
                operation: "read",
                source,
            }),
            Self::Write(extent, slices) => {
                moved(extent, Some(slices), result).map_err(|error| Refusal::of("write", error))
            }
            Self::Discard(extent) => match result {
                Err(error) if !is_unsupported(&error) && !is_full(&error) => Err(Refusal::Io {
                    operation: "discard from",
                    source: error,
                }),
                // Only advice: a file that cannot have holes keeps its bytes, and so does one whose file system is so
                // full that it cannot even write down that there is a hole.
                _ => {
                    extent.len = 0;
                    Ok(())
                }
            },
            Self::Zero(extent, Zeroing::Write) => {
                moved(extent, None, result).map_err(|error| Refusal::of(ZERO, error))
            }
            Self::Zero(extent, by) => match result {
                Ok(_) => {
                    extent.len = 0;
                    Ok(())
                }
                Err(error) if is_unsupported(&error) => {
                    *by = if *by == Zeroing::Hole {
                        Zeroing::Note
                    } else {
                        Zeroing::Write
                    };
                    Ok(())
                }
                Err(error) => Err(Refusal::of(ZERO, error)),
            },
            // What fails once may not fail a second time, and still be lost, so that this is never tried again: not even
            // for want of space.
            Self::Flush { over } => {
                *over = true;
                result.map(drop).map_err(Refusal::Lost)
            }
        }
    }

    /// Whether it may yet come to wait for space on the host.
    pub(super) fn may_starve(&self) -> bool {
        matches!(self, Self::Write(..) | Self::Zero(..)) && self.call().is_some()
    }

    /// Bytes that it has yet to move.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Read(extent, _) | Self::Write(extent, _) | Self::Zero(extent, _) => extent.len,
            Self::Discard(_) | Self::Flush { .. } => 0,
        }
    }
}

/// Notes that a call has moved bytes, to or from `slices` if there are any.
fn moved(
    extent: &mut Extent,
    slices: Option<&mut Vec<VolatileSlice<'_>>>,
    result: std::io::Result<usize>,
) -> std::io::Result<()> {
    let count = result?;
    if count == 0 {
        // Somebody has cut the file short.
        return Err(ErrorKind::UnexpectedEof.into());
    }
    extent.advance(count);
    if let Some(slices) = slices {
        scatter::advance(slices, count);
    }
    Ok(())
}

/// The file system cannot do it.
fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// There is no space for it.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
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
            lost: AtomicBool::new(false),
            flushes: Flushes::default(),
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

    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// To fill `slices` from `sector` on.
    pub(super) fn read<'m>(&self, sector: u64, slices: Vec<VolatileSlice<'m>>) -> Result<Job<'m>, Refusal> {
        let extent = self.extent(sector, total(&slices))?;
        Ok(Job::Read(extent, slices))
    }

    /// To write `slices` from `sector` on.
    pub(super) fn write<'m>(&self, sector: u64, slices: Vec<VolatileSlice<'m>>) -> Result<Job<'m>, Refusal> {
        self.check_writable()?;
        let extent = self.extent(sector, total(&slices))?;
        Ok(Job::Write(extent, slices))
    }

    /// To give the space of `count` sectors back. What they read as afterwards is not promised.
    pub(super) fn discard(&self, sector: u64, count: u32) -> Result<Job<'static>, Refusal> {
        self.check_writable()?;
        let extent = self.extent(sector, u64::from(count) * SECTOR)?;
        Ok(Job::Discard(extent))
    }

    /// To make `count` sectors read as zeroes; with `unmap`, by giving back their space where possible.
    pub(super) fn write_zeroes(&self, sector: u64, count: u32, unmap: bool) -> Result<Job<'static>, Refusal> {
        self.check_writable()?;
        let extent = self.extent(sector, u64::from(count) * SECTOR)?;
        let by = if unmap { Zeroing::Hole } else { Zeroing::Note };
        Ok(Job::Zero(extent, by))
    }

    /// To make everything that is complete by then outlast a power failure.
    pub(super) fn flush(&self) -> Result<Job<'static>, Refusal> {
        self.check_kept()?;
        Ok(Job::Flush { over: false })
    }

    /// Those under way, through all queues.
    pub(super) const fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Notes for good that a flush has failed, and says why the first time, for which it is true. The system forgets
    /// what it could not write, and says so once to all who share the file, which all queues do: the next flush would
    /// succeed.
    pub(super) fn lose(&self, refusal: &Refusal) -> bool {
        let first = !self.lost.swap(true, Ordering::AcqRel);
        if first {
            let error: &dyn std::error::Error = refusal;
            tracing::error!(
                disk = self.name(),
                error,
                "what was written to a disk may be lost, so that its flushes fail from now on: find out what ails this \
                 computer's disk (dmesg), then restart the machine (cove restart)"
            );
        }
        first
    }

    /// That no flush is known to have failed.
    pub(super) fn check_kept(&self) -> Result<(), Refusal> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Refusal::LostEarlier);
        }
        Ok(())
    }

    /// The name, for logs.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.id)
            .trim_end_matches('\0')
            .to_owned()
    }

    /// Makes a call, and waits for it.
    pub(super) fn carry_out(&self, call: &Call<'_, '_>) -> std::io::Result<usize> {
        match *call {
            Call::Read(offset, slices) => scatter::read_at(self.file(), slices, offset.cast_signed()),
            Call::Write(offset, slices) => scatter::write_at(self.file(), slices, offset.cast_signed()),
            Call::WriteBytes(offset, bytes) => self.file.write_at(bytes, offset),
            Call::Allocate(mode, extent) => {
                rustix::fs::fallocate(&self.file, mode, extent.offset, extent.len)?;
                Ok(0)
            }
            Call::Flush => self.file.sync_data().map(|()| 0),
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

    #[test]
    fn zeroes_are_made_by_the_first_means_that_the_file_system_has() {
        let disk = disk(8, Access::ReadWrite);
        let mut job = disk.write_zeroes(1, 2, true).unwrap();
        for means in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            let Some(Call::Allocate(mode, extent)) = job.call() else {
                panic!("the file system is not asked");
            };
            assert_eq!(mode, means | FallocateFlags::KEEP_SIZE);
            assert_eq!((extent.offset, extent.len), (SECTOR, 2 * SECTOR));
            let unsupported = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            job.took(Err(unsupported)).unwrap();
        }
        job.took(Err(ErrorKind::Interrupted.into())).unwrap();
        for (offset, len) in [(512, 1024), (1512, 24)] {
            let Some(Call::WriteBytes(place, bytes)) = job.call() else {
                panic!("nothing is written");
            };
            assert_eq!((place, bytes.len()), (offset, len));
            assert!(bytes.iter().all(|byte| *byte == 0));
            job.took(Ok(len.min(1000))).unwrap();
        }
        assert!(job.call().is_none());
    }

    #[test]
    fn only_what_needs_space_waits_for_it() {
        let disk = disk(8, Access::ReadWrite);
        let full = || Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
        let mut job = disk.write_zeroes(0, 1, false).unwrap();
        assert!(job.may_starve());
        assert!(matches!(job.took(full()), Err(Refusal::Full { .. })));
        let mut job = disk.discard(0, 1).unwrap();
        assert!(job.took(full()).is_ok() && job.call().is_none() && !job.may_starve());
        let mut job = Job::Flush { over: false };
        assert!(matches!(job.took(full()), Err(Refusal::Lost(_))));
        assert!(job.call().is_none(), "what was lost would seem to be safe");
        // As a file system in user space may say. What was taken after a read may be given back by then.
        let mut bytes = [0_u8; 512];
        let mut job = disk.read(0, vec![VolatileSlice::from(&mut bytes[..])]).unwrap();
        assert!(!job.may_starve());
        assert!(matches!(job.took(full()), Err(Refusal::Io { .. })));
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
