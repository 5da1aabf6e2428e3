//! Which ports are published: written by the leases, read by whoever shows them.

use cove_wire::Publish;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The list; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Publish>>>);

/// A line in a ledger, which goes with this.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    publish: Publish,
}

impl Ledger {
    /// The published ports, by address.
    pub(crate) fn list(&self) -> Vec<Publish> {
        let mut list = self.held().clone();
        list.sort_by_key(|publish| {
            (
                publish.host.port(),
                publish.host.ip(),
                publish.protocol.to_string(),
            )
        });
        list
    }

    pub(super) fn enter(&self, publish: Publish) -> Entry {
        self.held().push(publish);
        Entry {
            ledger: self.clone(),
            publish,
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Publish>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut list = self.ledger.held();
        if let Some(at) = list.iter().position(|publish| *publish == self.publish) {
            list.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::Protocol;

    #[test]
    fn a_port_is_listed_for_as_long_as_it_is_held() {
        let ledger = Ledger::default();
        let publish = |port: u16| Publish {
            protocol: Protocol::Tcp,
            host: ([127, 0, 0, 1], port).into(),
            container: ([172, 17, 0, 2], 80).into(),
        };
        let high = ledger.enter(publish(9000));
        let low = ledger.enter(publish(8000));
        assert_eq!(ledger.list(), [publish(8000), publish(9000)]);
        drop(low);
        assert_eq!(ledger.list(), [publish(9000)]);
        drop(high);
        assert!(ledger.list().is_empty());
    }
}
