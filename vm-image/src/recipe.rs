//! The recipe: what goes into an image, as data. The file `recipe.toml` beside this crate's sources explains
//! each entry; it is compiled in, and a build may name another one.

use std::path::Path;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{ImageError, ResultExt as _};
use crate::pattern::Pattern;
use crate::tree::TreePath;

/// The recipe that a build uses unless it is given another.
const BUILT_IN: &str = include_str!("../recipe.toml");

/// A whole recipe, read and checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Recipe {
    /// The format of the recipe itself, 1.
    pub(crate) format: u32,
    /// The time that every file bears, in seconds since 1970.
    pub(crate) epoch: u32,
    pub(crate) alpine: Alpine,
    pub(crate) debian: Debian,
    pub(crate) modules: Modules,
    pub(crate) rootfs: Rootfs,
    pub(crate) starter: Starter,
    /// The digest of the text that this was read from.
    #[serde(skip, default = "no_digest")]
    pub(crate) digest: Digest,
}

fn no_digest() -> Digest {
    Digest::of(b"")
}

/// Where the Alpine base comes from and what of it is trusted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Alpine {
    pub(crate) wheel: Wheel,
    /// The disk image inside the wheel.
    pub(crate) disk: String,
    /// Where the kernel is, inside the base.
    pub(crate) kernel: TreePathText,
    /// The package that the kernel and its modules belong to.
    pub(crate) kernel_package: String,
    /// Files that differ from what their package installed.
    #[serde(default)]
    pub(crate) altered: Vec<Altered>,
}

/// A Python wheel, pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) sha256: Digest,
}

/// A file of the base that is known to differ from its package's, and why. It is never used as found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Altered {
    pub(crate) path: TreePathText,
    pub(crate) reason: String,
    /// How to get the package's own bytes back; they are checked against the database like any other.
    #[serde(default)]
    pub(crate) restore: Option<Restore>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Restore {
    /// Drop the lines that start with one of these.
    WithoutLines(Vec<String>),
    /// Use this text.
    Text(String),
    /// A symbolic link with this target.
    Link(String),
}

/// The Debian side.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Debian {
    pub(crate) suite: String,
    pub(crate) component: String,
    pub(crate) architecture: String,
    pub(crate) keyring: std::path::PathBuf,
    /// The package whose version is the engine's.
    pub(crate) engine: String,
    /// Files that are kept of every package.
    pub(crate) always: Vec<Pattern>,
    pub(crate) package: Vec<DebianPackage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DebianPackage {
    pub(crate) name: String,
    /// The files to keep, each of which must match something.
    pub(crate) keep: Vec<Pattern>,
}

/// Kernel modules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Modules {
    /// Names of modules that the initramfs carries, with what they depend on.
    pub(crate) initramfs: Vec<String>,
    /// Files below the modules directory that the root file system keeps.
    pub(crate) keep: Vec<Pattern>,
    /// Exceptions to `keep`.
    #[serde(default)]
    pub(crate) drop: Vec<Pattern>,
}

/// The root file system apart from Debian's packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rootfs {
    /// Alpine packages whose files it has.
    pub(crate) alpine: Vec<String>,
    /// Files of those that it does not have.
    #[serde(default)]
    pub(crate) drop: Vec<Pattern>,
    /// The file that lists the paths of busybox's links.
    pub(crate) busybox_paths: TreePathText,
    /// Empty directories.
    pub(crate) directories: Vec<TreePathText>,
    /// Where the agent is installed.
    pub(crate) agent: TreePathText,
    #[serde(default)]
    pub(crate) file: Vec<PlainFile>,
    #[serde(default)]
    pub(crate) link: Vec<Link>,
    /// Arguments of `mkfs.erofs` that choose the compression.
    pub(crate) compression: Vec<String>,
    /// The file system's UUID.
    pub(crate) uuid: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PlainFile {
    pub(crate) path: TreePathText,
    /// Octal, 0644 unless given.
    #[serde(default = "PlainFile::default_mode")]
    pub(crate) mode: u32,
    pub(crate) text: String,
}

impl PlainFile {
    const fn default_mode() -> u32 {
        0o644
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Link {
    pub(crate) path: TreePathText,
    pub(crate) target: String,
}

/// The image that is loaded into a new engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Starter {
    /// The names it gets, such as `alpine:latest`.
    pub(crate) tags: Vec<String>,
    pub(crate) alpine: Vec<String>,
    #[serde(default)]
    pub(crate) file: Vec<PlainFile>,
    /// Files of the base that belong to no package and that the image has nevertheless.
    #[serde(default)]
    pub(crate) unowned: Vec<TreePathText>,
    /// `PATH` of its containers.
    pub(crate) path: String,
    pub(crate) command: Vec<String>,
}

/// A [`TreePath`] in the recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TreePathText(pub(crate) TreePath);

impl TryFrom<String> for TreePathText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        TreePath::parse(&text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a plain path"))
    }
}

impl Recipe {
    /// Reads the recipe at `path`, or the built-in one.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ImageError> {
        match path {
            Some(path) => Self::parse(
                &std::fs::read_to_string(path).at("read", path)?,
                &path.display().to_string(),
            ),
            None => Self::parse(BUILT_IN, "compiled in"),
        }
    }

    fn parse(text: &str, name: &str) -> Result<Self, ImageError> {
        let wrong = |reason: String| ImageError::Recipe {
            recipe: name.into(),
            reason,
        };
        let mut recipe: Self = toml_edit::de::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if recipe.format != 1 {
            return Err(wrong(format!(
                "its format is {}, this builder reads 1",
                recipe.format
            )));
        }
        // These reach the command lines of apt and pip, so they must be words and not options.
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b))
        };
        let debian = &recipe.debian;
        let wheel = &recipe.alpine.wheel;
        let words = [
            &debian.suite,
            &debian.component,
            &debian.architecture,
            &wheel.name,
            &wheel.version,
        ];
        let names = debian.package.iter().map(|package| &package.name);
        if let Some(bad) = words.into_iter().chain(names).find(|text| !word(text)) {
            return Err(wrong(format!("{bad:?} is not a plain name")));
        }
        recipe.digest = Digest::of(text.as_bytes());
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_recipe_is_well_formed() {
        let recipe = Recipe::load(None).unwrap();
        assert!(
            recipe
                .debian
                .package
                .iter()
                .any(|package| package.name == recipe.debian.engine)
        );
        assert_eq!(recipe.digest, Digest::of(BUILT_IN.as_bytes()));
    }

    #[test]
    fn no_debian_package_is_listed_twice() {
        let recipe = Recipe::load(None).unwrap();
        let mut names: Vec<_> = recipe
            .debian
            .package
            .iter()
            .map(|package| &package.name)
            .collect();
        names.sort();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn a_name_that_would_be_an_option_of_apt_is_refused() {
        let text = BUILT_IN.replace("name = \"pigz\"", "name = \"-oAPT::Get::AllowUnauthenticated=1\"");
        assert_ne!(text, BUILT_IN);
        let error = Recipe::parse(&text, "test").unwrap_err();
        assert!(error.to_string().contains("not a plain name"), "{error}");
    }

    #[test]
    fn a_recipe_path_cannot_leave_the_root() {
        let text = BUILT_IN.replace("agent = \"usr/sbin/cove-agent\"", "agent = \"../evil\"");
        assert_ne!(text, BUILT_IN);
        assert!(Recipe::parse(&text, "test").is_err());
    }

    #[test]
    fn an_unknown_entry_is_an_error_and_not_ignored() {
        assert!(Recipe::parse(&format!("surprise = 1\n{BUILT_IN}"), "test").is_err());
    }
}
