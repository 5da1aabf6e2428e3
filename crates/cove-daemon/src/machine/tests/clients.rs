//! Docker clients that come at any time.

use super::{LONG, failed, outcome, start, until};
use crate::{
    gateway::Engine,
    machine::{
        Command, Handle, MachineEngine,
        fake::{Fixture, Script},
    },
};
use cove_api::{ErrorCode, MachineState};
use cove_machine::ExitCause;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

#[tokio::test]
async fn docker_clients_wait_while_the_machine_starts_and_are_told_when_there_is_nothing_to_wait_for() {
    let fixture = Fixture::new(Script {
        refusals: 20,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let engine = MachineEngine::for_host(handle.clone());
    until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    let unavailable = engine.connect().await.unwrap_err();
    assert!(unavailable.hint.contains("cove start"), "{unavailable:?}");
    let starting = handle.begin(Command::Start).await.unwrap();
    let waiting = tokio::spawn({
        let engine = MachineEngine::for_host(handle.clone());
        async move { engine.connect().await.map(drop) }
    });
    outcome(starting).await.unwrap();
    timeout(LONG, waiting)
        .await
        .expect("a client hangs")
        .unwrap()
        .unwrap();
    handle.perform(Command::Pause).await.unwrap();
    assert!(engine.connect().await.unwrap_err().message.contains("paused"));
    handle.perform(Command::Resume).await.unwrap();
    engine.connect().await.unwrap();
    fixture.host.guest().end(ExitCause::Vanished);
    until(&handle, "failed", failed).await;
    assert!(engine.connect().await.unwrap_err().message.contains("failed"));
}

#[tokio::test]
async fn clients_of_another_machine_are_told_to_start_that_one() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = Handle::spawn(Arc::clone(&fixture.context), "dev".parse().unwrap());
    let engine = MachineEngine::for_host(handle.clone());
    until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    let stopped = engine.connect().await.unwrap_err();
    assert_eq!(stopped.hint, "start it with: cove start --machine dev");
    start(&handle).await.unwrap();
    fixture.host.guest().end(ExitCause::Vanished);
    until(&handle, "failed", failed).await;
    let failed = engine.connect().await.unwrap_err();
    assert!(failed.hint.contains("`cove start --machine dev`"), "{failed:?}");
}

#[tokio::test]
async fn docker_clients_wait_for_the_start_that_follows_a_stop() {
    let fixture = Fixture::new(Script {
        powers_off: false,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let stopping = handle.begin(Command::Stop).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    let error = MachineEngine::for_host(handle.clone())
        .connect()
        .await
        .unwrap_err();
    assert!(error.message.contains("stopping"), "{error:?}");

    let starting = handle.begin(Command::Start).await.unwrap();
    let mut watch = handle.watch();
    let planned = watch.wait_for(|snapshot| snapshot.start_follows);
    assert!(timeout(LONG, planned).await.is_ok(), "no start follows");
    let waiting = tokio::spawn({
        let engine = MachineEngine::for_host(handle.clone());
        async move { engine.connect().await.map(drop) }
    });
    // It is answered by the machine that comes and not by the one that goes, nor between the two.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "answered by a machine that stops");
    fixture.host.guest().end(ExitCause::PoweredOff);
    outcome(stopping).await.unwrap();
    outcome(starting).await.unwrap();
    let connected = timeout(LONG, waiting).await.expect("a client hangs").unwrap();
    connected.unwrap();
    assert!(!handle.snapshot().start_follows);

    let restarting = handle.begin(Command::Restart).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    assert!(handle.snapshot().start_follows, "a restart is a stop and a start");
    // A stop takes the start back, and nobody waits for it any longer.
    let stopping = handle.begin(Command::Stop).await.unwrap();
    let mut watch = handle.watch();
    let taken_back = watch.wait_for(|snapshot| !snapshot.start_follows);
    assert!(
        timeout(LONG, taken_back).await.is_ok(),
        "the start is still planned"
    );
    fixture.host.guest().end(ExitCause::PoweredOff);
    outcome(stopping).await.unwrap();
    assert_eq!(outcome(restarting).await.unwrap_err().code, ErrorCode::WrongState);
}
