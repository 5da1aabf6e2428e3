//! Looking names up, and letting nodes go.

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Statx};
use rustix::io::Errno;

use crate::abi::{self, EntryOut, ROOT_ID};
use crate::body::Body;
use crate::memory::Sink;
use crate::node::Node;
use crate::status::is_fresh;
use crate::table::Arrival;
use crate::tree::{Reach, STATUS, Tree};

impl Tree {
    pub(crate) fn lookup(&self, parent: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        sink.value(&self.look_up(parent, body.name()?)?)
    }

    /// Finds `name` in the directory `parent` and gives the guest a reference to it.
    pub(crate) fn look_up(&self, parent: u64, name: &CStr) -> Result<EntryOut, Errno> {
        if parent == ROOT_ID {
            return self.look_up_share(name);
        }
        let parent = self.node(parent)?;
        let dir = self.dir(&parent)?;
        self.ensure_watched(&parent, &dir);
        match rustix::fs::statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, STATUS) {
            Ok(stat) => Ok(self.watched_at_once(self.enter(&parent, name, &stat)?)),
            Err(Errno::NOENT) => {
                let was_known = self.nodes.at(parent.id, name).is_some();
                Ok(self.no_entry(&parent, was_known))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Takes up what was found as `name` in `parent`, with a reference more for the guest.
    pub(crate) fn enter(&self, parent: &Arc<Node>, name: &CStr, stat: &Statx) -> Result<EntryOut, Errno> {
        let (node, arrival) = self.nodes.intern(&parent.share, stat, parent.id, Some(name))?;
        let reach = self.reach_now(parent, &node);
        let owner = match &reach {
            Some(reach) => self.owner(&node, stat, reach),
            None => crate::ownership::Owner::of_host(stat),
        };
        let mut entry = self.entry(parent, &node, stat, &owner, arrival);
        if node.kind == FileType::RegularFile && is_fresh(stat) {
            // What is replaced over and over may be another file, of another size, by the time that it is opened.
            (entry.attr_valid, entry.attr_valid_nsec) = (0, 0);
            node.state.lock().believed = None;
        }
        Ok(entry)
    }

    /// The answer for a directory that the guest asked for by name, now that it is watched: whoever walks on from there,
    /// opens it or watches it would have to ask for its status first, see [`Tree::attr_validity`]. What a listing names
    /// is left alone, as nobody may mean it.
    pub(crate) fn watched_at_once(&self, found: EntryOut) -> EntryOut {
        let Ok(node) = self.node(found.node) else {
            return found;
        };
        if !self.is_to_be_watched(&node) {
            return found;
        }
        self.ensure_known_watched(&node);
        // What was seen of it is from before the watch.
        let Ok((stat, reach)) = self.stat(&node) else {
            return found;
        };
        let owner = self.owner(&node, &stat, &reach);
        let now = self.attr_out(&node, &stat, &owner);
        EntryOut {
            attr_valid: now.attr_valid,
            attr_valid_nsec: now.attr_valid_nsec,
            attr: now.attr,
            ..found
        }
    }

    /// The way that a node just found under its parent is reached.
    pub(crate) fn reach_now(&self, parent: &Arc<Node>, node: &Arc<Node>) -> Option<Reach> {
        let place = node.state.lock().place.clone()?;
        Some(Reach::Name(self.dir(parent).ok()?, place))
    }

    fn look_up_share(&self, name: &CStr) -> Result<EntryOut, Errno> {
        let found = self
            .shares
            .read()
            .iter()
            .find(|(share, _)| *share.name == *name)
            .map(|(_, root)| Arc::clone(root));
        let Some(root) = found else {
            // Believed for a moment only: the share may be added next.
            return Ok(EntryOut::default());
        };
        let (stat, reach) = self.stat(&root)?;
        let owner = self.owner(&root, &stat, &reach);
        root.lookups.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut entry = self.entry(&root, &root, &stat, &owner, Arrival::Known);
        entry.entry_valid = self.config.short.as_secs();
        entry.entry_valid_nsec = self.config.short.subsec_nanos();
        Ok(entry)
    }

    pub(crate) fn forget(&self, node: u64, mut body: Body<'_>) {
        if let Ok(forget) = body.take::<abi::ForgetIn>() {
            self.let_go(node, forget.lookups);
        }
    }

    pub(crate) fn batch_forget(&self, mut body: Body<'_>) {
        let Ok(batch) = body.take::<abi::BatchForgetIn>() else {
            return;
        };
        for _ in 0..batch.count {
            let Ok(one) = body.take::<abi::ForgetOne>() else {
                return;
            };
            self.let_go(one.node, one.lookups);
        }
    }

    pub(crate) fn let_go(&self, node: u64, lookups: u64) {
        if let Some((node, place)) = self.nodes.forget(node, lookups) {
            self.unwatch(&node, place.as_deref());
        }
    }
}
