//! Images, volumes and networks in the window, checked by an unmodified Docker client.

use crate::containers;
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{BOOT, SOON, Window},
};
use serde_json::Value;
use std::{fs, path::Path};

/// Opens a thing at the side of its list.
pub(crate) fn open(window: &Window, screen: &str, name: &str) {
    window.press(screen);
    let row = window.find(&format!("//table//a[.//span[normalize-space()='{name}']]"));
    window.click(&row);
    window.find(&format!("//section[@aria-label='Details of {name}']"));
}

/// Presses a button of the open dialog.
pub(crate) fn agree(window: &Window, action: &str) {
    let button = window.find(&format!(
        "//dialog//button[normalize-space()='{action}' and not(@disabled)]"
    ));
    window.click(&button);
    eventually("the dialog to close", || {
        window.script("return document.querySelector('dialog[open]') === null", &[]) == Value::Bool(true)
    });
}

pub(crate) fn fill(window: &Window, label: &str, text: &str) {
    let field = window.find(&format!(
        "//dialog//label[starts-with(normalize-space(), '{label}')]//input"
    ));
    window.type_into(&field, text);
}

/// Waits for a task to end well, as its toast says.
pub(crate) fn done(window: &Window, title: &str) {
    window.find_within(
        SOON * 2,
        &format!("//*[@role='status']//p[contains(., '{title}') and contains(., 'done')]"),
    );
}

pub(crate) fn an_image_is_named_saved_and_loaded_again(cove: &Cove) {
    cove.start();
    let window = Window::open(cove);
    open(&window, "Images", "alpine:latest");
    // What the engine knows of how it was made.
    window.reads("linux/amd64");
    window.press("Tag");
    fill(&window, "New name", "shop/base:1");
    agree(&window, "Tag");
    window.reads("shop/base:1");
    let names = || {
        cove.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok()
    };
    assert!(names().contains("shop/base:1"), "{}", names());

    // By its new name, since that is what is to come back.
    window.press("Remove the name alpine:latest");
    eventually("the name to go", || !names().contains("alpine:latest"));
    open(&window, "Images", "shop/base:1");
    let file = cove.scratch().join("base.tar");
    window.press("Save");
    window.choose(&file);
    done(&window, "Save shop/base:1");
    assert!(fs::metadata(&file).expect("the file is there").len() > 1 << 20);

    let id = cove
        .docker(["inspect", "--format", "{{.Id}}", "shop/base:1"])
        .ok();
    cove.docker(["tag", "shop/base:1", "alpine:latest"]).ok();
    cove.docker(["rmi", "shop/base:1"]).ok();
    eventually("the row to change", || !window.text().contains("shop/base:1\n"));
    window.press("Load");
    window.choose(&file);
    done(&window, "Load images from a tar file");
    window.picture("7a-images");
    let again = cove
        .docker(["inspect", "--format", "{{.Id}}", "shop/base:1"])
        .ok();
    assert_eq!(again, id);
    cove.docker(["rmi", "shop/base:1"]).ok();
}

pub(crate) fn an_image_is_made_of_a_tar_file_and_those_without_a_name_are_cleared_away(cove: &Cove) {
    cove.start();
    cove.docker(["create", "--name", "whole", "alpine"]).ok();
    let file = cove.scratch().join("whole.tar");
    cove.docker(["export", "--output"]).arg(&file).arg("whole").ok();
    cove.docker(["rm", "whole"]).ok();
    // The second takes the name from the first.
    for word in ["one", "two"] {
        cove.docker(["build", "--quiet", "--tag", "moving:1", "-"])
            .input(format!("FROM alpine\nRUN echo {word} >/word\n"))
            .limit(BOOT)
            .ok();
    }
    let unnamed = || {
        cove.docker(["images", "--quiet", "--filter", "dangling=true"])
            .ok()
    };
    assert_ne!(unnamed(), "");
    let window = Window::open(cove);
    window.press("Images");
    window.press("Import");
    fill(&window, "New name", "flat:1");
    agree(&window, "Import");
    window.choose(&file);
    done(&window, "Import flat:1");
    cove.docker(["run", "--rm", "flat:1", "test", "-e", "/etc/alpine-release"])
        .ok();
    window.press("Clear away");
    agree(&window, "Clear away");
    eventually("those without a name to go", || unnamed().is_empty());
    // What has one stays.
    let word = cove.docker(["run", "--rm", "moving:1", "cat", "/word"]).ok();
    assert_eq!(word, "two");
    cove.docker(["rmi", "flat:1", "moving:1"]).ok();
}

pub(crate) fn a_volume_is_backed_up_and_restored_with_its_owners(cove: &Cove) {
    cove.start();
    let window = Window::open(cove);
    window.press("Volumes");
    window.press("Create");
    fill(&window, "Name", "data");
    agree(&window, "Create");
    open(&window, "Volumes", "data");
    cove.docker([
        "run", "--rm", "--volume", "data:/v", "alpine", "sh", "-c",
        "mkdir /v/inner && echo kept >/v/inner/note && chown -R 70:71 /v/inner && chmod 640 /v/inner/note && ln -s note /v/inner/link && chown 80:81 /v && chmod 750 /v",
    ])
    .ok();
    let file = cove.scratch().join("data.tar");
    window.press("Back up");
    window.choose(&file);
    done(&window, "Back up data");
    assert_helpers_gone(cove);

    window.press("Restore");
    fill(&window, "Name", "data-old");
    agree(&window, "Restore");
    window.choose(&file);
    done(&window, "Restore data-old");
    window.press("Clone");
    agree(&window, "Clone");
    done(&window, "Clone data as data-copy");
    let look = "for v in /old /copy; do stat -c '%a %u:%g' $v/inner/note; cat $v/inner/link; stat -c '%a %u:%g' $v; done";
    let seen = cove
        .docker([
            "run",
            "--rm",
            "--volume",
            "data-old:/old",
            "--volume",
            "data-copy:/copy",
            "alpine",
            "sh",
            "-c",
            look,
        ])
        .ok();
    assert_eq!(seen, "640 70:71\nkept\n750 80:81\n640 70:71\nkept\n750 80:81");
    window.picture("7b-volumes");
    window.press("Empty");
    agree(&window, "Empty");
    done(&window, "Empty data");
    assert_helpers_gone(cove);
    refused(&window, cove, &file);
    cove.docker(["volume", "rm", "data", "data-old", "data-copy"])
        .ok();
}

/// A file that is no archive makes no volume.
fn refused(window: &Window, cove: &Cove, file: &Path) {
    fs::write(file, "this is no archive").expect("it can be written");
    window.press("Restore");
    fill(window, "Name", "broken");
    agree(window, "Restore");
    window.choose(file);
    window.find_within(
        SOON,
        "//*[@role='status']//p[contains(., 'Restore broken') and contains(., 'failed')]",
    );
    eventually("nothing to be left of it", || {
        !cove
            .docker(["volume", "ls", "--quiet"])
            .ok()
            .lines()
            .any(|name| name == "broken")
    });
    assert_helpers_gone(cove);
}

fn assert_helpers_gone(cove: &Cove) {
    eventually("the helpers to be removed", || {
        cove.docker(["ps", "--all", "--quiet", "--filter", "label=dev.cove.helper"])
            .ok()
            .is_empty()
    });
}

pub(crate) fn a_network_is_made_and_a_container_connected(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    window.press("Networks");
    window.press("Create");
    fill(&window, "Name", "lab");
    fill(&window, "Addresses", "10.77.0.0/24");
    agree(&window, "Create");
    open(&window, "Networks", "lab");
    window.press("Connect");
    window.script(
        "const list = document.querySelector('dialog select'); list.value = 'hello';\
         list.dispatchEvent(new Event('change', {bubbles: true}))",
        &[],
    );
    agree(&window, "Connect");
    window.reads("10.77.0.2");
    window.picture("7c-network");
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let connected = || cove.docker(["inspect", "--format", networks, "hello"]).ok();
    assert!(connected().contains("lab"), "{}", connected());
    window.press("Disconnect hello");
    window.reads("No container is connected.");
    assert!(!connected().contains("lab"), "{}", connected());
    // What connecting does not bring back is asked about.
    let with = ["--alias", "www", "--ip", "10.77.0.9"];
    cove.docker(["network", "connect"])
        .args(with)
        .args(["lab", "hello"])
        .ok();
    window.press("Disconnect hello");
    window.reads("does not bring back what it has there: www, 10.77.0.9.");
    agree(&window, "Disconnect hello");
    window.reads("No container is connected.");
    assert!(!connected().contains("lab"), "{}", connected());
    let side = "//section[@aria-label='Details of lab']";
    window.click(&window.find(&format!("{side}//button[normalize-space()='Remove']")));
    agree(&window, "Remove");
    eventually("the network to go", || {
        !cove
            .docker(["network", "ls", "--format", "{{.Name}}"])
            .ok()
            .contains("lab")
    });
}

/// A layer that adds, changes and removes something, and hides a folder behind another.
const LAYERED: &str = "\
FROM alpine
RUN mkdir /srv/site && head -c 3145728 /dev/urandom >/srv/site/large && echo small >/srv/site/small
RUN rm /etc/motd && echo more >>/etc/issue && rm -r /srv/site && mkdir /srv/site && echo new >/srv/site/page
";

pub(crate) fn the_files_of_an_images_layers_are_seen(cove: &Cove) {
    cove.start();
    cove.docker(["build", "--tag", "layered:1", "-"])
        .input(LAYERED)
        .limit(BOOT)
        .ok();
    let window = Window::open(cove);
    open(&window, "Images", "layered:1");
    window.click(
        &window.find("//section[@aria-label='Details of layered:1']//nav//a[normalize-space()='Files']"),
    );
    window.press("Read the layers");
    let layer = |step: &str| {
        let layer = format!("//button[contains(@class, 'layer') and contains(., '{step}')]");
        window.click(&window.find_within(SOON * 4, &layer));
    };
    let row = |path: &str, change: &str| {
        window.find(&format!(
            "//div[contains(concat(' ', @class, ' '), ' file ') and .//*[normalize-space()='{path}'] and .//*[normalize-space()='{change}']]"
        ));
    };
    // The base has what the image of the machine has.
    window.find_within(
        SOON * 4,
        "//div[contains(@class, 'file')]//*[normalize-space()='/etc/alpine-release']",
    );
    layer("head -c 3145728");
    row("/srv/site/large", "3.0 MiB");
    row("/srv/site/small", "added");
    layer("rm /etc/motd");
    row("/etc/motd", "deleted");
    row("/etc/issue", "changed");
    row("/srv/site/page", "added");
    // What it hides says how much that was.
    row("/srv/site/large", "deleted");
    window.picture("7e-layers");
    window.press("Folders");
    window.press("etc/");
    row("issue", "changed");
    // Read once: the list is there again at once.
    window.press("Inspect");
    window.press("Files");
    row("issue", "changed");
    cove.docker(["rmi", "layered:1"]).ok();
}
