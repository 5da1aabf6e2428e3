//! What is done to a container in the window, and what it shows of one, checked by an unmodified Docker client.

use crate::things::agree;
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{SOON, Window},
};

/// Opens a container at the side of the list.
pub(crate) fn open(window: &Window, name: &str) {
    window.click(&window.find(&format!("//a[.//span[normalize-space()='{name}']]")));
    window.find(&format!("//h2[normalize-space()='{name}']"));
}

/// What the engine knows of a container or an image.
pub(crate) fn known(cove: &Cove, name: &str, format: &str) -> String {
    cove.docker(["inspect", "--format", format, name]).ok()
}

/// Has the machine run, and in it the container `hello`, as the form's example is: both do, unless a test runs by itself.
#[track_caller]
pub(crate) fn hello(cove: &Cove) {
    const TALK: &str = "while :; do echo \"hello, it is $(date)\"; sleep 1; done";
    cove.start();
    let names = cove.docker(["ps", "--format", "{{.Names}}"]).ok();
    if names.lines().all(|name| name != "hello") {
        // What a failed test has left.
        cove.docker(["rm", "--force", "hello"]).run();
        cove.docker(["run", "--detach", "--name", "hello", "alpine", "sh", "-c", TALK])
            .ok();
    }
}

pub(crate) fn a_container_goes_through_its_states_and_its_command_makes_another(cove: &Cove) {
    cove.start();
    // Its first process passes on that it is to end.
    cove.docker(["run", "--detach", "--init", "--name", "acted"])
        .args(["--env", "WORD=two words", "--restart", "on-failure:2"])
        .args(["--publish", "127.0.0.1::80", "alpine", "sleep", "600"])
        .ok();
    let becomes = |state: &str| {
        eventually(state, || known(cove, "acted", "{{.State.Status}}") == state);
    };
    let window = Window::open(cove);
    open(&window, "acted");
    window.press("Pause");
    becomes("paused");
    window.press("Resume");
    becomes("running");
    let started = known(cove, "acted", "{{.State.StartedAt}}");
    window.press("Restart");
    eventually("another life", || {
        known(cove, "acted", "{{.State.StartedAt}}") != started
    });
    becomes("running");
    window.press("Stop");
    window.reads_within(SOON * 2, "Exited (143)");
    window.press("Start");
    becomes("running");
    window.press("Kill");
    agree(&window, "Kill");
    window.reads_within(SOON * 2, "Exited (137)");
    window.picture("8a-actions");

    window.press("Rename");
    window.type_over(&window.find("//dialog//input"), "acted-on");
    agree(&window, "Rename");
    window.find("//h2[normalize-space()='acted-on']");
    window.press("Commit");
    agree(&window, "Commit");
    window.reads_within(SOON * 2, "Commit acted-on as acted-on:latest · done");
    assert_eq!(
        known(cove, "acted-on:latest", "{{json .Config.Cmd}}"),
        r#"["sleep","600"]"#
    );
    cove.docker(["rmi", "acted-on:latest"]).ok();

    let id = known(cove, "acted-on", "{{.Id}}");
    let line = window.script_async(&format!(
        "const done = arguments[arguments.length - 1];\
         window.__TAURI_INTERNALS__.invoke('run_line', {{id: '{id}'}})\
         .then(done, (error) => done(JSON.stringify(error)))"
    ));
    let line = line.as_str().unwrap_or_default();
    let words = line
        .strip_prefix("docker ")
        .expect("a line of the Docker client's");
    let wanted = "{{json .Config.Cmd}} {{json .Config.Env}} {{json .HostConfig.PortBindings}} \
                  {{json .HostConfig.RestartPolicy}} {{.HostConfig.Init}}";
    let before = known(cove, "acted-on", wanted);
    window.press("Remove");
    agree(&window, "Remove");
    eventually("the container to go", || {
        cove.docker(["container", "inspect", "acted-on"]).run().code == Some(1)
    });
    // As a person would paste it.
    cove.program("sh")
        .args(["-c", &format!("exec \"$0\" {words}")])
        .arg(&cove.kit().docker)
        .env(
            "DOCKER_HOST",
            format!("unix://{}", cove.docker_socket().display()),
        )
        .ok();
    assert_eq!(known(cove, "acted-on", wanted), before, "{line}");
    cove.docker(["rm", "--force", "acted-on"]).ok();
}

pub(crate) fn what_a_container_does_and_has_is_seen(cove: &Cove) {
    cove.start();
    cove.docker(["run", "--detach", "--name", "known", "--env", "TZ=UTC"])
        .args(["--volume", "known-data:/data", "alpine"])
        .args(["sh", "-c", "while :; do :; done"])
        .ok();
    let window = Window::open(cove);
    open(&window, "known");
    window.press("Processes");
    window.find("//table//td[contains(., 'while :; do :; done')]");
    window.press("Mounts");
    window.reads("/data");
    window.reads("known-data");
    window.press("Stats");
    // It takes a whole processor, as far as the machine gets one.
    window.find("//h3[starts-with(normalize-space(), 'CPU')]/b[number(substring-before(., ' %')) > 20]");
    window
        .find("//h3[starts-with(normalize-space(), 'Memory')]/b[not(starts-with(normalize-space(), '0 '))]");
    window.picture("8b-stats");
    window.press("Inspect");
    let search = window.find("//input[@aria-label='Search keys and values']");
    window.type_into(&search, "TZ=");
    window.reads("\"TZ=UTC\"");
    window.press("JSON");
    window.find("//pre[contains(., '\"WorkingDir\"')]");
    cove.docker(["rm", "--force", "known"]).ok();
    cove.docker(["volume", "rm", "known-data"]).ok();
}
