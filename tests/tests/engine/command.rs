//! `cove` itself, beyond starting and stopping.

use cove_tests::harness::{Cove, eventually, within};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// Tests that change the settings take turns.
pub(crate) static SETTINGS: Mutex<()> = Mutex::new(());

pub(crate) fn exec_keeps_streams_code_environment_and_directory_apart(cove: &Cove) {
    let script = "echo to stdout; echo to stderr >&2; echo $COLOUR in $PWD; exit 33";
    let finished = cove
        .cove(["exec", "-w", "/tmp", "-e", "COLOUR=teal", "sh", "-c", script])
        .run();
    assert_eq!(finished.text(), "to stdout\nteal in /tmp", "{finished}");
    assert_eq!(finished.stderr, "to stderr\n", "{finished}");
    finished.fails_with(33);
    for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126), ("/etc", 126)] {
        let finished = cove.cove(["exec", program]).run();
        finished.says(&[program]);
        finished.fails_with(code);
    }
}

pub(crate) fn exec_ends_with_its_input(cove: &Cove) {
    let counted = cove.cove(["exec", "wc", "-c"]).input(vec![b'y'; 200_000]).ok();
    assert_eq!(counted.trim(), "200000");
}

/// Input that the program does not read, and that fills every buffer on the way, must stand neither before the signal
/// that ends the command nor before the news that ends the program.
pub(crate) fn exec_is_interrupted_though_its_input_is_not_read(cove: &Cove) {
    let script = r#"yes | timeout --preserve-status --signal INT 8 "$PROGRAM" exec sleep 98765"#;
    cove.program("sh")
        .args(["-c", script])
        .env("PROGRAM", &cove.kit().program)
        .run()
        .fails_with(130);
    eventually("the program to end", || {
        cove.cove(["exec", "pgrep", "-f", "^sleep 98765"]).run().code == Some(1)
    });
}

pub(crate) fn two_hundred_programs_leave_nothing_behind(cove: &Cove) {
    const THREADS: usize = 4;
    // Descriptors of the agent, and programs that have ended and that nobody has asked for.
    let left = || {
        let counts = "ls /proc/1/fd | wc -l; grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
        let counts = cove.cove(["exec", "sh", "-c", counts]).ok();
        let counts: Vec<usize> = counts
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect();
        (counts[0], counts[1])
    };
    let (before, _) = left();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..200 / THREADS {
                    cove.cove(["exec", "true"]).ok();
                }
            });
        }
    });
    // Other tests run beside this one, with programs and connections of their own.
    eventually("the agent to have closed and reaped all", || {
        let (descriptors, ended) = left();
        descriptors < before + 50 && ended < 10
    });
}

/// Under `script`, which gives the command a terminal as a person would have one.
pub(crate) fn a_shell_has_a_terminal_of_our_size(cove: &Cove) {
    let program = cove.kit().program.display().to_string();
    let inner = format!("stty rows 31 cols 97; {program} shell");
    let finished = cove
        .program("script")
        .args(["-qec", &inner, "/dev/null"])
        .input("stty size; tty; exit 5\n")
        .run();
    let screen = finished.text();
    assert!(screen.contains("31 97"), "{finished}");
    assert!(screen.contains("/dev/pts/"), "{finished}");
    finished.fails_with(5);
}

pub(crate) fn cove_docker_is_the_guests_own_client(cove: &Cove) {
    let images = cove
        .cove(["docker", "images", "--format", "{{.Repository}}"])
        .ok();
    assert!(images.contains("alpine"), "{images}");
    cove.cove(["docker", "run", "--rm", "alpine", "sh", "-c", "exit 17"])
        .run()
        .fails_with(17);
}

pub(crate) fn every_log_can_be_read(cove: &Cove) {
    // The kernel is quiet there unless something is wrong.
    let speak = "echo spoken on the console >/dev/console";
    cove.cove(["exec", "sh", "-c", speak]).ok();
    eventually("the console to be heard", || {
        cove.cove(["logs", "console"]).ok().contains("spoken")
    });
    for (source, word) in [
        ("daemon", "the daemon runs"),
        ("console", "spoken on the console"),
        ("machine", "network"),
        ("agent", "the agent starts"),
        ("engine", "API listen on"),
        ("containerd", "containerd"),
        ("kernel", "Linux version"),
    ] {
        let log = cove.cove(["logs", source]).ok();
        assert!(log.contains(word), "{source}: {log}");
    }
    let last = cove.cove(["logs", "engine", "--tail", "1"]).ok();
    assert_eq!(last.lines().count(), 1, "{last}");
}

pub(crate) fn a_forwarded_port_reaches_a_container(cove: &Cove) {
    let serve = "while :; do echo through the forwarded port | nc -l -p 90; done";
    cove.docker([
        "run", "-d", "--rm", "--name", "ported", "alpine", "sh", "-c", serve,
    ])
    .ok();
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = cove.docker(["inspect", "--format", format, "ported"]).ok();
    let mut forward = cove.cove(["forward", &format!("0:{address}:90")]).spawn();
    let mut line = String::new();
    if let Some(stdout) = forward.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(read.is_ok(), "{read:?}");
    }
    let (listen, target) = line.trim().split_once(" -> ").unwrap_or_default();
    assert_eq!(target, format!("{address}:90"));
    let heard = within(Duration::from_secs(30), "the container's words", || {
        let mut stream = TcpStream::connect(listen).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"\n").ok()?;
        let mut heard = String::new();
        // The container may not listen yet, and then nothing is heard.
        let _ = stream.read_to_string(&mut heard);
        (!heard.is_empty()).then_some(heard)
    });
    assert_eq!(heard, "through the forwarded port\n");
    let _ = forward.kill();
    let _ = forward.wait();
    cove.docker(["rm", "-f", "ported"]).ok();
}

pub(crate) fn a_setting_is_validated_and_kept(cove: &Cove) {
    let _turn = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    cove.cove(["config", "set", "machine.stop-grace", "much"])
        .run()
        .fails_with(2)
        .says(&["machine.stop-grace"]);
    cove.cove(["config", "set", "machine.colour", "teal"])
        .run()
        .says(&["machine.colour"]);
    let before = cove.cove(["config", "get", "machine.cpus"]).ok();
    assert_eq!(before, "2");
    let set = cove.cove(["config", "set", "machine.cpus", "1"]).run();
    assert!(
        set.stderr.contains("cove restart"),
        "no word of the restart: {set}"
    );
    assert_eq!(cove.cove(["config", "get", "machine.cpus"]).ok(), "1");
    cove.cove(["config", "set", "machine.cpus", "2"]).ok();
}

pub(crate) fn editing_the_settings_validates_before_it_replaces(cove: &Cove) {
    let _turn = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = cove.home().join("config/settings.toml");
    let before = fs::read_to_string(&settings).unwrap_or_default();
    let editor = |name: &str, script: &str| {
        let path = cove.scratch().join(name);
        let written = fs::write(&path, script);
        assert!(written.is_ok(), "{written:?}");
        format!("sh {}", path.display())
    };
    let breaks = editor("breaks", "echo 'machine.cpus = \"lots\"' > \"$1\"");
    cove.cove(["config", "edit"])
        .env("EDITOR", breaks)
        .run()
        .fails_with(2)
        .says(&["kept in"]);
    assert_eq!(
        fs::read_to_string(&settings).unwrap_or_default(),
        before,
        "a bad file replaced the good one"
    );
    let fails = editor("fails", "echo '# half of it' >> \"$1\"; exit 3");
    cove.cove(["config", "edit"])
        .env("EDITOR", fails)
        .run()
        .fails_with(1)
        .says(&["ended with", "kept in"]);
    cove.cove(["config", "edit"])
        .env("EDITOR", "/no/such/editor --wait")
        .run()
        .fails_with(1)
        .says(&["/no/such/editor", "hint: ", "EDITOR"]);
    let adds = editor("adds", "echo '# a comment of mine' >> \"$1\"");
    cove.cove(["config", "edit"]).env("EDITOR", adds).ok();
    let after = fs::read_to_string(&settings).unwrap_or_default();
    assert!(after.contains("# a comment of mine"), "{after}");
}

pub(crate) fn a_machine_is_created_listed_and_deleted_only_when_confirmed(cove: &Cove) {
    // A machine of one's own is a table of the settings.
    let _turn = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    cove.cove([
        "machine", "create", "second", "--cpus", "1", "--memory", "512MiB", "--disk", "4GiB",
    ])
    .ok();
    let list = cove.cove(["machine", "list"]).ok();
    assert!(list.contains("default") && list.contains("second"), "{list}");
    cove.cove(["machine", "create", "Bad Name"])
        .run()
        .says(&["Bad Name"]);
    // Whoever would connect there is not to be the first who learns that there is nothing.
    cove.cove(["--machine", "second", "forward", "0:127.0.0.1:80"])
        .run()
        .fails_with(3)
        .says(&[
            "machine `second` is stopped",
            "hint: start it with: cove start --machine second",
        ]);
    cove.cove(["machine", "delete", "second"])
        .run()
        .fails_with(11)
        .says(&["--confirm second"]);
    cove.cove(["machine", "delete", "default", "--confirm", "default"])
        .run()
        .fails_with(3);
    cove.cove(["machine", "delete", "second", "--confirm", "second"])
        .ok();
    cove.cove(["status", "--machine", "second"]).run().fails_with(4);
}
