//! The daemon itself: how it is, and how it ends.

use super::{Daemon, LONG};
use crate::{instance::Instance, machine::fake::Fixture};
use cove_api::{Client, ClientError, MachineState};
use cove_machine::ExitCause;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn the_doctor_looks_at_everything() {
    let daemon = Daemon::begin();
    let checks = daemon.client.doctor().await.unwrap();
    for name in [
        "settings",
        "machines",
        "image",
        "disk space",
        "sockets",
        "docker client",
        "docker context",
    ] {
        assert!(
            checks.iter().any(|check| check.name == name),
            "{name} is not in {checks:?}"
        );
    }
}

#[tokio::test]
async fn a_shutdown_stops_the_machines_answers_and_ends_the_daemon() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let mut events = daemon.client.events().await.unwrap();
    timeout(LONG, daemon.client.shutdown()).await.unwrap().unwrap();
    assert!(daemon.end.is_cancelled());
    assert_eq!(daemon.fixture.host.guest().was_asked("shutdown"), 1);
    timeout(LONG, daemon.machines.close()).await.unwrap();
    assert!(!daemon.fixture.context.dirs.daemon_socket().exists());
    assert!(!daemon.fixture.context.dirs.docker_socket("default").exists());
    while let Ok(Some(_)) = timeout(LONG, events.next()).await.unwrap() {}
}

#[tokio::test]
async fn a_daemon_that_ends_by_a_signal_leaves_its_machines_to_the_next() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let guest = daemon.fixture.host.guest();
    daemon.end.cancel();
    daemon.machines.close().await;
    let Daemon {
        fixture, machines, ..
    } = daemon;
    drop(machines);
    assert_eq!(guest.was_asked("shutdown"), 0);

    // Whoever asks at once is answered, has the machine, and sees it running in the end.
    let daemon = Daemon::over(released(fixture).await);
    let dial = cove_wire::Dial {
        address: "127.0.0.1:80".parse().unwrap(),
        namespace: None,
    };
    let dialled = timeout(LONG, daemon.client.dial("default", &dial)).await;
    assert!(dialled.unwrap().is_ok(), "the machine is not there at once");
    let running = async {
        while daemon.client.machine("default").await.unwrap().state != MachineState::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, running).await.expect("the machine is not adopted");
    guest.end(ExitCause::Vanished);
}

/// Waits until the earlier daemon's lock is free: its server's tasks hold it until they have ended.
async fn released(fixture: Fixture) -> Fixture {
    let free = async {
        while Instance::claim(&fixture.context.dirs).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, free).await.expect("the lock is not released");
    fixture
}

#[tokio::test]
async fn a_client_without_a_daemon_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let client = Client::new(home.path().join("daemon.sock"));
    assert!(matches!(
        client.version().await,
        Err(ClientError::NotRunning { .. })
    ));
    drop(std::os::unix::net::UnixListener::bind(client.socket()).unwrap());
    assert!(matches!(
        client.version().await,
        Err(ClientError::NotRunning { .. })
    ));
    let client = Client::new(home.path().join("x".repeat(120)));
    let error = client.version().await.unwrap_err().to_string();
    assert!(error.contains("COVE_HOME"), "{error}");
}
