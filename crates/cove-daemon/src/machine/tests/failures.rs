//! Guests that die, fail or say what makes no sense.

use super::{LONG, eventually, failed, start, stop, until};
use crate::machine::{
    Command,
    fake::{Fixture, Script},
    last_failure::LastFailure,
};
use cove_api::{ErrorCode, MachineState, Progress};
use cove_machine::ExitCause;
use cove_wire::{EngineState, Fault, FaultCode};
use std::time::Duration;
use tokio::time::timeout;

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
async fn a_failure_that_may_be_the_backends_is_remembered_until_a_machine_comes_up_by_it() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    assert_eq!(handle.place().last_failure(), None);
    fixture.host.guest().end(ExitCause::HypervisorDied {
        status: "signal 9".into(),
        stderr: String::new(),
        crashed: false,
    });
    until(&handle, "failed", failed).await;
    let failure = handle.place().last_failure().unwrap();
    assert!(failure.message.contains("signal 9"), "{failure:?}");
    assert_eq!(failure.backend, "emulated");
    assert!(failure.age() < LONG, "{failure:?}");
    start(&handle).await.unwrap();
    assert_eq!(handle.place().last_failure(), None);

    let of_another = LastFailure {
        backend: "kvm".into(),
        ..failure
    };
    handle.place().remember_failure(&of_another);
    stop(&handle).await.unwrap();
    start(&handle).await.unwrap();
    assert_eq!(handle.place().last_failure(), Some(of_another));
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
async fn an_engine_that_ends_again_and_again_fails_the_start_soon_with_its_words_and_may_still_recover() {
    let fixture = Fixture::new(Script {
        engine: false,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let mut starting = handle.begin(Command::Start).await.unwrap();
    eventually("asked to boot", || {
        fixture.host.starts() == 1 && fixture.host.guest().was_asked("boot") == 1
    })
    .await;
    for attempt in 1..=5 {
        fixture.host.guest().engine_is(EngineState::Restarting {
            attempt,
            pause_ms: 100,
            why: format!("at {attempt}: unknown flag: no-such-option"),
        });
    }
    let mut told = Vec::new();
    let error = loop {
        match timeout(LONG, starting.next()).await.unwrap().unwrap() {
            Progress::Notice { message } => told.push(message),
            Progress::Failed { error } => break error,
            other => assert!(matches!(other, Progress::Stage { .. }), "{other:?}"),
        }
    };
    assert_eq!(error.code, ErrorCode::MachineFailed);
    assert!(error.message.contains("no-such-option"), "{}", error.message);
    assert!(
        error.hint.contains("cove config edit") && error.hint.contains("cove logs engine"),
        "{}",
        error.hint
    );
    let of_the_engine = told.iter().filter(|notice| notice.contains("no-such-option"));
    assert_eq!(of_the_engine.count(), 1, "{told:?}");
    until(&handle, "failed", failed).await;
    fixture.host.guest().engine_is(EngineState::Ready);
    let status = until(&handle, "running", |state| *state == MachineState::Running).await;
    assert!(
        !status
            .notices
            .iter()
            .any(|notice| notice.contains("no-such-option")),
        "{:?}",
        status.notices
    );
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
