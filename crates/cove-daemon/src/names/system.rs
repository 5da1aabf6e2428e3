//! The system's own resolver, with everything that is plugged into it. It is asked by a call that blocks for as long as
//! it likes and cannot be called off, on a thread of a pool that others use as well: so many at once, and no more.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Questions that it has at once. One that is not waited for any more keeps its place until the call returns.
const MAX_QUESTIONS: usize = 16;
/// How long it may take before the name servers are asked, to which it leaves some of the whole time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The resolver of the system's C library.
#[derive(Debug)]
pub(super) struct System {
    places: Arc<Semaphore>,
    call: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl System {
    pub(super) fn of_this_computer() -> Self {
        Self::asked_by(call)
    }

    fn asked_by(call: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            call,
        }
    }

    /// The addresses that it knows of a name; nothing if it knows none, or not in time.
    pub(super) async fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.find_within(TIMEOUT, name).await
    }

    async fn find_within(&self, patience: Duration, name: &str) -> Option<Vec<IpAddr>> {
        let asking = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let (call, name) = (self.call, name.to_owned());
            let called = spawn_blocking(move || {
                let found = call(&name);
                drop(place);
                found
            });
            called.await.ok()?.ok()
        };
        let found = timeout(patience, asking).await.ok().flatten()?;
        (!found.is_empty()).then_some(found)
    }
}

fn call(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::Ipv4Addr,
        sync::atomic::{AtomicBool, Ordering},
        thread::sleep,
    };

    /// A moment, and longer than anything here takes.
    const MOMENT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn calls_that_nobody_waits_for_any_more_still_count() {
        static DEAD: AtomicBool = AtomicBool::new(true);
        let system = System::asked_by(|_| {
            while DEAD.load(Ordering::Relaxed) {
                sleep(MOMENT);
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
        for _ in 0..2 * MAX_QUESTIONS {
            assert_eq!(system.find_within(MOMENT, "x").await, None);
        }
        assert_eq!(system.places.available_permits(), 0);
        DEAD.store(false, Ordering::Relaxed);
        assert!(system.find_within(LONG, "x").await.is_some());
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_an_unknown_one() {
        let system = System::asked_by(|_| Ok(Vec::new()));
        assert_eq!(system.find_within(LONG, "x").await, None);
    }
}
