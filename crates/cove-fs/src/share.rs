//! One shared folder: its root and the rules for everything beneath.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::node::{Identity, Time};
use crate::ownership::Owner;

/// Most owners that are remembered for files which cannot carry a record.
const MAX_REMEMBERED: usize = 65_536;

/// What adding a share needs to know.
#[derive(Clone, Debug)]
pub struct ShareOptions {
    /// The name of its entry in the virtual root: one path component.
    pub name: String,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// A shared folder.
#[derive(Debug)]
pub(crate) struct Share {
    /// Its number, never used again.
    pub(crate) index: u32,
    pub(crate) name: CString,
    pub(crate) read_only: bool,
    /// Set once the share is taken away; whatever the guest still holds of it is stale.
    pub(crate) removed: AtomicBool,
    xattrs: AtomicU8,
    /// Set once a directory was found on a file system that does not tell of changes.
    untold: AtomicBool,
    remembered: Mutex<HashMap<(Identity, Time), Owner>>,
}

const WORKS: u8 = 0;
const NOTED: u8 = 1;

impl Share {
    pub(crate) fn new(index: u32, name: CString, read_only: bool) -> Self {
        Self {
            index,
            name,
            read_only,
            removed: AtomicBool::new(false),
            xattrs: AtomicU8::new(WORKS),
            untold: AtomicBool::new(false),
            remembered: Mutex::new(HashMap::new()),
        }
    }

    /// Whether the share is gone.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The owner remembered for a file that cannot carry a record.
    pub(crate) fn remembered(&self, file: (Identity, Time)) -> Option<Owner> {
        self.remembered.lock().get(&file).copied()
    }

    /// Remembers an owner. When the table is full, another entry makes way.
    pub(crate) fn remember(&self, file: (Identity, Time), owner: Owner) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED
            && !remembered.contains_key(&file)
            && let Some(victim) = remembered.keys().next().copied()
        {
            remembered.remove(&victim);
        }
        remembered.insert(file, owner);
    }

    /// Notes that the file system stores no user attributes. True the first time, for a notice.
    pub(crate) fn note_no_xattrs(&self) -> bool {
        self.xattrs.swap(NOTED, Ordering::Relaxed) == WORKS
    }

    /// Whether a file of the share was found that could not carry a record though its type could.
    pub(crate) fn lacks_xattrs(&self) -> bool {
        self.xattrs.load(Ordering::Relaxed) == NOTED
    }

    /// Notes that a file system in the share does not tell of changes. True the first time, for a notice.
    pub(crate) fn note_untold(&self) -> bool {
        !self.untold.swap(true, Ordering::Relaxed)
    }

    /// Whether a directory of the share was found on a file system that does not tell of changes.
    pub(crate) fn is_untold(&self) -> bool {
        self.untold.load(Ordering::Relaxed)
    }
}
