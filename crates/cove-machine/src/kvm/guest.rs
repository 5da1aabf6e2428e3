//! What the guest is doing, told from the ends that its vCPUs meet and from what is asked of it.
//!
//! ```text
//!       pause, or the host has no space
//!  Running ⇄──────── Paused, or Held
//!   │  ▲     resume
//!   │  │ restarted
//!   ▼  │                  power-off, panic, failure, too many restarts
//!  Restarting           any ──────────────────────────────────────────▶ Over
//! ```

use crate::{ExitCause, MachineEvent, process::restarts::Restarts};
use std::time::Instant;

/// What its vCPUs met, or why they cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The guest powered off.
    PoweredOff,
    /// It restarted, or faulted beyond recovery.
    Reset,
    /// KVM or the host failed.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// On request.
    Paused,
    /// Since the host has no space for what the guest writes.
    Held,
    Restarting,
    Over,
}

/// What has to be done because of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the machine anew.
    Restart,
    /// The machine ended because of this.
    End(ExitCause),
}

/// The guest. Owned by the supervisor.
#[derive(Debug)]
pub(super) struct Guest {
    phase: Phase,
    restarts: Restarts,
}

impl Guest {
    /// A guest that runs.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Running,
            restarts: Restarts::default(),
        }
    }

    /// Whether its vCPUs may be stopped and started on request now.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused | Phase::Held)
    }

    /// Its vCPUs have been stopped on request. Returns what is to be told, if it is news.
    pub(super) fn paused(&mut self) -> Option<MachineEvent> {
        let turned = self.turn(Phase::Running, Phase::Paused) || self.turn(Phase::Held, Phase::Paused);
        turned.then_some(MachineEvent::Paused { held: false })
    }

    /// Its vCPUs have been stopped since the host has no space. Those that somebody wants to stand do so already.
    pub(super) fn held(&mut self) -> Option<MachineEvent> {
        self.turn(Phase::Running, Phase::Held)
            .then_some(MachineEvent::Paused { held: true })
    }

    /// Its vCPUs go on.
    pub(super) fn resumed(&mut self) -> Option<MachineEvent> {
        let turned = self.turn(Phase::Paused, Phase::Running) || self.turn(Phase::Held, Phase::Running);
        turned.then_some(MachineEvent::Resumed)
    }

    /// It was made anew, and runs.
    pub(super) fn restarted(&mut self) -> Option<MachineEvent> {
        self.turn(Phase::Restarting, Phase::Running)
            .then_some(MachineEvent::Rebooted)
    }

    /// Takes an end that its vCPUs met at `now`. `panic` is what the console showed of a kernel panic since the kernel
    /// started.
    pub(super) fn ended(&mut self, end: End, panic: Option<&str>, now: Instant) -> Option<Step> {
        if !self.is_settled() {
            return None;
        }
        let cause = match (end, panic) {
            (End::Failed(why), _) => ExitCause::HypervisorDied {
                status: "ended because it could not run the guest".into(),
                stderr: why,
                crashed: false,
            },
            (End::PoweredOff | End::Reset, Some(message)) => ExitCause::GuestPanicked {
                message: message.to_owned(),
            },
            (End::PoweredOff, None) => ExitCause::PoweredOff,
            (End::Reset, None) => {
                let Some(given_up) = self.restarts.another(now) else {
                    self.phase = Phase::Restarting;
                    return Some(Step::Restart);
                };
                given_up
            }
        };
        self.phase = Phase::Over;
        Some(Step::End(cause))
    }

    fn turn(&mut self, from: Phase, to: Phase) -> bool {
        let turns = self.phase == from;
        if turns {
            self.phase = to;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(end: End, panic: Option<&str>) -> Option<Step> {
        Guest::new().ended(end, panic, Instant::now())
    }

    #[test]
    fn a_power_off_ends_the_machine_in_order_and_a_reset_starts_it_anew() {
        assert_eq!(end(End::PoweredOff, None), Some(Step::End(ExitCause::PoweredOff)));
        assert_eq!(end(End::Reset, None), Some(Step::Restart));
    }

    #[test]
    fn a_panic_is_told_however_the_kernel_ended_itself() {
        let message = "Kernel panic - not syncing: x";
        for ended in [End::Reset, End::PoweredOff] {
            let panicked = ExitCause::GuestPanicked {
                message: message.into(),
            };
            assert_eq!(end(ended, Some(message)), Some(Step::End(panicked)));
        }
    }

    #[test]
    fn a_failure_of_kvm_says_why() {
        let Some(Step::End(ExitCause::HypervisorDied { stderr, .. })) =
            end(End::Failed("internal error 1".into()), None)
        else {
            panic!("not a failure");
        };
        assert_eq!(stderr, "internal error 1");
    }

    #[test]
    fn every_change_is_told_once() {
        let mut guest = Guest::new();
        assert_eq!(guest.resumed(), None);
        assert_eq!(
            (guest.paused(), guest.paused()),
            (Some(MachineEvent::Paused { held: false }), None)
        );
        assert_eq!(guest.resumed(), Some(MachineEvent::Resumed));
        assert_eq!(guest.restarted(), None);
    }

    #[test]
    fn a_guest_that_is_held_is_so_until_somebody_wants_it_to_stand_or_to_go_on() {
        let stands = |held| Some(MachineEvent::Paused { held });
        let mut guest = Guest::new();
        assert_eq!((guest.held(), guest.held()), (stands(true), None));
        assert!(guest.is_settled());
        assert_eq!(guest.paused(), stands(false));
        assert_eq!(guest.held(), None, "somebody wants it to stand");
        assert_eq!(guest.resumed(), Some(MachineEvent::Resumed));
        assert_eq!(guest.held(), stands(true));
        assert_eq!(guest.resumed(), Some(MachineEvent::Resumed));
    }

    #[test]
    fn a_guest_that_restarts_is_not_to_be_paused_and_its_old_vcpus_are_not_heard() {
        let mut guest = Guest::new();
        let now = Instant::now();
        assert_eq!(guest.ended(End::Reset, None, now), Some(Step::Restart));
        assert!(!guest.is_settled());
        assert_eq!(guest.ended(End::PoweredOff, None, now), None);
        assert_eq!(guest.restarted(), Some(MachineEvent::Rebooted));
        assert!(guest.is_settled());
    }

    #[test]
    fn a_guest_that_only_ever_restarts_is_given_up() {
        let mut guest = Guest::new();
        let now = Instant::now();
        let mut rounds = 0;
        let cause = loop {
            match guest.ended(End::Reset, None, now) {
                Some(Step::Restart) => rounds += 1,
                Some(Step::End(cause)) => break cause,
                None => panic!("not heard"),
            }
            guest.restarted();
        };
        assert!(matches!(cause, ExitCause::GuestPanicked { .. }) && rounds > 1);
    }
}
