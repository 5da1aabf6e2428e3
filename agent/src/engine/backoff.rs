//! How long to wait before a program that ended is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// A program that ran so long is taken to have been well: its next failure is a first one.
const WELL: Duration = Duration::from_mins(1);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// Notes that the program ended after having run for `ran`. Gives how many times it has failed in a row, and how
    /// long to wait.
    pub(crate) fn failed(&mut self, ran: Duration) -> (u32, Duration) {
        if ran >= WELL {
            self.attempt = 0;
        }
        self.attempt = self.attempt.saturating_add(1);
        let factor = 2_u32.saturating_pow(self.attempt - 1);
        (self.attempt, FIRST.saturating_mul(factor).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_100_ms_to_30_s() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12)
            .map(|_| backoff.failed(Duration::ZERO).1.as_millis())
            .collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[9..], [30_000; 3]);
    }

    #[test]
    fn a_good_minute_forgives_what_was_before() {
        let mut backoff = Backoff::default();
        backoff.failed(Duration::ZERO);
        assert_eq!(backoff.failed(Duration::from_secs(59)).0, 2);
        assert_eq!(backoff.failed(WELL), (1, FIRST));
    }

    #[test]
    fn failing_for_ever_does_not_overflow() {
        let mut backoff = Backoff {
            attempt: u32::MAX - 1,
        };
        backoff.failed(Duration::ZERO);
        assert_eq!(backoff.failed(Duration::ZERO), (u32::MAX, LONGEST));
    }
}
