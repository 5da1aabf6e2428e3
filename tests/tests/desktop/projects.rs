//! Builds and compose projects in the window, from folders of this computer, checked by an unmodified Docker client.

use cove_tests::harness::{
    Cove, eventually,
    webdriver::{BOOT, SOON, Window},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Two stages, of which the second says what it was told.
const DOCKERFILE: &str = "\
FROM alpine AS base
RUN echo one >/one
FROM base
ARG NOTE
COPY note /note
RUN echo \"built by $NOTE\" && grep -q . /note
";
/// A service that says something and goes on.
pub(crate) const COMPOSE: &str = "\
services:
  web:
    image: alpine
    init: true
    stop_grace_period: 1s
    command: [sh, -c, 'echo up and running; sleep 600']
";

/// A folder in the home folder, which machines have. The machine runs, unless this test is the only one.
pub(crate) fn folder(cove: &Cove, name: &str, files: &[(&str, &str)]) -> PathBuf {
    cove.start();
    let folder = cove.scratch().join(name);
    fs::create_dir(&folder).expect("it can be made");
    for (file, text) in files {
        fs::write(folder.join(file), text).expect("it can be written");
    }
    // The machine has it by its real path.
    fs::canonicalize(&folder).expect("it is there")
}

pub(crate) fn choose(window: &Window, button: &str, folder: &Path) {
    window.press(button);
    window.choose(folder);
}

pub(crate) fn build(window: &Window) {
    // What tells of an earlier one may lie over the button for a moment.
    let toasts = "return document.querySelectorAll('[role=status] .toast').length";
    eventually("the toasts to go", || window.script(toasts, &[]) == 0);
    window.click(&window.find("//form//button[normalize-space()='Build' and not(@disabled)]"));
    window.find_within(
        BOOT,
        "//section//header/p[starts-with(normalize-space(), 'done ·') or starts-with(normalize-space(), 'failed ·')]",
    );
}

pub(crate) fn an_image_is_built_from_a_folder_and_its_build_outlives_the_window(cove: &Cove) {
    let site = folder(cove, "site", &[("Dockerfile", DOCKERFILE), ("note", "a note\n")]);
    let window = Window::open(cove);
    window.press("Builds");
    window.reads("No builds yet");
    window.press("Build");
    choose(&window, "Choose a folder…", &site);
    window.reads("docker build --tag site:latest");
    let arguments = window.find("//form//label[starts-with(normalize-space(), 'Build arguments')]//textarea");
    window.type_into(&arguments, "NOTE=seven");
    build(&window);
    window.picture("7d-build");
    window.reads("FROM docker.io/library/alpine");
    window.reads("base");
    window.reads("stage-1");
    window.click(&window.find("//section//nav//a[normalize-space()='Logs']"));
    // The step's title says it as well, but not at the end of a line.
    window.reads("built by seven\n");
    let note = cove.docker(["run", "--rm", "site", "cat", "/note", "/one"]).ok();
    assert_eq!(note, "a note\none");

    // What was done is not done again, and the second build says so.
    window.press("Build again");
    build(&window);
    window.reads("cached");
    window.click(&window.find("//section//nav//a[normalize-space()='Logs']"));
    window.reads("CACHED");

    // A step that fails says what it wrote.
    fs::write(site.join("note"), "").expect("it can be written");
    window.press("Build again");
    build(&window);
    window.reads("did not complete successfully: exit code: 1");
    window.picture("7e-build-failed");
    drop(window);

    let window = Window::open(cove);
    window.press("Builds");
    window.find("//tbody//tr[.//td[normalize-space()='failed']]");
    let done = window.find("//tbody//tr[.//td[normalize-space()='done']][last()]//a");
    window.click(&done);
    window.click(&window.find("//section//nav//a[normalize-space()='Logs']"));
    window.reads("built by seven");
    cove.docker(["rmi", "site"]).ok();
}

pub(crate) fn a_compose_project_is_brought_up_edited_and_brought_down(cove: &Cove) {
    let stall = folder(cove, "stall", &[("compose.yaml", COMPOSE)]);
    let window = Window::open(cove);
    window.press("Compose");
    choose(&window, "Open a folder", &stall);
    window.reads("not created");
    window.press("Bring up");
    window.reads_within(BOOT, "1 of 1 running");
    let services = || {
        let of_project = "label=com.docker.compose.project=stall";
        cove.docker(["ps", "--filter", of_project, "--format", "{{.Names}}"])
            .ok()
    };
    assert_eq!(services(), "stall-web-1");
    window.picture("7f-compose");
    window.click(&window.find("//section//nav//a[normalize-space()='Logs']"));
    window.reads("up and running");

    window.click(&window.find("//section//nav//a[normalize-space()='File']"));
    let file = stall.join("compose.yaml");
    window.find("//textarea[contains(@aria-label, 'compose.yaml')]");
    let edit = |text: &str| {
        window.script(
            "const area = document.querySelector('textarea'); area.value = arguments[0];\
             area.dispatchEvent(new Event('input', {bubbles: true}))",
            &[text.into()],
        );
        window.press("Save");
    };
    edit("services:\n  web:\n    image: [alpine\n");
    window.reads("compose.yaml is not valid");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), COMPOSE);
    let changed = format!("{COMPOSE}    environment:\n      NOTE: seven\n");
    edit(&changed);
    eventually("the file to be saved", || {
        fs::read_to_string(&file).is_ok_and(|text| text == changed)
    });
    eventually("the window to say so", || !window.text().contains("not saved"));
    assert_eq!(
        fs::read_dir(&stall).expect("it is there").count(),
        1,
        "something is left beside it"
    );
    window.press("Bring up");
    eventually("the service to be made anew", || {
        let told = cove
            .docker(["inspect", "--format", "{{.Config.Env}}", "stall-web-1"])
            .run();
        told.text().contains("NOTE=seven")
    });
    window.find_within(
        SOON,
        "//section//button[normalize-space()='Bring down' and not(@disabled)]",
    );
    window.press("Bring down");
    window.click(&window.find("//dialog//button[normalize-space()='Bring down']"));
    eventually("its containers to go", || services().is_empty());
    window.reads("0 of 1 running");
}
