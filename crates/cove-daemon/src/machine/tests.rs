//! Every edge of the state diagram, with a scripted guest.

use super::{
    Command, Handle, Listening, MachineEngine,
    fake::{Fixture, Script},
};
use crate::{gateway::Engine, name::MachineName};
use cove_api::{ApiError, ErrorCode, MachineState, MachineStatus, Progress};
use cove_machine::ExitCause;
use cove_wire::{EngineState, Fault, FaultCode};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

mod folders;

const LONG: Duration = Duration::from_secs(20);

async fn outcome(mut listening: Listening) -> Result<MachineStatus, ApiError> {
    let reading = async {
        while let Some(progress) = listening.next().await {
            match progress {
                Progress::Done { status } => return Ok(*status),
                Progress::Failed { error } => return Err(error),
                Progress::Stage { .. } | Progress::Notice { .. } => {}
            }
        }
        panic!("the operation ended without an outcome")
    };
    timeout(LONG, reading).await.expect("the operation hangs")
}

async fn until(handle: &Handle, what: &str, good: impl Fn(&MachineState) -> bool) -> MachineStatus {
    let mut watch = handle.watch();
    let reached = timeout(LONG, watch.wait_for(|snapshot| good(&snapshot.state))).await;
    assert!(reached.is_ok(), "never {what}: {:?}", handle.status().state);
    handle.status()
}

async fn start(handle: &Handle) -> Result<MachineStatus, ApiError> {
    outcome(handle.begin(Command::Start).await.unwrap()).await
}

async fn stop(handle: &Handle) -> Result<MachineStatus, ApiError> {
    outcome(handle.begin(Command::Stop).await.unwrap()).await
}

async fn eventually(what: &str, good: impl Fn() -> bool) {
    let waiting = async {
        while !good() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LONG, waiting).await.is_ok(), "never {what}");
}

fn failed(state: &MachineState) -> bool {
    matches!(state, MachineState::Failed { .. })
}

#[tokio::test]
async fn a_start_goes_through_its_stages_to_an_engine_that_answers() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let mut listening = handle.begin(Command::Start).await.unwrap();
    let (mut stages, mut fraction) = (Vec::new(), 0.0);
    let status = loop {
        match listening.next().await.unwrap() {
            Progress::Stage {
                message,
                fraction: now,
            } => {
                assert!(
                    now >= fraction || message == "Starting",
                    "{message} goes back to {now}"
                );
                fraction = now;
                stages.push(message);
            }
            Progress::Notice { .. } => {}
            Progress::Done { status } => break status,
            Progress::Failed { error } => panic!("{error:?}"),
        }
    };
    assert_eq!(status.state, MachineState::Running);
    assert!(stages.iter().any(|stage| stage.contains("image")), "{stages:?}");
    let names: Vec<_> = status.timings.iter().map(|stage| stage.name.as_str()).collect();
    for name in [
        "check-image",
        "prepare-disk",
        "start-process",
        "greet",
        "root",
        "starter-image",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(status.engine_version.as_deref(), Some("26.1.5"));
    assert_eq!(status.notices, ["one virtual CPU only"]);
    assert_eq!(status.disk_size, 64 << 30);
    assert!(status.uptime_s.is_some());
    assert_eq!(status.endpoint.context, "cove");
    // The context is there, and the current one was not switched.
    let docker = fixture.context.docker.as_ref().unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert!(fixture.home.path().join("docker/contexts/meta").is_dir());
    // A start of a machine that runs is done at once.
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
    assert_eq!(fixture.host.guest().was_asked("boot"), 1);
}

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
async fn certificates_reach_the_guest_before_its_boot_and_again_when_they_change() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    let order = || {
        let calls = guest.calls.lock().unwrap();
        let place = |name| calls.iter().position(|call| *call == name);
        (place("trust"), place("boot"))
    };
    assert!(order().0 < order().1, "{:?}", guest.calls.lock().unwrap());
    handle.reconsider().await;
    assert_eq!(guest.was_asked("trust"), 1, "nothing has changed");
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    fixture.context.trust.add(&own.pem()).unwrap();
    handle.reconsider().await;
    assert_eq!(guest.was_asked("trust"), 2);
}

#[tokio::test]
async fn a_second_start_joins_the_first() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let (first, second) = (
        handle.begin(Command::Start).await.unwrap(),
        handle.begin(Command::Start).await.unwrap(),
    );
    assert_eq!(outcome(first).await.unwrap().state, MachineState::Running);
    assert_eq!(outcome(second).await.unwrap().state, MachineState::Running);
    assert_eq!(fixture.host.guest().was_asked("boot"), 1);
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
async fn a_machine_that_dies_has_failed_with_its_cause_and_last_words_and_can_be_started_again() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    fixture.host.guest().end(ExitCause::GuestPanicked {
        message: "Kernel panic - not syncing: \x1b[31moops".into(),
    });
    let status = until(&handle, "failed", failed).await;
    let MachineState::Failed { error, console_tail } = status.state else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::MachineFailed);
    assert!(
        error.message.contains("panicked") && !error.message.contains('\x1b'),
        "{}",
        error.message
    );
    assert!(error.hint.contains("cove start"), "{}", error.hint);
    assert_eq!(console_tail, ["last words [0m"]);
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
    fixture.host.guest().end(ExitCause::Vanished);
    until(&handle, "failed", failed).await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_has_not_failed() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    fixture.host.guest().end(ExitCause::PoweredOff);
    let status = until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
    assert_eq!(status.notices, ["the guest powered itself off"]);
}

#[tokio::test]
async fn a_daemon_that_was_killed_leaves_a_machine_which_the_next_one_adopts() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    let before = start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;

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
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;
    std::fs::write(handle.place().record_file(), "{").unwrap();
    let (handle, _owner) = fixture.own();
    until(&handle, "running", |state| *state == MachineState::Running).await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(fixture.host.guest().was_asked("shutdown"), 1);
}

#[tokio::test]
async fn a_guest_that_is_shutting_down_when_a_daemon_begins_is_waited_for() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;
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
    owner.abort();
    let _ = owner.await;
    let (handle, _owner) = fixture.own();
    until(&handle, "paused", |state| *state == MachineState::Paused).await;
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

#[tokio::test]
async fn a_machine_that_died_while_the_daemon_was_away_is_told_of_once() {
    for (cause, fails) in [
        (ExitCause::PoweredOff, false),
        (
            ExitCause::HypervisorDied {
                status: "signal 9".into(),
                stderr: String::new(),
            },
            true,
        ),
    ] {
        let fixture = Fixture::new(Script::default());
        let (handle, owner) = fixture.own();
        start(&handle).await.unwrap();
        owner.abort();
        let _ = owner.await;
        fixture.host.guest().end(cause);

        let (handle, owner) = fixture.own();
        let settled = |state: &MachineState| failed(state) || *state == MachineState::Stopped;
        let status = until(&handle, "settled", settled).await;
        assert_eq!(failed(&status.state), fails);
        assert_eq!(status.notices.is_empty(), fails, "{:?}", status.notices);
        owner.abort();
        let _ = owner.await;
        let (handle, _owner) = fixture.own();
        let status = until(&handle, "stopped", |state| *state == MachineState::Stopped).await;
        assert!(status.notices.is_empty(), "{:?}", status.notices);
    }
}

#[tokio::test]
async fn a_start_after_machine_and_daemon_died_starts_and_tells_of_it() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;
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
async fn an_agent_of_another_protocol_version_fails_the_start_and_says_which_side_is_older() {
    let fixture = Fixture::new(Script {
        version: cove_wire::PROTOCOL_VERSION + 1,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadImage);
    assert!(
        error.message.contains("cove 0") && error.message.contains("older"),
        "{}",
        error.message
    );
    assert!(!error.message.contains('\x07'));
    // Nobody could talk to it, so that it is not left behind.
    assert!(handle.snapshot().machine.is_none());
    until(&handle, "failed", failed).await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_machine_that_runs_outlives_a_daemon_that_cannot_talk_to_its_agent() {
    let fixture = Fixture::new(Script::default());
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;
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
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    owner.abort();
    let _ = owner.await;
    fixture.host.guest().is_foreign();
    let directory = fixture.context.dirs.machine(MachineName::default().as_str());
    let lock = std::fs::File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();

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
async fn a_boot_that_fails_leaves_the_machine_for_a_look_and_it_may_still_recover() {
    let fixture = Fixture::new(Script {
        boot: Err(Fault::new(FaultCode::Failed, "the data disk has to be repaired")),
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MachineFailed);
    assert!(
        error.message.contains("the data disk has to be repaired"),
        "{}",
        error.message
    );
    until(&handle, "failed", failed).await;
    assert!(handle.snapshot().machine.is_some(), "nothing is left to look at");
    let old = fixture.host.guest();
    old.engine_is(EngineState::Ready);
    until(&handle, "running", |state| *state == MachineState::Running).await;

    // From Failed, a start first ends what is left.
    old.end(ExitCause::Vanished);
    until(&handle, "failed", failed).await;
    assert!(start(&handle).await.is_err());
    fixture.host.script.lock().unwrap().boot = Ok(());
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

#[tokio::test]
async fn a_guest_that_restarts_itself_is_booted_again() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    guest.reboot();
    eventually("booted again", || guest.was_asked("boot") == 2).await;
    until(&handle, "running", |state| *state == MachineState::Running).await;
}

#[tokio::test]
async fn a_lost_agent_is_connected_anew_and_an_engine_that_restarts_is_a_notice() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    guest.cut();
    let noticed = |what: &'static str| {
        let handle = handle.clone();
        move || handle.status().notices.iter().any(|notice| notice.contains(what))
    };
    eventually("noticed the loss", noticed("does not answer")).await;
    let lost = noticed("does not answer");
    eventually("reconnected", || !lost()).await;
    guest.engine_is(EngineState::Restarting {
        attempt: 1,
        pause_ms: 100,
        why: "killed by signal 9".into(),
    });
    eventually("noticed the engine", noticed("killed by signal 9")).await;
    assert_eq!(handle.status().state, MachineState::Running);
    guest.engine_is(EngineState::Ready);
    let restarting = noticed("killed by signal 9");
    eventually("cleared the notice", || !restarting()).await;
}

#[tokio::test]
async fn garbage_from_a_guest_harms_nobody_and_the_machine_can_be_stopped() {
    let mut oversized = vec![0xff; 4];
    oversized.extend([0; 64]);
    for garbage in [
        oversized,
        vec![0, 0, 0, 2, b'{', b'x'],
        vec![0, 0, 0, 0],
        Vec::new(),
    ] {
        let fixture = Fixture::new(Script {
            garbage: Some(garbage),
            ..Script::default()
        });
        let (handle, _owner) = fixture.own();
        let _starting = handle.begin(Command::Start).await.unwrap();
        eventually("started a machine process", || {
            handle.snapshot().machine.is_some()
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(matches!(handle.status().state, MachineState::Starting { .. }));
        assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    }
}

#[tokio::test]
async fn what_a_guest_says_in_a_malformed_frame_reaches_nobody_with_its_escape_sequences() {
    let frame = format!("{{\"\\u001b]0;title\\u0007{}\": 1}}", "x".repeat(100_000));
    let mut garbage = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    garbage.extend(frame.as_bytes());
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    fixture.host.guest().talk_nonsense(garbage);
    fixture.host.guest().cut();
    let lost = |notices: &[String]| notices.iter().any(|notice| notice.contains("unknown variant"));
    eventually("lost the agent to its nonsense", || {
        lost(&handle.status().notices)
    })
    .await;
    for notice in handle.status().notices {
        assert!(!notice.contains(char::is_control), "{notice:?}");
        assert!(
            notice.chars().count() < 3000,
            "{} characters",
            notice.chars().count()
        );
    }
}

#[tokio::test]
async fn a_damaged_image_and_a_bad_settings_file_refuse_the_start_and_say_what_to_do() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let kernel = fixture.context.dirs.image().join("kernel");
    let good = std::fs::read(&kernel).unwrap();
    std::fs::write(&kernel, "another kernel").unwrap();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadImage);
    assert!(error.hint.contains("cove image build"), "{error:?}");
    std::fs::write(&kernel, good).unwrap();

    let settings = fixture.context.dirs.settings();
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "\n[machine]\ncpus = 'many'\n").unwrap();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidSetting);
    assert!(error.message.contains("settings.toml:3"), "{}", error.message);
    std::fs::remove_file(&settings).unwrap();
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}

#[tokio::test]
async fn settings_that_differ_from_those_of_the_start_need_a_restart() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let settings = &fixture.context.settings;
    assert!(!handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.stop-grace", Some(&"3 s".into())).unwrap();
    assert!(!handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.memory", Some(&"3 GiB".into())).unwrap();
    assert!(handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.memory", None).unwrap();
    settings.set("engine.debug", Some(&true.into())).unwrap();
    assert!(handle.needs_restart(&settings.current().unwrap()));
    stop(&handle).await.unwrap();
    assert!(!handle.needs_restart(&settings.current().unwrap()));
}

#[tokio::test]
async fn a_larger_disk_is_given_to_a_machine_that_runs_and_a_smaller_one_is_not() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let settings = &fixture.context.settings;
    for (size, expected) in [("96 GiB", 96), ("32 GiB", 96)] {
        settings.set("machine.disk", Some(&size.into())).unwrap();
        handle.reconsider().await;
        assert_eq!(handle.status().disk_size, expected << 30);
        assert!(!handle.needs_restart(&settings.current().unwrap()));
    }
    assert_eq!(fixture.host.guest().was_asked("grow-data"), 1);
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
