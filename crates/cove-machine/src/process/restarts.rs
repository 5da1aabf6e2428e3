//! How often a guest restarted: one that does nothing else is given up.

use crate::ExitCause;
use std::time::{Duration, Instant};

/// This many restarts within [`WINDOW`] are a guest that cannot start: a kernel that fails before its console works is
/// seen as a reset and nothing else.
pub(crate) const MAX_RESTARTS: usize = 5;
/// See [`MAX_RESTARTS`].
pub(crate) const WINDOW: Duration = Duration::from_mins(1);

/// When a guest restarted, as far as this matters still.
#[derive(Debug, Default)]
pub(crate) struct Restarts(Vec<Instant>);

impl Restarts {
    /// Takes note of one. Returns how the machine ends when they are too many.
    pub(crate) fn another(&mut self, now: Instant) -> Option<ExitCause> {
        self.0.retain(|then| now.duration_since(*then) < WINDOW);
        self.0.push(now);
        (self.0.len() >= MAX_RESTARTS).then(|| ExitCause::GuestPanicked {
            message: format!(
                "the guest restarted {MAX_RESTARTS} times within {} seconds without saying why",
                WINDOW.as_secs()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_far_apart_are_no_loop_and_many_at_once_are() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            now += WINDOW / 2;
            assert_eq!(restarts.another(now), None);
        }
        let given_up = (0..MAX_RESTARTS).find_map(|_| restarts.another(now));
        assert!(matches!(given_up, Some(ExitCause::GuestPanicked { .. })));
    }
}
