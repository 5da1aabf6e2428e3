//! How the machine itself presents itself.

use crate::command::SETTINGS;
use cove_tests::harness::{Cove, within};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::PoisonError,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Layers of what locks the process in that faces the guest. That of rings is told of machines on KVM alone.
const LAYERS: [&str; 11] = [
    "user namespace",
    "mount namespace",
    "pid namespace",
    "network namespace",
    "ipc namespace",
    "uts namespace",
    "cgroup namespace",
    "Landlock",
    "no new privileges",
    "capabilities",
    "seccomp",
];
/// Seconds by which the guest's clock may be wrong, on a busy computer.
const WRONG: u64 = 5;

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
    // Each with its state, whatever of it this computer has.
    for layer in LAYERS {
        let told = format!("  confinement of default: {layer}: ");
        assert!(report.contains(&told), "nothing is said of {layer}:\n{report}");
    }
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

/// What containers rely on, and nobody sees who only talks with the engine.
pub(crate) fn the_guest_is_laid_out_for_containers(cove: &Cove) {
    let mounts = cove.cove(["exec", "cat", "/proc/mounts"]).ok();
    let mount = |place: &str| {
        let mut mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let topmost = mounted.rfind(|fields| fields.get(1) == Some(&place));
        topmost.unwrap_or_default()
    };
    for (place, kind) in [
        ("/", "overlay"),
        ("/sys/fs/cgroup", "cgroup2"),
        ("/var/lib/docker", "ext4"),
        ("/var/lib/containerd", "ext4"),
    ] {
        let mount = mount(place);
        assert_eq!(mount.get(2), Some(&kind), "{place}:\n{mounts}");
        // Space that is given up is this computer's again.
        let discards = mount
            .get(3)
            .is_some_and(|options| options.split(',').any(|option| option == "discard"));
        assert_eq!(discards, kind == "ext4", "{place}:\n{mounts}");
    }
    assert_eq!(cove.cove(["exec", "hostname"]).ok(), "cove");
    for (place, numbers) in [
        ("tcp_rmem", "4096\t131072\t262144"),
        ("tcp_wmem", "4096\t16384\t98304"),
    ] {
        let file = format!("/proc/sys/net/ipv4/{place}");
        let told = cove.docker(["run", "--rm", "alpine", "cat", &file]).ok();
        assert_eq!(told, numbers, "{place}");
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let told: u64 = cove.cove(["exec", "date", "+%s"]).ok().parse().unwrap();
    let after = now();
    assert!(
        (before - WRONG..=after + WRONG).contains(&told),
        "the guest's clock says {told}, between {before} and {after}"
    );
}

/// What others than the engine would have of containerd takes time and memory at every start.
pub(crate) fn containerd_loads_what_the_engine_needs_alone(cove: &Cove) {
    let log = cove.cove(["logs", "containerd"]).ok();
    let loads = |plugin: &str| log.contains(&format!(r#"loading plugin \"io.containerd.{plugin}\""#));
    assert!(
        loads("snapshotter.v1.overlayfs"),
        "it says nothing of plugins:\n{log}"
    );
    for needless in [
        "grpc.v1.cri",
        "nri.v1.nri",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.devmapper",
        "snapshotter.v1.zfs",
        "internal.v1.restart",
        "tracing.processor.v1.otlp",
        "monitor.v1.cgroups",
    ] {
        assert!(!loads(needless), "{needless} was loaded:\n{log}");
    }
}

pub(crate) fn a_larger_disk_is_had_by_the_machine_that_runs(cove: &Cove) {
    const GIBIBYTE_IN_KIB: u64 = 1 << 20;
    let _turn = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let size = || -> u64 {
        let told = cove.cove(["exec", "df", "-Pk", "/var/lib/docker"]).ok();
        let last = told.lines().next_back().unwrap_or_default();
        let blocks = last.split_ascii_whitespace().nth(1);
        blocks.unwrap().parse().unwrap()
    };
    let before = size();
    let set = cove.cove(["config", "set", "machine.disk", "18GiB"]).run();
    set.fails_with(0);
    assert!(
        !set.stderr.contains("cove restart"),
        "it has to be restarted: {set}"
    );
    within(Duration::from_mins(1), "the engine to have the space", || {
        (size() > before + GIBIBYTE_IN_KIB).then_some(())
    });
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
