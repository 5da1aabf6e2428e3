//! What cannot work is refused before anything is started, in words that say what to do.

use cove_tests::{
    harness::{self, Cmd, Cove},
    tests,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::ExitCode,
};

mod refusals {
    pub(crate) use super::*;
}

fn main() -> ExitCode {
    // Each test makes a Cove of its own; the shared one stays idle.
    harness::run(
        "refusals",
        harness::Pace::Together,
        |_| {},
        &tests![
            refusals::without_an_image_start_says_how_to_build_one,
            refusals::an_altered_image_is_refused,
            refusals::an_image_of_another_protocol_version_is_refused,
            refusals::a_missing_qemu_is_named_with_what_to_install,
            refusals::a_socket_path_that_is_too_long_is_refused_with_what_to_set,
            refusals::a_full_disk_is_said_to_be_full,
            refusals::a_settings_file_with_a_mistake_is_named_with_the_line,
            refusals::a_runtime_directory_that_others_can_enter_is_refused,
            refusals::status_of_a_stopped_cove_starts_nothing,
            refusals::an_unknown_machine_is_not_found,
            refusals::the_exit_codes_are_documented,
            refusals::completions_are_printed_for_every_shell,
        ],
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

pub(crate) fn a_socket_path_that_is_too_long_is_refused_with_what_to_set(_: &Cove) {
    let cove = Cove::new("long-path");
    let long = cove
        .scratch()
        .join("a-directory-whose-name-is-rather-long".repeat(4));
    for command in ["start", "status"] {
        cove.cove([command])
            .env("COVE_HOME", &long)
            .run()
            .fails_with(1)
            .says(&["bytes long", "COVE_HOME"]);
    }
}

/// On a file system of 24 MiB.
pub(crate) fn a_full_disk_is_said_to_be_full(_: &Cove) {
    let cove = Cove::new("full-disk");
    let script = r#"
        set -e
        mkdir "$PLACE/small"
        mount -t tmpfs -o size=24m tmpfs "$PLACE/small"
        mkdir "$PLACE/small/data"
        ln -s "$IMAGE" "$PLACE/small/data/image"
        export COVE_HOME="$PLACE/small"
        code=0
        "$PROGRAM" start || code=$?
        "$PROGRAM" daemon stop
        exit $code
    "#;
    in_namespace(&cove, script)
        .env("IMAGE", &cove.kit().image)
        .run()
        .fails_with(9)
        .says(&["hint: "]);
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

pub(crate) fn status_of_a_stopped_cove_starts_nothing(_: &Cove) {
    let cove = Cove::new("idle");
    let finished = cove.cove(["status"]).run();
    finished.fails_with(3);
    assert!(finished.text().contains("stopped"), "{finished}");
    cove.cove(["env"]).ok();
    cove.cove(["version"]).ok();
    assert!(cove.processes().is_empty(), "{:?}", cove.processes());
}

pub(crate) fn an_unknown_machine_is_not_found(_: &Cove) {
    let cove = Cove::new("unknown");
    cove.cove(["start", "--machine", "nowhere"])
        .run()
        .fails_with(4)
        .says(&["nowhere"]);
}

pub(crate) fn the_exit_codes_are_documented(cove: &Cove) {
    let table = cove.cove(["help", "exit-codes"]).ok();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap_or_default();
    for code in ["0", "3", "5", "9", "125"] {
        assert!(table.contains(&format!("{code}  ")), "{code} is not in: {table}");
        assert!(
            readme.contains(&format!("| {code} |")),
            "{code} is not in the README's table"
        );
    }
}

pub(crate) fn completions_are_printed_for_every_shell(cove: &Cove) {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = cove.cove(["completion", shell]).ok();
        assert!(script.contains("cove"), "{shell}: {script}");
    }
    let script = cove.cove(["completion", "bash"]).ok();
    let checked: Cmd = cove.program("bash").args(["-n", "/dev/stdin"]).input(script);
    checked.ok();
}
