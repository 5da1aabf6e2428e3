//! What cannot work is refused before anything is started, in words that say what to do.

use cove_tests::{
    harness::{self, Cmd, Cove},
    tests,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

mod refusals {
    pub(crate) use super::*;
}

fn main() -> ExitCode {
    let usual: &[harness::Test] = &tests![
        refusals::without_an_image_start_says_how_to_build_one,
        refusals::an_altered_image_is_refused,
        refusals::an_image_that_lacks_a_file_is_refused,
        refusals::an_image_of_another_protocol_version_is_refused,
        refusals::a_missing_qemu_is_named_with_what_to_install,
        refusals::hardware_virtualisation_that_is_asked_for_and_not_there_is_not_replaced,
        refusals::a_socket_path_that_is_too_long_is_refused_with_what_to_set,
        refusals::a_full_disk_is_said_to_be_full,
        refusals::a_disk_that_fills_up_holds_the_machine_until_there_is_space,
        refusals::a_settings_file_with_a_mistake_is_named_with_the_line,
        refusals::a_runtime_directory_that_others_can_enter_is_refused,
        refusals::a_runtime_directory_that_cannot_be_written_is_named_with_what_to_set,
        refusals::status_of_a_stopped_cove_starts_nothing,
        refusals::a_daemon_that_hangs_keeps_no_version_but_its_own_from_being_told,
        refusals::a_daemon_that_was_stopped_has_ended,
        refusals::the_log_of_a_daemon_that_does_not_run_is_followed_until_one_writes_it,
        refusals::an_unknown_machine_is_not_found,
        refusals::a_line_that_makes_no_sense_exits_as_what_it_asks_for_would,
        refusals::the_exit_codes_are_documented,
        refusals::completions_are_printed_for_every_shell,
    ];
    let slow: &[harness::Test] = &tests![
        refusals::a_home_with_an_odd_name_runs_a_machine,
        refusals::a_data_disk_of_somebody_elses_is_left_alone_and_can_be_looked_into,
    ];
    // Each test makes a Cove of its own; the shared one stays idle.
    harness::run(
        "refusals",
        harness::Pace::Together,
        |_| {},
        &[usual, harness::if_all(slow)].concat(),
    )
}

pub(crate) fn without_an_image_start_says_how_to_build_one(_: &Cove) {
    let cove = Cove::without_image("no-image");
    cove.cove(["start"])
        .run()
        .fails_with(5)
        .says(&["there is no image", "hint: ", "cove image build"]);
    cove.cove(["image", "verify"])
        .run()
        .fails_with(5)
        .says(&["hint: "]);
}

/// A copy of the image with hard links where nothing is to be changed.
fn copy_of_image(cove: &Cove, changed: &str) -> PathBuf {
    let copy = cove.home().join("data/image");
    assert!(fs::create_dir_all(&copy).is_ok());
    for name in [
        "kernel",
        "initramfs",
        "rootfs.erofs",
        "starter.tar",
        "manifest.json",
    ] {
        let (from, to) = (cove.kit().image.join(name), copy.join(name));
        let made = if name == changed {
            fs::copy(&from, &to).map(drop)
        } else {
            symlink(&from, &to)
        };
        assert!(made.is_ok(), "{}: {made:?}", to.display());
        if name == changed {
            assert!(fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).is_ok());
        }
    }
    copy
}

fn flip_a_byte(file: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(123_456))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(123_456))?;
    file.write_all(&[!byte[0]])
}

pub(crate) fn an_altered_image_is_refused(_: &Cove) {
    let cove = Cove::without_image("altered-image");
    let image = copy_of_image(&cove, "initramfs");
    assert!(flip_a_byte(&image.join("initramfs")).is_ok());
    cove.cove(["image", "verify"])
        .run()
        .fails_with(5)
        .says(&["initramfs", "does not match its manifest"]);
    cove.cove(["start"])
        .run()
        .fails_with(5)
        .says(&["initramfs", "hint: "]);
    assert!(
        cove.processes_named("qemu-system").is_empty(),
        "{:?}",
        cove.processes()
    );
}

pub(crate) fn an_image_that_lacks_a_file_is_refused(_: &Cove) {
    let cove = Cove::without_image("image-without-kernel");
    let kernel = copy_of_image(&cove, "").join("kernel");
    assert!(fs::remove_file(&kernel).is_ok());
    let said = ["kernel is missing from the image", "hint: ", "cove image build"];
    cove.cove(["image", "verify"]).run().fails_with(5).says(&said);
    cove.cove(["start"]).run().fails_with(5).says(&said);
}

pub(crate) fn an_image_of_another_protocol_version_is_refused(_: &Cove) {
    let cove = Cove::without_image("old-image");
    let manifest = copy_of_image(&cove, "manifest.json").join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap_or_default();
    let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(
        fields["protocol"].is_u64(),
        "the manifest names no protocol version"
    );
    fields["protocol"] = 0.into();
    assert!(fs::write(&manifest, fields.to_string()).is_ok());
    cove.cove(["start"])
        .run()
        .fails_with(5)
        .says(&["protocol 0", "older", "hint: "]);
}

/// A script in a namespace of its own, in which an ordinary user may mount.
fn in_namespace(cove: &Cove, script: &str) -> Cmd {
    cove.program("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("PLACE", cove.scratch())
        .env("PROGRAM", &cove.kit().program)
}

/// In a namespace whose `/usr/bin` has everything but QEMU.
pub(crate) fn a_missing_qemu_is_named_with_what_to_install(_: &Cove) {
    let cove = Cove::new("no-qemu");
    let script = r#"
        set -e
        mkdir "$PLACE/usr-bin"
        mount --rbind /usr/bin "$PLACE/usr-bin"
        mount -t tmpfs tmpfs /usr/bin
        "$PLACE/usr-bin/ln" -s "$PLACE"/usr-bin/* /usr/bin/
        rm /usr/bin/qemu-*
        code=0
        "$PROGRAM" start || code=$?
        "$PROGRAM" doctor || true
        "$PROGRAM" daemon stop
        exit $code
    "#;
    let finished = in_namespace(&cove, script).run();
    finished.fails_with(6).says(&["qemu", "hint: ", "apt"]);
    assert!(
        finished.text().contains("FAILED"),
        "doctor is content: {finished}"
    );
}

/// In a namespace whose `/dev` has no KVM: asked for by name, it is missing; left to Cove, machines are emulated, which
/// is told with the reason.
pub(crate) fn hardware_virtualisation_that_is_asked_for_and_not_there_is_not_replaced(_: &Cove) {
    let cove = Cove::new("no-kvm");
    let script = r#"
        set -e
        trap '"$PROGRAM" daemon stop' EXIT
        mkdir "$PLACE/dev"
        mount --rbind /dev "$PLACE/dev"
        mount -t tmpfs tmpfs /dev
        ln -s "$PLACE"/dev/* /dev/
        rm -f /dev/kvm
        "$PROGRAM" config set machine.backend auto
        "$PROGRAM" doctor || true
        "$PROGRAM" config set machine.backend kvm
        code=0
        "$PROGRAM" start || code=$?
        exit $code
    "#;
    let finished = in_namespace(&cove, script).run();
    finished.fails_with(6).says(&[
        "hardware virtualisation (there is no /dev/kvm) is missing",
        "hint: ",
    ]);
    let looked_at = finished.text();
    let emulated =
        |line: &str| line.contains("emulated (QEMU") && line.contains("because there is no /dev/kvm");
    let machines = looked_at.lines().find(|line| line.contains("  machines: "));
    assert!(machines.is_some_and(emulated), "{finished}");
}

pub(crate) fn a_socket_path_that_is_too_long_is_refused_with_what_to_set(_: &Cove) {
    let cove = Cove::new("long-path");
    let long = cove
        .scratch()
        .join("a-directory-whose-name-is-rather-long".repeat(4));
    for command in ["start", "status"] {
        cove.cove([command])
            .env("COVE_HOME", &long)
            .run()
            .fails_with(2)
            .says(&["bytes long", "COVE_HOME"]);
    }
}

/// A script in a namespace in which Cove's home is a file system of so many MiB, at `$COVE_HOME`.
fn on_small_disk(cove: &Cove, mib: u32, script: &str) -> Cmd {
    let script = format!(
        r#"
        set -e
        mount -t tmpfs -o size={mib}m tmpfs "$COVE_HOME"
        mkdir "$COVE_HOME/data"
        ln -s "$IMAGE" "$COVE_HOME/data/image"
        {script}
        "#
    );
    in_namespace(cove, &script).env("IMAGE", &cove.kit().image)
}

pub(crate) fn a_full_disk_is_said_to_be_full(_: &Cove) {
    let cove = Cove::new("full-disk");
    let script = r#"
        code=0
        "$PROGRAM" start || code=$?
        "$PROGRAM" daemon stop
        exit $code
    "#;
    on_small_disk(&cove, 24, script)
        .run()
        .fails_with(9)
        .says(&["hint: "]);
}

/// A machine whose data no longer fits is held where it is, and goes on when there is space: the container notices
/// nothing but the time. So it does when the daemon dies meanwhile, and the space is there before the next one looks.
pub(crate) fn a_disk_that_fills_up_holds_the_machine_until_there_is_space(_: &Cove) {
    let cove = Cove::new("filled-disk");
    let script = r#"
        trap '"$PROGRAM" daemon stop' EXIT
        state() {
            for _ in $(seq 240); do
                "$PROGRAM" --json status >"$PLACE/status" || true
                ! grep -q "state.: .$1" "$PLACE/status" || return 0
                sleep 0.5
            done
            cat "$PLACE/status"
            return 1
        }
        "$PROGRAM" config set shares '[]'
        "$PROGRAM" start
        free=$(df --output=avail -m "$COVE_HOME" | tail -1)
        fallocate -l $((free - 20))M "$COVE_HOME/filler"
        "$PROGRAM" exec sh -c 'dd if=/dev/urandom of=/var/lib/docker/data bs=1M count=64 2>/dev/null; sync; echo written' \
            >"$PLACE/written" 2>"$PLACE/complaint" &
        writer=$!
        state paused
        "$PROGRAM" status 2>&1 | grep "disk is full"
        rm "$COVE_HOME/filler"
        state running
        wait $writer
        free=$(df --output=avail -m "$COVE_HOME" | tail -1)
        fallocate -l $((free - 20))M "$COVE_HOME/filler"
        "$PROGRAM" exec sh -c 'dd if=/dev/urandom of=/var/lib/docker/more bs=1M count=64 2>/dev/null; sync' \
            >"$PLACE/complaint" 2>&1 &
        writer=$!
        state paused
        kill -KILL $("$PROGRAM" --json version | tr -d ' \n' | sed 's/.*"pid":\([0-9]*\).*/\1/')
        wait $writer || true
        rm "$COVE_HOME/filler"
        state running
        cat "$PLACE/written"
        "$PROGRAM" exec sh -c 'wc -c </var/lib/docker/data; dmesg | grep -ci "i/o error" || true'
    "#;
    let finished = on_small_disk(&cove, 900, script)
        .limit(Duration::from_mins(8))
        .run();
    finished.fails_with(0);
    let said = finished.text();
    for expected in ["disk is full", "written\n67108864\n0"] {
        assert!(said.contains(expected), "nothing says `{expected}`: {finished}");
    }
}

pub(crate) fn a_settings_file_with_a_mistake_is_named_with_the_line(_: &Cove) {
    let cove = Cove::new("bad-settings");
    let settings = cove.home().join("config/settings.toml");
    let mut file = File::create(&settings);
    let written = file
        .as_mut()
        .map(|file| file.write_all(b"[machine]\ncpus = \"lots\"\n"));
    assert!(matches!(written, Ok(Ok(()))), "{written:?}");
    cove.cove(["start"])
        .run()
        .fails_with(2)
        .says(&["settings.toml", "machine.cpus"]);
    cove.cove(["config", "get"])
        .run()
        .fails_with(0)
        .says(&["cove config edit"]);
}

pub(crate) fn a_runtime_directory_that_others_can_enter_is_refused(_: &Cove) {
    let cove = Cove::new("open-runtime");
    let runtime = cove.home().join("run");
    assert!(fs::create_dir_all(&runtime).is_ok());
    assert!(fs::set_permissions(&runtime, fs::Permissions::from_mode(0o777)).is_ok());
    let finished = cove.cove(["machine", "list"]).run();
    assert_ne!(finished.code, Some(0), "{finished}");
    finished.says(&[&*runtime.to_string_lossy(), "hint: "]);
}

pub(crate) fn a_runtime_directory_that_cannot_be_written_is_named_with_what_to_set(_: &Cove) {
    let cove = Cove::new("closed-runtime");
    let runtime = cove.home().join("run");
    assert!(fs::create_dir_all(&runtime).is_ok());
    assert!(fs::set_permissions(&runtime, fs::Permissions::from_mode(0o500)).is_ok());
    cove.cove(["machine", "list"]).run().fails_with(1).says(&[
        &*runtime.to_string_lossy(),
        "hint: ",
        "XDG_RUNTIME_DIR",
    ]);
}

pub(crate) fn status_of_a_stopped_cove_starts_nothing(_: &Cove) {
    let cove = Cove::new("idle");
    let finished = cove.cove(["status"]).run();
    finished.fails_with(3);
    assert!(finished.text().contains("stopped"), "{finished}");
    cove.cove(["env"]).ok();
    cove.cove(["version"]).ok();
    assert!(cove.processes().is_empty(), "{:?}", cove.processes());
}

pub(crate) fn a_daemon_that_hangs_keeps_no_version_but_its_own_from_being_told(_: &Cove) {
    let cove = Cove::new("hung-daemon");
    let place = cove.home().join("run");
    assert!(fs::create_dir_all(&place).is_ok());
    // The system takes connections for it, and nobody reads what they bring.
    let hung = UnixListener::bind(place.join("daemon.sock"));
    assert!(hung.is_ok(), "{hung:?}");

    let mut asking = cove.cove(["version"]).spawn();
    let mut lines = asking
        .stdout
        .take()
        .into_iter()
        .flat_map(|said| BufReader::new(said).lines().map_while(Result::ok));
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("cove      "), "{first}");
    assert!(
        matches!(asking.try_wait(), Ok(None)),
        "it did not wait for the daemon"
    );
    let further: Vec<_> = lines.collect();
    assert!(
        further
            .iter()
            .any(|line| line.starts_with("image     Docker Engine")),
        "{further:?}"
    );
    assert!(
        further.iter().any(|line| line == "daemon    does not answer"),
        "{further:?}"
    );
    let code = asking.wait().ok().and_then(|status| status.code());
    assert_eq!(code, Some(8));

    let told = cove.cove(["version", "--json"]).run();
    told.fails_with(8).says(&["has not answered within", "hint: "]);
    // Commands that need the daemon wait longer for it.
    assert!(told.took < Duration::from_secs(20), "{told}");
    let versions: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
    assert!(versions["version"].is_string(), "{told}");
    assert!(versions["daemon"].is_null(), "{told}");
    let why = versions["error"]["message"].as_str();
    assert!(
        why.is_some_and(|why| why.contains("has not answered within")),
        "{told}"
    );
}

/// What stands in the name means something to shells, or to QEMU.
pub(crate) fn a_home_with_an_odd_name_runs_a_machine(_: &Cove) {
    let cove = Cove::without_image("odd-home");
    let home = cove.scratch().join("it's a, b");
    let data = home.join("data");
    assert!(fs::create_dir_all(&data).is_ok());
    assert!(symlink(&cove.kit().image, data.join("image")).is_ok());
    let odd = |words: &[&str]| {
        let command = cove.cove(words).env("COVE_HOME", &home);
        command.limit(Duration::from_mins(5))
    };
    odd(&["config", "set", "machine.backend", "emulated"]).ok();
    odd(&["config", "set", "machine.memory", "1GiB"]).ok();
    let started = odd(&["start"]).run();
    let variables = odd(&["env", "--shell", "sh"]).run().text();
    let script = format!("{variables}\nexec \"$CLIENT\" run --rm alpine echo from within");
    let said = cove
        .program("sh")
        .args(["-c", &script])
        .env("CLIENT", &cove.kit().docker)
        .run();
    // Before anything is found wrong: nobody else ends what runs here.
    let stopped = odd(&["daemon", "stop"]).run();
    started.fails_with(0);
    assert_eq!(said.text(), "from within", "{said}");
    stopped.fails_with(0);
}

/// The engine does not start, and everything does that helps to find out why: the disk was once refused before there was
/// a root to run a shell in.
pub(crate) fn a_data_disk_of_somebody_elses_is_left_alone_and_can_be_looked_into(_: &Cove) {
    const WORDS: &str = "somebody's only copy";
    let cove = Cove::new("strange-disk");
    let machine = cove.machine_directory("default");
    assert!(fs::create_dir_all(&machine).is_ok());
    let disk = machine.join("data.img");
    assert!(fs::write(&disk, WORDS).is_ok());

    cove.cove(["start"])
        .limit(Duration::from_mins(5))
        .run()
        .fails_with(7)
        .says(&["not a Cove data file system", "left alone", "hint: "]);
    let read = format!("head -c {} /dev/vdb", WORDS.len());
    assert_eq!(cove.cove(["exec", "sh", "-c", &read]).ok(), WORDS);
    cove.cove(["exec", "sh", "-c", "command -v e2fsck"]).ok();
    let said = cove.cove(["logs", "agent"]).ok();
    assert!(said.contains("the agent starts"), "{said}");
    cove.cove(["stop"]).limit(Duration::from_mins(2)).ok();

    let mut head = vec![0; WORDS.len()];
    let read = File::open(&disk).and_then(|mut disk| disk.read_exact(&mut head));
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(head, WORDS.as_bytes());
}

/// Whoever stops it may remove its directories next.
pub(crate) fn a_daemon_that_was_stopped_has_ended(_: &Cove) {
    let cove = Cove::new("stopped-daemon");
    // It used to go on for a moment, most times.
    for _ in 0..5 {
        cove.cove(["machine", "list"]).ok();
        cove.cove(["daemon", "stop"]).ok();
        assert!(cove.processes().is_empty(), "{:?}", cove.processes());
    }
}

/// The lines of what a program writes, as they come.
fn lines(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = stream
            .into_iter()
            .flat_map(|stream| BufReader::new(stream).lines());
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// There is not even a file of it at first.
pub(crate) fn the_log_of_a_daemon_that_does_not_run_is_followed_until_one_writes_it(_: &Cove) {
    let cove = Cove::new("followed-log");
    let mut following = cove.cove(["logs", "daemon", "--follow"]).spawn();
    let limit = Duration::from_secs(30);
    let notes = lines(following.stderr.take());
    let log = lines(following.stdout.take());
    let note = notes.recv_timeout(limit);
    assert!(
        note.as_ref().is_ok_and(|note| note.contains("not running")),
        "{note:?}"
    );
    cove.cove(["machine", "list"]).ok();
    let first = log.recv_timeout(limit);
    let ended = following.try_wait();
    let _ = following.kill();
    let _ = following.wait();
    assert!(first.is_ok(), "nothing of the log came");
    assert!(matches!(ended, Ok(None)), "it did not go on: {ended:?}");
}

pub(crate) fn an_unknown_machine_is_not_found(_: &Cove) {
    let cove = Cove::new("unknown");
    // Before there is a daemon, and when there is one; a name that is none is not looked for in other directories.
    for daemon in [false, true] {
        for name in ["nowhere", ".."] {
            for command in ["status", "env"] {
                cove.cove([command, "--machine", name])
                    .run()
                    .fails_with(4)
                    .says(&[name, "cove machine list"]);
            }
        }
        assert_eq!(cove.processes().is_empty(), !daemon, "{:?}", cove.processes());
        for command in ["start", "stop", "pause", "ports"] {
            cove.cove([command, "--machine", "nowhere"])
                .run()
                .fails_with(4)
                .says(&["nowhere"]);
        }
        // It would otherwise listen for nobody.
        cove.cove(["forward", "--machine", "nowhere", "0:127.0.0.1:80"])
            .run()
            .fails_with(4)
            .says(&["nowhere"]);
        cove.cove(["exec", "--machine", "nowhere", "true"])
            .run()
            .fails_with(125)
            .says(&["nowhere"]);
    }
}

pub(crate) fn a_line_that_makes_no_sense_exits_as_what_it_asks_for_would(cove: &Cove) {
    for (line, code) in [
        (vec!["start", "--nope"], 2),
        (vec!["exec", "--nope", "true"], 125),
        (vec!["exec", "-e", "NOT_SET_ANYWHERE", "true"], 125),
        (vec!["shell", "extra"], 125),
    ] {
        let asked = [vec!["--json"], line.clone()].concat();
        cove.cove(line).run().fails_with(code);
        let told = cove.cove(asked).run();
        told.fails_with(code).says(&["error: "]);
        let json: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
        assert_eq!(json["error"]["code"], "invalid_request", "{told}");
    }
}

pub(crate) fn the_exit_codes_are_documented(cove: &Cove) {
    let table = cove.cove(["help", "exit-codes"]).ok();
    let listed: serde_json::Value =
        serde_json::from_str(&cove.cove(["--json", "exit-codes"]).ok()).unwrap_or_default();
    let codes: Vec<u64> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["code"].as_u64())
        .collect();
    assert!(codes.len() > 20, "{listed}");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap_or_default();
    let in_readme = |code: u64| {
        // The verdicts of `net explain` share a line, each with its meaning.
        readme.contains(&format!("| {code} |"))
            || (20..30).contains(&code) && readme.contains(&format!(" {code} "))
    };
    for code in codes {
        assert!(
            table.contains(&format!("\n{code:>5}  ")),
            "{code} is not in: {table}"
        );
        assert!(in_readme(code), "{code} is not in the README's table");
    }
}

pub(crate) fn completions_are_printed_for_every_shell(cove: &Cove) {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = cove.cove(["completion", shell]).ok();
        assert!(script.contains("cove"), "{shell}: {script}");
        // What is for Cove alone is offered to nobody.
        for ours in ["daemon-process", "machine-process"] {
            assert!(!script.contains(ours), "{shell}: {script}");
        }
    }
    let script = cove.cove(["completion", "bash"]).ok();
    let checked: Cmd = cove.program("bash").args(["-n", "/dev/stdin"]).input(script);
    checked.ok();
}
