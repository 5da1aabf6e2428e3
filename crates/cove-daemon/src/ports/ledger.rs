//! Which ports are published, and which should be: written by the leases, read by whoever shows them.

use cove_wire::Publish;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The list; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Line>>>);

/// A line in a ledger, which goes with this.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    line: Line,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    publish: Publish,
    /// Why it is only waited for.
    refused: Option<String>,
}

impl Ledger {
    /// The published ports, by address.
    pub(crate) fn list(&self) -> Vec<Publish> {
        let lines = self.sorted().into_iter();
        lines
            .filter(|line| line.refused.is_none())
            .map(|line| line.publish)
            .collect()
    }

    /// The ports that are waited for, by address, and why they cannot be had.
    pub(crate) fn refused(&self) -> Vec<(Publish, String)> {
        let lines = self.sorted().into_iter();
        lines
            .filter_map(|line| Some((line.publish, line.refused?)))
            .collect()
    }

    /// Notes a port that is held.
    pub(super) fn enter(&self, publish: Publish) -> Entry {
        self.note(Line {
            publish,
            refused: None,
        })
    }

    /// Notes a port that is waited for.
    pub(super) fn miss(&self, publish: Publish, why: String) -> Entry {
        self.note(Line {
            publish,
            refused: Some(why),
        })
    }

    fn note(&self, line: Line) -> Entry {
        self.held().push(line.clone());
        Entry {
            ledger: self.clone(),
            line,
        }
    }

    fn sorted(&self) -> Vec<Line> {
        let mut lines = self.held().clone();
        lines.sort_by_key(|Line { publish, .. }| {
            (
                publish.host.port(),
                publish.host.ip(),
                publish.protocol.to_string(),
            )
        });
        lines
    }

    fn held(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut lines = self.ledger.held();
        if let Some(at) = lines.iter().position(|line| *line == self.line) {
            lines.swap_remove(at);
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
            patient: true,
        };
        let high = ledger.enter(publish(9000));
        let low = ledger.enter(publish(8000));
        assert_eq!(ledger.list(), [publish(8000), publish(9000)]);
        drop(low);
        assert_eq!(ledger.list(), [publish(9000)]);
        let missed = ledger.miss(publish(7000), "it is taken".into());
        assert_eq!(ledger.refused(), [(publish(7000), "it is taken".into())]);
        assert_eq!(ledger.list(), [publish(9000)]);
        drop((high, missed));
        assert!(ledger.list().is_empty() && ledger.refused().is_empty());
    }
}
