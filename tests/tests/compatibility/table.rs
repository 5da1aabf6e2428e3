//! The table of what works: what a row is, the tests of a run, and the page that is made of them.

use crate::{rows::areas, versions};
use cove_tests::harness::{self, Test};
use std::{env, fmt::Write as _, fs, path::Path};

/// Set to have the page written instead of compared.
const WRITE: &str = "COVE_WRITE_DOCS";

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");

/// The lists of the other suites' tests; those that run with `--all` alone come after [`SLOW`].
const SUITES: [(&str, &str); 4] = [
    ("engine", include_str!("../engine/main.rs")),
    ("folders", include_str!("../folders/main.rs")),
    ("network", include_str!("../network/main.rs")),
    ("recovery", include_str!("../recovery/main.rs")),
];

/// Begins the list of a suite's tests that take long, in its sources.
const SLOW: &str = "let slow:";

/// A part of Docker.
pub(crate) struct Area {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// What a person would look for.
pub(crate) struct Row {
    what: &'static str,
    /// The client that the tests use.
    client: &'static str,
    proof: Proof,
}

enum Proof {
    /// On every run.
    Core(Vec<Test>),
    /// With `cargo xtask test --all`.
    Extended(Vec<Test>),
    /// By these tests of another suite.
    Elsewhere(&'static str, &'static [&'static str]),
    /// Not here.
    Unproven {
        why: &'static str,
        would_prove: &'static str,
    },
}

/// A row that is proven on every run.
pub(crate) fn row(what: &'static str, client: &'static str, tests: impl Into<Vec<Test>>) -> Row {
    let proof = Proof::Core(tests.into());
    Row { what, client, proof }
}

/// A row that is proven by `cargo xtask test --all`.
pub(crate) fn extended(what: &'static str, client: &'static str, tests: impl Into<Vec<Test>>) -> Row {
    let proof = Proof::Extended(tests.into());
    Row { what, client, proof }
}

/// A row that another suite proves.
pub(crate) fn elsewhere(
    what: &'static str,
    client: &'static str,
    suite: &'static str,
    tests: &'static [&'static str],
) -> Row {
    let proof = Proof::Elsewhere(suite, tests);
    Row { what, client, proof }
}

/// A row that cannot be proven where the tests run: why, and what would do it.
pub(crate) fn unproven(what: &'static str, why: &'static str, would_prove: &'static str) -> Row {
    Row {
        what,
        client: "",
        proof: Proof::Unproven { why, would_prove },
    }
}

/// The tests of this run, each once.
pub(crate) fn tests() -> Vec<Test> {
    let all = harness::all();
    let mut chosen: Vec<Test> = Vec::new();
    for row in areas().into_iter().flat_map(|area| area.rows) {
        let tests = match row.proof {
            Proof::Core(tests) => tests,
            Proof::Extended(tests) if all => tests,
            Proof::Extended(_) | Proof::Elsewhere(..) | Proof::Unproven { .. } => continue,
        };
        for test in tests {
            if !chosen.iter().any(|(name, _)| *name == test.0) {
                chosen.push(test);
            }
        }
    }
    chosen
}

/// What is to be done before any test.
pub(crate) enum Errand {
    /// The page is right: run the tests.
    Test,
    /// The page was written.
    Written,
    /// The page, or the table, is wrong: why.
    Wrong(String),
}

/// Compares the page with the table, or writes it if that is wished for.
pub(crate) fn errand() -> Errand {
    if let Some((suite, test)) = gone() {
        return Errand::Wrong(format!(
            "the table names {test}, which the suite `{suite}` has not"
        ));
    }
    let path = Path::new(PAGE);
    let page = page();
    if env::var_os(WRITE).is_some() {
        return match fs::write(path, page) {
            Ok(()) => Errand::Written,
            Err(error) => Errand::Wrong(format!("docs/compatibility.md cannot be written: {error}")),
        };
    }
    // What is written after all tests have passed need not be right before.
    if harness::all() || fs::read_to_string(path).is_ok_and(|there| there == page) {
        return Errand::Test;
    }
    Errand::Wrong(
        "docs/compatibility.md is not what the table says; write it anew: cargo xtask docs".to_owned(),
    )
}

/// A test that a row names and that is not there any more, and its suite.
fn gone() -> Option<(&'static str, &'static str)> {
    areas().iter().flat_map(|area| &area.rows).find_map(|row| {
        let Proof::Elsewhere(suite, tests) = row.proof else {
            return None;
        };
        // Of a suite that is not there every test is gone.
        let list = SUITES.iter().find(|(name, _)| *name == suite);
        let list = list.map_or("", |(_, list)| *list);
        let gone = tests.iter().find(|test| !names(list, test))?;
        Some((suite, *gone))
    })
}

/// Whether one of these tests of another suite runs with `cargo xtask test --all` alone.
fn slow(suite: &str, tests: &[&str]) -> bool {
    let list = SUITES.iter().find(|(name, _)| *name == suite);
    let slow = list.and_then(|(_, list)| list.split_once(SLOW));
    slow.is_some_and(|(_, slow)| tests.iter().any(|test| names(slow, test)))
}

/// Whether this piece of a program names a test by its path; another one may begin with it. What a comment names does
/// not run.
fn names(program: &str, test: &str) -> bool {
    let of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let code = program.lines().filter_map(|line| line.split("//").next());
    code.flat_map(|line| line.split(|letter| !of_path(letter)))
        .any(|path| path == test)
}

fn page() -> String {
    let mut page = String::from(
        "# What works\n\n\
         <!-- Made from tests/tests/compatibility/rows.rs by `cargo xtask docs`, and by `cargo xtask test --all` when all is green. -->\n\n\
         Each row is proven by tests that use the client it names, unmodified, against a machine; where no suite is named,\n\
         they are those of `tests/tests/compatibility`. `cargo xtask test` runs them, and fails when one fails. Rows marked\n\
         *extended* take long, or are the engine's own and change least: only `cargo xtask test --all` runs those.\n\
         What cannot be proven where the tests run is marked so, with what would prove it.\n\n\
         Where that client is HTTP on the socket, or one of the suite's own, a test writes and reads the bytes itself,\n\
         which shows what the API does and not what a program makes of it.\n\n\
         A client is told where the engine is, by `DOCKER_HOST` or a context, and nothing else that is about Cove. What\n\
         else a test sets is a switch of the client that it is about, such as `DOCKER_BUILDKIT=0` for the classic builder.\n\
         `HOME` and `DOCKER_CONFIG` are the test's own, so that no account and no plugin of whoever runs it has a part.\n",
    );
    page += &versions::section();
    for area in areas() {
        // Writing to a string does not fail.
        let _ = write!(
            page,
            "\n## {}\n\n| what | client | proven by |\n| --- | --- | --- |\n",
            area.title
        );
        for row in area.rows {
            const EXTENDED: &str = " *(extended)*";
            let names = |names: &mut dyn Iterator<Item = &str>| -> String {
                let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
                names.join("<br>")
            };
            let (mark, proof) = match row.proof {
                Proof::Core(tests) => ("", names(&mut tests.iter().map(|(name, _)| *name))),
                Proof::Extended(tests) => (EXTENDED, names(&mut tests.iter().map(|(name, _)| *name))),
                Proof::Elsewhere(suite, tests) => {
                    let names = names(&mut tests.iter().copied());
                    let mark = if slow(suite, tests) { EXTENDED } else { "" };
                    (mark, format!("suite `{suite}`:<br>{names}"))
                }
                Proof::Unproven { why, would_prove } => (
                    " *(unproven)*",
                    format!("{why}. It would be proven by {would_prove}."),
                ),
            };
            let _ = writeln!(page, "| {}{mark} | {} | {proof} |", row.what, row.client);
        }
    }
    page
}
