//! How the machine itself presents itself.

use cove_tests::harness::Cove;
use std::{fs, os::unix::fs::PermissionsExt as _};

pub(crate) fn status_says_what_runs_and_why(cove: &Cove) {
    let status = cove.status();
    assert_eq!(status["state"], "running", "{status:#}");
    assert_eq!(status["backend"]["kind"], "emulated", "{status:#}");
    assert!(
        status["backend"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.len() > 10),
        "no reason: {status:#}"
    );
    let socket = cove.cove(["env", "--socket"]).ok();
    assert_eq!(status["endpoint"]["docker_host"], socket.as_str(), "{status:#}");
    let text = cove.cove(["status"]).ok();
    assert!(text.contains("running for"), "{text}");
    assert!(text.contains("emulated (QEMU"), "{text}");
}

pub(crate) fn timings_tell_every_stage_of_the_boot(cove: &Cove) {
    let status = cove.status();
    let stages: Vec<&str> = status["timings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|stage| stage["name"].as_str())
        .collect();
    for wanted in ["containerd", "dockerd", "modules", "root", "data-disk"] {
        assert!(stages.contains(&wanted), "{wanted} is not among {stages:?}");
    }
    let table = cove.cove(["status", "--timings"]).ok();
    assert!(table.contains("STAGE"), "{table}");
}

pub(crate) fn doctor_finds_nothing_broken(cove: &Cove) {
    let report = cove.cove(["doctor"]).ok();
    assert!(report.contains("QEMU"), "{report}");
    let json = cove.cove(["doctor", "--json"]).ok();
    assert!(json.starts_with('['), "{json}");
    // Whoever asks: nobody is sent after permissions for a `/dev/kvm` with no hardware behind it.
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut words = cpuinfo.split_whitespace();
    if fs::exists("/dev/kvm").unwrap_or_default() && !words.any(|word| matches!(word, "vmx" | "svm")) {
        assert!(json.contains("/dev/kvm is software-only"), "{json}");
    }
    let bundle = cove.cove(["doctor", "--bundle", "-"]).ok();
    for part in [
        "== doctor ==",
        "== machine default ==",
        "== log engine of machine default ==",
        "machine.cpus",
    ] {
        assert!(bundle.contains(part), "{part} is missing in:\n{bundle}");
    }
}

pub(crate) fn sockets_are_for_their_owner_alone(cove: &Cove) {
    let runtime = cove.home().join("run");
    let mode = |path: &std::path::Path| fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
    for socket in [runtime.join("daemon.sock"), cove.docker_socket()] {
        assert_eq!(mode(&socket).ok(), Some(0o600), "{}", socket.display());
    }
    assert_eq!(mode(&runtime).ok(), Some(0o700));
}

pub(crate) fn programs_of_other_processors_cost_nothing_unless_asked_for(cove: &Cove) {
    let loaded = cove.cove(["exec", "cat", "/proc/modules"]).ok();
    assert!(!loaded.contains("binfmt_misc"), "{loaded}");
    let known = cove.cove(["exec", "ls", "/proc/sys/fs/binfmt_misc"]).ok();
    assert_eq!(known, "");
}
