//! Places for those who ask, shared out by network and source address, so that one container cannot take all of them.

use super::arrival::Network;
use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So many places; clones share them.
///
/// Whatever network has as many as are free gets no further one. So one gets half of all at most, two get a third each,
/// and a newcomer finds half of what the others left, however much these ask for. The same holds within each network
/// for the source addresses in it: one gets half of its network's share. A container that forges sources has its
/// network's share for as many as it likes, and takes it from its neighbours there alone: of these it could keep every
/// packet away as well.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Table>>);

struct Table {
    free: usize,
    /// Those of each network that has any.
    networks: HashMap<Network, Taken>,
}

/// What a network has.
#[derive(Default)]
struct Taken {
    all: usize,
    /// Those of each source that has any.
    sources: HashMap<IpAddr, usize>,
}

/// One of them, until this is dropped.
pub(super) struct Place {
    places: Places,
    network: Network,
    source: IpAddr,
}

impl Places {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            free: all,
            networks: HashMap::new(),
        })))
    }

    /// A place for `source` in `network`, unless either has its share.
    pub(super) fn take(&self, network: Network, source: IpAddr) -> Option<Place> {
        let mut table = self.table();
        let taken = table.networks.get(&network);
        let all = taken.map_or(0, |taken| taken.all);
        let own = taken.and_then(|taken| taken.sources.get(&source).copied());
        // With so many more the network has as many as are free then.
        let left = table.free.saturating_sub(all).div_ceil(2);
        if own.unwrap_or_default() >= left {
            return None;
        }
        table.free -= 1;
        let taken = table.networks.entry(network).or_default();
        taken.all += 1;
        *taken.sources.entry(source).or_default() += 1;
        Some(Place {
            places: self.clone(),
            network,
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
        let Entry::Occupied(mut network) = table.networks.entry(self.network) else {
            return;
        };
        let taken = network.get_mut();
        taken.all -= 1;
        if let Entry::Occupied(mut own) = taken.sources.entry(self.source) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
        if taken.all == 0 {
            network.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: Network = Network::Device(3);
    const OTHER_BRIDGE: Network = Network::Device(4);

    fn source(number: u8) -> IpAddr {
        [172, 17, 0, number].into()
    }

    /// As many as it gets.
    fn all_for(places: &Places, network: Network, number: u8) -> Vec<Place> {
        std::iter::from_fn(|| places.take(network, source(number))).collect()
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_places_for_others() {
        let places = Places::new(64);
        let greedy = all_for(&places, BRIDGE, 1);
        assert_eq!(greedy.len(), 16, "half of the network's half");
        assert_eq!(
            all_for(&places, BRIDGE, 2).len(),
            8,
            "half of what the first one left"
        );
        assert_eq!(all_for(&places, BRIDGE, 2).len(), 8, "they came back");
        assert_eq!(all_for(&places, OTHER_BRIDGE, 2).len(), 12, "of 48 a quarter");
        drop(greedy);
        assert_eq!(all_for(&places, BRIDGE, 3).len(), 16);
        let table = places.table();
        assert_eq!((table.free, table.networks.len()), (64, 0));
    }

    #[test]
    fn one_that_forges_its_source_has_no_more_than_its_network() {
        let places = Places::new(64);
        let forged: Vec<Place> = (0..=255)
            .flat_map(|number| all_for(&places, BRIDGE, number))
            .collect();
        assert_eq!(forged.len(), 32);
        assert!(places.take(BRIDGE, [10, 0, 0, 1].into()).is_none());
        // Among the sources that it claimed to be were these, too.
        let other: Vec<Place> = (1..=255)
            .flat_map(|number| all_for(&places, OTHER_BRIDGE, number))
            .collect();
        assert_eq!(other.len(), 16, "half of what the first one left");
        let own = Network::Own([127, 0, 0, 1].into());
        assert_eq!(all_for(&places, own, 1).len(), 4);
    }

    #[test]
    fn those_who_take_in_turns_get_the_same() {
        let places = Places::new(64);
        let mut taken = Vec::new();
        for _ in 0..64 {
            taken.extend((1..=3).filter_map(|number| places.take(BRIDGE, source(number))));
        }
        for number in 1..=3 {
            let own = taken.iter().filter(|place| place.source == source(number));
            assert_eq!(own.count(), 8, "{number}");
        }
    }
}
