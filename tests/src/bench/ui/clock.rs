//! How far the guest's clock is from the host's, from events of which both know when they were.
//!
//! The guest's clock dates each of the engine's events. It happened after the request that made it was sent and before
//! it was heard of, both by the host's clock. So each event bounds the distance of the clocks from both sides, and
//! several bound it closely:
//!
//! ```text
//!  host    sent ────────────────────────── heard
//!  guest           dated                              dated - heard  ≤  distance  ≤  dated - sent
//! ```

/// What is known of the distance: guest less host, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distance {
    least: i64,
    most: i64,
}

impl Distance {
    /// It may be any.
    pub(super) const UNKNOWN: Self = Self {
        least: i64::MIN,
        most: i64::MAX,
    };

    /// An event that was dated between two readings of the host's clock.
    pub(super) fn learn(&mut self, sent: i64, dated: i64, heard: i64) {
        self.least = self.least.max(dated.saturating_sub(heard));
        self.most = self.most.min(dated.saturating_sub(sent));
    }

    /// The middle of what it may be, and how far it may be from there; nothing where no distance fits, since one of the
    /// clocks was set meanwhile, or where nothing was learnt.
    pub(super) fn known(self) -> Option<(i64, i64)> {
        let doubt = self.most.checked_sub(self.least)? / 2;
        (self.least <= self.most).then(|| (self.least + doubt, doubt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_bound_the_distance_from_both_sides() {
        let mut distance = Distance::UNKNOWN;
        assert_eq!(distance.known(), None);
        // The guest is 1000 ahead; the event was 10 after it was sent for, and 2 before it was heard of.
        distance.learn(100, 1110, 112);
        assert_eq!(distance.known(), Some((1004, 6)));
        // A quicker one.
        distance.learn(200, 1204, 206);
        assert_eq!(distance.known(), Some((1001, 3)));
    }

    #[test]
    fn a_clock_that_was_set_meanwhile_is_noticed() {
        let mut distance = Distance::UNKNOWN;
        distance.learn(100, 1110, 112);
        distance.learn(200, 2210, 212);
        assert_eq!(distance.known(), None);
    }
}
