//! A file tree held by the builder: what will be the root file system.
//!
//! Archives are unpacked into this, never onto the disk, and that is what keeps a hostile archive harmless:
//! a [`TreePath`] cannot say `..` or start at `/`, and the parent of every node is a directory node, so no
//! path leads through a symbolic link. Only [`Tree::materialise`] touches the disk, in a directory of its
//! own that nobody else writes to. Large contents wait in spill files beside it rather than in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::error::{ImageError, ResultExt as _};

/// The kernel's own limit for a path.
const MAX_PATH: usize = 4096;
/// And for a name.
const MAX_NAME: usize = 255;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// A relative path of plain components: no empty one, no `.`, no `..`, no NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreePath(String);

impl TreePath {
    /// Reads `text`, which may start with `./` or `/` as archives write it. `None` if it is empty after
    /// that, or has a component that a tree must not have.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text
            .strip_prefix('.')
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(text);
        let text = text.trim_start_matches('/');
        let text = text.strip_suffix('/').unwrap_or(text);
        let plain = |component: &str| {
            !matches!(component, "" | "." | "..") && component.len() <= MAX_NAME && !component.contains('\0')
        };
        (text.len() <= MAX_PATH && text.split('/').all(plain)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A regular file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file that the builder wrote.
    Spilled(PathBuf),
}

impl Content {
    pub(crate) fn read(&self) -> Result<std::borrow::Cow<'_, [u8]>, ImageError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.into()),
            Self::Spilled(path) => Ok(fs::read(path).at("read", path)?.into()),
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Content },
    Symlink { target: String },
}

impl Node {
    pub(crate) const fn file(mode: u32, bytes: Vec<u8>) -> Self {
        Self::File {
            mode,
            content: Content::Bytes(bytes),
        }
    }
}

/// The tree. Its root is a directory of mode 0755 that is always there.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Tree {
    pub(crate) fn contains(&self, path: &TreePath) -> bool {
        self.nodes.contains_key(path)
    }

    /// Every node, parents before their children.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// Places `node` at `path`, making the parents that are missing. A directory may be placed again, which
    /// sets its mode; anything else only where nothing is, unless it is the same thing once more.
    pub(crate) fn insert(&mut self, path: TreePath, node: Node) -> Result<(), ImageError> {
        self.make_parents(&path)?;
        match (self.nodes.get(&path), &node) {
            (None, _) | (Some(Node::Directory { .. }), Node::Directory { .. }) => {}
            (Some(old), new) if old == new => return Ok(()),
            (Some(_), _) => return Err(placement(&path, "something else is there already")),
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Places `node` at `path` in place of whatever file or link is there.
    pub(crate) fn replace(&mut self, path: TreePath, node: Node) -> Result<(), ImageError> {
        if !matches!(self.nodes.get(&path), Some(Node::Directory { .. })) {
            self.nodes.remove(&path);
        }
        self.insert(path, node)
    }

    /// The file or directory that `path` leads to, following symbolic links as a guest would: an absolute
    /// target starts at the tree's root, and `..` at the root stays there.
    pub(crate) fn resolve(&self, path: &str) -> Option<(TreePath, &Node)> {
        let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut current: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." => {
                    current.pop();
                    continue;
                }
                _ => current.push(component),
            }
            let here = TreePath(current.join("/"));
            if let Node::Symlink { target } = self.nodes.get(&here)? {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                current.pop();
                if target.starts_with('/') {
                    current.clear();
                }
                pending.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        let path = TreePath(current.join("/"));
        self.nodes.get(&path).map(|node| (path, node))
    }

    /// Writes the tree below `root`, a directory that exists and is empty. Spilled contents are moved, not
    /// copied, which is why the tree is consumed.
    pub(crate) fn materialise(self, root: &Path) -> Result<(), ImageError> {
        let mut modes = Vec::new();
        for (path, node) in self.nodes {
            let at = root.join(path.as_str());
            match node {
                Node::Directory { mode } => {
                    fs::create_dir(&at).at("create", &at)?;
                    modes.push((at, mode));
                }
                Node::File { mode, content } => {
                    match content {
                        Content::Bytes(bytes) => fs::write(&at, bytes).at("write", &at)?,
                        Content::Spilled(spill) => fs::rename(&spill, &at).at("place", &at)?,
                    }
                    modes.push((at, mode));
                }
                Node::Symlink { target } => symlink(&target, &at).at("link", &at)?,
            }
        }
        // Modes come last, children first: a directory that its owner may not write must be full by then.
        for (at, mode) in modes.into_iter().rev() {
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).at("set the mode of", &at)?;
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &TreePath) -> Result<(), ImageError> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        match self.nodes.get(&parent) {
            Some(Node::Directory { .. }) => Ok(()),
            Some(_) => Err(placement(path, "its parent is not a directory")),
            None => {
                self.make_parents(&parent)?;
                self.nodes.insert(parent, Node::Directory { mode: 0o755 });
                Ok(())
            }
        }
    }
}

fn placement(path: &TreePath, reason: &str) -> ImageError {
    ImageError::Placement {
        path: path.to_string(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn link(target: &str) -> Node {
        Node::Symlink {
            target: target.into(),
        }
    }

    #[test]
    fn paths_are_read_as_archives_write_them() {
        for text in [
            "./usr/bin/x",
            "/usr/bin/x",
            "usr/bin/x",
            "//usr/bin/x",
            "usr/bin/x/",
        ] {
            assert_eq!(path(text).as_str(), "usr/bin/x", "{text}");
        }
        assert_eq!(path(".hidden").as_str(), ".hidden");
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for text in [
            "",
            "/",
            "./",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            "a//b",
            "a\0b",
            &"x".repeat(256),
        ] {
            assert_eq!(TreePath::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn nothing_can_be_placed_through_a_symbolic_link() {
        let mut tree = Tree::default();
        tree.insert(path("usr/lib"), link("/etc")).unwrap();
        let error = tree
            .insert(path("usr/lib/evil"), Node::file(0o644, vec![]))
            .unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
    }

    #[test]
    fn a_link_cannot_replace_a_directory_that_was_already_filled() {
        let mut tree = Tree::default();
        tree.insert(path("usr/lib/a"), Node::file(0o644, vec![])).unwrap();
        assert!(tree.insert(path("usr/lib"), link("/etc")).is_err());
        assert!(tree.replace(path("usr/lib"), link("/etc")).is_err());
    }

    #[test]
    fn two_sources_cannot_fill_one_path_with_different_things() {
        let mut tree = Tree::default();
        tree.insert(path("bin/x"), Node::file(0o755, b"one".to_vec()))
            .unwrap();
        tree.insert(path("bin/x"), Node::file(0o755, b"one".to_vec()))
            .unwrap();
        assert!(
            tree.insert(path("bin/x"), Node::file(0o755, b"two".to_vec()))
                .is_err()
        );
        tree.replace(path("bin/x"), Node::file(0o755, b"two".to_vec()))
            .unwrap();
    }

    #[test]
    fn links_resolve_as_in_the_guest() {
        let mut tree = Tree::default();
        tree.insert(path("usr/lib64/ld.so"), link("../lib/ld.so"))
            .unwrap();
        tree.insert(path("usr/lib/ld.so"), Node::file(0o755, vec![]))
            .unwrap();
        tree.insert(path("lib64"), link("usr/lib64")).unwrap();
        tree.insert(path("loop"), link("loop")).unwrap();
        tree.insert(path("up"), link("../../../usr")).unwrap();
        assert_eq!(tree.resolve("/lib64/ld.so").unwrap().0, path("usr/lib/ld.so"));
        assert_eq!(tree.resolve("up/lib/ld.so").unwrap().0, path("usr/lib/ld.so"));
        assert!(tree.resolve("loop").is_none());
        assert!(tree.resolve("lib64/absent").is_none());
    }

    #[test]
    fn a_tree_is_written_with_its_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let spill = dir.path().join("spill");
        fs::write(&spill, b"large").unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tree = Tree::default();
        tree.insert(path("locked"), Node::Directory { mode: 0o555 })
            .unwrap();
        tree.insert(path("locked/su"), Node::file(0o4755, b"x".to_vec()))
            .unwrap();
        tree.insert(
            path("large"),
            Node::File {
                mode: 0o600,
                content: Content::Spilled(spill),
            },
        )
        .unwrap();
        tree.insert(path("to"), link("/nowhere")).unwrap();
        tree.materialise(&root).unwrap();
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode("locked"), mode("locked/su"), mode("large")),
            (0o555, 0o4755, 0o600)
        );
        assert_eq!(fs::read(root.join("large")).unwrap(), b"large");
        assert_eq!(fs::read_link(root.join("to")).unwrap(), Path::new("/nowhere"));
        fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_parses_stays_below_the_root(text in "[./a\\x00-\\x02]{0,24}") {
            if let Some(path) = TreePath::parse(&text) {
                let joined = Path::new("/root").join(path.as_str());
                prop_assert!(joined.starts_with("/root"));
                prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }

        #[test]
        fn resolving_ends_and_stays_inside(
            links in proptest::collection::vec(("[ab]{1,2}(/[ab])?", "(/|\\.\\./)?[ab]{1,2}(/\\.\\.)?"), 0..8),
            query in "[ab./]{0,12}",
        ) {
            let mut tree = Tree::default();
            for (from, to) in links {
                // Some of these conflict, which is as good as any other case.
                let _ = tree.insert(path(&from), link(&to));
            }
            if let Some((found, _)) = tree.resolve(&query) {
                prop_assert!(tree.contains(&found));
            }
        }
    }
}
