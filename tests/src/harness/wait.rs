//! Waiting for something, with words for what was waited for; ports to wait at.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `probe` gives something; panics with `what` after `limit`.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    within_telling(limit, || probe().ok_or_else(|| what.to_owned()))
}

/// Looks until `probe` finds something, and tells what it missed when that took longer than `limit`.
#[track_caller]
pub fn within_telling<T>(limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(missed) => assert!(
                began.elapsed() < limit,
                "waited {} s for {missed}",
                limit.as_secs()
            ),
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Looks until `probe` is true, for a minute: an emulated machine takes its time.
#[track_caller]
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    within(Duration::from_mins(1), what, || probe().then_some(()));
}

/// A port of this computer that nobody listened on a moment ago, and that the system gives to nobody of itself.
#[track_caller]
pub fn free_port() -> u16 {
    /// Below those that Linux gives to connections and listeners that name none.
    const PORTS: Range<u32> = 10_000..32_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Suites that run beside each other begin far from each other.
    let first = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in 0..count {
        let turn = ASKED.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(turn) % count;
        if let Ok(port) = u16::try_from(port)
            && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        {
            return port;
        }
    }
    panic!("no port is free");
}
