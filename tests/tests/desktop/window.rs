//! What a person does with the window in a day. Tests go on with what earlier ones left, and make what they need where
//! these did not run.

use crate::{containers, things::agree, tray};
use cove_tests::harness::{
    Cove, eventually,
    webdriver::{BOOT, QUIET, SOON, Window, program},
    within, within_telling,
};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    thread::sleep,
    time::Duration,
};

pub(crate) fn first_run_starts_the_machine_and_shows_how_far_it_is(cove: &Cove) {
    assert!(
        cove.processes().is_empty(),
        "something runs before the window does"
    );
    let window = Window::open(cove);
    window.reads("The machine is stopped");
    window.picture("1-stopped");
    window.press("Start the machine");
    window.find("//progress");
    window.reads("The machine is starting");
    window.picture("2-starting");
    window.reads_within(BOOT, "Start machine default · done");
    window.reads("No containers yet");
    window.reads("default · running");
    window.picture("3-running");
    assert_eq!(cove.state(), "running");
}

pub(crate) fn the_welcome_page_is_served_by_a_container_and_opened_in_the_browser(cove: &Cove) {
    cove.start();
    // Whatever opens pages is found on the PATH. This one only writes down what it is asked for.
    let browser = cove.scratch().join("browser");
    fs::create_dir_all(&browser).expect("it can be made");
    let (program, asked) = (browser.join("xdg-open"), browser.join("asked"));
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >>'{}'\n", asked.display());
    // By a process of its own: a program that is open for writing, as in a child of another test, does not run.
    let written = Command::new("/bin/sh")
        .args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""])
        .arg(&program)
        .arg(script)
        .status();
    assert!(written.expect("there is a shell").success(), "it was not written");
    let before = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths([browser].into_iter().chain(env::split_paths(&before))).expect("no colon in it");

    let window = Window::open_with(cove, &[("PATH", path.as_os_str())]);
    window.press("Open the welcome page");
    let address = within(SOON * 2, "the browser to be asked for a page", || {
        let asked = fs::read_to_string(&asked).ok()?;
        asked.ends_with('\n').then_some(asked)
    });
    let port: u16 = address
        .trim()
        .strip_prefix("http://localhost:")
        .and_then(|rest| rest.strip_suffix('/')?.parse().ok())
        .expect("it is asked for a port of this computer");
    // It was waited for, so that the first request has an answer.
    let page = page_at(port).expect("the page answers");
    assert!(page.contains("<title>Welcome to Cove</title>"), "{page}");
    assert!(page.contains("which runs Alpine Linux"), "{page}");
    window.reads("cove-welcome-page");
    window.picture("3-welcome");
    cove.docker(["rm", "--force", "cove-welcome-page"]).ok();
    window.reads("No containers yet");
}

/// What a port of this computer answers to `GET /`.
fn page_at(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn a_container_that_is_run_in_the_form_shows_its_log(cove: &Cove) {
    cove.start();
    let window = Window::open(cove);
    window.press("Fill in an example");
    window.reads("docker run --detach --name hello alpine sh -c");
    window.picture("4-form");
    let run = window.find("//form//button[normalize-space()='Run']");
    window.click(&run);
    window.find("//h2[normalize-space()='hello']");
    window.find_within(SOON * 2, "//*[@role='log']//*[contains(., 'hello, it is')]");
    window.reads("Up ");
    window.picture("5-log");
    let names = cove.docker(["ps", "--format", "{{.Names}}"]).ok();
    assert_eq!(names.trim(), "hello");
}

pub(crate) fn a_terminal_in_a_container_answers(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    let row = window.find("//a[.//span[normalize-space()='hello']]");
    window.click(&row);
    window.press("Terminal");
    let keyboard = prompted(&window);
    // The answer is a number that is not typed, so that the echo alone does not do.
    window.type_into(&keyboard, "echo $((6 * 7 * 1000)); stty size\n");
    let size = answer(&window, "42000");
    assert!(!size.contains("0 0"), "the terminal has no size: {size}");
    window.picture("6-terminal");
    window.type_into(&keyboard, "exit\n");
    window.reads("The shell has ended.");
}

pub(crate) fn a_terminal_that_is_closed_ends_its_shell_and_what_runs_in_it(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    let row = window.find("//a[.//span[normalize-space()='hello']]");
    window.click(&row);
    sleeps_in_a_terminal(cove, &window);
    // One that is only left goes on, and shows again what it has shown.
    window.press("Logs");
    window.reads("lines");
    window.press("Terminal (1)");
    answer(&window, "sleep 4321");
    assert!(shell(cove).is_some_and(|shell| shell.contains("sleep 4321")));
    window.press("Close shell 1");
    eventually("the shell of the closed terminal to end", || {
        shell(cove).is_none()
    });
}

pub(crate) fn a_shell_ends_with_its_window(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    let row = window.find("//a[.//span[normalize-space()='hello']]");
    window.click(&row);
    sleeps_in_a_terminal(cove, &window);
    drop(window);
    eventually("the shell to end with its window", || shell(cove).is_none());
}

pub(crate) fn the_window_opens_where_and_as_large_as_it_was_when_it_was_closed(cove: &Cove) {
    // It is remembered in there, and for no other test.
    let place = tempfile::tempdir().expect("it can be made");
    let variables = [("XDG_CONFIG_HOME", place.path().as_os_str())];
    let window = Window::open_with(cove, &variables);
    window.reads("default ·");
    let wanted = [120, 60, 940, 640];
    let at_first = tray::geometry(window.display()).expect("a window is seen");
    assert_ne!(at_first, wanted);
    let target = tray::application(window.display())
        .expect("the display answers")
        .expect("a window is seen")
        .to_string();
    window.xdotool(&["windowmove", &target, "120", "60"]);
    window.xdotool(&["windowsize", &target, "940", "640"]);
    is_at(&window, wanted);
    eventually("the page to be as large", || {
        let size = window.script("return innerWidth + ' ' + innerHeight", &[]);
        size.as_str() == Some("940 640")
    });

    tray::close(&window).expect("the window can be closed");
    eventually("the application to end", || {
        cove.processes_named("cove-desktop").is_empty()
    });
    drop(window);
    let window = Window::open_with(cove, &variables);
    window.reads("default ·");
    is_at(&window, wanted);
}

/// Waits until a window is at this place and of this size: x, y, width and height.
#[track_caller]
fn is_at(window: &Window, wanted: [i32; 4]) {
    within_telling(SOON, || match tray::geometry(window.display()) {
        Ok(found) if found == wanted => Ok(()),
        found => Err(format!("the window to be at {wanted:?}; it is at {found:?}")),
    });
}

/// Runs something in a terminal that would go on for longer than any test.
fn sleeps_in_a_terminal(cove: &Cove, window: &Window) {
    assert_eq!(shell(cove), None);
    window.press("Terminal");
    let keyboard = prompted(window);
    window.type_into(&keyboard, "sleep 4321\n");
    eventually("the shell's program", || {
        shell(cove).is_some_and(|shell| shell.contains("sleep 4321"))
    });
}

/// The shell of a terminal in the container `hello`, and what runs in it; nothing if there is neither.
fn shell(cove: &Cove) -> Option<String> {
    let processes = cove.docker(["top", "hello"]).ok();
    // The container's own shell has its script behind it.
    let of_it = |line: &&str| line.ends_with(" sh") || line.ends_with(" sleep 4321");
    let shell: Vec<&str> = processes.lines().map(str::trim_end).filter(of_it).collect();
    (!shell.is_empty()).then(|| shell.join("\n"))
}

/// What the terminal shows.
pub(crate) fn terminal(window: &Window) -> String {
    let rows = "return [...document.querySelectorAll('.xterm-accessibility-tree > *')].map(row => row.textContent).join('\\n')";
    window.script(rows, &[]).as_str().unwrap_or_default().to_owned()
}

/// Waits for the shell's prompt; where to type.
#[track_caller]
pub(crate) fn prompted(window: &Window) -> String {
    within(SOON * 2, "a prompt", || {
        terminal(window).contains('#').then_some(())
    });
    let keyboard = window.find("//textarea[contains(@class, 'xterm-helper-textarea')]");
    // Busybox's shell asks where the cursor is. The first answer, `ESC [1;5R`, begins like a key that it knows, so that
    // it takes what is typed right behind it for the rest, ten characters of it. It does not with those of further
    // lines.
    within(SOON * 2, "a second prompt", || {
        window.type_into(&keyboard, "\n");
        sleep(Duration::from_secs(1));
        (terminal(window).matches('#').count() > 1).then_some(())
    });
    keyboard
}

/// Waits until the terminal shows a text; all that it shows then.
#[track_caller]
pub(crate) fn answer(window: &Window, text: &str) -> String {
    within_telling(SOON, || {
        let shown = terminal(window);
        if shown.contains(text) {
            Ok(shown)
        } else {
            Err(format!("the shell's answer; the terminal shows:\n{shown}"))
        }
    })
}

pub(crate) fn a_container_without_a_shell_is_looked_into_from_one_beside_it(cove: &Cove) {
    cove.start();
    let bare = "touch /of-the-other; rm /bin/sh; exec sleep 600";
    cove.docker(["run", "--detach", "--name", "bare", "alpine", "sh", "-c", bare])
        .ok();
    let window = Window::open(cove);
    let row = window.find("//a[.//span[normalize-space()='bare']]");
    window.click(&row);
    window.press("Terminal");
    window.reads("No shell could be started in this container.");
    window.picture("9-no-shell");
    window.press("Open a debug shell");
    let keyboard = prompted(&window);
    window.type_into(
        &keyboard,
        "cat /proc/1/comm; ls /proc/1/root | grep other; echo $((6 * 7 * 1000))\n",
    );
    let shown = answer(&window, "42000");
    assert!(
        shown.contains("sleep") && shown.contains("of-the-other"),
        "{shown}"
    );
    window.picture("9-debug-shell");
    // It is in no list of the window's, and goes with its tab.
    let beside = || {
        let label = "label=dev.cove.helper=debug";
        cove.docker(["ps", "--all", "--quiet", "--filter", label]).ok()
    };
    assert_eq!(beside().lines().count(), 1);
    assert!(!window.text().contains("cove-helper"), "{}", window.text());
    window.press("Close shell 1");
    eventually("the container beside it to go", || beside().trim().is_empty());
    cove.docker(["rm", "--force", "bare"]).ok();
}

pub(crate) fn what_another_client_does_is_seen_at_once(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    window.find("//a[.//span[normalize-space()='hello']]");
    cove.docker(["create", "--name", "elsewhere", "alpine"]).ok();
    window.find_within(
        Duration::from_secs(15),
        "//a[.//span[normalize-space()='elsewhere']]",
    );
    cove.docker(["rm", "elsewhere"]).ok();
    eventually("the row to go", || !window.text().contains("elsewhere"));
    window.press("Images");
    window.reads("alpine:latest");
    window.press("Networks");
    window.reads("172.17.");
    window.press("Machine");
    window.reads("Last start");
    window.picture("7-machine");
}

pub(crate) fn a_second_start_ends_and_leaves_the_first_window(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    window.reads("hello");
    let second = Command::new(program().expect("main looked for it"))
        .env("DISPLAY", window.display())
        .env("COVE_HOME", cove.home())
        .env("HOME", cove.scratch())
        .envs(QUIET)
        .env_remove("XDG_RUNTIME_DIR")
        .status()
        .expect("it starts");
    assert!(second.success(), "the second start: {second}");
    window.reads("hello");
}

pub(crate) fn the_page_can_call_nothing_but_what_is_listed(cove: &Cove) {
    containers::hello(cove);
    let window = Window::open(cove);
    window.reads("hello");
    for (command, allowed) in [
        ("checks", true),
        ("plugin:window-state|save_window_state", false),
        ("plugin:event|emit", false),
        ("plugin:window|close", false),
        ("apply", false),
    ] {
        let script = format!(
            "const done = arguments[arguments.length - 1];\
             window.__TAURI_INTERNALS__.invoke('{command}', {{}}).then(() => done('done'), (error) => done('refused: ' + JSON.stringify(error)))"
        );
        let answer = window.script_async(&script);
        let answer = answer.as_str().unwrap_or_default().to_owned();
        assert_eq!(answer == "done", allowed, "{command}: {answer}");
    }
    // What it can call takes no path from it that nobody gave to the window.
    for (command, values, refusal) in [
        (
            "look_at",
            r#"{path: "/etc"}"#,
            "neither dropped on the window nor chosen",
        ),
        (
            "share_folder",
            r#"{path: "/etc", readOnly: true}"#,
            "neither dropped on the window nor chosen",
        ),
        (
            "open_project",
            r#"{folder: "/etc"}"#,
            "neither dropped on the window nor chosen",
        ),
        (
            "change_settings",
            r#"{values: {shares: "[]"}, shown: null}"#,
            "folders are shared one by one",
        ),
    ] {
        let answer = window.script_async(&format!(
            "const done = arguments[arguments.length - 1];\
             window.__TAURI_INTERNALS__.invoke('{command}', {values}).then(() => done('done'), (error) => done(JSON.stringify(error)))"
        ));
        let answer = answer.as_str().unwrap_or_default();
        assert!(answer.contains(refusal), "{command}: {answer}");
    }
    // Nor can it fetch anything from elsewhere.
    let fetched = window.script_async(
        "const done = arguments[arguments.length - 1];\
         fetch('http://127.0.0.1:1/').then(() => done('fetched'), (error) => done(String(error)));\
         document.addEventListener('securitypolicyviolation', (event) => done('refused by ' + event.effectiveDirective))",
    );
    assert_eq!(fetched.as_str(), Some("refused by connect-src"));
}

pub(crate) fn containers_and_machine_are_stopped_in_the_window(cove: &Cove) {
    containers::hello(cove);
    // One that heeds being asked to end, unlike the other.
    cove.docker(["run", "--detach", "--init", "--name", "brief"])
        .args(["alpine", "sleep", "600"])
        .ok();
    let window = Window::open(cove);
    containers::open(&window, "brief");
    window.press("Stop");
    window.reads_within(SOON * 2, "Exited (143)");
    let row = window.find("//a[.//span[normalize-space()='hello']]");
    window.click(&row);
    window.press("Kill");
    agree(&window, "Kill");
    // No other container is called so there, were it left with this state by another test.
    window.find_within(
        SOON * 2,
        "//header[.//h2[normalize-space()='hello']][contains(., 'Exited (137)')]",
    );
    window.picture("8-exited");
    window.press("Machine");
    window.press("Stop the machine");
    window.reads_within(SOON * 2, "Stop machine default · done");
    window.reads("default · stopped");
    assert_eq!(cove.state(), "stopped");
    window.press("Containers");
    window.reads("Containers, images and volumes are kept.");
}

pub(crate) fn a_start_that_is_cancelled_leaves_the_machine_stopped(cove: &Cove) {
    let window = Window::open(cove);
    window.reads("The machine is stopped");
    window.press("Start the machine");
    window.reads("The machine is starting");
    // Its shortcut, or how many there are, stands behind its name.
    window.click(&window.find("//nav//button[starts-with(normalize-space(), 'Tasks')]"));
    window.reads("Cancelling it stops the machine.");
    window.picture("8b-starting-task");
    cancel_the_start(cove, &window);
}

/// In the open drawer of tasks, in which the start is shown.
pub(crate) fn cancel_the_start(cove: &Cove, window: &Window) {
    window.press("Cancel");
    window.find("//li[contains(., 'Start machine default') and contains(., 'cancelled')]");
    window.find_within(
        SOON * 2,
        "//li[contains(., 'Stop machine default') and contains(., 'done')]",
    );
    window.reads("The machine is stopped");
    assert_eq!(cove.state(), "stopped");
}
