//! The root file system: Alpine's userland and Debian's Docker in one tree, written as EROFS.
//!
//! Later sources win only where the recipe says so: two packages that want one path are an error. Everything
//! belongs to root. The order is Alpine's packages, Debian's, kernel modules, the agent, the recipe's own files and
//! links, and at last busybox's links wherever nothing better is.

use std::path::Path;

use crate::alpine::Base;
use crate::error::{ImageError, ResultExt as _};
use crate::linkage;
use crate::modules::Modules;
use crate::recipe::Recipe;
use crate::source::failed_output;
use crate::tools::MKFS_EROFS;
use crate::tree::{Node, Tree, TreePath};

const PURPOSE: &str = "writing the root file system";
/// What busybox's links point to.
const BUSYBOX: &str = "/bin/busybox";

/// Everything that the root file system is made of.
pub(crate) struct Parts<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) base: &'a Base,
    pub(crate) modules: &'a Modules<'a>,
    /// The files of all Debian packages.
    pub(crate) debian: Vec<(TreePath, Node)>,
    pub(crate) agent: Vec<u8>,
}

/// Puts the parts together and checks that every program would start.
pub(crate) fn assemble(parts: Parts<'_>) -> Result<Tree, ImageError> {
    let Parts {
        recipe,
        base,
        modules,
        debian,
        agent,
    } = parts;
    let rootfs = &recipe.rootfs;
    let mut tree = Tree::default();
    let mut dropped = vec![false; rootfs.drop.len()];
    for name in &rootfs.alpine {
        let package = base.package(name)?;
        for directory in &package.directories {
            if !drops(&rootfs.drop, &mut dropped, &directory.path) {
                let node = Node::Directory {
                    mode: directory.ownership.mode,
                };
                tree.insert(directory.path.clone(), node)?;
            }
        }
        for (path, file) in base.files(package) {
            if !drops(&rootfs.drop, &mut dropped, path) {
                tree.insert(path.clone(), file.node())?;
            }
        }
    }
    if let Some((pattern, _)) = rootfs.drop.iter().zip(dropped).find(|(_, used)| !used) {
        return Err(ImageError::Unmatched {
            what: format!("rootfs drop {:?}", pattern.as_str()),
        });
    }
    for (path, node) in debian {
        tree.insert(path, node)?;
    }
    modules.install(&recipe.modules, &mut tree)?;
    tree.insert(rootfs.agent.0.clone(), Node::file(0o755, agent))?;
    for directory in &rootfs.directories {
        // One that a package brought keeps its mode, such as that of /tmp.
        if !tree.contains(&directory.0) {
            tree.insert(directory.0.clone(), Node::Directory { mode: 0o755 })?;
        }
    }
    for file in &rootfs.file {
        tree.replace(
            file.path.0.clone(),
            Node::file(file.mode, file.text.clone().into_bytes()),
        )?;
    }
    for link in &rootfs.link {
        tree.insert(
            link.path.0.clone(),
            Node::Symlink {
                target: link.target.clone(),
            },
        )?;
    }
    for path in busybox_links(base.bytes(&rootfs.busybox_paths.0)?)? {
        if !tree.contains(&path) {
            tree.insert(
                path,
                Node::Symlink {
                    target: BUSYBOX.into(),
                },
            )?;
        }
    }
    linkage::check(&tree)?;
    Ok(tree)
}

fn drops(patterns: &[crate::pattern::Pattern], used: &mut [bool], path: &TreePath) -> bool {
    let mut dropped = false;
    for (pattern, used) in patterns.iter().zip(used) {
        if pattern.matches(path.as_str()) {
            (dropped, *used) = (true, true);
        }
    }
    dropped
}

/// The paths that Alpine's busybox package lists for its links; its install script would make them.
pub(crate) fn busybox_links(list: &[u8]) -> Result<Vec<TreePath>, ImageError> {
    let fault = |reason: &str| ImageError::Archive {
        archive: "busybox's list of paths".into(),
        reason: reason.into(),
    };
    let text = str::from_utf8(list).map_err(|_| fault("it is not UTF-8"))?;
    let path = |line: &str| TreePath::parse(line).ok_or_else(|| fault("it has a path that is not plain"));
    text.lines().filter(|line| !line.is_empty()).map(path).collect()
}

/// Writes `tree` to `output` as EROFS, by way of the empty directory `staging`.
pub(crate) fn write(tree: Tree, recipe: &Recipe, staging: &Path, output: &Path) -> Result<(), ImageError> {
    tree.materialise(staging)?;
    let mkfs = crate::tools::find(MKFS_EROFS).ok_or(ImageError::ToolMissing {
        program: MKFS_EROFS,
        purpose: PURPOSE,
    })?;
    let result = std::process::Command::new(&mkfs)
        .args(&recipe.rootfs.compression)
        // Extended attributes of the host's files are the host's business.
        .arg("-x-1")
        .arg(format!("-T{}", recipe.epoch))
        .arg(format!("-U{}", recipe.rootfs.uuid))
        .args(["--all-root", "--quiet"])
        .arg(output)
        .arg(staging)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .at("run", &mkfs)?;
    if result.status.success() {
        return Ok(());
    }
    // Its own words for a full disk depend on the version and can mislead, so the disk is asked.
    if is_full(output) {
        return Err(ImageError::DiskFull {
            operation: "write",
            path: output.to_owned(),
        });
    }
    Err(failed_output(MKFS_EROFS, PURPOSE, &result))
}

/// Whether the file system that holds `path` has less left than one large write takes.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn busybox_paths_become_links_and_hostile_ones_an_error() {
        let paths = busybox_links(b"bin/sh\nusr/bin/awk\n\n").unwrap();
        assert_eq!(
            paths.iter().map(TreePath::as_str).collect::<Vec<_>>(),
            ["bin/sh", "usr/bin/awk"]
        );
        assert!(busybox_links(b"../../bin/sh\n").is_err());
        assert!(busybox_links(b"\xff\n").is_err());
    }

    #[test]
    fn the_same_tree_gives_the_same_file_system_whatever_the_directory() {
        if crate::tools::find(MKFS_EROFS).is_none() {
            eprintln!("skipped: mkfs.erofs is not installed");
            return;
        }
        let recipe = Recipe::load(None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str| {
            let mut tree = Tree::default();
            for i in 0..200u32 {
                let path = TreePath::parse(&format!("d{}/f{i}", i % 7)).unwrap();
                tree.insert(path, Node::file(0o644, i.to_le_bytes().repeat(5000)))
                    .unwrap();
            }
            let staging = dir.path().join(name);
            std::fs::create_dir(&staging).unwrap();
            let output = dir.path().join(format!("{name}.erofs"));
            write(tree, &recipe, &staging, &output).unwrap();
            std::fs::read(output).unwrap()
        };
        assert!(image("one") == image("another-name"), "two runs differ");
    }
}
