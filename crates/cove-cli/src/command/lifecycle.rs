//! start, stop, restart, pause, resume.

use super::Session;
use crate::{exit::Exit, failure::Failure, output, progress::Progress};
use cove_api::{JsonLines, MachineState, MachineStatus, Progress as Step};
use std::process::ExitCode;

pub(super) async fn start(session: &Session) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(session.quiet);
    let client = session.daemon_showing(&progress).await?;
    let was_up = client
        .machine(&session.machine)
        .await
        .is_ok_and(|status| status.state == MachineState::Running);
    let status = follow(client.start(&session.machine).await?, &progress, "start").await?;
    if was_up {
        drop(progress);
        // A start makes the Docker context, which may have gone since.
        if let Err(error) = client.create_context(&session.machine, false).await {
            session.say(&format!("note: {error}"));
        }
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
        progress.stage("Ending the machine", None);
        client.kill(&session.machine).await?
    } else {
        follow(client.stop(&session.machine).await?, &progress, "stop").await?
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
    let status = follow(client.restart(&session.machine).await?, &progress, "restart").await?;
    progress.done(&format!("restarted machine `{}`", status.name));
    session.say(&how_it_runs(&status));
    told(session, &status)
}

pub(super) async fn pause(session: &Session) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let status = session
        .during("Pausing the machine", client.pause(&session.machine))
        .await?;
    session.say(&format!("paused machine `{}`", status.name));
    told(session, &status)
}

pub(super) async fn resume(session: &Session) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let status = session
        .during("Resuming the machine", client.resume(&session.machine))
        .await?;
    session.say(&format!("resumed machine `{}`", status.name));
    told(session, &status)
}

/// Shows the steps of `what` until it is done. Ctrl-C ends the showing: what the daemon has begun goes on.
async fn follow(steps: JsonLines<Step>, progress: &Progress, what: &str) -> anyhow::Result<MachineStatus> {
    let finished = steps.finish(|step| match step {
        Step::Stage { message, fraction } => progress.stage(message, Some(*fraction)),
        Step::Notice { message } => progress.note(message),
        Step::Done { .. } | Step::Failed { .. } => {}
    });
    tokio::select! {
        status = finished => Ok(status?),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new(
            Exit::Interrupted,
            format!("interrupted; the {what} goes on without this command"),
            "`cove status` shows how far it is, `cove stop` ends the machine",
        )
        .into()),
    }
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
