//! What is dragged onto the window from another one, checked from within the container that it ends in.

use crate::drag::Drag;
use cove_tests::harness::{
    Cove,
    webdriver::{SOON, Window},
};
use serde_json::Value;
use std::fs;

/// Types into a field of the form.
fn fill(window: &Window, label: &str, text: &str) {
    let field = window.find(&format!(
        "//form//label[starts-with(normalize-space(), '{label}')]//input"
    ));
    window.type_into(&field, text);
}

pub(crate) fn a_folder_dragged_from_another_window_is_mounted_and_read(cove: &Cove) {
    // The machine runs, unless this test is the only one.
    cove.start();
    // Elsewhere than in the home folder, so that containers may not see it before a person says so.
    let elsewhere = tempfile::Builder::new()
        .prefix("cove-dragged-")
        .tempdir_in("/tmp")
        .expect("it can be made");
    let folder = fs::canonicalize(elsewhere.path())
        .expect("it is there")
        .join("two words");
    fs::create_dir(&folder).expect("it can be made");
    fs::write(folder.join("Dockerfile"), "FROM alpine\n").expect("it can be written");
    fs::write(folder.join("note"), "carried over by hand\n").expect("it can be written");
    let path = folder.display().to_string();

    let window = Window::open(cove);
    // Nobody listens for drops before the list is there.
    window.reads("default · running");
    let mut drag = Drag::begin(window.display(), &folder).expect("it can be taken hold of");
    let middle = drag
        .middle_of_the_application()
        .expect("the application takes drops");
    drag.to(middle).expect("the application takes the folder");
    window.reads("Drop a folder to mount, build or bring it up");
    window.picture("7g-dragging");
    drag.let_go().expect("the application took the folder");

    window.reads(&path);
    window.reads("Containers cannot see this folder yet.");
    window.picture("7h-dropped");
    // A folder with a Dockerfile might be built as well, which is proposed first.
    window.click(&window.find("//dialog//label[normalize-space()='Mount in a new container']//input"));
    window.press("Share and mount");
    window.reads(&format!(
        "--mount 'type=bind,source={path},target=/mnt/two words,readonly'"
    ));
    fill(&window, "Image", "alpine");
    fill(&window, "Name", "dragged");
    fill(&window, "Command", "cat \"/mnt/two words/note\"");
    window.picture("7i-mounted");
    window.click(&window.find("//form//button[normalize-space()='Run' and not(@disabled)]"));
    window.find("//h2[normalize-space()='dragged']");
    window.find_within(
        SOON * 2,
        "//*[@role='log']//*[contains(., 'carried over by hand')]",
    );

    assert_eq!(cove.docker(["logs", "dragged"]).ok(), "carried over by hand");
    let mounts = cove.docker(["inspect", "--format", "{{json .Mounts}}", "dragged"]);
    let mounts: Value = serde_json::from_str(&mounts.ok()).expect("the client writes JSON");
    assert_eq!(mounts[0]["Source"], path.as_str(), "{mounts}");
    assert_eq!(mounts[0]["RW"], false, "{mounts}");
    cove.docker(["rm", "dragged"]).ok();
    cove.cove(["share", "remove", "--force", &path]).ok();
}
