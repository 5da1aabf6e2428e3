//! Requests that wait for file locks, and the way of their answers.
//!
//! Such a request may wait for longer than a session lasts, which a pause of the machine ends. It cannot be sent back to
//! be asked once more: the guest's kernel takes `EINTR` for a signal that it knows of, and a program that got none would
//! be shown the kernel's own number for a restart (512, `ERESTARTSYS`). So its chain stays with the device, and is
//! returned in whichever session there is by the time of the answer. Only a reset ends that: nobody is left to answer.
//!
//! ```text
//!  waits ── answer, in a session ──────────────────────────▶ returned
//!    │                                                          ▲
//!    ├───── answer, between sessions ──▶ kept ── next session ──┘
//!    │                                     │
//!    └──────────────── reset ──────────────┴───────────────▶ dropped
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::GuestAddress;

use super::session::Shared;

/// The answer to a request that waited, and its chain.
pub(super) struct LateAnswer {
    /// The queue's place among those of a session, which is the same in all of them.
    pub(super) queue: usize,
    pub(super) head: u16,
    /// Where the answer goes.
    pub(super) buffers: Vec<(GuestAddress, u32)>,
    pub(super) bytes: [u8; 16],
}

/// The way of answers to one driver. Locked before a session's queues.
#[derive(Default)]
pub(super) struct Late(Mutex<State>);

#[derive(Default)]
struct State {
    /// The session that there is.
    session: Option<Arc<Shared>>,
    /// Answers that came while there was none.
    kept: Vec<LateAnswer>,
}

impl Late {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the chain of a request that waited, now or in the next session.
    pub(super) fn answer(&self, answer: LateAnswer) {
        let mut state = self.state();
        let State { session, kept } = &mut *state;
        match session {
            Some(session) => session.answer_late(&answer),
            None => kept.push(answer),
        }
    }

    /// Answers go through this session from now on, those first that came while there was none.
    pub(super) fn begin(&self, session: &Arc<Shared>) {
        let mut state = self.state();
        for answer in std::mem::take(&mut state.kept) {
            session.answer_late(&answer);
        }
        state.session = Some(Arc::clone(session));
    }

    /// Answers are kept from now on. None is on its way through the session once this returns.
    pub(super) fn end(&self) {
        self.state().session = None;
    }
}
