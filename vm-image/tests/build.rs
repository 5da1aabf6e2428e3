//! Whole builds from the real sources. They need a network once (downloads are cached in the target directory),
//! pip, apt and mkfs.erofs; where those are missing they say so and pass, except under `cargo xtask test`, which has
//! just built an image with all of them, and in CI.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of a test fail the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cove_image::{BuildOptions, ImageError, Outcome, Progress, Role, Stage, build, verify};

/// Either says that an image can be built here: then nothing is passed over. The first is set by `cargo xtask test`.
const CAN_BUILD: [&str; 2] = ["COVE_TEST_IMAGE", "CI"];

/// The builds share a cache, and each takes all processors: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The smallest static program: a header, and one segment to load.
fn agent(dir: &Path, variant: u8) -> PathBuf {
    let mut elf = vec![0u8; 64 + 56];
    elf[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    elf[16..21].copy_from_slice(&[2, 0, 62, 0, 1]);
    elf[32] = 64;
    elf[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
    elf[64] = 1;
    elf.push(variant);
    let path = dir.join(format!("agent-{variant}"));
    fs::write(&path, elf).unwrap();
    path
}

fn options(dir: &Path, variant: u8, output: &str) -> BuildOptions {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-cache");
    BuildOptions::new(agent(dir, variant), dir.join(output), cache)
}

/// An image that outlives a test run, so that the next run compares its own with one from another time.
fn shared(dir: &Path) -> BuildOptions {
    BuildOptions {
        output: Path::new(env!("CARGO_TARGET_TMPDIR")).join("image"),
        ..options(dir, 1, "")
    }
}

/// The outcome and the stages that it took; `None` if the machine cannot build.
fn run(options: &BuildOptions) -> Option<(Outcome, Vec<Stage>)> {
    let mut stages = Vec::new();
    let mut note = |progress: Progress| {
        if let Progress::Started(stage) = progress {
            stages.push(stage);
        }
    };
    match build(options, &mut note) {
        Ok(outcome) => Some((outcome, stages)),
        Err(
            error @ (ImageError::ToolMissing { .. }
            | ImageError::KeyringMissing { .. }
            | ImageError::Download { .. }
            | ImageError::Offline { .. }
            | ImageError::NoMirror),
        ) if CAN_BUILD.iter().all(|name| std::env::var_os(name).is_none()) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Copies an image of which one bit of the kernel is not as it was.
fn copy_damaged(image: &Path, copy: &Path) {
    fs::create_dir(copy).unwrap();
    for file in fs::read_dir(image).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let kernel = copy.join("kernel");
    let mut bytes = fs::read(&kernel).unwrap();
    bytes[1000] ^= 1;
    fs::write(&kernel, bytes).unwrap();
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_then_nothing_is_rebuilt() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some((earlier, _)) = run(&shared(dir.path())) else {
        return;
    };

    // A damaged image is not taken for the one that is wanted. Another time, another directory, another name: the bytes
    // are the same.
    let first = options(dir.path(), 1, "first");
    copy_damaged(&shared(dir.path()).output, &first.output);
    let (Outcome::Built(one), stages) = run(&first).unwrap() else {
        panic!("nothing was built")
    };
    assert_eq!(stages, Stage::ALL);
    assert_eq!(verify(&first.output).unwrap(), one);
    assert_eq!(one.fingerprint, earlier.manifest().fingerprint);
    assert_eq!(one.files, earlier.manifest().files);

    // Nothing changed: nothing is done, and nothing is asked of the network.
    let before = fs::metadata(one.file(Role::Rootfs)).unwrap().modified().unwrap();
    let (outcome, stages) = run(&BuildOptions {
        offline: true,
        ..first.clone()
    })
    .unwrap();
    assert_eq!((outcome, stages), (Outcome::Unchanged(one.clone()), vec![]));
    assert_eq!(
        fs::metadata(one.file(Role::Rootfs)).unwrap().modified().unwrap(),
        before
    );

    // Another agent is another image, of the same packages and in the same place.
    let other = BuildOptions {
        offline: true,
        ..options(dir.path(), 2, "first")
    };
    let (Outcome::Built(other), _) = run(&other).unwrap() else {
        panic!("the agent's change went unnoticed")
    };
    assert_ne!(other.fingerprint, one.fingerprint);
    assert_eq!(other.packages, one.packages);
    assert_eq!(other.files.kernel, one.files.kernel);
    assert_ne!(other.files.rootfs.sha256, one.files.rootfs.sha256);
}

#[test]
fn the_manifest_lists_the_engine_and_where_everything_came_from() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some((outcome, _)) = run(&shared(dir.path())) else {
        return;
    };
    let manifest = outcome.manifest();
    let package = |name: &str| {
        manifest
            .packages
            .iter()
            .find(|package| package.name == name)
            .unwrap()
    };
    assert_eq!(package("docker.io").version, manifest.engine_version);
    assert!(package("docker.io").origin.contains("signed index"));
    assert!(package("linux-virt").origin.contains("pinned hash"));
    assert_eq!(package("musl").licence.as_deref(), Some("MIT"));
    for name in [
        "containerd",
        "crun",
        "runc",
        "iptables",
        "docker-cli",
        "docker-compose",
        "docker-buildx",
        "git",
        "pigz",
    ] {
        package(name);
    }
}

#[test]
fn a_build_that_fails_leaves_the_image_that_was_there() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = dir.path().join("image");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("kernel"), "old").unwrap();
    let mut options = options(dir.path(), 1, "image");
    options.sources = Some(dir.path().join("no-such-directory"));
    let error = build(&options, &mut |_| {}).unwrap_err();
    assert!(!matches!(error, ImageError::Download { .. }), "{error}");
    assert_eq!(fs::read(output.join("kernel")).unwrap(), b"old");
}

#[test]
fn an_agent_that_is_not_static_is_refused_before_anything_is_fetched() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut options = options(dir.path(), 1, "image");
    options.agent = std::env::current_exe().unwrap();
    let error = build(&options, &mut |_| {}).unwrap_err();
    // A debug build of this very test may be too large even to look at.
    assert!(matches!(error, ImageError::Agent { .. }), "{error}");
    assert!(error.hint().unwrap().contains("cove-agent"));
}
