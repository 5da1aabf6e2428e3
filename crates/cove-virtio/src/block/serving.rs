//! What the disk does with a request, for as long as one driver has it.

use std::sync::Arc;

use cove_confine::seccomp::Thread;

use super::disk::{Disk, Refusal};
use super::{OnFull, request};
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
    /// How often the request at hand has found no space.
    pub(super) starved: u32,
}

impl Service for Serving {
    const NAME: &'static str = "disk";
    const KIND: Thread = Thread::Disk;

    fn serve(&mut self, _queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served {
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        match split(memory, chain, &mut readable, &mut writable) {
            Ok(()) => {
                let (written, done) = request::serve(&self.disk, self.features, readable, writable);
                match done {
                    Err(refusal @ Refusal::Full { .. }) => {
                        self.starve(&refusal);
                        return Served::Later;
                    }
                    Err(refusal) => self.log(&refusal),
                    Ok(()) => {}
                }
                self.starved = 0;
                Served::Done(written)
            }
            Err(error) => {
                tracing::debug!(%error, "a request to a disk is malformed");
                self.starved = 0;
                Served::Done(0)
            }
        }
    }
}

impl Serving {
    /// A request has to wait. That is told at first, and again for as long as nobody takes the disk out of use.
    fn starve(&mut self, refusal: &Refusal) {
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
        let disk = String::from_utf8_lossy(self.disk.id());
        let disk = disk.trim_end_matches('\0');
        if matches!(refusal, Refusal::Io { .. }) && !std::mem::replace(&mut self.complained, true) {
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
