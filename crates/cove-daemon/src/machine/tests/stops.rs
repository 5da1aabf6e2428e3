//! Stops, and the starts that follow or are taken back; the end of a machine.

use super::{LONG, eventually, outcome, start, stop, until};
use crate::machine::{
    Command, Listening,
    fake::{Fixture, Script},
};
use cove_api::{ErrorCode, MachineState, Progress};
use cove_machine::ExitCause;
use std::sync::Arc;
use tokio::time::timeout;

#[tokio::test]
async fn a_stop_asks_the_guest_and_waits_for_its_power_off() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let status = stop(&handle).await.unwrap();
    assert_eq!(status.state, MachineState::Stopped);
    assert_eq!(fixture.host.guest().was_asked("shutdown"), 1);
    assert!(status.notices.is_empty(), "{:?}", status.notices);
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

/// The stages that an operation which comes out well tells, each with how far the whole is.
async fn stages(mut listening: Listening) -> Vec<(String, f32)> {
    let mut stages = Vec::new();
    while let Some(progress) = timeout(LONG, listening.next()).await.expect("it hangs") {
        match progress {
            Progress::Stage { message, fraction } => stages.push((message, fraction)),
            Progress::Failed { error } => panic!("{error:?}"),
            Progress::Notice { .. } | Progress::Done { .. } => {}
        }
    }
    stages
}

#[tokio::test]
async fn a_stop_tells_how_far_it_is_and_a_restart_begins_with_its_start() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let stop = [
        "Stopping the machine",
        "Stopping containers and the engine",
        "Powering the guest off",
    ];
    start(&handle).await.unwrap();
    let told = stages(handle.begin(Command::Restart).await.unwrap()).await;
    let (first, rest) = told.split_at(stop.len());
    assert!(first.iter().map(|(message, _)| message).eq(&stop), "{told:?}");
    assert!(first.iter().all(|(_, fraction)| *fraction == 0.0), "{told:?}");
    assert!(rest.is_sorted_by(|one, next| one.1 <= next.1), "{told:?}");

    let told = stages(handle.begin(Command::Stop).await.unwrap()).await;
    assert!(told.iter().map(|(message, _)| message).eq(&stop), "{told:?}");
    assert!(told.is_sorted_by(|one, next| one.1 < next.1), "{told:?}");
}

#[tokio::test]
async fn a_stop_cancels_a_start_whose_guest_is_not_up_yet() {
    let fixture = Fixture::new(Script {
        refusals: u32::MAX,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let starting = handle.begin(Command::Start).await.unwrap();
    eventually("started a machine process", || {
        handle.snapshot().machine.is_some()
    })
    .await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(starting).await.unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(fixture.host.guest().was_asked("shutdown"), 0);
}

#[tokio::test]
async fn a_start_while_stopping_waits_and_a_kill_cuts_the_waiting_short() {
    let fixture = Fixture::new(Script {
        powers_off: false,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let stopping = handle.begin(Command::Stop).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    let starting = handle.begin(Command::Start).await.unwrap();
    let old = fixture.host.guest();
    // A stop would take the start back, so that the guest is ended as if somebody had killed the process.
    old.end(ExitCause::Killed);
    assert_eq!(outcome(stopping).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(starting).await.unwrap().state, MachineState::Running);

    let stopping = handle.begin(Command::Stop).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    let killing = handle.begin(Command::Kill).await.unwrap();
    assert_eq!(outcome(killing).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(stopping).await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_stop_takes_back_a_start_that_was_to_follow() {
    let fixture = Fixture::new(Script {
        powers_off: false,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let restarting = handle.begin(Command::Restart).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    let stopping = handle.begin(Command::Stop).await.unwrap();
    fixture.host.guest().end(ExitCause::PoweredOff);
    assert_eq!(outcome(stopping).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(restarting).await.unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(handle.status().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_restart_stops_in_order_and_starts_again() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let old = fixture.host.guest();
    let status = outcome(handle.begin(Command::Restart).await.unwrap())
        .await
        .unwrap();
    assert_eq!(status.state, MachineState::Running);
    assert_eq!(old.was_asked("shutdown"), 1);
    assert!(!Arc::ptr_eq(&old, &fixture.host.guest()));
}

#[tokio::test]
async fn only_a_stopped_machine_is_deleted() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    let error = handle.perform(Command::Delete).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState);
    stop(&handle).await.unwrap();
    handle.perform(Command::Delete).await.unwrap();
    owner.await.unwrap();
    assert!(!fixture.context.dirs.machine("default").exists());
    assert_eq!(
        handle.perform(Command::Pause).await.unwrap_err().code,
        ErrorCode::NotFound
    );
}
