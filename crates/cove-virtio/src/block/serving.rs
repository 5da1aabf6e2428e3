//! What the disk does with a request, for as long as one driver has it.

use std::sync::Arc;

use cove_confine::seccomp::Thread;

use super::OnFull;
use super::disk::{Call, Disk, Refusal};
use super::flushes::Flush;
use super::request::Request;
use crate::device::GuestMemory;
use crate::one_thread::{Served, Service};
use crate::queue::{Chain, split};

/// A request that waits for space is told of every so many times that it was tried.
const TOLD_EVERY: u32 = 10;

/// The disk as one driver negotiated it.
pub(super) struct Serving {
    pub(super) disk: Arc<Disk>,
    pub(super) features: u64,
    /// A failure of the host's file has been reported, and is not again.
    pub(super) complained: bool,
    /// Hears that a request waits for space.
    pub(super) on_full: Option<OnFull>,
    /// How often in a row a request has found no space.
    pub(super) starved: u32,
}

impl Service for Serving {
    const NAME: &'static str = "disk";
    const KIND: Thread = Thread::Disk;

    fn serve(&mut self, _queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served {
        let Some(mut request) = self.begin(memory, chain) else {
            return Served::Done(0);
        };
        let (mut flush, mut done) = (None, Ok(()));
        while done.is_ok()
            && let Some(call) = request.call()
        {
            if matches!(call, Call::Flush) {
                flush.get_or_insert_with(|| self.disk.flushes().begin());
            }
            let result = self.disk.carry_out(&call);
            done = request.took(result);
        }
        let ended = match flush {
            Some(flush) => self.end_flush(&request, flush, done),
            None => self.end(&request, done),
        };
        match ended {
            Ok(written) => {
                self.starved = 0;
                Served::Done(written)
            }
            Err(full) => {
                self.starve(&full);
                Served::Later
            }
        }
    }
}

impl Serving {
    /// The request that a chain is; none if it is no good one, and over.
    pub(super) fn begin<'m>(&mut self, memory: &'m GuestMemory, chain: Chain<'m>) -> Option<Request<'m>> {
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        if let Err(error) = split(memory, chain, &mut readable, &mut writable) {
            tracing::debug!(%error, "a request to a disk is malformed");
            return None;
        }
        match Request::new(&self.disk, self.features, readable, writable) {
            Ok(request) => Some(request),
            Err(refusal) => {
                self.log(&refusal);
                None
            }
        }
    }

    /// The same as [`Serving::end`] for a request that came to its flush, which is the last that it does: one that
    /// succeeded waits for the outcome of those that it overlaps.
    fn end_flush(
        &mut self,
        request: &Request<'_>,
        flush: Flush,
        done: Result<(), Refusal>,
    ) -> Result<u32, Refusal> {
        if done.is_err() {
            let ended = self.end(request, done);
            self.disk.flushes().end(flush);
            return ended;
        }
        let others = self.disk.flushes().end(flush);
        self.disk.flushes().wait_for(others);
        self.end(request, done)
    }

    /// Answers a request of which this came. Returns how many bytes were written to its buffers, or why it has to wait.
    pub(super) fn end(&mut self, request: &Request<'_>, done: Result<(), Refusal>) -> Result<u32, Refusal> {
        let done = match done {
            // Another may have failed meanwhile, and been told of what this one should have kept as well.
            Ok(()) if request.flushes() => self.disk.check_kept(),
            done => done,
        };
        match done {
            Ok(()) => Ok(request.confirm()),
            Err(full @ Refusal::Full { .. }) => Err(full),
            Err(refusal) => {
                if !matches!(refusal, Refusal::Lost(_)) || !self.disk.lose(&refusal) {
                    self.log(&refusal);
                }
                request.refuse(&refusal);
                Ok(0)
            }
        }
    }

    /// A request has to wait. That is told at first, and again for as long as nobody takes the disk out of use.
    pub(super) fn starve(&mut self, refusal: &Refusal) {
        let before = self.starved;
        self.starved = before.saturating_add(1);
        if !before.is_multiple_of(TOLD_EVERY) {
            return;
        }
        let error: &dyn std::error::Error = refusal;
        tracing::warn!(error, "a disk waits for space on the host");
        if let Some(tell) = &self.on_full {
            tell();
        }
    }

    /// The guest can bring about most refusals as often as it likes; the host's own are said once.
    fn log(&mut self, refusal: &Refusal) {
        let error: &dyn std::error::Error = refusal;
        let disk = self.disk.name();
        let of_host = matches!(refusal, Refusal::Io { .. });
        if of_host && !std::mem::replace(&mut self.complained, true) {
            tracing::error!(
                disk,
                error,
                "the host failed a disk; further failures are not reported"
            );
        } else {
            tracing::debug!(disk, error, "refused a request");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;
    use std::time::Duration;

    use vm_memory::VolatileSlice;

    use super::*;
    use crate::block::{Access, FEATURE_FLUSH, SECTOR};

    /// `VIRTIO_BLK_T_*` and `VIRTIO_BLK_S_*`.
    const WRITE: u8 = 1;
    const FLUSH: u8 = 4;
    const OK: u8 = 0;
    const ERROR: u8 = 1;

    /// One of a disk's queues, whose driver agreed on `features`.
    fn serving(disk: &Arc<Disk>, features: u64) -> Serving {
        Serving {
            disk: Arc::clone(disk),
            features,
            complained: false,
            on_full: None,
            starved: 0,
        }
    }

    /// What the driver is told of a request of that type, for the first sector, of whose calls `done` has come, with
    /// `meanwhile` between its beginning and its end.
    fn status(
        serving: &mut Serving,
        operation: u8,
        meanwhile: impl FnOnce(),
        done: Result<(), Refusal>,
    ) -> u8 {
        answer(serving, operation, |serving, request| {
            meanwhile();
            serving.end(request, done)
        })
    }

    /// What the driver is told of a request of that type, for the first sector, that `end` ends.
    fn answer(
        serving: &mut Serving,
        operation: u8,
        end: impl FnOnce(&mut Serving, &Request<'_>) -> Result<u32, Refusal>,
    ) -> u8 {
        let (mut header, mut data, mut status) = ([0_u8; 16], [0x5a_u8; 512], [0xaa_u8]);
        header[0] = operation;
        let mut readable = vec![VolatileSlice::from(&mut header[..])];
        if operation == WRITE {
            readable.push(VolatileSlice::from(&mut data[..]));
        }
        let writable = vec![VolatileSlice::from(&mut status[..])];
        if let Ok(request) = Request::new(&serving.disk, serving.features, readable, writable) {
            end(serving, &request).unwrap();
        }
        status[0]
    }

    fn failed() -> Result<(), Refusal> {
        Err(Refusal::Lost(std::io::Error::from_raw_os_error(libc::EIO)))
    }

    fn disk() -> Arc<Disk> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SECTOR).unwrap();
        Arc::new(Disk::new(file, Access::ReadWrite, "disk").unwrap())
    }

    /// The system tells an error of writeback once to all who share the file.
    #[test]
    fn after_a_flush_that_failed_no_queue_is_told_that_one_succeeded() {
        let disk = disk();
        let (mut one, mut other) = (serving(&disk, FEATURE_FLUSH), serving(&disk, FEATURE_FLUSH));
        assert_eq!(status(&mut other, FLUSH, || {}, Ok(())), OK);
        assert_eq!(status(&mut one, FLUSH, || {}, failed()), ERROR);
        for serving in [&mut one, &mut other, &mut self::serving(&disk, FEATURE_FLUSH)] {
            assert_eq!(status(serving, FLUSH, || {}, Ok(())), ERROR);
            assert_eq!(status(serving, WRITE, || {}, Ok(())), OK, "it promises nothing");
        }
        // A driver that knows of no flushes takes every write for safe.
        assert_eq!(status(&mut self::serving(&disk, 0), WRITE, || {}, Ok(())), ERROR);
    }

    #[test]
    fn a_flush_during_which_another_fails_is_not_confirmed() {
        for (features, operation) in [(FEATURE_FLUSH, FLUSH), (0, WRITE)] {
            let disk = disk();
            let (mut one, mut other) = (serving(&disk, features), serving(&disk, features));
            let meanwhile = || assert_eq!(status(&mut other, operation, || {}, failed()), ERROR);
            assert_eq!(status(&mut one, operation, meanwhile, Ok(())), ERROR);
        }
    }

    /// Whoever waits for the one that failed may come to it last.
    #[test]
    fn a_flush_that_succeeded_waits_for_the_outcome_of_one_that_it_overlaps() {
        const A_WHILE: Duration = Duration::from_millis(100);
        for (done, expected) in [(Ok(()), OK), (failed(), ERROR)] {
            let disk = disk();
            let (mut one, mut other) = (serving(&disk, FEATURE_FLUSH), serving(&disk, FEATURE_FLUSH));
            let (slow, quick) = (disk.flushes().begin(), disk.flushes().begin());
            let (sender, told) = mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    let end = |serving: &mut Serving, request: &Request<'_>| {
                        serving.end_flush(request, quick, Ok(()))
                    };
                    sender.send(answer(&mut one, FLUSH, end)).unwrap();
                });
                assert_eq!(told.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout));
                let end =
                    |serving: &mut Serving, request: &Request<'_>| serving.end_flush(request, slow, done);
                assert_eq!(answer(&mut other, FLUSH, end), expected);
                assert_eq!(told.recv(), Ok(expected));
            });
        }
    }

    #[test]
    fn what_fails_but_a_flush_leaves_the_disk_in_use() {
        let disk = disk();
        let mut serving = serving(&disk, FEATURE_FLUSH);
        let failed = Refusal::Io {
            operation: "write",
            source: std::io::Error::from_raw_os_error(libc::EIO),
        };
        assert_eq!(status(&mut serving, WRITE, || {}, Err(failed)), ERROR);
        assert_eq!(status(&mut serving, FLUSH, || {}, Ok(())), OK);
    }
}
