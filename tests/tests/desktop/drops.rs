//! What is dragged onto the window from another one, checked where it ends: in a container, an image, a project or a
//! form.

use crate::{
    drag::Drag,
    files,
    projects::{COMPOSE, folder},
    things::{agree, done},
};
use cove_tests::harness::{
    Cove,
    webdriver::{SOON, Window},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What the window says while something is dragged over it that it would ask about.
const ASKS: &str = "Drop a folder to mount, build or bring it up";

/// Types into a field of the form.
fn fill(window: &Window, label: &str, text: &str) {
    let field = window.find(&format!(
        "//form//label[starts-with(normalize-space(), '{label}')]//input"
    ));
    window.type_into(&field, text);
}

/// Drags something of this computer from another window to the middle of the application's, and lets go of it there as
/// soon as that says what it would do with it.
fn drag(window: &Window, path: &Path, says: &str, picture: &str) {
    let mut drag = Drag::begin(window.display(), path).expect("it can be taken hold of");
    let middle = drag
        .middle_of_the_application()
        .expect("the application takes drops");
    drag.to(middle).expect("the application takes what is dragged");
    window.reads(says);
    window.picture(picture);
    drag.let_go().expect("the application took what was dragged");
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
    drag(&window, &folder, ASKS, "7g-dragging");
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

pub(crate) fn a_folder_dragged_onto_the_window_leads_to_a_build_or_comes_up(cove: &Cove) {
    // Both are in the home folder, which containers see, so that there is nothing to ask about that.
    let site = folder(cove, "carried-site", &[("Dockerfile", "FROM alpine\n")]);
    let shop = folder(cove, "carried-shop", &[("compose.yaml", COMPOSE)]);
    let window = Window::open(cove);
    // What the dialog proposes, and which of it is chosen.
    let proposed = |name: &str| {
        window.find(&format!("//dialog[@aria-label='{name}']//button[not(@disabled)]"));
        window.reads("What is to be done with it?");
        window.script(
            "return Array.from(document.querySelectorAll('dialog input[type=radio]'),\
             (use) => [use.parentElement.innerText.trim(), use.checked])",
            &[],
        )
    };
    window.reads("default · running");
    drag(&window, &site, ASKS, "7j-dragging-site");
    assert_eq!(
        proposed("carried-site"),
        json!([
            ["Build an image (Dockerfile)", true],
            ["Mount in a new container", false]
        ])
    );
    window.picture("7k-asked");
    agree(&window, "Build");
    window.find(&format!(
        "//form[@aria-label='Build an image']//p[normalize-space()='{}']",
        site.display()
    ));
    window.reads("docker build --tag carried-site:latest");
    window.find("//form//button[normalize-space()='Build' and not(@disabled)]");

    // The form for a build would take a folder itself.
    window.press("Compose");
    drag(&window, &shop, ASKS, "7l-dragging-shop");
    assert_eq!(
        proposed("carried-shop"),
        json!([
            ["Bring up its compose project (compose.yaml)", true],
            ["Mount in a new container", false]
        ])
    );
    agree(&window, "Bring up");
    done(&window, "Bring up carried-shop");
    window.reads("1 of 1 running");
    let of_project = "label=com.docker.compose.project=carried-shop";
    let services = cove.docker(["ps", "--filter", of_project, "--format", "{{.Names}}"]);
    assert_eq!(services.ok(), "carried-shop-web-1");
    cove.docker(["rm", "--force", "carried-shop-web-1"]).ok();
    cove.docker(["network", "rm", "carried-shop_default"]).ok();
}

pub(crate) fn a_file_dragged_onto_a_containers_files_is_copied_into_the_folder_that_is_shown(cove: &Cove) {
    cove.start();
    cove.docker([
        "run", "--detach", "--init", "--name", "given", "alpine", "sleep", "600",
    ])
    .ok();
    let file = cove.scratch().join("by hand.txt");
    fs::write(&file, "carried in by hand\n").expect("it can be written");
    let window = Window::open(cove);
    files::files(&window, "given");
    files::open(&window, "srv");
    window.find("//nav//button[@aria-current='location' and normalize-space()='srv']");
    drag(
        &window,
        &file,
        "Drop to copy into the container",
        "7m-dragging-file",
    );
    window.find(
        "//div[contains(@class, 'file')][.//button[@title='by hand.txt']]//*[normalize-space()='added']",
    );
    window.picture("7n-copied");
    let inside = cove.docker(["exec", "given", "cat", "/srv/by hand.txt"]).ok();
    assert_eq!(inside, "carried in by hand");
    cove.docker(["rm", "--force", "given"]).ok();
}

pub(crate) fn a_tar_file_dragged_onto_the_images_is_loaded(cove: &Cove) {
    cove.start();
    let file = cove.scratch().join("carried.tar");
    cove.docker(["tag", "alpine", "carried:1"]).ok();
    cove.docker(["save", "--output"]).arg(&file).arg("carried:1").ok();
    let id = cove.docker(["inspect", "--format", "{{.Id}}", "carried:1"]).ok();
    cove.docker(["rmi", "carried:1"]).ok();
    let carried = || cove.docker(["images", "--quiet", "--no-trunc", "carried:1"]).ok();
    assert_eq!(carried(), "");
    let window = Window::open(cove);
    window.press("Images");
    window.find("//table//a[.//span[normalize-space()='alpine:latest']]");
    drag(
        &window,
        &file,
        "Drop a tar file to load its images",
        "7o-dragging-tar",
    );
    done(&window, "Load carried.tar");
    window.reads("carried:1");
    assert_eq!(carried(), id);
    cove.docker(["rmi", "carried:1"]).ok();
}
