//! A daemon and an engine that go and come back below an open window.

use cove_tests::harness::{
    Cmd, Cove, eventually,
    webdriver::{SOON, Window},
};

/// What is looked for in the list, and in nothing else that the window shows.
const NAME: &str = "left-alone";

pub(crate) fn a_daemon_that_is_killed_is_told_of_until_there_is_another(cove: &Cove) {
    prepare(cove);
    let window = Window::open(cove);
    window.reads(NAME);
    Cove::kill(cove.daemon_pid());
    window.reads("Cove's daemon does not run");
    window.picture("9a-no-daemon");
    // Whatever needs the daemon starts it, and the window looks by itself.
    cove.cove(["machine", "list"]).ok();
    window.reads("default · running");
    window.reads(NAME);
    cove.docker(["rm", NAME]).ok();
}

pub(crate) fn an_engine_that_stands_still_leaves_what_was_last_known_until_it_answers(cove: &Cove) {
    prepare(cove);
    let window = Window::open(cove);
    window.reads(NAME);
    let silent = Silent::begin(cove);
    // It is asked every ten seconds, and has thirty to answer.
    window.reads_within(SOON * 2, "What shows here is what was last known.");
    window.reads(NAME);
    window.picture("9b-silent-engine");
    drop(silent);
    eventually("the engine to answer", || {
        !window.text().contains("what was last known")
    });
    window.reads(NAME);
    cove.docker(["rm", NAME]).ok();
}

/// Has the machine run, which it does unless this test runs alone, with a container in the list.
#[track_caller]
fn prepare(cove: &Cove) {
    cove.start();
    // What a failed test has left.
    cove.docker(["rm", "--force", NAME]).run();
    // What is looked for needs no program that runs.
    cove.docker(["create", "--name", NAME, "alpine"]).ok();
}

/// The engine's process stands still for as long as this lives.
struct Silent<'a>(&'a Cove);

impl<'a> Silent<'a> {
    #[track_caller]
    fn begin(cove: &'a Cove) -> Self {
        signal(cove, "STOP").ok();
        Self(cove)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // What a failed test has left would fail those after it as well.
        signal(self.0, "CONT").run();
    }
}

fn signal(cove: &Cove, name: &str) -> Cmd {
    let line = format!("kill -{name} $(pidof dockerd)");
    cove.cove(["exec", "sh", "-c", &line])
}
