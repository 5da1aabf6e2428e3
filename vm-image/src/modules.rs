//! Kernel modules: which there are, what they need, and in which order they load.
//!
//! All of it is read from files of the kernel package that were checked already. Modules leave here
//! uncompressed: the agent hands plain files to `finit_module`, busybox's `modprobe` is spared a decompressor,
//! and the root file system compresses anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use crate::alpine::Base;
use crate::error::ImageError;
use crate::pattern::Pattern;
use crate::recipe;
use crate::tree::{Node, Tree, TreePath};

/// No module is larger once unpacked.
const MAX_MODULE: u64 = 64 << 20;

/// The modules of one kernel release.
pub(crate) struct Modules<'a> {
    base: &'a Base,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// By path below the release's directory, without the compression's suffix.
    by_path: BTreeMap<String, Module>,
    by_name: BTreeMap<String, String>,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// The name that the kernel knows it by.
    pub(crate) name: String,
    /// Its path below the release's directory.
    pub(crate) path: String,
    /// Where the package has it.
    source: String,
    /// Paths of those that it needs, all of them and not only the nearest.
    needs: Vec<String>,
}

impl Module {
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl<'a> Modules<'a> {
    /// The modules of the kernel package in `base`.
    pub(crate) fn read(base: &'a Base, package: &str) -> Result<Self, ImageError> {
        let unmatched = |what: &str| ImageError::Unmatched {
            what: format!("{what} in package {package}"),
        };
        let release = base
            .package(package)?
            .files
            .iter()
            .find_map(|file| {
                file.path
                    .as_str()
                    .strip_prefix("lib/modules/")?
                    .strip_suffix("/modules.dep")
            })
            .ok_or_else(|| unmatched("modules.dep"))?
            .to_owned();
        let text = text(base, &release, "modules.dep")?;
        let by_path = parse_dep(text).map_err(|reason| ImageError::Archive {
            archive: "modules.dep".into(),
            reason,
        })?;
        let by_name = by_path
            .values()
            .map(|module| (module.name.clone(), module.path.clone()))
            .collect();
        Ok(Self {
            base,
            release,
            by_path,
            by_name,
        })
    }

    /// The modules called `names` and all that they need, each after those that it needs.
    pub(crate) fn load_order(&self, names: &[String]) -> Result<Vec<&Module>, ImageError> {
        let mut order = Vec::new();
        let mut placed = BTreeSet::new();
        for name in names {
            let path = self.by_name.get(&canonical_name(name));
            let path = path.ok_or_else(|| ImageError::Unmatched {
                what: format!("module {name:?}"),
            })?;
            self.place(path, &mut placed, &mut order);
        }
        Ok(order)
    }

    /// Names of the modules that `module` needs, sorted.
    pub(crate) fn needs(&self, module: &Module) -> Vec<&str> {
        let mut names: Vec<&str> = module
            .needs
            .iter()
            .filter_map(|path| self.by_path.get(path))
            .map(|need| need.name.as_str())
            .collect();
        names.sort_unstable();
        names
    }

    /// The module itself, uncompressed.
    pub(crate) fn bytes(&self, module: &Module) -> Result<Vec<u8>, ImageError> {
        let packed = self.base.bytes(&self.path(&module.source)?)?;
        if module.source == module.path {
            return Ok(packed.to_vec());
        }
        let mut bytes = Vec::new();
        let decoder = flate2::read::GzDecoder::new(packed);
        decoder
            .take(MAX_MODULE)
            .read_to_end(&mut bytes)
            .map_err(|error| ImageError::Archive {
                archive: module.source.clone(),
                reason: error.to_string(),
            })?;
        Ok(bytes)
    }

    /// Places the modules that the recipe keeps, what they need, and the indices that `modprobe` reads.
    pub(crate) fn install(&self, recipe: &recipe::Modules, tree: &mut Tree) -> Result<(), ImageError> {
        let kept = self.kept(recipe)?;
        for path in &kept {
            let node = Node::file(0o644, self.bytes(&self.by_path[path])?);
            tree.insert(self.path(path)?, node)?;
        }
        let names: BTreeSet<&str> = kept.iter().map(|path| self.by_path[path].name.as_str()).collect();
        for (file, text) in [
            (
                "modules.dep",
                write_dep(kept.iter().map(|path| &self.by_path[path])),
            ),
            (
                "modules.alias",
                keep_lines(text(self.base, &self.release, "modules.alias")?, 2, &names),
            ),
            (
                "modules.softdep",
                keep_lines(text(self.base, &self.release, "modules.softdep")?, 1, &names),
            ),
            (
                "modules.devname",
                keep_lines(text(self.base, &self.release, "modules.devname")?, 0, &names),
            ),
            (
                "modules.builtin",
                text(self.base, &self.release, "modules.builtin")?.to_owned(),
            ),
        ] {
            tree.insert(self.path(file)?, Node::file(0o644, text.into_bytes()))?;
        }
        Ok(())
    }

    /// Paths of the modules that the root file system gets. A pattern that matches none is an error, for
    /// that is how a renamed module shows.
    fn kept(&self, recipe: &recipe::Modules) -> Result<BTreeSet<String>, ImageError> {
        let mut used = vec![false; recipe.keep.len()];
        let mut kept = BTreeSet::new();
        for (path, module) in &self.by_path {
            let dropped = recipe.drop.iter().any(|pattern| pattern.matches(path));
            for (pattern, used) in recipe.keep.iter().zip(&mut used) {
                if pattern.matches(path) {
                    *used = true;
                    if !dropped {
                        kept.insert(path.clone());
                        kept.extend(module.needs.iter().cloned());
                    }
                }
            }
        }
        match recipe.keep.iter().zip(used).find(|(_, used)| !used) {
            Some((pattern, _)) => Err(ImageError::Unmatched {
                what: module_pattern(pattern),
            }),
            None => Ok(kept),
        }
    }

    fn place<'m>(&'m self, path: &str, placed: &mut BTreeSet<&'m str>, order: &mut Vec<&'m Module>) {
        let Some(module) = self.by_path.get(path) else {
            return;
        };
        if !placed.insert(&module.path) {
            return;
        }
        for need in &module.needs {
            self.place(need, placed, order);
        }
        order.push(module);
    }

    fn path(&self, below: &str) -> Result<TreePath, ImageError> {
        module_path(&self.release, below)
    }
}

fn module_pattern(pattern: &Pattern) -> String {
    format!("module pattern {:?}", pattern.as_str())
}

fn module_path(release: &str, below: &str) -> Result<TreePath, ImageError> {
    let path = format!("lib/modules/{release}/{below}");
    TreePath::parse(&path).ok_or_else(|| ImageError::Placement {
        path,
        reason: "it is not a plain path".into(),
    })
}

fn text<'a>(base: &'a Base, release: &str, file: &str) -> Result<&'a str, ImageError> {
    let bytes = base.bytes(&module_path(release, file)?)?;
    str::from_utf8(bytes).map_err(|error| ImageError::Archive {
        archive: file.into(),
        reason: error.to_string(),
    })
}

/// The kernel takes `-` and `_` for the same in a module's name, and means `_`.
fn canonical_name(name: &str) -> String {
    name.replace('-', "_")
}

/// `modules.dep` has a line for each module: its path, a colon, and the paths of all it needs. Every path that
/// is needed must have a line of its own.
fn parse_dep(text: &str) -> Result<BTreeMap<String, Module>, String> {
    let plain = |path: &str| path.strip_suffix(".gz").unwrap_or(path).to_owned();
    let mut modules = BTreeMap::new();
    for line in text.lines() {
        let (source, needs) = line
            .split_once(':')
            .ok_or_else(|| format!("line {line:?} has no colon"))?;
        let path = plain(source);
        let file = path.rsplit('/').next().unwrap_or(&path);
        let name = canonical_name(
            file.strip_suffix(".ko")
                .ok_or_else(|| format!("{source:?} is no module"))?,
        );
        let needs = needs.split_whitespace().map(plain).collect();
        modules.insert(
            path.clone(),
            Module {
                name,
                path,
                source: source.to_owned(),
                needs,
            },
        );
    }
    for module in modules.values() {
        if let Some(absent) = module.needs.iter().find(|need| !modules.contains_key(*need)) {
            return Err(format!("{} needs {absent}, which is not listed", module.path));
        }
    }
    Ok(modules)
}

fn write_dep<'m>(modules: impl Iterator<Item = &'m Module>) -> String {
    let line = |module: &Module| {
        let needs: String = module.needs.iter().flat_map(|need| [" ", need]).collect();
        format!("{}:{needs}\n", module.path)
    };
    modules.map(line).collect()
}

/// Comments, and the lines whose word number `column` is the name of a kept module.
fn keep_lines(text: &str, column: usize, names: &BTreeSet<&str>) -> String {
    let kept = |line: &&str| {
        line.starts_with('#')
            || line
                .split_whitespace()
                .nth(column)
                .is_some_and(|name| names.contains(canonical_name(name).as_str()))
    };
    text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "\
kernel/fs/mbcache.ko.gz:
kernel/lib/crc16.ko.gz:
kernel/fs/jbd2/jbd2.ko.gz: kernel/lib/crc16.ko.gz
kernel/fs/ext4/ext4.ko.gz: kernel/fs/mbcache.ko.gz kernel/fs/jbd2/jbd2.ko.gz kernel/lib/crc16.ko.gz
kernel/char/rng-core.ko.gz:
";

    #[test]
    fn dependencies_are_read_without_their_compression() {
        let modules = parse_dep(DEP).unwrap();
        assert_eq!(
            modules["kernel/fs/ext4/ext4.ko"].needs[1],
            "kernel/fs/jbd2/jbd2.ko"
        );
        assert_eq!(modules["kernel/char/rng-core.ko"].name, "rng_core");
        assert_eq!(
            modules["kernel/char/rng-core.ko"].source,
            "kernel/char/rng-core.ko.gz"
        );
    }

    #[test]
    fn a_dependency_that_is_not_there_is_an_error() {
        assert!(parse_dep("a.ko: b.ko\n").unwrap_err().contains("b.ko"));
        assert!(parse_dep("no colon\n").is_err());
        assert!(parse_dep("readme.txt:\n").is_err());
    }

    #[test]
    fn written_dependencies_read_back() {
        let modules = parse_dep(&DEP.replace(".gz", "")).unwrap();
        assert_eq!(parse_dep(&write_dep(modules.values())).unwrap(), modules);
    }

    #[test]
    fn indices_keep_only_lines_of_kept_modules() {
        let names = BTreeSet::from(["virtio_net", "rng_core"]);
        let aliases =
            "# Aliases\nalias virtio:d00000001v* virtio_net\nalias pci:v* nouveau\nalias x rng-core\n";
        assert_eq!(
            keep_lines(aliases, 2, &names),
            "# Aliases\nalias virtio:d00000001v* virtio_net\nalias x rng-core\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_dependency_parser_panic(text in any::<String>()) {
            let _ = parse_dep(&text);
        }
    }
}
