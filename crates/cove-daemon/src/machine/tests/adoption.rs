//! Machines that outlive their daemon, and what the next one makes of them.

use super::{LONG, eventually, failed, outcome, start, stop, until};
use crate::{
    machine::{
        Command, Handle,
        fake::{Fixture, Script},
    },
    name::MachineName,
};
use cove_api::{ErrorCode, MachineState, MachineStatus};
use cove_machine::ExitCause;
use std::fs::File;
use tokio::{task::JoinHandle, time::timeout};

/// Starts a machine and leaves it to whichever daemon comes next: its own was killed. The handle is that one's.
async fn orphan(fixture: &Fixture) -> Handle {
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    killed(owner).await;
    handle
}

/// As a daemon is killed: it gets to do nothing more.
async fn killed(owner: JoinHandle<()>) {
    owner.abort();
    let _ = owner.await;
}

/// The lock of the default machine's place, as a machine that goes on holds it.
fn locked(fixture: &Fixture) -> File {
    let directory = fixture.context.dirs.machine(MachineName::default().as_str());
    let lock = File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

#[tokio::test]
async fn a_daemon_that_was_killed_leaves_a_machine_which_the_next_one_adopts() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    let before = start(&handle).await.unwrap();
    killed(owner).await;

    let (handle, _owner) = fixture.own();
    let after = until(&handle, "running", |state| *state == MachineState::Running).await;
    assert_eq!(after.timings, before.timings);
    assert_eq!(after.engine_version, before.engine_version);
    // The agent is told the same configuration, which it answers without doing it again.
    assert_eq!(fixture.host.guest().was_asked("boot"), 2);
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(fixture.host.guest().was_asked("shutdown"), 1);
}

#[tokio::test]
async fn a_daemon_that_ends_lets_go_of_a_machine_that_starts_and_the_next_one_brings_it_up() {
    let fixture = Fixture::new(Script {
        refusals: 1_000_000,
        ..Script::default()
    });
    let (handle, owner) = fixture.own();
    let _starting = handle.begin(Command::Start).await.unwrap();
    eventually("started a machine process", || {
        handle.snapshot().machine.is_some()
    })
    .await;
    handle.detach().await;
    timeout(LONG, owner)
        .await
        .expect("the owner does not end")
        .unwrap();

    fixture.host.guest().relent();
    let (handle, _owner) = fixture.own();
    until(&handle, "running", |state| *state == MachineState::Running).await;
}

#[tokio::test]
async fn a_machine_that_runs_is_adopted_even_if_its_record_is_damaged() {
    let fixture = Fixture::new(Script::default());
    let handle = orphan(&fixture).await;
    std::fs::write(handle.place().record_file(), "{").unwrap();
    let (handle, _owner) = fixture.own();
    until(&handle, "running", |state| *state == MachineState::Running).await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(fixture.host.guest().was_asked("shutdown"), 1);
}

#[tokio::test]
async fn a_guest_that_is_shutting_down_when_a_daemon_begins_is_waited_for() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    let guest = fixture.host.guest();
    guest.goes_down();
    let (handle, _owner) = fixture.own();
    let waits = |state: &MachineState| matches!(state, MachineState::Starting { stage } if stage.contains("shut down"));
    until(&handle, "waiting for the guest", waits).await;
    guest.end(ExitCause::PoweredOff);
    let status = until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    assert_eq!(status.notices, ["the guest has powered itself off"]);
}

#[tokio::test]
async fn a_paused_machine_is_adopted_as_it_is() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    handle.perform(Command::Pause).await.unwrap();
    killed(owner).await;
    let (handle, _owner) = fixture.own();
    until(&handle, "paused", |state| *state == MachineState::Paused).await;
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

#[tokio::test]
async fn a_start_while_a_paused_machine_is_looked_for_lets_it_go_on() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    handle.perform(Command::Pause).await.unwrap();
    killed(owner).await;
    let (handle, _owner) = fixture.own();
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
    assert_eq!(fixture.host.guest().was_asked("boot"), 1);
}

#[tokio::test]
async fn a_machine_that_is_held_is_adopted_as_that_and_goes_on_unless_somebody_paused_it() {
    let by_itself = |status: &MachineStatus| status.notices.iter().any(|notice| notice.contains("by itself"));
    for asked in [false, true] {
        let fixture = Fixture::new(Script::default());
        let (handle, owner) = fixture.own();
        start(&handle).await.unwrap();
        fixture.host.guest().pause_by_itself();
        until(&handle, "paused", |state| *state == MachineState::Paused).await;
        if asked {
            handle.perform(Command::Pause).await.unwrap();
            assert!(!by_itself(&handle.status()), "{:?}", handle.status().notices);
        }
        killed(owner).await;

        let (handle, _owner) = fixture.own();
        let status = until(&handle, "paused", |state| *state == MachineState::Paused).await;
        assert_eq!(by_itself(&status), !asked, "{:?}", status.notices);
        if !asked {
            // There is space, which the owner looks for every ten seconds.
            until(&handle, "running", |state| *state == MachineState::Running).await;
        }
    }
}

#[tokio::test]
async fn a_machine_that_died_while_the_daemon_was_away_is_told_of_once() {
    for (cause, fails) in [
        (ExitCause::PoweredOff, false),
        (
            ExitCause::HypervisorDied {
                status: "signal 9".into(),
                stderr: String::new(),
                crashed: false,
            },
            true,
        ),
    ] {
        let fixture = Fixture::new(Script::default());
        orphan(&fixture).await;
        fixture.host.guest().end(cause);

        let (handle, owner) = fixture.own();
        let settled = |state: &MachineState| failed(state) || *state == MachineState::Stopped;
        let status = until(&handle, "settled", settled).await;
        assert_eq!(failed(&status.state), fails);
        assert_eq!(status.notices.is_empty(), fails, "{:?}", status.notices);
        killed(owner).await;
        let (handle, _owner) = fixture.own();
        let status = until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
        assert!(status.notices.is_empty(), "{:?}", status.notices);
    }
}

#[tokio::test]
async fn a_start_after_machine_and_daemon_died_starts_and_tells_of_it() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    fixture.host.guest().end(ExitCause::Vanished);
    let (handle, _owner) = fixture.own();
    let status = start(&handle).await.unwrap();
    assert_eq!(status.state, MachineState::Running);
    assert!(
        status.notices.iter().any(|notice| notice.contains("disappeared")),
        "{:?}",
        status.notices
    );
}

#[tokio::test]
async fn a_machine_that_runs_outlives_a_daemon_that_cannot_talk_to_its_agent() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    fixture.host.guest().speak(cove_wire::PROTOCOL_VERSION + 1);

    let (handle, _owner) = fixture.own();
    let status = until(&handle, "failed", failed).await;
    let MachineState::Failed { error, .. } = &status.state else {
        panic!("{status:?}");
    };
    assert!(
        error.message.contains("goes on") && error.hint.contains("--force"),
        "{error:?}"
    );
    assert!(handle.snapshot().machine.is_some(), "nobody can end it any more");
    for outcome in [start(&handle).await, stop(&handle).await] {
        assert!(outcome.unwrap_err().message.contains("goes on"));
    }
    assert!(fixture.host.guest().is_alive());
    let killing = handle.begin(Command::Kill).await.unwrap();
    assert_eq!(outcome(killing).await.unwrap().state, MachineState::Stopped);
    assert!(!fixture.host.guest().is_alive());
}

#[tokio::test]
async fn a_machine_of_another_release_is_never_said_to_be_stopped_and_can_be_ended_by_force() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    fixture.host.guest().is_foreign();
    let _lock = locked(&fixture);

    let (handle, _owner) = fixture.own();
    until(&handle, "failed", failed).await;
    let error = stop(&handle).await.unwrap_err();
    assert!(
        error.message.contains("another release") && error.hint.contains("--force"),
        "{error:?}"
    );
    until(&handle, "failed", failed).await;
    let error = handle.perform(Command::Delete).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState, "{error:?}");
    assert!(fixture.host.guest().is_alive());
    let killing = handle.begin(Command::Kill).await.unwrap();
    assert_eq!(outcome(killing).await.unwrap().state, MachineState::Stopped);
    assert!(!fixture.host.guest().is_alive());
}

#[tokio::test]
async fn what_is_asked_for_while_a_machine_of_another_release_is_looked_for_fails_and_leaves_it_as_it_is() {
    for command in [Command::Start, Command::Stop, Command::Restart] {
        let fixture = Fixture::new(Script::default());
        orphan(&fixture).await;
        fixture.host.guest().is_foreign();
        let _lock = locked(&fixture);

        let (handle, _owner) = fixture.own();
        let remembered = handle.place().record();
        assert!(remembered.is_some());
        let error = outcome(handle.begin(command).await.unwrap()).await.unwrap_err();
        assert!(
            error.message.contains("another release") && error.hint.contains("--force"),
            "{error:?}"
        );
        until(&handle, "failed", failed).await;
        assert_eq!(fixture.host.starts(), 1);
        assert!(fixture.host.guest().is_alive());
        // Its own release takes it over by that.
        assert_eq!(handle.place().record(), remembered);
        assert!(stop(&handle).await.is_err());
    }
}

#[tokio::test]
async fn a_stop_while_a_machine_is_looked_for_cuts_no_power_of_a_guest_that_cannot_be_asked() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    fixture.host.guest().speak(cove_wire::PROTOCOL_VERSION + 1);
    let _lock = locked(&fixture);

    let (handle, _owner) = fixture.own();
    let error = stop(&handle).await.unwrap_err();
    assert!(error.hint.contains("--force"), "{error:?}");
    assert!(fixture.host.guest().is_alive());
    let killing = handle.begin(Command::Kill).await.unwrap();
    assert_eq!(outcome(killing).await.unwrap().state, MachineState::Stopped);
    assert!(!fixture.host.guest().is_alive());
}

#[tokio::test]
async fn a_machine_that_a_stranger_runs_is_neither_started_nor_said_to_be_stopped() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    handle.place().prepare().unwrap();
    let lock = locked(&fixture);
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState);
    assert!(error.hint.contains("cove stop --force"), "{error:?}");
    assert_eq!(stop(&handle).await.unwrap_err(), error);
    assert_eq!(fixture.host.starts(), 0);
    assert!(handle.place().record().is_none());
    drop(lock);
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

#[tokio::test]
async fn a_stop_waits_for_a_machine_that_is_about_to_be_gone_and_force_ends_one_that_is_not() {
    let fixture = Fixture::new(Script::default());
    orphan(&fixture).await;
    let lock = locked(&fixture);
    // The lock outlives it, as a process that is slow to end would have it.
    fixture.host.guest().end(ExitCause::PoweredOff);
    let (handle, _owner) = fixture.own();
    until(&handle, "stopped", |state| *state == MachineState::Stopped).await;

    let stopping = handle.begin(Command::Stop).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    drop(lock);
    assert_eq!(outcome(stopping).await.unwrap().state, MachineState::Stopped);

    let _lock = locked(&fixture);
    let stopping = handle.begin(Command::Stop).await.unwrap();
    until(&handle, "stopping", |state| *state == MachineState::Stopping).await;
    let killing = handle.begin(Command::Kill).await.unwrap();
    assert_eq!(outcome(killing).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(stopping).await.unwrap().state, MachineState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever_for_what_this_daemon_has_no_hold_of() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    handle.place().prepare().unwrap();
    let _lock = locked(&fixture);
    let error = stop(&handle).await.unwrap_err();
    assert!(error.hint.contains("cove stop --force"), "{error:?}");
    until(&handle, "failed", failed).await;
}
