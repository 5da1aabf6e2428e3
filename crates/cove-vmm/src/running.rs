//! A machine that runs: its vCPUs' threads, and what can be done to it from outside.
//!
//! ```text
//!             pause               stop
//!  Running ⇄──────── Paused     any ───▶ Stopped (its devices are handed back)
//!             resume
//! ```
//!
//! [`Running`] owns the state. Any thread may call it; calls wait for one another. A machine that is dropped is
//! stopped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use cove_confine::seccomp;
use cove_virtio::device::Device;
use vmm_sys_util::signal::Killable as _;

use crate::fitter::Fitter;
use crate::gate::{Gate, Stuck, kick_signal, take_kicks};
use crate::mmio::Bus;
use crate::vcpu;
use crate::vm::{End, Vm, VmError};

/// Takes what ended a machine, on the thread of the vCPU that met it. Several vCPUs may report.
pub type Report = Arc<dyn Fn(Result<End, VmError>) + Send + Sync>;

/// Why an operation on a running machine failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It was stopped.
    #[error("the machine has been stopped")]
    Stopped,
    /// A vCPU does not come out of the guest.
    #[error("cannot stop the machine's vCPUs")]
    Stuck(#[from] Stuck),
    /// Somebody still reaches the devices, though all vCPUs have ended.
    #[error("the machine's devices are still in use")]
    InUse,
    /// A device does not hand its queues over, or does not take them back.
    #[error("cannot {operation} device {device}")]
    Device {
        /// What was attempted.
        operation: &'static str,
        /// Its place on the bus.
        device: usize,
        /// Why not.
        source: cove_virtio::device::DeviceError,
    },
}

/// A machine whose vCPUs have threads.
pub struct Running {
    gate: Arc<Gate>,
    state: Mutex<Option<State>>,
}

struct State {
    threads: Vec<JoinHandle<()>>,
    bus: Arc<Bus>,
    paused: bool,
}

impl Vm {
    /// Lets the guest run. `report` hears how it ends.
    pub fn start(self, report: &Report) -> Result<Running, VmError> {
        let os = |operation| move |source| VmError::Os { operation, source };
        take_kicks().map_err(os("take the signal that stops a vCPU"))?;
        let fitter = Fitter::start().map_err(os("start the thread that sets devices up"))?;
        let gate = Arc::new(Gate::new(self.vcpus.len()));
        // Whatever happens below, threads that have started are sent home when this is dropped.
        let running = Running {
            gate: Arc::clone(&gate),
            state: Mutex::new(Some(State {
                threads: Vec::new(),
                bus: Arc::clone(&self.bus),
                paused: false,
            })),
        };
        // Guest memory and the machine's descriptor outlive every vCPU: each thread holds them.
        let keep = Arc::new((self.memory, self.handle));
        let mut vcpus = self.vcpus.into_iter().enumerate();
        while let Some((index, mut vcpu)) = vcpus.next() {
            let (bus, ports) = (Arc::clone(&self.bus), Arc::clone(&self.ports));
            let fitter = fitter.clone();
            let (keep, report, leaving) = (Arc::clone(&keep), Arc::clone(report), Leaving(Arc::clone(&gate)));
            let spawned = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || {
                    seccomp::enter(seccomp::Thread::Vcpu);
                    if let Some(end) = vcpu::run(&mut vcpu, &leaving.0, &ports, &bus, &fitter).transpose() {
                        report(end);
                    }
                    // Before it counts as gone: whoever waits for that may take devices and memory over.
                    drop((vcpu, ports, bus, keep));
                });
            match spawned {
                Ok(thread) => {
                    if let Some(state) = running.hold().as_mut() {
                        state.threads.push(thread);
                    }
                }
                Err(source) => {
                    // Those that have no thread are not waited for; the one that failed let its place go already.
                    vcpus.for_each(|_| gate.left());
                    return Err(os("start a vCPU's thread")(source));
                }
            }
        }
        Ok(running)
    }
}

/// Says that a thread has ended, however it did.
struct Leaving(Arc<Gate>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left();
    }
}

impl Running {
    /// Stops the vCPUs and then the devices, which finish what they are at. No effect on a machine that is paused.
    pub fn pause(&self) -> Result<(), ControlError> {
        let mut held = self.hold();
        let state = held.as_mut().ok_or(ControlError::Stopped)?;
        if state.paused {
            return Ok(());
        }
        self.gate.close(|| kick(&state.threads))?;
        if let Err(error) = state.bus.suspend() {
            // As if nothing had been asked: those that were suspended go on.
            let resumed = state.bus.resume();
            self.gate.open();
            return Err(resumed.err().unwrap_or(error));
        }
        state.paused = true;
        Ok(())
    }

    /// Lets devices and vCPUs go on. No effect on a machine that runs.
    pub fn resume(&self) -> Result<(), ControlError> {
        let mut held = self.hold();
        let state = held.as_mut().ok_or(ControlError::Stopped)?;
        if state.paused {
            state.bus.resume()?;
            state.paused = false;
            self.gate.open();
        }
        Ok(())
    }

    /// Tells the guest that the configuration of the device at a place on the bus has changed.
    pub fn announce(&self, device: usize) -> Result<(), ControlError> {
        let held = self.hold();
        let state = held.as_ref().ok_or(ControlError::Stopped)?;
        state.bus.announce(device);
        Ok(())
    }

    /// Ends the vCPUs and hands the devices back, in their order, reset and fit for another machine. Empty when it has
    /// been stopped before.
    pub fn stop(&self) -> Result<Vec<Box<dyn Device>>, ControlError> {
        let mut held = self.hold();
        let Some(state) = held.as_mut() else {
            return Ok(Vec::new());
        };
        self.gate.send_home(|| kick(&state.threads))?;
        let Some(State { threads, bus, .. }) = held.take() else {
            return Ok(Vec::new());
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("the thread of a vCPU panicked");
            }
        }
        Arc::into_inner(bus)
            .map(Bus::into_devices)
            .ok_or(ControlError::InUse)
    }

    fn hold(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "a machine is left as it is");
        }
    }
}

fn kick(threads: &[JoinHandle<()>]) {
    for thread in threads.iter().filter(|thread| !thread.is_finished()) {
        // It fails only for a thread that has ended meanwhile.
        let _ = thread.kill(kick_signal());
    }
}
