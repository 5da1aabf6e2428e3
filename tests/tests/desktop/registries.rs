//! Signing in to a private registry, in the window and by the machine's own client, checked by its registry, its helper
//! and an unmodified Docker client.

use crate::{
    projects::{build, choose, folder},
    registry::{Authority, Registry, USER, WORD, fingerprint, helper, place},
    things::{agree, done, fill, open},
};
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{SOON, Window},
};
use std::{env, ffi::OsStr, fs, path::Path};

pub(crate) fn who_signs_in_pushes_and_pulls_and_the_docker_client_as_well(cove: &Cove) {
    cove.start();
    let authority = Authority::new("Burrow");
    let registry = Registry::private(cove, &authority);
    cove.cove(["trust", "add"]).arg(authority.file(cove)).ok();
    let image = registry.image("window:1");
    cove.docker(["create", "--name", "seed", "alpine"]).ok();
    cove.docker(["commit", "seed", &image]).ok();
    cove.docker(["rm", "seed"]).ok();

    let directory = place(cove, "sign-in");
    let config = place(cove, "sign-in/config");
    let file = config.join("config.json");
    fs::write(&file, "{\"credsStore\": \"burrow\", \"detachKeys\": \"ctrl-e\"}").expect("it can be written");
    let kept = directory.join("kept");
    helper(&directory.join("docker-credential-burrow"), &kept);
    let path = env::var("PATH").expect("there is a path");
    let path = format!("{}:{path}", directory.display());
    let window = Window::open_with(
        cove,
        &[("DOCKER_CONFIG", config.as_os_str()), ("PATH", OsStr::new(&path))],
    );
    let docker = |words: &[&str]| {
        cove.docker(words)
            .env("DOCKER_CONFIG", &config)
            .env("PATH", &path)
    };

    // What is refused leads to signing in.
    open(&window, "Images", &image);
    window.press("Push");
    window.reads("no basic auth credentials");
    window.press(&format!("Sign in to {}", registry.name));
    fill(&window, "User", USER);
    fill(&window, "Password or token", "close sesame");
    window.reads(&format!("docker login --username {USER} {}", registry.name));
    window.click(&window.find("//dialog//button[normalize-space()='Sign in' and not(@disabled)]"));
    window.find_within(
        SOON,
        "//dialog//*[@role='alert' and contains(., '401 Unauthorized')]",
    );
    window.picture("7g-sign-in");
    assert!(!kept.exists(), "a wrong password was kept");
    // Control and A, as WebDriver writes keys.
    fill(&window, "Password or token", "\u{e009}a\u{e000}");
    fill(&window, "Password or token", WORD);
    agree(&window, "Sign in");
    window.reads(USER);
    window.picture("7h-registries");
    assert_kept(&kept, &file, &registry.name);

    open(&window, "Images", &image);
    window.press("Push");
    done(&window, &format!("Push {image}"));
    cove.docker(["rmi", &image]).ok();
    docker(&["pull", "-q", &image]).ok();
    cove.docker(["rmi", &image]).ok();
    eventually("the image to go", || !window.text().contains("window:1\n"));
    window.press("Pull");
    fill(&window, "Image", &image);
    agree(&window, "Pull");
    done(&window, &format!("Pull {image}"));
    cove.docker(["inspect", &image]).ok();

    open(&window, "Registries", &registry.name);
    window.press("Sign out");
    agree(&window, "Sign out");
    eventually("the password to be erased", || !kept.exists());
    eventually("the file to be changed", || {
        fs::read_to_string(&file).is_ok_and(|text| !text.contains(&registry.name))
    });
    docker(&["push", "-q", &image])
        .run()
        .fails_with(1)
        .says(&["no basic auth credentials"]);
    cove.docker(["rmi", &image]).ok();
    cove.cove(["trust", "remove", &fingerprint(cove)]).ok();
}

/// Places in the machine that a client could leave a password in.
const IN_MACHINE: [&str; 3] = ["/root", "/etc", "/tmp"];

pub(crate) fn the_machines_own_client_and_a_build_in_the_window_have_this_computers_accounts(cove: &Cove) {
    cove.start();
    let authority = Authority::new("Burrow");
    let registry = Registry::private(cove, &authority);
    cove.cove(["trust", "add"]).arg(authority.file(cove)).ok();
    let image = registry.image("lent:1");
    cove.docker(["tag", "alpine", &image]).ok();

    let directory = place(cove, "lent");
    let config = place(cove, "lent/config");
    let file = config.join("config.json");
    fs::write(&file, "{\"credsStore\": \"burrow\"}").expect("it can be written");
    let kept = directory.join("kept");
    helper(&directory.join("docker-credential-burrow"), &kept);
    let path = env::var("PATH").expect("there is a path");
    let path = format!("{}:{path}", directory.display());
    let inner = |words: &[&str]| {
        cove.cove(["docker"])
            .args(words)
            .env("DOCKER_CONFIG", &config)
            .env("PATH", &path)
    };

    // Who signs in by the machine's client is signed in on this computer.
    inner(&["push", "-q", &image])
        .run()
        .fails_with(1)
        .says(&["no basic auth credentials"]);
    inner(&["login", "--password-stdin", "--username", USER, &registry.name])
        .input(WORD)
        .ok();
    let stored = fs::read_to_string(&kept).expect("the helper keeps it");
    assert!(stored.contains(WORD) && stored.contains(&registry.name));
    inner(&["push", "-q", &image]).ok();
    cove.docker(["rmi", &image]).ok();
    inner(&["pull", "-q", &image]).ok();
    cove.docker(["rmi", &image]).ok();

    let dockerfile = format!("FROM {image}\nRUN echo built >/built\n");
    let site = folder(cove, "private", &[("Dockerfile", &dockerfile)]);
    let window = Window::open_with(
        cove,
        &[("DOCKER_CONFIG", config.as_os_str()), ("PATH", OsStr::new(&path))],
    );
    window.press("Builds");
    window.press("Build");
    choose(&window, "Choose a folder…", &site);
    window.reads("docker build --tag private:latest");
    build(&window);
    window.picture("7i-private-build");
    let built = cove.docker(["run", "--rm", "private", "cat", "/built"]).ok();
    assert_eq!(built, "built");
    cove.docker(["rmi", "private"]).ok();

    // Nothing of it is left in the machine.
    // The machine's own files alone are read: whoever opens a pipe waits for its writer, and a folder of this computer
    // holds the machine's disk. One is put there to be found.
    let look = format!(
        "echo '{WORD}' >/tmp/planted; find {} -xdev -type f -exec grep -lF '{WORD}' {{}} +; rm /tmp/planted",
        IN_MACHINE.join(" ")
    );
    let found = cove.cove(["exec", "--", "sh", "-c", &look]).ok();
    assert_eq!(found, "/tmp/planted");
    let inside = cove.cove(["exec", "cat", "/root/.cove-docker/config.json"]).ok();
    assert!(
        inside.contains(&registry.name) && !inside.contains("\"auth\""),
        "{inside}"
    );

    inner(&["logout", &registry.name]).ok();
    assert!(!kept.exists(), "the helper was not told");
    inner(&["pull", "-q", &image])
        .run()
        .fails_with(1)
        .says(&["no basic auth credentials"]);
    cove.cove(["trust", "remove", &fingerprint(cove)]).ok();
}

/// The helper has the password, and the file everything else, as the Docker client would have left them.
fn assert_kept(kept: &Path, file: &Path, registry: &str) {
    eventually("the password to be kept", || {
        fs::read_to_string(kept).is_ok_and(|text| text.contains(WORD))
    });
    eventually("the registry to be in the file", || {
        fs::read_to_string(file).is_ok_and(|text| text.contains(registry))
    });
    let text = fs::read_to_string(file).expect("it is there");
    assert!(
        !text.contains("\"auth\"") && text.contains("\"detachKeys\": \"ctrl-e\""),
        "{text}"
    );
}
