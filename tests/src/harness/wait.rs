//! Waiting for something, with words for what was waited for.

use std::{
    thread,
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `probe` gives something; panics with `what` after `limit`.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until `probe` is true, for a minute: an emulated machine takes its time.
#[track_caller]
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    within(Duration::from_mins(1), what, || probe().then_some(()));
}
