//! The machine's settings, logs, shell and disk in the window, checked with the command.

use crate::{
    containers,
    window::{answer, prompted, terminal},
};
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{SOON, Window},
};
use std::fs;

pub(crate) fn a_setting_is_reviewed_applied_and_put_back(cove: &Cove) {
    let grace = || cove.cove(["config", "get", "machine.stop-grace", "--json"]).ok();
    let before = grace();
    let window = Window::open(cove);
    window.press("Machine");
    window.press("Settings");
    let field = "//input[@id='machine.stop-grace']";
    window.type_over(&window.find(field), "a while");
    window.press("Review");
    window.reads("it takes a time such as");
    window.type_over(&window.find(field), "7 s");
    window.press("Review");
    window.reads("+ stop-grace = \"7 s\"");
    assert_eq!(grace(), before, "a review changed the setting");
    window.picture("7a-settings");
    window.press("Apply");
    eventually("the setting to change", || grace().contains("7 s"));
    window.press("Back to the default of machine.stop-grace");
    window.press("Review");
    window.reads("− stop-grace = \"7 s\"");
    window.press("Apply");
    eventually("the setting to be put back", || grace() == before);
}

pub(crate) fn the_machines_logs_are_read(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    window.press("Machine");
    window.press("Logs");
    window.find("//*[@role='log']//*[contains(., 'API listen on')]");
    window.press("kernel");
    // Its last lines, which are of containers' networks.
    window.find("//*[@role='log']//*[contains(., 'docker0')]");
    window.press("Folders and trust");
    window.reads("Shared folders");
    window.picture("7b-access");
}

pub(crate) fn a_shell_of_the_machine_answers(cove: &Cove) {
    cove.start();
    let window = Window::open(cove);
    window.press("Machine");
    window.press("Terminal");
    let keyboard = prompted(&window);
    // The answer is a number that is not typed, so that the echo alone does not do.
    window.type_into(&keyboard, "stty size; echo $((6 * 7 * 1000))\n");
    let size = answer(&window, "42000");
    assert!(!size.contains("0 0"), "the terminal has no size: {size}");
    // In a container nobody would see the engine's process.
    window.type_into(&keyboard, "pidof dockerd | sed s,^,engine:,\n");
    eventually("the engine's process", || {
        let shown = terminal(&window);
        shown
            .split("engine:")
            .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    window.picture("7d-shell");
    window.type_into(&keyboard, "exit\n");
    window.reads("The shell has ended.");
}

pub(crate) fn another_machine_is_made_shown_and_deleted(cove: &Cove) {
    cove.start();
    let listed = || {
        cove.cove(["machine", "list", "--json"])
            .ok()
            .contains("\"second\"")
    };
    let window = Window::open(cove);
    window.press("Machine");
    window.press("Machines");
    window.press("Create a machine…");
    let name = window.find("//dialog//label[starts-with(normalize-space(), 'Name')]//input");
    window.type_into(&name, "second");
    window.press("Create");
    window.press("Show second");
    window.reads("second · stopped");
    assert!(listed(), "it was not made");
    window.picture("7e-machines");
    window.press("Show default");
    window.reads("default · running");
    window.press("Delete second");
    window.type_into(&window.find("//dialog//input"), "second");
    let delete = window.find("//dialog//button[normalize-space()='Delete']");
    window.click(&delete);
    eventually("the machine to be deleted", || !listed());
    // What the first one has is seen again.
    // With their number behind it.
    window.click(&window.find("//nav//a[starts-with(normalize-space(), 'Containers')]"));
    let names = cove.docker(["ps", "--all", "--format", "{{.Names}}"]).ok();
    for name in names.lines() {
        window.reads(name);
    }
}

pub(crate) fn disk_space_of_a_deleted_volume_comes_back(cove: &Cove) {
    const FILLED: u64 = 96 << 20;
    cove.start();
    let on_host = || {
        cove.status()["disk_on_host"]
            .as_u64()
            .expect("the disk's size on the host")
    };
    let window = Window::open(cove);
    window.press("Machine");
    window.reads("may come back to this computer");
    // What earlier tests have left would be used again before the disk grows.
    cove.cove(["machine", "reclaim"]).ok();
    let empty = on_host();
    cove.docker([
        "run",
        "--rm",
        "--volume",
        "large:/v",
        "alpine",
        "sh",
        "-c",
        // Noise, so that nothing on the way can leave holes.
        "dd if=/dev/urandom of=/v/file bs=1M count=96 && sync",
    ])
    .ok();
    let filled = on_host();
    assert!(filled >= empty + FILLED / 2, "{empty}, then {filled}");
    cove.docker(["volume", "rm", "large"]).ok();
    window.press("Give back");
    window.find_within(SOON * 4, "//*[@role='status']/p[contains(., 'It took')]");
    window.picture("7c-space");
    let left = on_host();
    assert!(left + FILLED * 3 / 4 <= filled, "{filled}, then {left}");
    // The command does the same, and finds little more.
    let told = cove.cove(["machine", "reclaim", "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let after = told["after"].as_u64().expect("what it takes now");
    assert!(
        told["before"].is_u64() && after + FILLED * 3 / 4 <= filled,
        "{filled}, then {told}"
    );
}

pub(crate) fn the_window_opens_with_the_session_when_asked_to(cove: &Cove) {
    let entry = cove.scratch().join(".config/autostart/cove-desktop.desktop");
    let window = Window::open(cove);
    window.press("Machine");
    window.press("Settings");
    let switch = window.find("//label[contains(., 'Open Cove when I log in')]//input");
    assert!(!entry.exists(), "it is on before anybody asked for it");
    window.click(&switch);
    eventually("the entry to be written", || entry.exists());
    let text = fs::read_to_string(&entry).expect("it can be read");
    assert!(
        text.contains("cove-desktop\" --hidden") && text.contains("COVE_HOME="),
        "{text}"
    );
    window.click(&switch);
    eventually("the entry to be removed", || !entry.exists());
}
