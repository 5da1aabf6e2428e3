//! Open files and directories by the number that the guest knows them by.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use crate::descriptor::{Descriptor, Place};
use crate::node::Node;

const SHARDS: u64 = 16;

/// Something open.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: u64,
    pub(crate) open: Open,
}

/// What is open.
#[derive(Debug)]
pub(crate) enum Open {
    File {
        node: Arc<Node>,
        fd: Arc<Descriptor>,
        /// Owners of POSIX locks set through this handle.
        lock_owners: Mutex<Vec<u64>>,
    },
    Dir {
        node: Arc<Node>,
        fd: Arc<Descriptor>,
        /// Keeps a seek and the reading that follows it together.
        reading: Mutex<()>,
    },
    /// The virtual root. Nothing is behind it, and it is counted all the same.
    Root { _place: Place },
    /// A file opened by the agent to repeat a change: nothing behind it either.
    Replay { node: u64, _place: Place },
}

impl Open {
    /// The number of the node that the handle is for.
    pub(crate) fn node(&self) -> u64 {
        match self {
            Self::File { node, .. } | Self::Dir { node, .. } => node.id,
            Self::Root { .. } => crate::abi::ROOT_ID,
            Self::Replay { node, .. } => *node,
        }
    }
}

/// All handles.
#[derive(Debug)]
pub(crate) struct Handles {
    shards: Vec<RwLock<HashMap<u64, Arc<Handle>, DefaultHashBuilder>>>,
    next: AtomicU64,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
        }
    }

    /// Adds a handle and notes the descriptor in its node, which is then reachable through it.
    pub(crate) fn insert(&self, open: Open) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Open::File { node, fd, .. } = &open {
            node.state.lock().open.push((id, Arc::clone(fd)));
        }
        self.shard(id).write().insert(id, Arc::new(Handle { id, open }));
        id
    }

    /// The handle, which must be one of `node`. `BADF` otherwise.
    pub(crate) fn get(&self, id: u64, node: u64) -> Result<Arc<Handle>, Errno> {
        let handle = self.shard(id).read().get(&id).cloned();
        handle
            .filter(|handle| handle.open.node() == node)
            .ok_or(Errno::BADF)
    }

    /// Takes a handle away.
    pub(crate) fn remove(&self, id: u64, node: u64) -> Result<Arc<Handle>, Errno> {
        self.get(id, node)?;
        let handle = self.shard(id).write().remove(&id).ok_or(Errno::BADF)?;
        if let Open::File { node, .. } = &handle.open {
            node.state.lock().open.retain(|(open, _)| *open != id);
        }
        Ok(handle)
    }

    /// Takes away all that match, and returns them. What they hold is closed when they are dropped.
    pub(crate) fn take_where(&self, matches: impl Fn(&Handle) -> bool) -> Vec<Arc<Handle>> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let doomed: Vec<_> = shard
                .read()
                .values()
                .filter(|handle| matches(handle))
                .map(Arc::clone)
                .collect();
            for handle in doomed {
                // It may be gone meanwhile, which is as well.
                let _ = self.remove(handle.id, handle.open.node());
                taken.push(handle);
            }
        }
        taken
    }

    fn shard(&self, id: u64) -> &RwLock<HashMap<u64, Arc<Handle>, DefaultHashBuilder>> {
        &self.shards[(id % SHARDS) as usize]
    }
}
