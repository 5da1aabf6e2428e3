//! The operations, by what they work on. Each answers one kind of request; see `dispatch`.

mod attributes;
mod directories;
mod entries;
mod files;
mod locks;
mod names;
mod xattrs;

pub(crate) use locks::Locking;

/// Who asks, and how the answer is matched to the question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    pub(crate) unique: u64,
}
