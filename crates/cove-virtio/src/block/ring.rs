//! Operations on a disk's file that are in flight together, through a ring (`io_uring`).
//!
//! [`Ring`] is the ring itself, which outlives every session of the disk: it can be made only before the process is
//! confined. [`Flights`] is what is in flight through it during one session. While the kernel may write to a request's
//! buffers they stay mapped: whoever drops the flights waits for them.

// UNSAFETY: what is put into a ring is carried out later, so that only its keeper knows for how long memory is in use.
#![expect(
    unsafe_code,
    reason = "the kernel takes raw addresses, and for longer than a call"
)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use cove_confine::ring::{self, FILE};
use io_uring::types::FsyncFlags;
use io_uring::{IoUring, opcode, squeue};

use super::Access;
use super::disk::{Call, Disk, Refusal};
use super::flushes::{Bell, Flush, Others};
use super::request::Request;
use crate::scatter;

/// Most requests that are in flight together. The guest has more only while it waits for the host's disk anyway.
const DEPTH: u32 = 64;
/// Bytes in flight from which on no further request is taken, which bounds how long a suspension waits.
const MOST_BYTES: u64 = 64 << 20;
/// Most buffers that one operation moves: all that a request has.
const MOST_SLICES: usize = 256;
/// For how long the kernel is left alone when it takes nothing for want of memory.
const BREATH: Duration = Duration::from_millis(1);

/// A ring for one queue of a disk, with nothing in flight.
pub(super) struct Ring {
    ring: IoUring,
    /// Tells that a flush has ended which went through another ring.
    bell: Arc<Bell>,
}

impl Ring {
    /// A ring that is tried out, so that one which the host lets be made, but not used, is none.
    pub(super) fn new(disk: &Disk) -> io::Result<Self> {
        let writable = disk.access() == Access::ReadWrite;
        let mut ring = ring::of_disk(disk.file(), writable, DEPTH)?;
        // A file that may have to wait refuses, and is not handed to a worker of the kernel's: that would stay with
        // this thread, and wake every five seconds for as long as it lives.
        let nothing = opcode::Readv::new(FILE, std::ptr::null(), 0)
            .rw_flags(libc::RWF_NOWAIT)
            .build();
        // SAFETY: an operation on no buffers takes no memory.
        unsafe { ring.submission().push(&nothing) }.map_err(io::Error::other)?;
        loop {
            let done = ring.completion().next();
            if let Some(done) = done {
                return match count(done.result()) {
                    Err(error) if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP)) => {
                        Err(error)
                    }
                    _ => Ok(Self {
                        ring,
                        bell: Arc::new(Bell::new()?),
                    }),
                };
            }
            match ring.submit_and_wait(1) {
                // A disk does without a ring better than it waits for one.
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}

/// A request that was taken.
struct Flight<'m> {
    /// Tells the kernel's answers apart.
    number: u64,
    /// The first descriptor of its chain.
    head: u16,
    state: State<'m>,
    /// Its flush, while that is under way.
    flush: Option<Flush>,
    /// The buffers of the operation under way.
    iovecs: Vec<libc::iovec>,
}

/// How far a request has come.
pub(super) enum State<'m> {
    /// An operation of it is in the ring.
    UnderWay(Request<'m>),
    /// Its flush, which is the last that it does, succeeded, and the outcome of others is to be known first.
    Flushed(Request<'m>, Others),
    /// The driver has its answer, with so many bytes written to its buffers, and has yet to be given the chain back.
    Over(u32),
    /// It is over, and a flush that failed: the driver is not to wait for that to be told.
    Lost,
    /// The host has no space for it, which the driver is told nothing of.
    Starved(Request<'m>, Refusal),
}

impl Flight<'_> {
    fn is_under_way(&self) -> bool {
        matches!(self.state, State::UnderWay(_))
    }

    /// Whether it may yet have to be put back into its queue, and what was taken after it as well.
    fn may_go_back(&self) -> bool {
        match &self.state {
            State::UnderWay(request) => request.may_starve(),
            State::Flushed(..) | State::Over(_) | State::Lost => false,
            State::Starved(..) => true,
        }
    }

    /// An operation of it has ended: puts the next into the ring, or calls `end` with what came of the request, unless
    /// that was a flush which succeeded: it is for [`Flights::confirm_flushes`].
    fn go_on(
        &mut self,
        ring: &mut IoUring,
        disk: &Disk,
        result: i32,
        end: &mut impl FnMut(&Request<'_>, Result<(), Refusal>) -> Result<u32, Refusal>,
    ) -> io::Result<()> {
        let State::UnderWay(request) = &mut self.state else {
            return Ok(());
        };
        let result = outcome(disk, request, result);
        let done = request.took(result);
        if done.is_ok() && request.call().is_some() {
            let put = put(ring, disk, self);
            if put.is_err() {
                self.state = State::Over(0);
            }
            return put;
        }
        match self.flush.take() {
            None => self.end(disk, done, end),
            Some(flush) if done.is_err() => {
                self.end(disk, done, end);
                disk.flushes().end(flush);
            }
            Some(flush) => {
                let others = disk.flushes().end(flush);
                if let State::UnderWay(request) = mem::replace(&mut self.state, State::Over(0)) {
                    self.state = State::Flushed(request, others);
                }
            }
        }
        Ok(())
    }

    /// Its operation has ended, and nobody wants to know any more. What a flush was told of concerns others as well.
    fn abandon(&mut self, disk: &Disk, result: i32) {
        if let State::UnderWay(request) = &mut self.state
            && let Some(flush) = self.flush.take()
        {
            // One that was cancelled was told of nothing.
            if result != -libc::ECANCELED
                && let Err(refusal) = request.took(count(result))
            {
                disk.lose(&refusal);
            }
            disk.flushes().end(flush);
        }
        self.state = State::Over(0);
    }

    /// Calls `end` with what came of the request, of which nothing is left to do.
    fn end(
        &mut self,
        disk: &Disk,
        done: Result<(), Refusal>,
        end: &mut impl FnMut(&Request<'_>, Result<(), Refusal>) -> Result<u32, Refusal>,
    ) {
        let (State::UnderWay(request) | State::Flushed(request, _)) = &self.state else {
            return;
        };
        let is_flush = request.flushes() && !matches!(done, Err(Refusal::Full { .. }));
        match end(request, done) {
            // Whether this one failed or an earlier one, the driver is to hear of it at once.
            Ok(_) if is_flush && disk.check_kept().is_err() => self.state = State::Lost,
            Ok(written) => self.state = State::Over(written),
            Err(refusal) => {
                if let State::UnderWay(request) = mem::replace(&mut self.state, State::Over(0)) {
                    self.state = State::Starved(request, refusal);
                }
            }
        }
    }
}

/// What was taken from a queue and has not been given back, in the order in which it was taken.
pub(super) struct Flights<'r, 'm> {
    ring: &'r mut IoUring,
    bell: Arc<Bell>,
    disk: Arc<Disk>,
    all: VecDeque<Flight<'m>>,
    taken: u64,
}

impl<'r, 'm> Flights<'r, 'm> {
    /// Nothing is in flight yet through the ring, which is one of `disk`.
    pub(super) fn new(Ring { ring, bell }: &'r mut Ring, disk: Arc<Disk>) -> Self {
        Self {
            ring,
            bell: Arc::clone(bell),
            disk,
            all: VecDeque::new(),
            taken: 0,
        }
    }

    /// Whether another request can be taken. None is while one waits for space, so that it does not wait in vain.
    pub(super) fn have_room(&self) -> bool {
        let mut bytes = 0;
        for flight in &self.all {
            match &flight.state {
                State::UnderWay(request) => bytes += request.bytes(),
                State::Flushed(..) | State::Over(_) | State::Lost => {}
                State::Starved(..) => return false,
            }
        }
        self.all.len() < DEPTH as usize && bytes < MOST_BYTES
    }

    /// Whether the kernel has anything to do.
    pub(super) fn are_under_way(&self) -> bool {
        self.all.iter().any(Flight::is_under_way)
    }

    /// Whether there is anything that is neither over nor waits for space.
    pub(super) fn are_pending(&self) -> bool {
        let mut states = self.all.iter().map(|flight| &flight.state);
        states.any(|state| matches!(state, State::UnderWay(_) | State::Flushed(..)))
    }

    /// Adds a request that was just taken, if there [is room](Self::have_room). Its first operation is begun by
    /// [`Flights::submit`].
    pub(super) fn add(&mut self, head: u16, state: State<'m>) -> io::Result<()> {
        let mut flight = Flight {
            number: self.taken,
            head,
            state,
            flush: None,
            iovecs: Vec::new(),
        };
        self.taken += 1;
        let put = put(self.ring, &self.disk, &mut flight);
        // Even when the ring took nothing: then nothing of it is under way, and it is only forgotten.
        if put.is_err() {
            flight.state = State::Over(0);
        }
        self.all.push_back(flight);
        put
    }

    /// Has the kernel begin what was added.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            if patient(self.ring.submit())? == 0 {
                std::thread::sleep(BREATH);
            }
        }
        Ok(())
    }

    /// Has the kernel begin what was added, and waits until something of all that is in flight has ended.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.submit()?;
        patient(self.ring.submit_and_wait(1)).map(drop)
    }

    /// Waits until the outcome is known of every flush that one of these overlaps. To be called when the kernel has
    /// nothing to do for these.
    pub(super) fn wait_for_others(&self) {
        for flight in &self.all {
            if let State::Flushed(_, others) = &flight.state {
                self.disk.flushes().wait_for(*others);
            }
        }
    }

    /// Takes what has ended, and puts the next operations of the requests concerned into the ring. Calls `end` with
    /// each request that has none, and what came of it, for how many bytes were written to its buffers, or why it has
    /// to wait. True when anything had ended.
    pub(super) fn reap(
        &mut self,
        mut end: impl FnMut(&Request<'_>, Result<(), Refusal>) -> Result<u32, Refusal>,
    ) -> io::Result<bool> {
        let results = results(self.ring);
        self.take(&results, &mut end)?;
        Ok(!results.is_empty())
    }

    /// Takes these results.
    fn take(
        &mut self,
        results: &[(u64, i32)],
        end: &mut impl FnMut(&Request<'_>, Result<(), Refusal>) -> Result<u32, Refusal>,
    ) -> io::Result<()> {
        let mut failed = None;
        for (number, result) in results {
            let Some(flight) = self.all.iter_mut().find(|flight| flight.number == *number) else {
                continue;
            };
            // All of them are taken even then: the ring tells each once, and whoever drops the flights waits for them.
            if let Err(error) = flight.go_on(self.ring, &self.disk, *result, end) {
                failed = Some(error);
            }
        }
        self.confirm_flushes(end);
        refuse_starved_before_lost(&mut self.all);
        failed.map_or(Ok(()), Err)
    }

    /// Calls `end` with each flush that succeeded and overlaps none of which the outcome is not known yet. For the
    /// others [`Flights::bell`] rings.
    fn confirm_flushes(
        &mut self,
        end: &mut impl FnMut(&Request<'_>, Result<(), Refusal>) -> Result<u32, Refusal>,
    ) {
        for flight in &mut self.all {
            if let State::Flushed(_, others) = &flight.state
                && self.disk.flushes().have_ended(*others, &self.bell)
            {
                flight.end(&self.disk, Ok(()), end);
            }
        }
    }

    /// Lets go of a request that is over: the first descriptor of its chain, and how many bytes were written to its
    /// buffers. What was taken after a request that may yet go back into the queue stays.
    pub(super) fn next_over(&mut self) -> Option<(u16, u32)> {
        let can_go = self.all.iter().take_while(|flight| !flight.may_go_back());
        let (at, over) = can_go.enumerate().find_map(|(at, flight)| match flight.state {
            State::Over(written) => Some((at, (flight.head, written))),
            State::Lost => Some((at, (flight.head, 0))),
            State::UnderWay(_) | State::Flushed(..) | State::Starved(..) => None,
        })?;
        self.all.remove(at);
        Some(over)
    }

    /// Lets go of everything when nothing is left but what waits for space and what was taken after it: why that waits,
    /// and how many requests there are.
    pub(super) fn go_back(&mut self) -> Option<(Refusal, usize)> {
        if self.are_pending() {
            return None;
        }
        let count = self.all.len();
        // What was over before it has been let go of.
        let State::Starved(_, refusal) = self.all.pop_front()?.state else {
            return None;
        };
        self.all.clear();
        Some((refusal, count))
    }

    /// Readable while something has ended that was not taken.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open, and is borrowed for as long as what is returned.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Rings when it may be time to confirm a flush that awaits others, upon which they are to be reaped.
    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// What is in flight may still be written to by the kernel, wherever its keeper was when it came to its end.
impl Drop for Flights<'_, '_> {
    fn drop(&mut self) {
        while self.are_under_way() {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "cannot wait for a disk, and must not let go of memory that it may write to");
                std::process::abort();
            }
            for (number, result) in results(self.ring) {
                for flight in &mut self.all {
                    if flight.number == number {
                        flight.abandon(&self.disk, result);
                    }
                }
            }
        }
    }
}

/// Refuses what waits for space and was taken before a flush that failed, so that this need not go back with it.
fn refuse_starved_before_lost(all: &mut VecDeque<Flight<'_>>) {
    let Some(lost) = all.iter().rposition(|flight| matches!(flight.state, State::Lost)) else {
        return;
    };
    for flight in all.iter_mut().take(lost) {
        if let State::Starved(request, refusal) = &flight.state {
            tracing::debug!(
                error = refusal as &dyn std::error::Error,
                "refused a request with a flush"
            );
            request.refuse(refusal);
            flight.state = State::Over(0);
        }
    }
}

/// Puts the request's next operation into the ring, if it has one.
fn put(ring: &mut IoUring, disk: &Disk, flight: &mut Flight<'_>) -> io::Result<()> {
    let State::UnderWay(request) = &flight.state else {
        return Ok(());
    };
    let Some(call) = request.call() else {
        return Ok(());
    };
    let entry = entry(&call, &mut flight.iovecs).user_data(flight.number);
    if matches!(call, Call::Flush) {
        flight.flush.get_or_insert_with(|| disk.flushes().begin());
    }
    // SAFETY: the buffers are the request's, which keeps them mapped, or bytes that are there for ever. The request
    // and the list of its buffers stay in `Flights` as they are until the kernel has answered, and that does not end
    // before.
    let put = unsafe { ring.submission().push(&entry) }.map_err(io::Error::other);
    if put.is_err()
        && let Some(flush) = flight.flush.take()
    {
        disk.flushes().end(flush);
    }
    put
}

/// The call as the ring takes it, its buffers in `iovecs`.
fn entry(call: &Call<'_, '_>, iovecs: &mut Vec<libc::iovec>) -> squeue::Entry {
    iovecs.clear();
    match *call {
        Call::Read(_, slices) | Call::Write(_, slices) => {
            iovecs.extend(slices.iter().take(MOST_SLICES).map(scatter::iovec));
        }
        Call::WriteBytes(_, bytes) => iovecs.push(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }),
        Call::Allocate(..) | Call::Flush => {}
    }
    let count = u32::try_from(iovecs.len()).unwrap_or(0);
    match *call {
        Call::Read(offset, _) => opcode::Readv::new(FILE, iovecs.as_ptr(), count)
            .offset(offset)
            .build(),
        Call::Write(offset, _) | Call::WriteBytes(offset, _) => {
            opcode::Writev::new(FILE, iovecs.as_ptr(), count)
                .offset(offset)
                .build()
        }
        Call::Allocate(mode, extent) => opcode::Fallocate::new(FILE, extent.len)
            .offset(extent.offset)
            .mode(mode.bits().cast_signed())
            .build(),
        Call::Flush => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
    }
}

/// What has ended: the numbers of requests, and the results of their operations.
fn results(ring: &mut IoUring) -> Vec<(u64, i32)> {
    ring.completion()
        .map(|done| (done.user_data(), done.result()))
        .collect()
}

/// What came of a request's operation. One for which the kernel could make no worker, as where there may be no further
/// thread, it has cancelled before it began. That is carried out here and now, and only keeps others waiting.
fn outcome(disk: &Disk, request: &Request<'_>, result: i32) -> io::Result<usize> {
    match request.call() {
        Some(call) if result == -libc::ECANCELED => disk.carry_out(&call),
        _ => count(result),
    }
}

/// A result as a system call has it: a count, or an error with its sign turned.
fn count(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

/// A kernel that was interrupted, or has no memory just now, takes it another time: it took 0 operations.
fn patient(submitted: io::Result<usize>) -> io::Result<usize> {
    match submitted {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Interrupted
                    | ErrorKind::WouldBlock
                    | ErrorKind::ResourceBusy
                    | ErrorKind::OutOfMemory
            ) =>
        {
            Ok(0)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use vm_memory::VolatileSlice;

    use super::*;
    use crate::block::serving::Serving;
    use crate::block::{FEATURE_FLUSH, SECTOR};

    /// A write of a sector, in three buffers.
    fn write<'m>(disk: &Disk, header: &'m mut [u8], data: &'m mut [u8], status: &'m mut [u8]) -> Request<'m> {
        // VIRTIO_BLK_T_OUT, at sector 0.
        header[0] = 1;
        let readable = vec![VolatileSlice::from(header), VolatileSlice::from(data)];
        let writable = vec![VolatileSlice::from(status)];
        Request::new(disk, FEATURE_FLUSH, readable, writable).unwrap()
    }

    /// Flights in these states, in the order in which they were taken.
    fn flights<const N: usize>(states: [State<'_>; N]) -> VecDeque<Flight<'_>> {
        (0..)
            .zip(states)
            .map(|(number, state)| Flight {
                number,
                head: 0,
                state,
                flush: None,
                iovecs: Vec::new(),
            })
            .collect()
    }

    fn full() -> Refusal {
        Refusal::Full {
            operation: "write",
            source: ErrorKind::StorageFull.into(),
        }
    }

    /// There may be no space for hours, and for so long the driver would not hear of it.
    #[test]
    fn a_flush_that_failed_never_goes_back_with_a_write_before_it_that_finds_no_space() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SECTOR).unwrap();
        let disk = Disk::new(file, Access::ReadWrite, "disk").unwrap();
        for is_lost in [false, true] {
            let (mut header, mut data, mut status) = ([0; 16], [0; 512], [0xaa]);
            let request = write(&disk, &mut header, &mut data, &mut status);
            let flush = if is_lost { State::Lost } else { State::Over(1) };
            let mut all = flights([State::Starved(request, full()), flush]);
            refuse_starved_before_lost(&mut all);
            assert_eq!(all[0].may_go_back(), !is_lost);
            drop(all);
            // VIRTIO_BLK_S_IOERR, or nothing yet.
            assert_eq!(status, if is_lost { [1] } else { [0xaa] });
        }
    }

    /// The guest's file system gives up at a flush that fails.
    #[test]
    fn what_the_kernel_had_no_worker_for_is_carried_out_in_place() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SECTOR).unwrap();
        let disk = Disk::new(file.try_clone().unwrap(), Access::ReadWrite, "disk").unwrap();
        let (mut header, mut data, mut status) = ([0; 16], [0x5a; 512], [0xaa]);
        let mut request = write(&disk, &mut header, &mut data, &mut status);
        let outcome = outcome(&disk, &request, -libc::ECANCELED);
        assert_eq!(*outcome.as_ref().unwrap(), 512);
        request.took(outcome).unwrap();
        assert!(request.call().is_none());
        let mut written = [0; 512];
        file.read_exact_at(&mut written, 0).unwrap();
        assert_eq!(written, [0x5a; 512]);
    }

    #[test]
    fn a_flush_that_the_kernel_had_no_worker_for_is_not_lost() {
        let disk = Disk::new(tempfile::tempfile().unwrap(), Access::ReadWrite, "disk").unwrap();
        let (mut header, mut status) = ([0_u8; 16], [0xaa_u8]);
        // VIRTIO_BLK_T_FLUSH.
        header[0] = 4;
        let readable = vec![VolatileSlice::from(&mut header[..])];
        let writable = vec![VolatileSlice::from(&mut status[..])];
        let mut flush = Request::new(&disk, FEATURE_FLUSH, readable, writable).unwrap();
        let failed = outcome(&disk, &flush, -libc::EIO);
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
        let cancelled = outcome(&disk, &flush, -libc::ECANCELED);
        flush.took(cancelled).unwrap();
        assert!(flush.call().is_none());
    }

    /// The kernel tells of an error once, and which of several flushes hears of it says nothing of which is reaped
    /// first.
    #[test]
    fn a_flush_that_succeeded_is_held_back_until_those_that_it_overlaps_have_ended() {
        // VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK.
        for (outcome, expected) in [(-libc::EIO, 1), (0, 0)] {
            let file = tempfile::tempfile().unwrap();
            let disk = Arc::new(Disk::new(file, Access::ReadWrite, "disk").unwrap());
            let (Ok(mut one), Ok(mut other)) = (Ring::new(&disk), Ring::new(&disk)) else {
                eprintln!("skipped: this computer has no rings");
                return;
            };
            let (mut headers, mut statuses) = ([[0_u8; 16]; 3], [[0xaa_u8]; 3]);
            let mut requests = headers.iter_mut().zip(&mut statuses).map(|(header, status)| {
                // VIRTIO_BLK_T_FLUSH.
                header[0] = 4;
                let readable = vec![VolatileSlice::from(&mut header[..])];
                let writable = vec![VolatileSlice::from(&mut status[..])];
                State::UnderWay(Request::new(&disk, FEATURE_FLUSH, readable, writable).unwrap())
            });
            let mut one = Flights::new(&mut one, Arc::clone(&disk));
            let mut other = Flights::new(&mut other, Arc::clone(&disk));
            one.add(0, requests.next().unwrap()).unwrap();
            one.add(1, requests.next().unwrap()).unwrap();
            other.add(2, requests.next().unwrap()).unwrap();

            let mut serving = Serving {
                disk: Arc::clone(&disk),
                features: FEATURE_FLUSH,
                complained: false,
                on_full: None,
                starved: 0,
            };
            let mut end = |request: &Request<'_>, done: Result<(), Refusal>| serving.end(request, done);
            // The kernel was given none of them, so that what comes of them is told here.
            one.take(&[(1, 0)], &mut end).unwrap();
            other.take(&[(0, 0)], &mut end).unwrap();
            assert_eq!((one.next_over(), other.next_over()), (None, None));
            assert!(other.are_pending() && !other.are_under_way());
            one.take(&[(0, outcome)], &mut end).unwrap();
            other.take(&[], &mut end).unwrap();
            let over = [one.next_over(), one.next_over(), other.next_over()];
            assert_eq!(
                over.map(|over| over.map(|(head, _)| head)),
                [Some(0), Some(1), Some(2)]
            );
            drop((one, other));
            assert_eq!(statuses, [[expected]; 3], "{outcome}");
        }
    }

    /// Such as when the guest has broken its queue meanwhile.
    #[test]
    fn what_a_flush_was_told_that_nobody_waits_for_is_told_to_others() {
        let file = tempfile::tempfile().unwrap();
        let disk = Disk::new(file, Access::ReadWrite, "disk").unwrap();
        for (result, is_lost) in [(0, false), (-libc::ECANCELED, false), (-libc::EIO, true)] {
            let (mut header, mut status) = ([0_u8; 16], [0xaa_u8]);
            header[0] = 4;
            let readable = vec![VolatileSlice::from(&mut header[..])];
            let writable = vec![VolatileSlice::from(&mut status[..])];
            let request = Request::new(&disk, FEATURE_FLUSH, readable, writable).unwrap();
            let mut all = flights([State::UnderWay(request)]);
            all[0].flush = Some(disk.flushes().begin());
            all[0].abandon(&disk, result);
            assert!(!all[0].is_under_way());
            assert_eq!(disk.check_kept().is_err(), is_lost, "{result}");
            // Nobody waits for it.
            disk.flushes()
                .wait_for(disk.flushes().end(disk.flushes().begin()));
        }
    }

    #[test]
    fn a_write_after_a_flush_that_failed_waits_for_space() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SECTOR).unwrap();
        let disk = Disk::new(file, Access::ReadWrite, "disk").unwrap();
        let (mut header, mut data, mut status) = ([0; 16], [0; 512], [0xaa]);
        let request = write(&disk, &mut header, &mut data, &mut status);
        let mut all = flights([State::Lost, State::Starved(request, full())]);
        refuse_starved_before_lost(&mut all);
        assert!(all[1].may_go_back());
    }
}
