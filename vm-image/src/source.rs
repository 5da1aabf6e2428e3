//! Where files come from. A [`Source`] answers artifacts that are on the disk and authentic, or an error.
//!
//! | source | fetches with | trusts |
//! | --- | --- | --- |
//! | [`pip`] | the machine's pip | the SHA-256 pinned in the recipe |
//! | [`apt`] | the machine's apt, in a state of its own | the archive's signature, by the Debian keyring |
//! | [`directory`] | nothing | the recipe's pin, and the directory's `SHA256SUMS` |
//!
//! Whatever was fetched is kept in the [`Cache`] under its digest and hashed again whenever it is used.

pub(crate) mod apt;
mod cache;
mod command;
pub(crate) mod directory;
pub(crate) mod pip;

use std::path::PathBuf;

pub(crate) use cache::Cache;
pub(crate) use command::failed_output;

use crate::digest::Digest;
use crate::error::ImageError;

/// An authentic file on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The package's name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its architecture, in the source's notation.
    pub(crate) arch: String,
    /// Which source, and how the file was authenticated.
    pub(crate) origin: String,
    pub(crate) sha256: Digest,
    pub(crate) path: PathBuf,
}

/// How a source may fetch.
pub(crate) struct Fetch<'a> {
    pub(crate) cache: &'a Cache,
    /// Use the cache only.
    pub(crate) offline: bool,
    /// Ask again for the newest versions, even though an earlier answer is known.
    pub(crate) refresh: bool,
    /// Hears of the bytes (or files) done and in all.
    pub(crate) step: &'a mut dyn FnMut(u64, u64),
    /// Takes what a person should know of it.
    pub(crate) notes: &'a mut Vec<String>,
}

/// Something that files come from.
pub(crate) trait Source {
    /// All artifacts of this source, in the order in which the recipe names them. Whoever implements this
    /// must have compared each file with a digest that came from somewhere trusted.
    fn fetch(&self, fetch: &mut Fetch<'_>) -> Result<Vec<Artifact>, ImageError>;
}
