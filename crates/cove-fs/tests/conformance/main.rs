//! POSIX behaviour, compared with a native directory: each scenario runs in both and writes down what it saw.
//!
//! The server runs as an ordinary user while the scenarios run as root and as others, as in containers. Whatever
//! differs must be in [`DIFFERENCES`], with its reason.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod attributes;
mod data;
#[path = "../kernel/mod.rs"]
mod kernel;
mod names;
mod transcript;

use std::fmt::Write as _;

use cove_fs::Config;
use transcript::Transcript;

type Scenario = (&'static str, fn(&mut Transcript));

/// Lines that may differ, by scenario and label, and why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "attributes",
        "set a trusted attribute",
        "the server has no privilege for trusted.*",
    ),
    (
        "attributes",
        "set a security attribute",
        "the server has no privilege for security.*",
    ),
    (
        "whiteouts",
        "rename with a whiteout",
        "a whiteout is a device node",
    ),
];

#[test]
fn a_shared_folder_behaves_like_a_native_one() {
    if !kernel::available() {
        return;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let shared = kernel::Shared::new(Config::default());
    let native = tempfile::Builder::new()
        .prefix("cove-fs-native-")
        .tempdir_in("/var/tmp")
        .unwrap();
    rustix::fs::chmod(native.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    std::os::unix::fs::chown(native.path(), Some(kernel::USER), Some(kernel::USER)).unwrap();
    let mut report = String::new();
    let mut unseen = DIFFERENCES.to_vec();
    let scenarios: Vec<Scenario> = [names::SCENARIOS, attributes::SCENARIOS, data::SCENARIOS].concat();
    for (name, scenario) in scenarios {
        let run = |root: &std::path::Path| {
            let dir = root.join(name);
            std::fs::create_dir(&dir).unwrap();
            rustix::fs::chmod(&dir, rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
            let mut transcript = Transcript::new(&dir);
            scenario(&mut transcript);
            transcript.lines
        };
        let (want, got) = (run(native.path()), run(&shared.guest));
        assert_eq!(want.len(), got.len(), "{name}");
        for ((label, want), (_, got)) in want.iter().zip(&got) {
            if std::env::var_os("COVE_FS_TRANSCRIPT").is_some() {
                println!("{name}: {label}: {want}");
            }
            if want == got {
                continue;
            }
            let documented = DIFFERENCES
                .iter()
                .position(|(scenario, line, _)| *scenario == name && line == label);
            if let Some(at) = documented {
                unseen.retain(|difference| *difference != DIFFERENCES[at]);
            } else {
                let _ = writeln!(report, "{name}: {label}\n  native: {want}\n  shared: {got}");
            }
        }
    }
    assert!(unseen.is_empty(), "no difference any more: {unseen:?}");
    assert!(report.is_empty(), "undocumented differences:\n{report}");
    let strangers = owned_by_others(&shared.host);
    assert!(
        strangers.is_empty(),
        "files on the host that are not the user's: {strangers:?}"
    );
}

/// Files on the host that do not belong to the user or that the user cannot edit.
fn owned_by_others(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.mode() & 0o7777;
        let editable = metadata.is_symlink() || (mode & 0o600 == 0o600 && mode & 0o7000 == 0);
        if metadata.uid() != kernel::USER || !editable {
            strangers.push(path.clone());
        }
        if metadata.is_dir() {
            strangers.extend(owned_by_others(&path));
        }
    }
    strangers
}
