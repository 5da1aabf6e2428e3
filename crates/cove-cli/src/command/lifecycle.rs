//! start, stop, restart, pause, resume.

use super::Session;
use crate::{exit::Exit, output, progress::Progress};
use cove_api::{ClientError, JsonLines, MachineState, MachineStatus, Progress as Step};
use std::process::ExitCode;

pub(super) async fn start(session: &Session) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(session.quiet);
    let client = session.daemon_showing(&progress).await?;
    let was_up = client
        .machine(&session.machine)
        .await
        .is_ok_and(|status| status.state == MachineState::Running);
    let status = follow(client.start(&session.machine).await?, &progress).await?;
    if was_up {
        drop(progress);
        session.say(&format!("machine `{}` is running already", status.name));
    } else {
        progress.done(&format!("started machine `{}`", status.name));
        session.say(&how_it_runs(&status));
    }
    told(session, &status)
}

pub(super) async fn stop(session: &Session, force: bool) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(session.quiet);
    let client = session.daemon_showing(&progress).await?;
    let was_down = client
        .machine(&session.machine)
        .await
        .is_ok_and(|status| status.state == MachineState::Stopped);
    let status = if force {
        client.kill(&session.machine).await?
    } else {
        follow(client.stop(&session.machine).await?, &progress).await?
    };
    if was_down {
        drop(progress);
        session.say(&format!("machine `{}` was stopped already", status.name));
    } else {
        progress.done(&format!("stopped machine `{}`", status.name));
    }
    told(session, &status)
}

pub(super) async fn restart(session: &Session) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(session.quiet);
    let client = session.daemon_showing(&progress).await?;
    let status = follow(client.restart(&session.machine).await?, &progress).await?;
    progress.done(&format!("restarted machine `{}`", status.name));
    session.say(&how_it_runs(&status));
    told(session, &status)
}

pub(super) async fn pause(session: &Session) -> anyhow::Result<ExitCode> {
    let status = session.daemon().await?.pause(&session.machine).await?;
    session.say(&format!("paused machine `{}`", status.name));
    told(session, &status)
}

pub(super) async fn resume(session: &Session) -> anyhow::Result<ExitCode> {
    let status = session.daemon().await?.resume(&session.machine).await?;
    session.say(&format!("resumed machine `{}`", status.name));
    told(session, &status)
}

async fn follow(steps: JsonLines<Step>, progress: &Progress) -> Result<MachineStatus, ClientError> {
    steps
        .finish(|step| match step {
            Step::Stage { message, fraction } => progress.stage(message, Some(*fraction)),
            Step::Notice { message } => progress.note(message),
            Step::Done { .. } | Step::Failed { .. } => {}
        })
        .await
}

fn how_it_runs(status: &MachineStatus) -> String {
    format!(
        "{}\nDocker clients reach it at {}",
        status.backend.reason, status.endpoint.docker_host
    )
}

fn told(session: &Session, status: &MachineStatus) -> anyhow::Result<ExitCode> {
    if session.json {
        output::json(status)?;
    }
    Ok(Exit::Done.into())
}
