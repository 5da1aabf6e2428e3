//! Pauses, asked for or not.

use super::{eventually, start, stop, until};
use crate::machine::{
    Command,
    fake::{Fixture, Script},
};
use cove_api::{ErrorCode, MachineState};

#[tokio::test]
async fn a_paused_machine_is_resumed_by_a_start_and_its_clock_is_set() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let error = handle.perform(Command::Pause).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState);
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    handle.perform(Command::Pause).await.unwrap();
    handle.perform(Command::Pause).await.unwrap();
    assert_eq!(handle.status().state, MachineState::Paused);
    let before = guest.was_asked("set-time");
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
    eventually("set the clock", || guest.was_asked("set-time") > before).await;
    handle.perform(Command::Pause).await.unwrap();
    handle.perform(Command::Resume).await.unwrap();
    handle.perform(Command::Pause).await.unwrap();
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_machine_that_pauses_by_itself_is_said_to_be_paused_and_goes_on_when_told() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    fixture.host.guest().pause_by_itself();
    let status = until(&handle, "paused", |state| *state == MachineState::Paused).await;
    assert!(
        status.notices.iter().any(|notice| notice.contains("by itself")),
        "{:?}",
        status.notices
    );
    handle.perform(Command::Resume).await.unwrap();
    let status = until(&handle, "running", |state| *state == MachineState::Running).await;
    assert!(
        !status.notices.iter().any(|notice| notice.contains("by itself")),
        "{:?}",
        status.notices
    );
}

#[tokio::test]
async fn a_stop_ends_a_paused_machine_by_force_whose_process_does_not_let_it_go_on() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    handle.perform(Command::Pause).await.unwrap();
    fixture.host.guest().sticks();
    // From here on time is what is waited for.
    tokio::time::pause();
    let status = stop(&handle).await.unwrap();
    assert_eq!(status.state, MachineState::Stopped);
    assert!(
        status.notices.iter().any(|notice| notice.contains("killed")),
        "{:?}",
        status.notices
    );
    assert!(!fixture.host.guest().is_alive());
}
