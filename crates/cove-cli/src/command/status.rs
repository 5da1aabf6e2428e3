//! status: how the machine is, in milliseconds, without starting anything.
//!
//! When no daemon runs, no engine can be reached: the machine is stopped as far as anybody can use it. A machine
//! process that has outlived its daemon is noticed by its control socket, and then the daemon is started to adopt it.

use super::Session;
use crate::{daemon_link, exit::Exit, failure, output, quantity};
use cove_api::{Client, MachineState, MachineStatus, Stage};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

pub(super) async fn run(session: &Session, timings: bool) -> anyhow::Result<ExitCode> {
    let mut client = Client::of(&session.dirs);
    if daemon_link::running(&client).await?.is_none() {
        if !daemon_link::machine_outlived_daemon(&session.dirs, &session.machine).await {
            return without_daemon(session);
        }
        client = session.daemon().await?;
    }
    let status = client.machine(&session.machine).await?;
    if session.json {
        output::json(&status)?;
    } else {
        for (name, value) in describe(&status) {
            output::line(format!("{name:<9} {value}"))?;
        }
        for notice in &status.notices {
            session.say(&format!("note: {notice}"));
        }
        if let MachineState::Failed { error, console_tail } = &status.state {
            for line in console_tail {
                session.say(&format!("console: {line}"));
            }
            if !error.hint.is_empty() {
                session.say(&format!(
                    "hint: {}",
                    failure::hint_for(&session.machine, &error.hint)
                ));
            }
        }
        if timings {
            show_timings(&status.timings)?;
        }
    }
    Ok(match status.state {
        MachineState::Running => Exit::Done,
        _ => Exit::NotRunning,
    }
    .into())
}

fn without_daemon(session: &Session) -> anyhow::Result<ExitCode> {
    if session.json {
        output::json(&json!({ "name": session.machine, "state": "stopped", "daemon": "stopped" }))?;
    } else {
        output::line(format!("{:<9} {}", "machine", session.machine))?;
        output::line(format!("{:<9} stopped", "state"))?;
        let hint = failure::hint_for(&session.machine, "start it with: cove start");
        session.say(&format!("hint: {hint}"));
    }
    Ok(Exit::NotRunning.into())
}

/// One word or few for a state.
pub(super) fn word(state: &MachineState) -> String {
    match state {
        MachineState::Stopped => "stopped".into(),
        MachineState::Starting { stage } => format!("starting ({stage})"),
        MachineState::Running => "running".into(),
        MachineState::Paused => "paused".into(),
        MachineState::Stopping => "stopping".into(),
        MachineState::Failed { error, .. } => format!("failed: {}", error.message),
    }
}

fn describe(status: &MachineStatus) -> Vec<(&'static str, String)> {
    let mut state = word(&status.state);
    if let (MachineState::Running | MachineState::Paused, Some(uptime)) = (&status.state, status.uptime_s) {
        let uptime = Duration::from_secs(uptime.max(1));
        state = format!("{state} for {}", quantity::duration(uptime));
    }
    let memory_size = quantity::bytes(u64::from(status.memory_mib) << 20);
    let memory = match status.memory_on_host {
        Some(taken) => format!("{memory_size}, {} taken on this computer", quantity::bytes(taken)),
        None => memory_size,
    };
    let mut rows = vec![
        ("machine", status.name.clone()),
        ("state", state),
        ("backend", status.backend.reason.clone()),
    ];
    if let Some(engine) = &status.engine_version {
        rows.push(("engine", format!("Docker {engine}")));
    }
    rows.extend([
        ("cpus", status.cpus.to_string()),
        ("memory", memory),
        (
            "disk",
            format!(
                "{} at most, {} taken on this computer",
                quantity::bytes(status.disk_size),
                quantity::bytes(status.disk_on_host)
            ),
        ),
        ("docker", status.endpoint.docker_host.clone()),
        ("context", status.endpoint.context.clone()),
    ]);
    rows
}

fn show_timings(stages: &[Stage]) -> anyhow::Result<()> {
    let at = |us: u64| format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000);
    let mut rows: Vec<[String; 4]> = stages
        .iter()
        .map(|stage| {
            [
                stage.name.clone(),
                at(stage.start_us),
                at(stage.end_us),
                at(stage.end_us.saturating_sub(stage.start_us)),
            ]
        })
        .collect();
    let (first, last) = stages.iter().fold((u64::MAX, 0), |(first, last), stage| {
        (first.min(stage.start_us), last.max(stage.end_us))
    });
    if first < last {
        rows.push(["in all".into(), at(first), at(last), at(last - first)]);
    }
    output::line("")?;
    output::table(["STAGE", "FROM", "TO", "TOOK"], &rows)?;
    Ok(())
}
