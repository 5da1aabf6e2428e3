//! What a machine does while it runs, and what keeps it from starting.

use super::*;
use cove_machine::{Disk, Hold, MachineEvent, Share};

#[tokio::test]
async fn a_machine_is_its_users_alone_and_tells_what_it_is() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    bench.console_shows("hello", 1).await;
    let processes = machine.processes();
    assert!(processes.len() == 3 && processes.iter().all(|pid| runs(*pid)));
    assert!(machine.features().pause && !machine.features().hardware);
    assert_eq!(machine.console(), bench.spec.directory.join("console.log"));
    for directory in [&bench.spec.directory, &bench.spec.runtime] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    let exit = within(machine.kill()).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Killed);
    bench.is_clear(&processes).await;
    assert!(
        bench.log().contains("the machine ended"),
        "it keeps a log: {}",
        bench.log()
    );
}

#[tokio::test]
async fn the_process_that_faces_the_guest_is_confined_and_folders_come_to_it_all_the_same() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let layers = machine.confinement();
    let layer = |name: &str| layers.iter().find(|layer| layer.name == name).unwrap();
    for name in ["no new privileges", "capabilities", "limits", "seccomp"] {
        assert_eq!(layer(name).hold, Hold::Whole, "{layers:?}");
    }
    // What a host may lack is told in any case.
    for name in [
        "user namespace",
        "mount namespace",
        "pid namespace",
        "network namespace",
        "ipc namespace",
        "uts namespace",
        "cgroup namespace",
        "Landlock",
    ] {
        assert!(!layer(name).evidence.is_empty(), "{layers:?}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", machine.processes()[2])).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((&*field("Seccomp:"), &*field("NoNewPrivs:")), ("2", "1"));
    for capabilities in ["CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(capabilities), 16), Ok(0), "{status}");
    }

    let folder = bench.root.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let share = |name: &str, path: &Path| Share {
        name: name.into(),
        path: path.into(),
        read_only: false,
    };
    // More than there are places, one after the other.
    for _ in 0..300 {
        within(machine.add_share(&share("a", &folder))).await.unwrap();
        within(machine.remove_share("a")).await.unwrap();
    }
    within(machine.add_share(&share("a", &folder))).await.unwrap();
    within(machine.add_share(&share("b", &folder))).await.unwrap();
    let missing = within(machine.add_share(&share("c", &folder.join("missing")))).await;
    assert!(missing.unwrap_err().to_string().contains("missing"));
    let file = within(machine.add_share(&share("d", &bench.spec.kernel))).await;
    assert!(file.unwrap_err().to_string().contains("kernel"));
    assert_eq!(machine.shares().len(), 2);
    assert!(within(machine.folder_health()).await.is_ok());
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_host_without_namespaces_confines_by_what_is_left_and_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new("hello\n", Then::Idle);
    // A user namespace in which no further one may be made, as some hosts forbid it altogether.
    let script = bench.root.path().join("program");
    let forbidding = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user sh -c \
         'echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"' sh '{}' \"$@\"\n",
        program().display()
    );
    std::fs::write(&script, forbidding).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let started = Emulated::new(Some(script)).start(&bench.spec).await;
    let machine = started.unwrap_or_else(|error| panic!("{error}\n{}", bench.log()));
    bench.console_shows("hello", 1).await;
    let layers = machine.confinement();
    let layer = |name: &str| layers.iter().find(|layer| layer.name == name).unwrap();
    for name in [
        "user namespace",
        "mount namespace",
        "network namespace",
        "cgroup namespace",
    ] {
        assert_eq!(layer(name).hold, Hold::Absent, "{layers:?}");
        assert!(layer(name).evidence.contains("namespaces"), "{layers:?}");
    }
    assert_eq!(layer("seccomp").hold, Hold::Whole);
    assert_ne!(layer("Landlock").hold, Hold::Whole);
    let folder = bench.root.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let share = Share {
        name: "a".into(),
        path: folder,
        read_only: false,
    };
    within(machine.add_share(&share)).await.unwrap();
    within(machine.remove_share("a")).await.unwrap();
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_machine_ends_with_the_process_that_faces_its_guest() {
    let bench = Bench::new("last words\n", Then::Idle);
    let machine = bench.start().await;
    bench.console_shows("last words", 1).await;
    let processes = machine.processes();
    signal(processes[2], Signal::KILL);
    let exit = within(machine.wait()).await;
    let ExitCause::HypervisorDied { stderr, .. } = exit.cause else {
        panic!("{exit:?}");
    };
    assert!(stderr.contains("signal: 9"), "{stderr}");
    assert_eq!(exit.console_tail, ["last words"]);
    bench.is_clear(&processes).await;
}

#[tokio::test]
async fn a_paused_guest_does_nothing_until_it_is_resumed() {
    let bench = Bench::new("tick\n", Then::Again);
    let machine = bench.start().await;
    let mut events = machine.events();
    bench.console_shows("tick", 2).await;
    within(machine.pause()).await.unwrap();
    assert!(machine.paused());
    assert!(!machine.held(), "somebody asked for it");
    let paused = MachineEvent::Paused { held: false };
    assert_eq!(within(events.recv()).await.unwrap(), paused);
    // What was in the pipe is still written, and then nothing more.
    let deadline = Instant::now() + PATIENCE;
    let mut size = bench.console_size();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = bench.console_size();
        if now == size {
            break;
        }
        assert!(Instant::now() < deadline, "the guest goes on");
        size = now;
    }

    drop(machine);
    let machine = within(backend().adopt(&bench.spec)).await.unwrap().unwrap();
    assert!(machine.paused(), "a daemon that comes later knows it too");
    let mut events = machine.events();
    within(machine.resume()).await.unwrap();
    assert!(!machine.paused());
    assert_eq!(within(events.recv()).await.unwrap(), MachineEvent::Resumed);
    let deadline = Instant::now() + PATIENCE;
    while bench.console_size() == size {
        assert!(Instant::now() < deadline, "the guest does not go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_restarts_goes_on_in_the_same_machine() {
    let bench = Bench::new("hello\n", Then::ResetOnce);
    let machine = bench.start().await;
    let mut events = machine.events();
    let processes = machine.processes();
    bench.console_shows("hello", 2).await;
    assert_eq!(within(events.recv()).await.unwrap(), MachineEvent::Rebooted);
    assert!(processes.iter().all(|pid| runs(*pid)));
    within(machine.pause()).await.unwrap();
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn the_data_disk_grows_while_the_guest_runs_and_never_shrinks() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    within(machine.grow_disk(Disk::Data, 8 << 20)).await.unwrap();
    assert_eq!(std::fs::metadata(&bench.spec.data_disk).unwrap().len(), 8 << 20);
    let error = within(machine.grow_disk(Disk::Data, 1 << 20)).await.unwrap_err();
    assert!(matches!(error, MachineError::Failed { .. }), "{error}");
    assert_eq!(std::fs::metadata(&bench.spec.data_disk).unwrap().len(), 8 << 20);
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_port_that_nobody_in_the_guest_listens_on_is_refused() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let error = within(machine.connect(1024)).await.unwrap_err();
    assert!(matches!(error, MachineError::Refused { port: 1024 }), "{error}");
    let listener = machine.listen(2000).await.unwrap();
    assert!(machine.listen(2000).await.is_err(), "one listener a port");
    drop(listener);
    within(machine.kill()).await.unwrap();
    assert!(matches!(machine.connect(1024).await, Err(MachineError::Ended)));
    assert!(matches!(machine.pause().await, Err(MachineError::Ended)));
}

#[tokio::test]
async fn a_second_machine_on_the_same_directory_is_refused() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let error = backend().start(&bench.spec).await.err().unwrap();
    assert!(matches!(error, MachineError::Locked { .. }), "{error}");
    assert!(machine.processes().iter().all(|pid| runs(*pid)));
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn a_second_machine_on_the_same_disk_is_refused_by_the_disks_own_lock() {
    let bench = Bench::new("hello\n", Then::Idle);
    let machine = bench.start().await;
    let mut other = bench.spec.clone();
    other.directory = bench.root.path().join("other");
    other.runtime = bench.root.path().join("other-run");
    let error = backend().start(&other).await.err().unwrap();
    assert!(
        error.to_string().contains("another machine uses the disk"),
        "{error}"
    );
    within(machine.kill()).await.unwrap();
}

#[tokio::test]
async fn what_qemu_cannot_set_up_is_told_in_its_words_and_leaves_nothing_behind() {
    let mut bench = Bench::new("hello\n", Then::Idle);
    bench.spec.rootfs = bench.root.path().join("absent.erofs");
    let error = backend().start(&bench.spec).await.err().unwrap();
    assert!(error.to_string().contains("absent.erofs"), "{error}");
    bench.is_clear(&[]).await;
    bench.spec.rootfs = bench.root.path().join("rootfs");
    within(bench.start().await.kill()).await.unwrap();
}

/// A QEMU that complains and ends like this when it is to run a machine.
fn fake_qemu(bench: &Bench, end: &str) -> Emulated {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'QEMU emulator version 10.0.2'\n\
         echo 'iotlb_to_section: Assertion failed.' >&2\n{end}\n"
    );
    test_script::install(&bench.root.path().join("qemu-system-x86_64"), &script);
    backend().with_search_path(vec![bench.root.path().to_owned()])
}

#[tokio::test]
async fn a_qemu_that_aborts_before_its_guest_runs_has_crashed_and_leaves_nothing_behind() {
    let bench = Bench::new("hello\n", Then::Idle);
    let error = fake_qemu(&bench, "kill -ABRT $$")
        .start(&bench.spec)
        .await
        .err()
        .unwrap();
    let MachineError::Crashed { why } = error else {
        panic!("{error}");
    };
    assert!(
        why.contains("SIGABRT") && why.contains("iotlb_to_section"),
        "{why}"
    );
    bench.is_clear(&[]).await;
    // Nothing of it is in the way of the next, which may begin at once.
    within(bench.start().await.kill()).await.unwrap();
}

#[tokio::test]
async fn a_qemu_that_ends_with_an_error_has_not_crashed() {
    let bench = Bench::new("hello\n", Then::Idle);
    let error = fake_qemu(&bench, "exit 1")
        .start(&bench.spec)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, MachineError::StartFailed { .. }), "{error}");
    assert!(error.to_string().contains("iotlb_to_section"), "{error}");
    bench.is_clear(&[]).await;
}

#[tokio::test]
async fn a_missing_qemu_is_said_with_how_to_get_it() {
    let bench = Bench::new("hello\n", Then::Idle);
    let backend = backend().with_search_path(vec![bench.root.path().to_owned()]);
    let error = backend.start(&bench.spec).await.err().unwrap();
    assert!(matches!(error, MachineError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("install"), "{error}");
    assert!(
        !bench.spec.directory.exists(),
        "nothing was made for a machine that cannot be"
    );
}

#[tokio::test]
async fn a_runtime_directory_too_deep_for_sockets_is_said_before_anything_starts() {
    let mut bench = Bench::new("hello\n", Then::Idle);
    bench.spec.runtime = bench.root.path().join("x".repeat(100));
    let error = backend().start(&bench.spec).await.err().unwrap();
    assert!(
        matches!(error, MachineError::SocketPathTooLong { limit: 107, .. }),
        "{error}"
    );
    assert!(!bench.spec.runtime.exists());
}

#[tokio::test]
async fn a_program_that_is_no_machine_process_fails_the_start_and_is_quoted() {
    let bench = Bench::new("hello\n", Then::Idle);
    let error = Emulated::new(Some("/bin/ls".into()))
        .start(&bench.spec)
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("machine-process"),
        "ls quotes what it does not know: {error}"
    );
}
