//! Waiting for something, with words for what was waited for; ports to wait at.

use std::{
    net::{Ipv4Addr, TcpListener},
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

/// A port of this computer that nobody listened on a moment ago.
#[track_caller]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
    match listener {
        Ok(address) => address.port(),
        Err(error) => panic!("no port is free: {error}"),
    }
}
