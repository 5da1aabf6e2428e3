//! The first command of the README, from what is built to a page out of a container.

use cove_tests::harness::Cove;
use std::time::Duration;

/// A boot, and a container.
const LIMIT: Duration = Duration::from_mins(6);
const CONTAINER: &str = "cove-welcome-page";

/// With directories of its own, in which nothing has run before. What comes before is no machine's: what is missing is
/// there already, and all is built.
pub(crate) fn run_shows_a_page_out_of_a_container_and_leads_a_shell_to_its_machine(_: &Cove) {
    let cove = Cove::without_image("checkout");
    let xtask = cove.kit().xtask.as_ref().unwrap().to_str().unwrap();
    let run = || {
        let run = cove.program(xtask).args(["run", "--once", "--built"]);
        run.limit(LIMIT).ok()
    };
    let id = || cove.docker(["inspect", "--format", "{{.Id}}", CONTAINER]).ok();

    let said = run();
    let first = id();
    let within = cove.docker(["exec", CONTAINER, "hostname"]).ok();
    shows_page_of(&within, &said);
    // Another client has it from the address that was told.
    let page = cove.program("curl").args(["-sS", after("The page:", &said)]).ok();
    assert!(page.contains("<title>Welcome to Cove</title>"), "{page}");

    let script = format!(
        "{}\ncove status --json\ndocker run --rm alpine cat /etc/os-release",
        after("In your shell:", &said)
    );
    let shell = cove.program("sh").args(["-ec", &script]).limit(LIMIT).ok();
    assert!(shell.contains("\"running\""), "{shell}");
    assert!(shell.lines().any(|line| line == "ID=alpine"), "{shell}");

    // Once more: the same machine, another container.
    let machines = cove.machine_processes();
    let said = run();
    assert_eq!(cove.machine_processes(), machines);
    assert_ne!(id(), first);
    let within = cove.docker(["exec", CONTAINER, "hostname"]).ok();
    shows_page_of(&within, &said);
}

/// The page tells the name of the container that made it.
#[track_caller]
fn shows_page_of(container: &str, said: &str) {
    let title = said
        .lines()
        .any(|line| line.trim() == "<title>Welcome to Cove</title>");
    let whence = format!("comes out of the container <code>{container}</code>");
    assert!(title && said.contains(&whence), "{said}");
}

/// What the line that begins so goes on with.
#[track_caller]
fn after<'a>(beginning: &str, said: &'a str) -> &'a str {
    let rest = said.lines().find_map(|line| line.strip_prefix(beginning));
    rest.unwrap().trim()
}
