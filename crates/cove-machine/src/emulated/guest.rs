//! What the guest is doing, told from QEMU's events.
//!
//! ```text
//!            RESUME            STOP
//!  Starting ───────▶ Running ⇄───── Paused, or Held
//!                   ▲  │   RESUME
//!            RESUME │  │ SHUTDOWN
//!                   │  ├──── guest-shutdown, or after a panic ─────▶ Over
//!                   │  │
//!                   │  ▼ guest-reset
//!              Restarting (waits for RESET, then goes on)
//! ```
//!
//! QEMU stops the vCPUs on request, and by itself when the host has no space for what the guest writes: then it is
//! held.
//!
//! QEMU is told to stop the vCPUs when the guest resets, instead of going on by itself: the console then shows whether
//! the kernel had panicked, and a machine that panicked does not start again and touch its disk.

use super::qmp::Event;
use crate::{ExitCause, MachineEvent, process::restarts::Restarts};
use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    /// On request.
    Paused,
    /// Since the host has no space for what the guest writes.
    Held,
    Restarting,
    Over,
}

/// What has to be done because of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell everybody who listens.
    Tell(MachineEvent),
    /// Reset the machine; its RESET is awaited.
    Reset,
    /// Let the vCPUs run after a reset.
    Continue,
    /// End QEMU; the machine ended because of this.
    End(ExitCause),
}

/// The guest, as QEMU's events describe it. Owned by the supervisor.
#[derive(Debug)]
pub(super) struct Guest {
    phase: Phase,
    /// Somebody has asked for a pause since the vCPUs last went on.
    asked: bool,
    restarts: Restarts,
}

impl Guest {
    /// A guest whose vCPUs have not run yet.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Starting,
            asked: false,
            restarts: Restarts::default(),
        }
    }

    /// Whether its vCPUs may be stopped and started on request now.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused | Phase::Held)
    }

    /// Somebody asks for a pause, which QEMU never refuses. Returns what is to be told of a guest that stands already.
    pub(super) fn asked_to_pause(&mut self) -> Option<MachineEvent> {
        self.asked = true;
        if self.phase != Phase::Held {
            return None;
        }
        self.phase = Phase::Paused;
        Some(MachineEvent::Paused { held: false })
    }

    /// Takes an event that happened at `now`. `panic` is what the console showed of a kernel panic since the kernel
    /// started.
    pub(super) fn observe(&mut self, event: &Event, panic: Option<&str>, now: Instant) -> Option<Step> {
        if *event == Event::Resume {
            self.asked = false;
        }
        match (self.phase, event) {
            (Phase::Over, _) => None,
            (Phase::Starting, Event::Resume) => {
                self.phase = Phase::Running;
                None
            }
            (Phase::Running, Event::Stop) => {
                let held = !self.asked;
                self.phase = if held { Phase::Held } else { Phase::Paused };
                Some(Step::Tell(MachineEvent::Paused { held }))
            }
            (Phase::Paused | Phase::Held, Event::Resume) => {
                self.phase = Phase::Running;
                Some(Step::Tell(MachineEvent::Resumed))
            }
            (_, Event::Shutdown { reason }) => self.shut_down(reason, panic, now),
            (Phase::Restarting, Event::Reset) => Some(Step::Continue),
            (Phase::Restarting, Event::Resume) => {
                self.phase = Phase::Running;
                Some(Step::Tell(MachineEvent::Rebooted))
            }
            _ => None,
        }
    }

    fn shut_down(&mut self, reason: &str, panic: Option<&str>, now: Instant) -> Option<Step> {
        let cause = match (reason, panic) {
            ("guest-shutdown", None) => ExitCause::PoweredOff,
            ("guest-panic", None) => ExitCause::GuestPanicked {
                message: "the guest reported a kernel panic".into(),
            },
            ("guest-reset" | "guest-panic" | "guest-shutdown", Some(message)) => ExitCause::GuestPanicked {
                message: message.to_owned(),
            },
            ("guest-reset", None) => {
                let Some(given_up) = self.restarts.another(now) else {
                    self.phase = Phase::Restarting;
                    return Some(Step::Reset);
                };
                given_up
            }
            // QEMU ends by itself: because it was told to by us, or by a signal, which its exit status tells.
            _ => return None,
        };
        self.phase = Phase::Over;
        Some(Step::End(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::restarts::MAX_RESTARTS;

    const STOP: Event = Event::Stop;
    const RESUME: Event = Event::Resume;

    fn shutdown(reason: &str) -> Event {
        Event::Shutdown {
            reason: reason.to_owned(),
        }
    }

    /// The steps that a running guest's events lead to.
    fn steps(events: &[Event], panic: Option<&str>) -> Vec<Step> {
        let mut guest = Guest::new();
        let now = Instant::now();
        assert_eq!(guest.observe(&RESUME, None, now), None, "the start is no event");
        events
            .iter()
            .filter_map(|event| guest.observe(event, panic, now))
            .collect()
    }

    #[test]
    fn a_power_off_ends_the_machine_in_order() {
        assert_eq!(
            steps(&[shutdown("guest-shutdown"), STOP], None),
            [Step::End(ExitCause::PoweredOff)]
        );
    }

    #[test]
    fn a_reset_restarts_in_place_and_is_told_once_the_guest_runs() {
        assert_eq!(
            steps(&[shutdown("guest-reset"), STOP, Event::Reset, RESUME], None),
            [Step::Reset, Step::Continue, Step::Tell(MachineEvent::Rebooted)]
        );
    }

    #[test]
    fn a_reset_after_a_panic_is_a_panic() {
        let message = "Kernel panic - not syncing: x";
        assert_eq!(
            steps(&[shutdown("guest-reset"), STOP], Some(message)),
            [Step::End(ExitCause::GuestPanicked {
                message: message.into()
            })]
        );
    }

    #[test]
    fn a_panic_that_only_a_device_reports_is_one_too() {
        let [Step::End(ExitCause::GuestPanicked { .. })] = &steps(&[shutdown("guest-panic")], None)[..]
        else {
            panic!("not a panic");
        };
    }

    #[test]
    fn a_stop_that_nobody_asked_for_holds_the_guest_until_somebody_does() {
        let mut guest = Guest::new();
        let mut observe = |event: &Event, asked: bool| {
            let told = if asked { guest.asked_to_pause() } else { None };
            let step = guest.observe(event, None, Instant::now());
            (told, step)
        };
        let paused = |held| Some(Step::Tell(MachineEvent::Paused { held }));
        let resumed = Some(Step::Tell(MachineEvent::Resumed));
        observe(&RESUME, false);
        for _ in 0..2 {
            assert_eq!(observe(&STOP, true), (None, paused(false)));
            assert_eq!(observe(&RESUME, false), (None, resumed.clone()));
            assert_eq!(observe(&STOP, false), (None, paused(true)));
            // QEMU says nothing of a stop when the vCPUs stand.
            let told = Some(MachineEvent::Paused { held: false });
            assert_eq!(observe(&STOP, true), (told, None));
            assert_eq!(observe(&RESUME, false), (None, resumed.clone()));
        }
    }

    #[test]
    fn a_guest_that_only_ever_restarts_is_given_up() {
        let round = [shutdown("guest-reset"), STOP, Event::Reset, RESUME];
        let steps = steps(&[&round[..]; 9].concat(), None);
        let restarts = steps.iter().filter(|step| **step == Step::Reset).count();
        assert_eq!(restarts, MAX_RESTARTS - 1);
        assert!(matches!(
            steps.last(),
            Some(Step::End(ExitCause::GuestPanicked { .. }))
        ));
    }

    #[test]
    fn an_end_that_the_host_brought_about_is_left_to_the_exit_status() {
        assert_eq!(
            steps(&[shutdown("host-signal"), shutdown("host-qmp-quit")], None),
            []
        );
    }
}
