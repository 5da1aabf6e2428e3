//! Files of containers and volumes in the window, checked from within containers.

use crate::containers;
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{SOON, Window},
};
use std::fs;

/// Opens the Files tab of a container.
pub(crate) fn files(window: &Window, container: &str) {
    let row = window.find(&format!("//a[.//span[normalize-space()='{container}']]"));
    window.click(&row);
    window.press("Files");
}

/// Opens a folder or a file of the folder that is shown.
pub(crate) fn open(window: &Window, name: &str) {
    let button = window.find_within(SOON, &format!("//button[@title='{name}' and not(@disabled)]"));
    window.click(&button);
}

pub(crate) fn files_of_a_container_are_edited_made_and_renamed(cove: &Cove) {
    containers::hello(cove);
    let inside = |script: &str| cove.docker(["exec", "hello", "sh", "-c", script]).ok();
    inside("printf 'one\\n' >/etc/motd && chown 7:8 /etc/motd && chmod 640 /etc/motd && rm /etc/issue");
    let window = Window::open(cove);
    files(&window, "hello");
    open(&window, "etc");
    // What the image had and the container removed.
    window.find("//*[@class and contains(@class, 'gone')]//*[normalize-space()='issue']");
    open(&window, "motd");
    let text = window.find("//textarea[@aria-label='/etc/motd']");
    window.type_into(&text, "two, from the window");
    window.picture("6a-editor");
    window.press("Save");
    eventually("the file to be saved", || !window.text().contains("not saved"));
    assert_eq!(
        inside("cat /etc/motd; echo; stat -c '%a %u:%g' /etc/motd"),
        "one\ntwo, from the window\n640 7:8"
    );
    // Somebody else writes, which saving again notices.
    inside("echo three >>/etc/motd");
    window.type_into(&text, ", lost?");
    window.press("Save");
    window.reads("Nothing was saved.");
    assert!(inside("cat /etc/motd").ends_with("three"));
    window.press("Overwrite");
    eventually("the file to be overwritten", || {
        !window.text().contains("not saved")
    });
    assert!(inside("cat /etc/motd").ends_with("window, lost?"));
    window.press("Back to the folder");
    window.find("//div[contains(@class, 'file')][.//button[@title='motd']]//*[normalize-space()='changed']");

    window.press("New folder");
    let name = window.find("//dialog//input");
    window.type_into(&name, "made");
    window.press("Create");
    window.press("Rename made");
    let name = window.find("//dialog//input");
    // The name is selected, so that typing replaces it.
    window.type_into(&name, "renamed");
    window.click(&window.find("//dialog//button[normalize-space()='Rename']"));
    window.find("//button[contains(@title, 'renamed')]");
    let found = inside("ls -d /etc/*named; ls -d /etc/made 2>&1 || true");
    assert!(found.starts_with("/etc/") && found.contains("renamed"), "{found}");
    assert!(found.contains("No such file"), "{found}");
    window.picture("6b-files");
}

pub(crate) fn files_of_a_container_that_never_ran_are_seen(cove: &Cove) {
    cove.start();
    cove.docker(["create", "--name", "still", "alpine"]).ok();
    let window = Window::open(cove);
    files(&window, "still");
    window.reads("The container does not run");
    open(&window, "etc");
    open(&window, "alpine-release");
    window.find("//textarea[@aria-label='/etc/alpine-release']");
    window.picture("6c-stopped");
    cove.docker(["rm", "still"]).ok();
}

pub(crate) fn files_are_copied_in_and_out_by_the_systems_dialogs(cove: &Cove) {
    containers::hello(cove);
    let inside = |script: &str| cove.docker(["exec", "hello", "sh", "-c", script]).ok();
    let (there, back) = (
        cove.scratch().join("carried.txt"),
        cove.scratch().join("back.txt"),
    );
    fs::write(&there, "carried in\n").expect("it can be written");
    let window = Window::open(cove);
    files(&window, "hello");
    open(&window, "srv");
    window.press("Upload…");
    window.choose(&there);
    window.find(
        "//div[contains(@class, 'file')][.//button[@title='carried.txt']]//*[normalize-space()='added']",
    );
    assert_eq!(inside("cat /srv/carried.txt"), "carried in");
    inside("echo and out >>/srv/carried.txt");
    window.press("Download carried.txt");
    window.choose(&back);
    window.reads(&format!("Saved as {}", back.display()));
    let text = fs::read_to_string(&back).expect("it is there");
    assert_eq!(text, "carried in\nand out\n");
    inside("rm /srv/carried.txt");
}

pub(crate) fn a_file_of_a_volume_is_edited_and_a_container_sees_it(cove: &Cove) {
    cove.start();
    let inside = |script: &str| {
        cove.docker(["run", "--rm", "--volume", "kept:/v", "alpine", "sh", "-c", script])
            .ok()
    };
    // A link that leads out of the volume leads nowhere from within it.
    inside(
        "mkdir /v/conf && printf 'one\\n' >/v/conf/site && chown 7:8 /v/conf/site && chmod 640 /v/conf/site && ln -s /etc/passwd /v/out",
    );
    let window = Window::open(cove);
    window.press("Volumes");
    window.click(&window.find("//table//a[.//span[normalize-space()='kept']]"));
    window.click(&window.find("//section[@aria-label='Details of kept']//nav//a[normalize-space()='Files']"));
    window.find("//button[@title='out' and @disabled]");
    open(&window, "conf");
    open(&window, "site");
    let text = window.find("//textarea[@aria-label='/conf/site']");
    window.type_into(&text, "two, from the window");
    window.press("Save");
    eventually("the file to be saved", || !window.text().contains("not saved"));
    assert_eq!(
        inside("cat /v/conf/site; echo; stat -c '%a %u:%g' /v/conf/site"),
        "one\ntwo, from the window\n640 7:8"
    );
    // Somebody else writes, which saving again notices.
    inside("echo three >>/v/conf/site");
    window.type_into(&text, ", lost?");
    window.press("Save");
    window.reads("Nothing was saved.");
    assert!(inside("cat /v/conf/site").ends_with("three"));
    window.press("Overwrite");
    eventually("the file to be overwritten", || {
        !window.text().contains("not saved")
    });
    window.press("Back to the folder");
    window.press("Rename site");
    let name = window.find("//dialog//input");
    window.type_into(&name, "page");
    window.click(&window.find("//dialog//button[normalize-space()='Rename']"));
    window.find("//button[contains(@title, 'page')]");
    window.picture("6d-volume");
    let found = inside("ls /v/conf");
    assert!(found.contains("page"), "{found}");
    // No helper stays, and nobody finds the volume in use.
    eventually("the helpers to be removed", || {
        cove.docker(["ps", "--all", "--quiet", "--filter", "label=dev.cove.helper"])
            .ok()
            .is_empty()
    });
    cove.docker(["volume", "rm", "kept"]).ok();
}
