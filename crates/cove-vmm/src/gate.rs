//! How the threads of the vCPUs are stopped, let go on and sent home.
//!
//! ```text
//!            pause                 all of them wait
//!  Open ───────────▶ Closed ─────────────────────────▶ (the caller goes on)
//!    ▲                 │ ▲
//!    └──── resume ─────┘ └─ a vCPU comes back from the guest, and waits
//!
//!  any ── leave ──▶ Leaving: every thread ends
//! ```
//!
//! The [`Gate`] owns the order that all threads follow; each of them passes it before it enters the guest. One that is
//! in the guest is got out of it by a signal that does nothing else. The signal may come just before the thread enters,
//! and is lost then, so that it is repeated until everybody is out.

use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// How long until a signal is repeated.
const REPEAT: Duration = Duration::from_millis(2);
/// How long a thread may take to come out: it may be writing the console's log to a busy disk.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the threads are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Wait,
    Leave,
}

/// What a thread that passes the gate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Enters the guest. The flag says that it has waited meanwhile.
    Enter {
        /// Whether it has waited.
        waited: bool,
    },
    /// Ends.
    Leave,
}

struct State {
    order: Order,
    /// Threads that have not ended.
    alive: usize,
    /// Of these, those that wait.
    waiting: usize,
}

/// What all threads of a machine pass before they enter the guest.
pub(crate) struct Gate {
    /// Whether they may just go on, which is all that most of them ever have to look at.
    open: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// The threads did not come out of the guest.
#[derive(Debug, thiserror::Error)]
#[error("{vcpus} vCPUs did not stop within {} seconds", TIMEOUT.as_secs())]
pub struct Stuck {
    vcpus: usize,
}

impl Gate {
    /// A gate for `threads` threads, open.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            open: AtomicBool::new(true),
            state: Mutex::new(State {
                order: Order::Run,
                alive: threads,
                waiting: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Called by a thread before it enters the guest; waits there while the gate is closed.
    pub(crate) fn pass(&self) -> Pass {
        if self.open.load(Ordering::Acquire) {
            return Pass::Enter { waited: false };
        }
        let mut state = self.state();
        state.waiting += 1;
        self.changed.notify_all();
        while state.order == Order::Wait {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        match state.order {
            Order::Leave => Pass::Leave,
            Order::Run | Order::Wait => Pass::Enter { waited: true },
        }
    }

    /// Called by a thread when it ends.
    pub(crate) fn left(&self) {
        self.state().alive -= 1;
        self.changed.notify_all();
    }

    /// Closes the gate and returns once every thread waits. `kick` sends the signal to all of them. When some do not
    /// come, the gate is opened again.
    pub(crate) fn close(&self, kick: impl FnMut()) -> Result<(), Stuck> {
        self.order(Order::Wait);
        let result = self.until(kick, |state| state.waiting == state.alive);
        if result.is_err() {
            self.open();
        }
        result
    }

    /// Lets every thread go on.
    pub(crate) fn open(&self) {
        self.order(Order::Run);
    }

    /// Sends every thread home and returns once they have ended.
    pub(crate) fn send_home(&self, kick: impl FnMut()) -> Result<(), Stuck> {
        self.order(Order::Leave);
        self.until(kick, |state| state.alive == 0)
    }

    fn order(&self, order: Order) {
        let mut state = self.state();
        // Those that were sent home are not called back.
        if state.order != Order::Leave {
            state.order = order;
        }
        self.open.store(state.order == Order::Run, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    fn until(&self, mut kick: impl FnMut(), done: impl Fn(&State) -> bool) -> Result<(), Stuck> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.state();
        while !done(&state) {
            if Instant::now() > deadline {
                return Err(Stuck {
                    vcpus: state.alive - state.waiting,
                });
            }
            kick();
            let waited = self.changed.wait_timeout(state, REPEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signal that gets a thread out of the guest.
pub(crate) fn kick_signal() -> c_int {
    SIGRTMIN()
}

/// Has the signal interrupt what a thread does, and nothing else.
pub(crate) fn take_kicks() -> std::io::Result<()> {
    extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
    register_signal_handler(kick_signal(), nothing)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    /// Threads that pass a gate over and over, and how often they did.
    fn threads(gate: &Arc<Gate>, count: usize) -> (Vec<thread::JoinHandle<()>>, Arc<AtomicU64>) {
        let passed = Arc::new(AtomicU64::new(0));
        let threads = (0..count)
            .map(|_| {
                let (gate, passed) = (Arc::clone(gate), Arc::clone(&passed));
                thread::spawn(move || {
                    while gate.pass() != Pass::Leave {
                        passed.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                    }
                    gate.left();
                })
            })
            .collect();
        (threads, passed)
    }

    #[test]
    fn nobody_passes_a_closed_gate_and_everybody_an_open_one() {
        let gate = Arc::new(Gate::new(3));
        let (threads, passed) = threads(&gate, 3);
        for _ in 0..20 {
            gate.close(|| {}).unwrap();
            let count = passed.load(Ordering::SeqCst);
            thread::yield_now();
            assert_eq!(passed.load(Ordering::SeqCst), count);
            gate.open();
            while passed.load(Ordering::SeqCst) == count {
                thread::yield_now();
            }
        }
        gate.send_home(|| {}).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn threads_that_wait_can_be_sent_home_and_are_not_called_back() {
        let gate = Arc::new(Gate::new(2));
        let (threads, _) = threads(&gate, 2);
        gate.close(|| {}).unwrap();
        gate.send_home(|| {}).unwrap();
        gate.open();
        assert_eq!(gate.pass(), Pass::Leave);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_thread_that_ended_is_not_waited_for() {
        let gate = Gate::new(1);
        gate.left();
        gate.close(|| panic!("nobody to kick")).unwrap();
    }
}
