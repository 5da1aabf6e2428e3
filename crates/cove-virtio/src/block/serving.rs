//! What the disk does with a request, for as long as one driver has it.

use std::sync::Arc;

use cove_confine::seccomp::Thread;

use super::disk::{Disk, Refusal};
use super::{OnFull, request};
use crate::device::GuestMemory;
use crate::one_thread::{Served, Service};
use crate::queue::{Chain, split};

/// The disk as one driver negotiated it.
pub(super) struct Serving {
    pub(super) disk: Arc<Disk>,
    pub(super) features: u64,
    /// A failure of the host's file has been reported, and is not again.
    pub(super) complained: bool,
    /// Hears that a request waits for space.
    pub(super) on_full: Option<OnFull>,
    /// A request waits for space, which has been said.
    pub(super) full: bool,
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
                    Ok(()) => self.full = false,
                }
                Served::Done(written)
            }
            Err(error) => {
                tracing::debug!(%error, "a request to a disk is malformed");
                Served::Done(0)
            }
        }
    }
}

impl Serving {
    /// A request has to wait.
    fn starve(&mut self, refusal: &Refusal) {
        if std::mem::replace(&mut self.full, true) {
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
