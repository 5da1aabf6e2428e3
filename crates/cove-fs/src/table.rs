//! The nodes by number, by identity and by place.
//!
//! Each index is cut into shards with a lock each. Order of locks: identity shard, then number shard; a node's state,
//! then place shard. A place entry may outlive the truth (the host renames as it likes), so whoever follows one
//! checks what it finds there.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::node::{Identified, Identity, Node, Place, hash_place};
use crate::share::Share;

const SHARDS: usize = 64;

type Nodes = HashTable<Arc<Node>>;
type Places = HashTable<(Arc<Place>, Arc<Node>)>;

/// All nodes.
#[derive(Debug)]
pub(crate) struct Table {
    ids: Vec<RwLock<Nodes>>,
    identities: Vec<Mutex<Nodes>>,
    places: Vec<Mutex<Places>>,
    next: AtomicU64,
    count: AtomicUsize,
    /// How many there may be; a few more where several come at once.
    most: usize,
    /// That there are too many has been said.
    warned: AtomicBool,
    hasher: DefaultHashBuilder,
}

/// What [`Table::intern`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The node was known at this place.
    Known,
    /// The node is new, or was known at another place.
    New,
}

impl Table {
    pub(crate) fn new(first: u64, most: usize) -> Self {
        Self {
            ids: (0..SHARDS).map(|_| RwLock::default()).collect(),
            identities: (0..SHARDS).map(|_| Mutex::default()).collect(),
            places: (0..SHARDS).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(first),
            count: AtomicUsize::new(0),
            most,
            warned: AtomicBool::new(false),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The node with this number.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Node>> {
        let hash = self.hash_id(id);
        self.ids[shard(hash)]
            .read()
            .find(hash, |node| node.id == id)
            .cloned()
    }

    /// The node last seen under this name.
    pub(crate) fn at(&self, parent: u64, name: &CStr) -> Option<Arc<Node>> {
        let hash = self.hash_place(parent, name);
        let places = self.places[shard(hash)].lock();
        places
            .find(hash, |(place, _)| is_at(place, parent, name))
            .map(|(_, node)| Arc::clone(node))
    }

    /// The node of the file that `stat` describes, found under `name`, with one reference more. `NFILE` when it is not
    /// known and there are too many that are.
    pub(crate) fn intern(
        &self,
        share: &Arc<Share>,
        stat: &Statx,
        parent: u64,
        name: Option<&CStr>,
    ) -> Result<(Arc<Node>, Arrival), Errno> {
        let identified = Identified::new(share, stat);
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let hash = self.hash_identity(&identified.identity);
        let mut created = false;
        let node = {
            let mut identities = self.identities[shard(hash)].lock();
            let found = identities
                .find(hash, |node| node.identified.identity == identified.identity)
                .cloned();
            match found {
                Some(node) if node.is(stat) && !node.dead.load(Ordering::Acquire) => {
                    node.lookups.fetch_add(1, Ordering::Relaxed);
                    node
                }
                other => {
                    self.admit()?;
                    // The same number with another birth, or where none is kept with another type: the old file is
                    // gone, its node lives on as a stale one. So does that of a directory that is dead to the guest.
                    if let Some(old) = other
                        && let Ok(entry) = identities.find_entry(hash, |node| Arc::ptr_eq(node, &old))
                    {
                        entry.remove();
                    }
                    created = true;
                    let id = self.next.fetch_add(1, Ordering::Relaxed);
                    let node = Arc::new(Node::new(id, Arc::clone(share), identified, kind));
                    node.lookups.store(1, Ordering::Relaxed);
                    identities.insert_unique(hash, Arc::clone(&node), |node| {
                        self.hash_identity(&node.identified.identity)
                    });
                    self.insert_id(&node);
                    node
                }
            }
        };
        node.links.store(stat.stx_nlink, Ordering::Relaxed);
        let moved = name.is_some_and(|name| self.relocate(&node, parent, name));
        let arrival = if created || moved {
            Arrival::New
        } else {
            Arrival::Known
        };
        Ok((node, arrival))
    }

    /// Whether there are as many as there may be.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    fn admit(&self) -> Result<(), Errno> {
        if !self.is_full() {
            return Ok(());
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                most = self.most,
                "the guest knows as many files of the host as it may; until it forgets some, it is shown no others"
            );
        }
        Err(Errno::NFILE)
    }

    /// Adds the root of a share, which stays until [`Table::remove_share`].
    pub(crate) fn insert_root(&self, share: &Arc<Share>, stat: &Statx) -> Arc<Node> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let identified = Identified::new(share, stat);
        let mut node = Node::new(id, Arc::clone(share), identified, FileType::Directory);
        node.is_share_root = true;
        let node = Arc::new(node);
        let hash = self.hash_identity(&identified.identity);
        self.identities[shard(hash)]
            .lock()
            .insert_unique(hash, Arc::clone(&node), |node| {
                self.hash_identity(&node.identified.identity)
            });
        self.insert_id(&node);
        node
    }

    /// Adds a node that stands in for a file that is no more, with one reference. Nothing can be done with it but
    /// forget it.
    pub(crate) fn insert_phantom(&self, share: &Arc<Share>, kind: FileType) -> Result<Arc<Node>, Errno> {
        self.admit()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let identity = Identity {
            share: share.index,
            mount: 0,
            device: u64::MAX,
            ino: id,
        };
        let node = Node::new(
            id,
            Arc::clone(share),
            Identified {
                identity,
                born: (0, 0),
            },
            kind,
        );
        node.lookups.store(1, Ordering::Relaxed);
        let node = Arc::new(node);
        let hash = self.hash_identity(&identity);
        self.identities[shard(hash)]
            .lock()
            .insert_unique(hash, Arc::clone(&node), |node| {
                self.hash_identity(&node.identified.identity)
            });
        self.insert_id(&node);
        Ok(node)
    }

    /// Gives the guest one more reference to a node; false when it is known no more.
    pub(crate) fn refer(&self, node: &Arc<Node>) -> bool {
        let hash = self.hash_identity(&node.identified.identity);
        let _held = self.identities[shard(hash)].lock();
        if self.get(node.id).is_none() {
            return false;
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn insert_id(&self, node: &Arc<Node>) {
        let hash = self.hash_id(node.id);
        self.ids[shard(hash)]
            .write()
            .insert_unique(hash, Arc::clone(node), |node| self.hash_id(node.id));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes references away; returns the node, and where it was, when none is left and it is known no more.
    pub(crate) fn forget(&self, id: u64, count: u64) -> Option<(Arc<Node>, Option<Arc<Place>>)> {
        let node = self.get(id)?;
        {
            let hash = self.hash_identity(&node.identified.identity);
            let mut identities = self.identities[shard(hash)].lock();
            let before = node.lookups.load(Ordering::Relaxed);
            node.lookups
                .store(before.saturating_sub(count), Ordering::Relaxed);
            if before > count || node.is_share_root {
                return None;
            }
            if let Ok(entry) = identities.find_entry(hash, |other| Arc::ptr_eq(other, &node)) {
                entry.remove();
            }
            self.remove_id(id);
        }
        let place = self.detach(&node);
        Some((node, place))
    }

    fn remove_id(&self, id: u64) {
        let hash = self.hash_id(id);
        if let Ok(entry) = self.ids[shard(hash)]
            .write()
            .find_entry(hash, |node| node.id == id)
        {
            entry.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes that `node` is now found as `name` in `parent`; false if that was known.
    pub(crate) fn relocate(&self, node: &Arc<Node>, parent: u64, name: &CStr) -> bool {
        if node.is_share_root {
            return false;
        }
        let mut state = node.state.lock();
        if state
            .place
            .as_ref()
            .is_some_and(|place| is_at(place, parent, name))
        {
            return false;
        }
        (state.former, state.followed) = (None, None);
        let place = Arc::new(Place {
            parent,
            name: CString::from(name),
        });
        if let Some(old) = state.place.replace(Arc::clone(&place)) {
            self.remove_place(&old, node);
        }
        let hash = self.hash_place(parent, name);
        let mut places = self.places[shard(hash)].lock();
        let there = places.find_mut(hash, |(place, _)| is_at(place, parent, name));
        let displaced = if let Some(entry) = there {
            Some(std::mem::replace(entry, (place, Arc::clone(node))).1)
        } else {
            places.insert_unique(hash, (place, Arc::clone(node)), |(place, _)| {
                self.hash_place(place.parent, &place.name)
            });
            None
        };
        drop(places);
        drop(state);
        if let Some(displaced) = displaced.filter(|other| !Arc::ptr_eq(other, node)) {
            self.lose_name_at(&displaced, |place| {
                // Unless it has come back meanwhile.
                let now = self.at(parent, name);
                is_at(place, parent, name) && now.is_none_or(|now| !Arc::ptr_eq(&now, &displaced))
            });
        }
        true
    }

    /// Notes that `node` has lost the name that the server knows of. Whatever file takes the last one of a regular file
    /// becomes its successor.
    pub(crate) fn lose_name(&self, node: &Arc<Node>) {
        self.lose_name_at(node, |_| true);
    }

    fn lose_name_at(&self, node: &Arc<Node>, is_it: impl FnOnce(&Place) -> bool) {
        let mut state = node.state.lock();
        let Some(place) = state.place.take_if(|place| is_it(place)) else {
            return;
        };
        self.remove_place(&place, node);
        let links = node
            .links
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |links| links.checked_sub(1));
        if links == Ok(1) && node.kind == FileType::RegularFile {
            state.former = Some(place);
        }
    }

    /// Notes that `node` has no name any more that the server knows of. Returns where it was.
    pub(crate) fn detach(&self, node: &Arc<Node>) -> Option<Arc<Place>> {
        let mut state = node.state.lock();
        let place = state.place.take()?;
        self.remove_place(&place, node);
        Some(place)
    }

    fn remove_place(&self, place: &Place, node: &Arc<Node>) {
        let hash = self.hash_place(place.parent, &place.name);
        let mut places = self.places[shard(hash)].lock();
        if let Ok(entry) = places.find_entry(hash, |(other, at)| {
            is_at(other, place.parent, &place.name) && Arc::ptr_eq(at, node)
        }) {
            entry.remove();
        }
    }

    /// Takes all nodes of a share away, and returns them.
    pub(crate) fn remove_share(&self, index: u32) -> Vec<Arc<Node>> {
        let mut removed = Vec::new();
        for identities in &self.identities {
            identities.lock().retain(|node| node.share.index != index);
        }
        for ids in &self.ids {
            removed.extend(ids.write().extract_if(|node| node.share.index == index));
        }
        self.count.fetch_sub(removed.len(), Ordering::Relaxed);
        for node in &removed {
            self.detach(node);
        }
        removed
    }

    /// All nodes at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.ids
            .iter()
            .flat_map(|ids| ids.read().iter().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn hash_id(&self, id: u64) -> u64 {
        self.hasher.hash_one(id)
    }

    fn hash_identity(&self, identity: &Identity) -> u64 {
        self.hasher.hash_one(identity)
    }

    fn hash_place(&self, parent: u64, name: &CStr) -> u64 {
        let mut state = self.hasher.build_hasher();
        hash_place(&mut state, parent, name);
        state.finish()
    }
}

/// The shard of a hash: bits that the tables themselves do not use first.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn is_at(place: &Place, parent: u64, name: &CStr) -> bool {
    place.parent == parent && *place.name == *name
}

#[cfg(test)]
mod tests {
    use rustix::fs::{AtFlags, CWD, StatxFlags};

    use super::*;
    use crate::tree::STATUS;

    /// Without a time of birth the old node was given for it, whose type no request of the guest's fitted any more.
    #[test]
    fn a_number_used_again_for_another_type_is_another_node_even_without_a_birth() {
        let table = Table::new(2, 10);
        let share = Arc::new(Share::new(1, c"share".to_owned(), false));
        let folder = tempfile::tempdir().unwrap();
        let mut stat = rustix::fs::statx(CWD, folder.path(), AtFlags::empty(), STATUS).unwrap();
        stat.stx_mask &= !StatxFlags::BTIME.bits();
        let (dir, _) = table.intern(&share, &stat, 1, Some(c"name")).unwrap();
        let (again, arrival) = table.intern(&share, &stat, 1, Some(c"name")).unwrap();
        assert_eq!((again.id, arrival), (dir.id, Arrival::Known));
        stat.stx_mode = 0o100_644;
        let (file, arrival) = table.intern(&share, &stat, 1, Some(c"name")).unwrap();
        assert_ne!(file.id, dir.id);
        assert!(file.is(&stat) && !dir.is(&stat) && !dir.stands_for(&stat));
        assert_eq!((file.kind, arrival), (FileType::RegularFile, Arrival::New));
        assert!(table.get(dir.id).is_some(), "until the guest forgets it");
        assert_eq!(table.at(1, c"name").unwrap().id, file.id);
    }
}
