//! Machines: made, started, looked at, deleted.

use super::{Daemon, LONG, code};
use crate::machine::fake::{Fixture, Script};
use cove_api::{
    ClientError, ContextState, CpuTime, ErrorCode, Event, MachineState, NewMachine, Progress, transport,
};
use std::{fs, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};

#[tokio::test]
async fn a_machine_is_started_watched_and_stopped() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    assert_eq!(client.version().await.unwrap().pid, std::process::id());
    let mut events = client.events().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, Event::Machine { status } if status.name == "default"));

    let mut steps = 0;
    let progress = client.start("default").await.unwrap();
    let status = progress
        .finish(|step| steps += usize::from(matches!(step, Progress::Stage { .. })))
        .await
        .unwrap();
    assert_eq!(status.state, MachineState::Running);
    assert!(steps > 3, "{steps}");
    loop {
        let event = timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        if matches!(event, Event::Machine { status } if status.state == MachineState::Running) {
            break;
        }
    }
    assert_eq!(client.pause("default").await.unwrap().state, MachineState::Paused);
    assert_eq!(
        client.resume("default").await.unwrap().state,
        MachineState::Running
    );
    let status = client
        .stop("default")
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap();
    assert_eq!(status.state, MachineState::Stopped);
    assert_eq!(client.kill("default").await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_disk_gives_back_what_the_guest_does_not_use_while_it_runs() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    daemon.start().await;
    let path = daemon.fixture.context.dirs.machine("default").join("data.img");
    let mut disk = fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut disk, &vec![7; 4 << 20]).unwrap();
    disk.sync_all().unwrap();
    let present = client.usage("default").await.unwrap();
    assert_eq!((present.disk_used, present.memory_used), (4096, 1 << 30));
    assert_eq!(present.cpu, Some(CpuTime { busy: 25, all: 100 }));
    assert!(present.disk_on_host >= 4 << 20, "{present:?}");
    let mut events = client.events().await.unwrap();
    assert!(matches!(
        events.next().await.unwrap().unwrap(),
        Event::Machine { .. }
    ));
    let reclaimed = client.reclaim("default").await.unwrap();
    assert_eq!(reclaimed.before, present.disk_on_host);
    assert!(reclaimed.after < 1 << 20, "{reclaimed:?}");
    assert_eq!(daemon.fixture.host.guest().was_asked("trim"), 1);
    // Whoever follows the machine hears what its disk takes now.
    let told = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if matches!(event, Event::Machine { status } if status.disk_on_host == reclaimed.after) {
                break;
            }
        }
    };
    timeout(LONG, told).await.unwrap();

    client.pause("default").await.unwrap();
    assert_eq!(code(client.reclaim("default").await), ErrorCode::WrongState);
    assert_eq!(code(client.usage("default").await), ErrorCode::WrongState);
    assert_eq!(code(client.reclaim("nobody").await), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_failed_start_ends_its_stream_with_the_error() {
    let daemon = Daemon::begin();
    fs::remove_dir_all(daemon.fixture.context.dirs.image()).unwrap();
    let progress = daemon.client.start("default").await.unwrap();
    let error = progress.finish(|_| {}).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadImage));
    match error {
        ClientError::Api(error) => assert!(error.hint.contains("cove image build"), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_that_cannot_be_made_leaves_nothing_and_what_was_said_of_it_before_stays() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let dirs = &daemon.fixture.context.dirs;
    let before = "[machines.big]\ncpus = 3\n";
    daemon.fixture.write_settings(before);
    let mut wanted = NewMachine {
        name: "big".into(),
        cpus: Some(1),
        memory_mib: Some(1),
        disk_gib: None,
    };
    assert_eq!(
        code(client.create_machine(&wanted).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(fs::read_to_string(daemon.settings_path()).unwrap(), before);
    assert!(!dirs.machine("big").exists() && !dirs.machine_runtime("big").exists());

    // Its directories cannot be made where a file is in the way.
    wanted.memory_mib = Some(512);
    fs::write(dirs.machine_runtime("big"), "").unwrap();
    assert_eq!(code(client.create_machine(&wanted).await), ErrorCode::Internal);
    assert_eq!(fs::read_to_string(daemon.settings_path()).unwrap(), before);
    assert!(!dirs.machine("big").exists());
    fs::remove_file(dirs.machine_runtime("big")).unwrap();
    client.create_machine(&wanted).await.unwrap();
    assert_eq!(client.machines().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_whose_sockets_would_have_too_long_a_path_is_refused_as_that() {
    let mut fixture = Fixture::new(Script::default());
    let longest = cove_machine::longest_socket(&fixture.context.dirs.machine_runtime("default"));
    let room = transport::MAX_SOCKET_PATH - longest.as_os_str().len();
    // The default machine's sockets just fit, and those of one with a longer name do not.
    let long = fixture.home.path().join("x".repeat(room - 1));
    fs::create_dir(&long).unwrap();
    fixture = fixture.at(&long);
    let daemon = Daemon::over(fixture);
    let wanted = NewMachine {
        name: "a-name-that-is-as-long-as-it-can".into(),
        ..NewMachine::default()
    };
    let error = daemon.client.create_machine(&wanted).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
    assert!(error.to_string().contains("bytes long"), "{error}");
    assert!(!daemon.fixture.context.dirs.machine(&wanted.name).exists());
}

#[tokio::test]
async fn machines_are_created_with_their_own_settings_and_deleted_only_by_name() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let wanted = NewMachine {
        name: "dev".into(),
        cpus: Some(1),
        memory_mib: Some(512),
        disk_gib: Some(8),
    };
    let status = client.create_machine(&wanted).await.unwrap();
    assert_eq!(
        (status.cpus, status.memory_mib, status.disk_size),
        (1, 512, 8 << 30)
    );
    assert_eq!(status.endpoint.context, "cove-dev");
    assert_eq!(client.machines().await.unwrap().len(), 2);
    assert_eq!(code(client.create_machine(&wanted).await), ErrorCode::WrongState);
    for name in ["../x", "", "Dev"] {
        let wanted = NewMachine {
            name: name.into(),
            ..NewMachine::default()
        };
        assert_eq!(
            code(client.create_machine(&wanted).await),
            ErrorCode::InvalidRequest
        );
    }
    let wanted = NewMachine {
        name: "big".into(),
        cpus: Some(1),
        memory_mib: Some(1),
        disk_gib: None,
    };
    assert_eq!(
        code(client.create_machine(&wanted).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(client.machines().await.unwrap().len(), 2);
    let settings = fs::read_to_string(daemon.settings_path()).unwrap();
    assert!(!settings.contains("\n[machines.big]"), "{settings}");
    assert_eq!(
        code(client.delete_machine("dev", "default").await),
        ErrorCode::NotConfirmed
    );
    client.delete_machine("dev", "dev").await.unwrap();
    assert_eq!(code(client.machine("dev").await), ErrorCode::NotFound);
    let settings = fs::read_to_string(daemon.settings_path()).unwrap();
    assert!(!settings.contains("\n[machines.dev]"), "{settings}");

    // The default machine is there again, without its data.
    daemon.start().await;
    assert_eq!(
        code(client.delete_machine("default", "default").await),
        ErrorCode::WrongState
    );
    client
        .stop("default")
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap();
    let disk = daemon.fixture.context.dirs.machine("default").join("data.img");
    assert!(disk.exists());
    client.delete_machine("default", "default").await.unwrap();
    assert!(!disk.exists());
    daemon.start().await;
}

#[tokio::test]
async fn the_docker_context_is_made_used_and_removed_on_request_only() {
    let daemon = Daemon::begin();
    let docker = daemon.fixture.context.docker.as_ref().unwrap();
    let seen = async || daemon.client.context("default").await.unwrap();
    assert_eq!(seen().await.state, ContextState::Absent);
    daemon.client.create_context("default", false).await.unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert_eq!(seen().await.state, ContextState::Good);
    daemon.client.create_context("default", true).await.unwrap();
    assert_eq!(docker.current().unwrap().as_deref(), Some("cove"));
    assert!(seen().await.current);
    daemon.client.remove_context("default").await.unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert_eq!(seen().await.state, ContextState::Absent);
}

#[tokio::test]
async fn a_deletion_whose_client_hangs_up_is_done_to_its_end() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let wanted = NewMachine {
        name: "dev".into(),
        ..NewMachine::default()
    };
    client.create_machine(&wanted).await.unwrap();
    // Removing all this takes longer than hanging up.
    let directory = daemon.fixture.context.dirs.machine("dev");
    for file in 0..3000 {
        fs::write(directory.join(file.to_string()), "").unwrap();
    }
    let mut stream = transport::connect(client.socket()).await.unwrap();
    let request = b"DELETE /v1/machines/dev?confirm=dev HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    drop(stream);
    let deleted = async {
        while client.machines().await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, deleted).await.expect("half of the machine is left");
    client.create_machine(&wanted).await.unwrap();
}
