//! Every edge of the state diagram, with a scripted guest.

mod adoption;
mod clients;
mod crashes;
mod failures;
mod folders;
mod pauses;
mod settings;
mod starts;
mod stops;

use crate::machine::{Command, Handle, Listening};
use cove_api::{ApiError, MachineState, MachineStatus, Progress};
use std::time::Duration;
use tokio::time::timeout;

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
