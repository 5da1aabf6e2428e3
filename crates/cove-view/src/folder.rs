//! Folders of this computer: those that machines share, and what was dropped on the window.

use cove_api::Share;
use serde::{Deserialize, Serialize};
use std::path::Path;
use ts_rs::TS;

/// Something that was dropped on the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// Its absolute path.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Whether it holds a Dockerfile.
    pub dockerfile: bool,
    /// The compose file that it holds.
    pub compose: Option<String>,
    /// Whether containers may mount it.
    pub shared: Sharing,
}

/// Whether containers may mount a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// It is shared with no machine.
    No,
    /// Containers may read.
    ReadOnly,
    /// Containers may read and write.
    ReadWrite,
}

impl Sharing {
    /// How `path` is shared: by the share that is nearest above it.
    pub fn of(path: &Path, shares: &[Share]) -> Self {
        let nearest = shares
            .iter()
            .filter(|share| path.starts_with(&share.path))
            .max_by_key(|share| share.path.components().count());
        match nearest {
            None => Self::No,
            Some(share) if share.read_only => Self::ReadOnly,
            Some(_) => Self::ReadWrite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_share_above_a_folder_decides() {
        let share = |path: &str, read_only| Share {
            path: path.into(),
            read_only,
            machines: Vec::new(),
            missing: Vec::new(),
        };
        let shares = [share("/home/u", false), share("/home/u/keep", true)];
        assert_eq!(
            Sharing::of(Path::new("/home/u/shop"), &shares),
            Sharing::ReadWrite
        );
        assert_eq!(
            Sharing::of(Path::new("/home/u/keep/x"), &shares),
            Sharing::ReadOnly
        );
        assert_eq!(Sharing::of(Path::new("/home/user2"), &shares), Sharing::No);
    }
}
