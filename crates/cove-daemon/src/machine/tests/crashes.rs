//! Hypervisors that crash by a fault of their own, before the agent has answered and after.

use super::{eventually, failed, outcome, start, stop, until};
use crate::machine::{
    Command,
    fake::{Crash, Fixture, Script},
};
use cove_api::{ErrorCode, MachineState, Progress};
use cove_machine::ExitCause;
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn crashing(crashes: &[Crash]) -> Fixture {
    Fixture::new(Script {
        crashes: crashes.to_vec(),
        ..Script::default()
    })
}

/// A machine whose agent never answers.
fn silent() -> Fixture {
    Fixture::new(Script {
        refusals: u32::MAX,
        ..Script::default()
    })
}

#[tokio::test]
async fn a_start_whose_hypervisor_crashes_begins_once_more_and_says_what_it_said() {
    for crash in [Crash::AtOnce, Crash::Soon] {
        let fixture = crashing(&[crash]);
        let (handle, _owner) = fixture.own();
        let mut listening = handle.begin(Command::Start).await.unwrap();
        let (mut told, mut fraction) = (Vec::new(), 0.0);
        let status = loop {
            match listening.next().await.unwrap() {
                Progress::Stage { fraction: now, .. } => {
                    assert!(now >= fraction, "it goes back to {now}");
                    fraction = now;
                }
                Progress::Notice { message } => told.push(message),
                Progress::Done { status } => break status,
                Progress::Failed { error } => panic!("{error:?}"),
            }
        };
        assert_eq!(status.state, MachineState::Running);
        assert_eq!(fixture.host.starts(), 2);
        let named = |notice: &String| {
            ["started a second time", "SIGABRT", "iotlb_to_section"]
                .iter()
                .all(|word| notice.contains(word))
        };
        assert_eq!(told.iter().filter(|notice| named(notice)).count(), 1, "{told:?}");
        assert!(status.notices.iter().any(named), "{:?}", status.notices);
        assert_eq!(handle.place().last_failure(), None);
        // It belongs to the machine that runs.
        let status = stop(&handle).await.unwrap();
        assert!(!status.notices.iter().any(named), "{:?}", status.notices);
    }
}

#[tokio::test]
async fn a_hypervisor_that_crashes_again_fails_the_start_after_two_tries() {
    for (first, second) in [
        (Crash::Soon, Crash::Soon),
        (Crash::AtOnce, Crash::Soon),
        (Crash::Soon, Crash::AtOnce),
    ] {
        let fixture = crashing(&[first, second, Crash::Soon]);
        let (handle, _owner) = fixture.own();
        let error = start(&handle).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::MachineFailed);
        assert!(error.message.contains("SIGABRT"), "{}", error.message);
        assert_eq!(fixture.host.starts(), 2);
        until(&handle, "failed", failed).await;
        assert!(handle.snapshot().machine.is_none());
        assert!(handle.place().record().is_none());
        assert!(handle.place().last_failure().is_some());
        // The next start has its two tries as well.
        assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
        assert_eq!(fixture.host.starts(), 4);
    }
}

#[tokio::test]
async fn an_end_that_is_no_crash_is_not_tried_again() {
    let killed = ExitCause::HypervisorDied {
        status: "signal: 9 (SIGKILL)".into(),
        stderr: String::new(),
        crashed: false,
    };
    for cause in [killed, ExitCause::Vanished] {
        let fixture = silent();
        let (handle, _owner) = fixture.own();
        let starting = handle.begin(Command::Start).await.unwrap();
        eventually("started a machine", || handle.snapshot().machine.is_some()).await;
        fixture.host.guest().end(cause);
        assert_eq!(
            outcome(starting).await.unwrap_err().code,
            ErrorCode::MachineFailed
        );
        assert_eq!(fixture.host.starts(), 1);
    }
}

#[tokio::test]
async fn a_crash_after_the_agent_has_answered_is_not_tried_again() {
    let fixture = Fixture::new(Script {
        engine: false,
        ..Script::default()
    });
    let (handle, _owner) = fixture.own();
    let starting = handle.begin(Command::Start).await.unwrap();
    eventually("asked to boot", || {
        fixture.host.starts() == 1 && fixture.host.guest().was_asked("boot") == 1
    })
    .await;
    fixture.host.guest().end(Crash::cause());
    assert_eq!(
        outcome(starting).await.unwrap_err().code,
        ErrorCode::MachineFailed
    );
    assert_eq!(fixture.host.starts(), 1);
}

#[tokio::test]
async fn a_stop_ends_a_second_try_as_it_ends_a_first() {
    let fixture = silent();
    let (handle, _owner) = fixture.own();
    let starting = handle.begin(Command::Start).await.unwrap();
    eventually("started a machine", || handle.snapshot().machine.is_some()).await;
    fixture.host.guest().end(Crash::cause());
    eventually("started another", || fixture.host.starts() == 2).await;
    assert_eq!(stop(&handle).await.unwrap().state, MachineState::Stopped);
    assert_eq!(outcome(starting).await.unwrap_err().code, ErrorCode::WrongState);
    assert!(!fixture.host.guest().is_alive());
    assert_eq!(fixture.host.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_try_has_the_time_that_the_first_has_left() {
    let fixture = silent();
    let (handle, _owner) = fixture.own();
    let mut starting = handle.begin(Command::Start).await.unwrap();
    while handle.snapshot().machine.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    sleep(Duration::from_mins(2)).await;
    fixture.host.guest().end(Crash::cause());
    let error = loop {
        if let Progress::Failed { error } = starting.next().await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.code, ErrorCode::Timeout, "{error:?}");
    assert_eq!(fixture.host.starts(), 2);
    let waited = begun.elapsed().as_secs();
    assert!((175..185).contains(&waited), "{waited} s");
}
