//! What Docker can do, done through Cove: each row of `docs/compatibility.md` is proven by tests with a real client.
//!
//! ```text
//!  table::TABLE ──▶ the tests that run          (one machine for all of them)
//!       └─────────▶ docs/compatibility.md       (written by this suite, compared on every run)
//! ```

#![expect(clippy::unwrap_used, reason = "how a test fails")]

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
mod services;
mod storage;
mod table;

use cove_tests::harness::{self, Cmd, Cove, Pace};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(code) = table::check() {
        return code;
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
    cove.docker(line.split(' '))
}
