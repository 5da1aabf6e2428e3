//! Places for those who ask, shared out by source address, so that one container cannot take all of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many places; clones share them.
///
/// Whoever has as many as are free gets no further one. So a source gets half of all at most, two get a third each, and
/// a newcomer finds half of what the others left, however much these ask for.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Table>>);

struct Table {
    free: usize,
    /// Those of each source that has any.
    taken: HashMap<IpAddr, usize>,
}

/// One of them, until this is dropped.
pub(super) struct Place {
    places: Places,
    source: IpAddr,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            free: all,
            taken: HashMap::new(),
        })))
    }

    /// A place for `source`, unless it has its share.
    pub(super) fn take(&self, source: IpAddr) -> Option<Place> {
        let mut table = self.table();
        let own = table.taken.get(&source).copied().unwrap_or_default();
        if own >= table.free {
            return None;
        }
        table.free -= 1;
        table.taken.insert(source, own + 1);
        Some(Place {
            places: self.clone(),
            source,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        table.free += 1;
        if let Entry::Occupied(mut own) = table.taken.entry(self.source) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> IpAddr {
        [172, 17, 0, number].into()
    }

    /// As many as it gets.
    fn all_for(places: &Places, number: u8) -> Vec<Place> {
        std::iter::from_fn(|| places.take(source(number))).collect()
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_places_for_others() {
        let places = Places::new(64);
        let greedy = all_for(&places, 1);
        assert_eq!(greedy.len(), 32);
        assert_eq!(all_for(&places, 2).len(), 16, "half of what the first one left");
        assert_eq!(all_for(&places, 2).len(), 16, "they came back");
        drop(greedy);
        assert_eq!(all_for(&places, 3).len(), 32);
        let table = places.table();
        assert_eq!((table.free, table.taken.len()), (64, 0));
    }

    #[test]
    fn those_who_take_in_turns_get_the_same() {
        let places = Places::new(60);
        let mut taken = Vec::new();
        for _ in 0..60 {
            taken.extend((1..=3).filter_map(|number| places.take(source(number))));
        }
        for number in 1..=3 {
            let own = taken.iter().filter(|place| place.source == source(number));
            assert_eq!(own.count(), 15, "{number}");
        }
    }
}
