//! What Docker can do, done through Cove: each row of `docs/compatibility.md` is proven by tests, with the client that it
//! names.
//!
//! ```text
//!  rows::areas ──▶ the tests that run          (one machine for all of them)
//!       └────────▶ docs/compatibility.md       (written by this suite with `--all`, compared without)
//!  versions ─────▶
//! ```

#![expect(clippy::panic, clippy::unwrap_used, reason = "how a test fails")]

mod builds;
mod client;
mod compose;
mod containers;
mod developers;
mod images;
mod limits;
mod networks;
mod plugins;
mod processors;
mod registries;
#[path = "../registry/mod.rs"]
mod registry;
mod rows;
mod services;
mod settings;
mod storage;
mod table;
mod versions;

use cove_tests::harness::{self, Cmd, Cove, Pace};
use std::{
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match table::errand() {
        table::Errand::Test => {}
        table::Errand::Written => return ExitCode::SUCCESS,
        table::Errand::Wrong(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    // Services change the engine's mode for everything beside them, and prune removes what others have made.
    harness::run("compatibility", Pace::InTurn, prepare, &table::tests())
}

fn prepare(cove: &Cove) {
    registries::prepare(cove);
    processors::prepare(cove);
    cove.start();
}

/// `docker` with the words of `line`, to which others may be added.
fn docker(cove: &Cove, line: &str) -> Cmd {
    cove.docker(line.split_whitespace())
}

/// The same on a terminal of 31 rows and 97 columns.
fn docker_on_a_terminal(cove: &Cove, line: &str) -> Cmd {
    let client = cove.kit().docker.display();
    let inner = format!("stty rows 31 cols 97 -ixon; {client} {line}");
    cove.client("script")
        .args(["-qec", &inner, "/dev/null"])
        .env("DOCKER_HOST", docker_host(cove))
}

/// What `DOCKER_HOST` is for clients of the machine.
fn docker_host(cove: &Cove) -> String {
    format!("unix://{}", cove.docker_socket().display())
}

/// What `script` prints in a container made with `options`.
fn output_of(cove: &Cove, options: &str, script: &str) -> String {
    docker(cove, &format!("run --rm {options} alpine sh -c"))
        .arg(script)
        .ok()
}

/// Where the shell would find a program of this computer.
fn which(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let found = env::split_paths(&path)
        .map(|place| place.join(program))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}

/// Puts a program of this computer, and what it is linked with, into a tree for an image.
fn copy_program(cove: &Cove, program: &Path, root: &Path, name: &str) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    copy(program, name);
    // Nothing when it needs nothing.
    let linked = cove.program("ldd").arg(program).run().text();
    for library in linked
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
    {
        copy(library.as_ref(), library);
    }
}

/// Has containers mount a folder for as long as this lives.
struct Shared<'a> {
    cove: &'a Cove,
    folder: PathBuf,
}

impl<'a> Shared<'a> {
    fn new(cove: &'a Cove, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        cove.cove(["share", "add"]).arg(&folder).ok();
        Self { cove, folder }
    }
}

impl Deref for Shared<'_> {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // What a failed test has left would only be in the way of the next one.
        self.cove
            .cove(["share", "remove", "--force"])
            .arg(&self.folder)
            .run();
    }
}
