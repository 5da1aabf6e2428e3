//! One layer of an image: what its archive holds, by headers alone.
//!
//! A layer takes away what the layers below it have by entries of their own (the Image Layer Filesystem Changeset of
//! the OCI's image specification): `.wh.NAME` takes away `NAME`, and `.wh..wh..opq` everything in its folder.

use super::{ArchiveError, headers::Headers};
use std::io::Read;
use tar::EntryType;

/// Entries of a layer that are kept; more are counted.
const MAX_ENTRIES: usize = 200_000;
/// Bytes of the paths of a layer's entries that are kept.
const MAX_BYTES: usize = 32 << 20;
/// The longest path that Linux takes, in bytes.
const LONGEST: usize = 4096;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What a layer's archive holds, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its entries.
    pub entries: Vec<LayerEntry>,
    /// Bytes of their paths.
    pub bytes: usize,
    /// Entries that are not among them: past what is kept, or with a path that no file has.
    pub left_out: u64,
}

/// An entry of a layer. Paths have no slash at their ends, and lead nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerEntry {
    /// A folder.
    Folder {
        /// Its path.
        path: Box<str>,
    },
    /// A file, a link, or something else that is no folder.
    File {
        /// Its path.
        path: Box<str>,
        /// Its size in bytes.
        size: u64,
    },
    /// What the layers below have there is gone.
    Gone {
        /// The path.
        path: Box<str>,
    },
    /// What the layers below have in this folder is gone.
    Emptied {
        /// The folder's path; empty for the root.
        path: Box<str>,
    },
}

impl Layer {
    /// Reads an archive's headers to its end.
    pub(super) fn read(archive: impl Read) -> Result<Self, ArchiveError> {
        let mut headers = Headers::new(archive);
        let mut layer = Self::default();
        while let Some(entry) = headers.next()? {
            let Some(path) = path_of(&entry.path) else {
                layer.left_out += 1;
                continue;
            };
            // The root is in every layer.
            if path.is_empty() {
                continue;
            }
            if layer.entries.len() == MAX_ENTRIES || layer.bytes + path.len() > MAX_BYTES {
                layer.left_out += 1;
                continue;
            }
            layer.bytes += path.len();
            layer.entries.push(LayerEntry::of(path, entry.kind, entry.size));
        }
        Ok(layer)
    }
}

impl LayerEntry {
    fn of(path: String, kind: EntryType, size: u64) -> Self {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == OPAQUE {
            return Self::Emptied { path: folder.into() };
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT).filter(|gone| !gone.is_empty()) {
            let path = if folder.is_empty() {
                gone.into()
            } else {
                format!("{folder}/{gone}").into()
            };
            return Self::Gone { path };
        }
        let path = path.into_boxed_str();
        if kind.is_dir() {
            Self::Folder { path }
        } else {
            Self::File { path, size }
        }
    }
}

/// A path without what means nothing in it; nothing for one that is too long or leads upwards.
pub(super) fn path_of(bytes: &[u8]) -> Option<String> {
    if bytes.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_layer_takes_away_is_told_from_what_it_brings() {
        let entry = |path: &str| LayerEntry::of(path.into(), EntryType::Regular, 3);
        assert_eq!(
            entry("etc/.wh.motd"),
            LayerEntry::Gone {
                path: "etc/motd".into()
            }
        );
        assert_eq!(entry(".wh.tmp"), LayerEntry::Gone { path: "tmp".into() });
        assert_eq!(
            entry("var/cache/.wh..wh..opq"),
            LayerEntry::Emptied {
                path: "var/cache".into()
            }
        );
        assert_eq!(entry(".wh..wh..opq"), LayerEntry::Emptied { path: "".into() });
        assert_eq!(
            entry("etc/.wh."),
            LayerEntry::File {
                path: "etc/.wh.".into(),
                size: 3
            }
        );
        assert_eq!(
            LayerEntry::of("etc".into(), EntryType::Directory, 0),
            LayerEntry::Folder { path: "etc".into() }
        );
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        let of = |path: &str| path_of(path.as_bytes());
        assert_eq!(of("./etc//motd/"), Some("etc/motd".into()));
        assert_eq!(of("/etc/motd"), Some("etc/motd".into()));
        assert_eq!(of("./"), Some(String::new()));
        assert_eq!(of("a..b/..c"), Some("a..b/..c".into()));
        assert_eq!(of("etc/../../root"), None);
        assert_eq!(of(".."), None);
        assert_eq!(of(&"a".repeat(LONGEST + 1)), None);
        assert_eq!(path_of(b"\xff"), Some("\u{fffd}".into()));
    }

    proptest! {
        #[test]
        fn no_path_has_an_empty_part_or_leads_upwards(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(path) = path_of(&bytes) {
                prop_assert!(path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
