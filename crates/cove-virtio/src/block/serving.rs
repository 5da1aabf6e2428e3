//! What the disk does with a request, for as long as one driver has it.

use std::sync::Arc;

use cove_confine::seccomp::Thread;

use super::OnFull;
use super::disk::{Disk, Refusal};
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
        let mut done = Ok(());
        while done.is_ok()
            && let Some(call) = request.call()
        {
            let result = self.disk.carry_out(&call);
            done = request.took(result);
        }
        match self.end(&request, done) {
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

    /// Answers a request of which this came. Returns how many bytes were written to its buffers, or why it has to wait.
    pub(super) fn end(&mut self, request: &Request<'_>, done: Result<(), Refusal>) -> Result<u32, Refusal> {
        match done {
            Ok(()) => Ok(request.confirm()),
            Err(full @ Refusal::Full { .. }) => Err(full),
            Err(refusal) => {
                self.log(&refusal);
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
        let of_host = matches!(refusal, Refusal::Io { .. } | Refusal::Lost(_));
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
