//! Does for a vCPU what its thread may not: a driver that writes a device's status sets it up or resets it, which
//! starts threads and opens connections, and those threads inherit what the one that starts them may do.
//!
//! ```text
//!  vCPU thread ── status write ──▶ fitter thread ── activate, reset ──▶ device's threads
//!       ▲                              │
//!       └────────── it is done ────────┘
//! ```
//!
//! The thread ends when the last [`Fitter`] is dropped. It holds a machine's bus only while it works on it.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use crate::mmio::Bus;

/// A write to a device's status, and who waits for it.
struct Job {
    bus: Arc<Bus>,
    address: u64,
    status: [u8; 4],
    done: Sender<()>,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Fitter(Sender<Job>);

impl Fitter {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("fitter".to_owned())
            .spawn(move || {
                for Job {
                    bus,
                    address,
                    status,
                    done,
                } in jobs
                {
                    bus.write(address, &status);
                    // Before anybody is told: the last one to hold the bus gets its devices.
                    drop(bus);
                    // A vCPU waits for its answer.
                    let _ = done.send(());
                }
            })?;
        Ok(Self(sender))
    }

    /// Takes what the guest writes at `address`, here or on the thread, and returns when it has taken effect.
    pub(crate) fn write(&self, bus: &Arc<Bus>, address: u64, data: &[u8]) {
        let status = <[u8; 4]>::try_from(data).ok().filter(|_| Bus::is_status(address));
        let Some(status) = status else {
            return bus.write(address, data);
        };
        let (done, wait) = mpsc::channel();
        let job = Job {
            bus: Arc::clone(bus),
            address,
            status,
            done,
        };
        if self.0.send(job).is_err() || wait.recv().is_err() {
            tracing::error!("the thread that sets devices up is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_free_again_as_soon_as_a_write_is_done() {
        let fitter = Fitter::start().unwrap();
        for _ in 0..1000 {
            let bus = Arc::new(Bus(Vec::new()));
            fitter.write(&bus, crate::layout::DEVICES + 0x70, &[1, 0, 0, 0]);
            assert!(Arc::into_inner(bus).is_some());
        }
    }
}
