//! Spelling, by codespell, which is fetched by pip into the tools directory.

use crate::{
    layout::Layout,
    process::{self, find, note},
};
use anyhow::{Context as _, Result};
use std::process::Command;

const CODESPELL: &str = "codespell==2.4.1";
/// Words that are right although they look like another one misspelt, and misspellings that tests need.
const RIGHT: &str = "caf,ect,fo,hist,inout,machien,mis,nd,ot,pakcage,passt,requestor,ser,te";
/// Names of code, which are no words: `ReadIn`, `O_WRONLY`.
const NAMES: &str = r"\b([A-Z][a-z0-9]+){2,}\b|\b[A-Z][A-Z0-9_]+\b";
const TEXTS: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "agent",
    "crates",
    "docs",
    "src-tauri/src",
    "tests",
    "ui/src",
    "vm-image",
    "xtask",
];

pub(super) fn check(layout: &Layout) -> Result<()> {
    let place = layout.tools().join("codespell");
    if !place.join("codespell_lib").is_dir() {
        let Some(pip) = find("pip").or_else(|| find("pip3")) else {
            note("skipped: there is no pip to fetch codespell with");
            return Ok(());
        };
        let mut install = Command::new(pip);
        install
            .args(["install", "--quiet", "--no-deps", "--target"])
            .arg(&place)
            .arg(CODESPELL);
        process::run_quietly(&mut install).context("cannot fetch codespell")?;
    }
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", &place)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command.args([
        "-m",
        "codespell_lib",
        "--ignore-words-list",
        RIGHT,
        "--ignore-regex",
        NAMES,
        // The German words of the window and of its menu entry.
        "--skip",
        "*/words/*de.ts,*/words/de.rs,*.zst,*.desktop",
    ]);
    command.args(
        TEXTS
            .iter()
            .map(|text| layout.root().join(text))
            .filter(|path| path.exists()),
    );
    process::run(&mut command)
        .context("spelling mistakes; fix them, or list a right word in xtask/src/check/spelling.rs")
}
