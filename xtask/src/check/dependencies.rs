//! Dependencies: licences that are allowed, sources that are known, none that nothing uses. And our own packages: the
//! workspace's lints hold for each, which cargo itself does not ask for.
//!
//! What is allowed stands in `deny.toml`, in the words of cargo-deny, which reads the same file where it is installed.
//! Advisories are cargo-deny's business: they need a database from the network.

use crate::{
    layout::Layout,
    process::{capture, cargo},
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use toml_edit::DocumentMut;

/// Where every package outside the workspace comes from.
const REGISTRY: &str = "registry+";

pub(super) fn check(layout: &Layout) -> Result<()> {
    // `--locked` also says whether the lock file that is checked in is the one that the manifests ask for.
    let metadata = capture(cargo(layout).args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cannot read cargo's metadata")?;
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let rules = Rules::read(&layout.root().join("deny.toml"))?;
    let mut wrong = Vec::new();
    for package in &packages {
        wrong.extend(rules.objections(package));
        if package["source"].is_null() {
            wrong.extend(unused(package)?);
            wrong.extend(lax(package)?);
        }
    }
    for name in &rules.single {
        let versions: BTreeSet<&str> = packages
            .iter()
            .filter(|package| package["name"] == name.as_str())
            .filter_map(|package| package["version"].as_str())
            .collect();
        if versions.len() > 1 {
            wrong.push(format!("{name} has to have one version, and has {versions:?}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.sort();
    bail!("dependencies:\n  {}", wrong.join("\n  "))
}

/// What `deny.toml` says.
#[derive(Debug)]
struct Rules {
    licences: BTreeSet<String>,
    single: Vec<String>,
}

impl Rules {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("cannot understand {}", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let document: DocumentMut = text.parse()?;
        let strings = |array: Option<&toml_edit::Item>| -> Vec<String> {
            let values = array.and_then(toml_edit::Item::as_array).into_iter().flatten();
            values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        let licences = document.get("licenses").and_then(|table| table.get("allow"));
        let bans = document.get("bans").and_then(|table| table.get("deny"));
        let single = bans
            .and_then(toml_edit::Item::as_array)
            .into_iter()
            .flatten()
            .filter_map(toml_edit::Value::as_inline_table)
            .filter(|ban| {
                ban.get("deny-multiple-versions")
                    .and_then(toml_edit::Value::as_bool)
                    == Some(true)
            })
            .filter_map(|ban| {
                ban.get("crate")
                    .and_then(toml_edit::Value::as_str)
                    .map(str::to_owned)
            })
            .collect();
        Ok(Self {
            licences: strings(licences).into_iter().collect(),
            single,
        })
    }

    fn objections(&self, package: &Value) -> Vec<String> {
        let title = format!(
            "{} {}",
            package["name"].as_str().unwrap_or("?"),
            package["version"].as_str().unwrap_or("?")
        );
        let mut wrong = Vec::new();
        match package["license"].as_str() {
            Some(expression) if self.allows(expression) => {}
            Some(expression) => {
                wrong.push(format!("{title}: the licence `{expression}` is not in deny.toml"));
            }
            None => wrong.push(format!("{title}: it names no licence")),
        }
        if let Some(source) = package["source"].as_str()
            && !source.starts_with(REGISTRY)
        {
            wrong.push(format!(
                "{title}: it does not come from the registry but from {source}"
            ));
        }
        wrong
    }

    /// Whether an SPDX expression can be satisfied with allowed licences alone. `AND` binds more closely than `OR`;
    /// parentheses are resolved from the inside out.
    fn allows(&self, expression: &str) -> bool {
        // An old way to write OR, still found in manifests.
        let mut rest = expression.replace('/', " OR ");
        while let Some(close) = rest.find(')') {
            let Some(open) = rest[..close].rfind('(') else {
                return false;
            };
            let inner = if self.allows_flat(&rest[open + 1..close]) {
                "allowed"
            } else {
                "refused"
            };
            rest.replace_range(open..=close, inner);
        }
        self.allows_flat(&rest)
    }

    fn allows_flat(&self, expression: &str) -> bool {
        expression.split(" OR ").any(|all| {
            all.split(" AND ")
                .all(|one| one.trim() == "allowed" || self.licences.contains(one.trim()))
        })
    }
}

/// Dependencies that no source file of the package names.
fn unused(package: &Value) -> Result<Vec<String>> {
    let manifest = manifest_of(package)?;
    let directory = manifest.parent().context("a manifest without a directory")?;
    let mut sources = String::new();
    for part in ["src", "tests", "examples", "benches", "build.rs"] {
        read_sources(&directory.join(part), &mut sources)?;
    }
    let exempt = exemptions(manifest)?;
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    Ok(dependencies
        .filter_map(|dependency| dependency["rename"].as_str().or(dependency["name"].as_str()))
        .filter(|name| !exempt.contains(*name) && !names(&sources, &name.replace('-', "_")))
        .map(|name| format!("{}: nothing uses {name}", manifest.display()))
        .collect())
}

/// Whether the workspace's lints do not hold for a package, such as the one against `unsafe`.
fn lax(package: &Value) -> Result<Option<String>> {
    let path = manifest_of(package)?;
    let heeds = heeds_lints(&manifest(path)?);
    Ok((!heeds).then(|| format!("{}: `[lints]` has no `workspace = true`", path.display())))
}

fn heeds_lints(manifest: &DocumentMut) -> bool {
    let heeds = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    heeds.and_then(toml_edit::Item::as_bool) == Some(true)
}

fn manifest_of(package: &Value) -> Result<&Path> {
    let path = package["manifest_path"].as_str();
    path.map(Path::new).context("a package without a manifest")
}

fn manifest(path: &Path) -> Result<DocumentMut> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse()
        .with_context(|| format!("cannot understand {}", path.display()))
}

/// What the manifest exempts, in the words of cargo-machete: `[package.metadata.cargo-machete] ignored = […]`.
fn exemptions(path: &Path) -> Result<BTreeSet<String>> {
    let document = manifest(path)?;
    let ignored = document["package"]
        .get("metadata")
        .and_then(|metadata| metadata.get("cargo-machete"))
        .and_then(|machete| machete.get("ignored"))
        .and_then(toml_edit::Item::as_array);
    let names = ignored.into_iter().flatten().filter_map(toml_edit::Value::as_str);
    Ok(names.map(str::to_owned).collect())
}

/// Whether `word` stands in `text` as a word of its own.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

fn read_sources(path: &PathBuf, sources: &mut String) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
            read_sources(&entry?.path(), sources)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && path.is_file() {
        sources
            .push_str(&fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::parse(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\"]\n[bans]\ndeny = [\n  { crate = \"vm-memory\", \
             deny-multiple-versions = true },\n]\n",
        )
        .unwrap()
    }

    #[test]
    fn an_expression_is_allowed_when_some_choice_of_it_is() {
        for allowed in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "MIT AND Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
        ] {
            assert!(rules().allows(allowed), "{allowed}");
        }
        for refused in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(GPL-3.0 OR LGPL-2.1) AND MIT",
            "",
            ")(",
        ] {
            assert!(!rules().allows(refused), "{refused}");
        }
    }

    #[test]
    fn crates_with_one_version_are_read_from_the_bans() {
        assert_eq!(rules().single, ["vm-memory"]);
    }

    #[test]
    fn a_manifest_has_to_ask_for_the_workspaces_lints() {
        let heeds = |text: &str| heeds_lints(&text.parse().unwrap());
        assert!(heeds("[lints]\nworkspace = true\n"));
        assert!(!heeds("[lints]\nworkspace = false\n"));
        assert!(!heeds("[lints.rust]\nunsafe_code = \"allow\"\n"));
        assert!(!heeds("[package]\nname = \"lax\"\n"));
    }

    #[test]
    fn a_dependency_counts_as_used_only_as_a_word_of_its_own() {
        assert!(names("use serde::Serialize;", "serde"));
        assert!(!names("use serde_json::Value;", "serde"));
        assert!(!names("", "serde"));
    }
}
