//! status: how the machine is, in milliseconds, without starting anything.
//!
//! When no daemon runs, no engine can be reached: the machine is stopped as far as anybody can use it. A machine
//! process that has outlived its daemon is noticed by its control socket, and then the daemon is started to adopt it.

use super::Session;
use crate::{daemon_link, exit::Exit, output, time};
use cove_api::{Client, Dirs, MachineState, MachineStatus, Stage, hint_for, size, transport};
use cove_daemon::MachineName;
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long a daemon may look for its machine before it is asked how that is.
const ADOPTION: Duration = Duration::from_secs(10);

pub(super) async fn run(session: &Session, timings: bool) -> anyhow::Result<ExitCode> {
    let mut client = Client::of(&session.dirs);
    if daemon_link::running(&client).await?.is_none() {
        let name = session.known_machine()?;
        if !daemon_link::machine_outlived_daemon(&session.dirs, &session.machine).await {
            return without_daemon(session, &name);
        }
        client = session.daemon().await?;
        adopted(&client, &session.machine).await?;
    }
    let status = client.machine(&session.machine).await?;
    if session.json {
        let mut fields = serde_json::to_value(&status)?;
        fields["daemon"] = "running".into();
        output::json(&fields)?;
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
                session.say(&format!("hint: {}", hint_for(&session.machine, &error.hint)));
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

/// Waits until a daemon that has just begun has found the machine that its predecessor left, though not for ever.
async fn adopted(client: &Client, machine: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < ADOPTION && client.machine(machine).await?.state.is_looking() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What a daemon would say has the same keys, null where only a daemon knows it.
fn stopped(dirs: &Dirs, name: &MachineName) -> Value {
    let socket = dirs.docker_socket(name.as_str());
    json!({
        "name": name.as_str(),
        "state": "stopped",
        "daemon": "stopped",
        "backend": null,
        "endpoint": {
            "docker_host": transport::docker_host(&socket),
            "socket": socket,
            "context": name.context(),
        },
        "cpus": null,
        "memory_mib": null,
        "disk_size": null,
        "disk_on_host": null,
        "uptime_s": null,
        "engine_version": null,
        "memory_on_host": null,
        "timings": [],
        "notices": [],
    })
}

fn without_daemon(session: &Session, name: &MachineName) -> anyhow::Result<ExitCode> {
    if session.json {
        output::json(&stopped(&session.dirs, name))?;
    } else {
        output::line(format!("{:<9} {}", "machine", session.machine))?;
        output::line(format!("{:<9} stopped", "state"))?;
        let hint = hint_for(&session.machine, "start it with: cove start");
        session.say(&format!("hint: {hint}"));
    }
    Ok(Exit::NotRunning.into())
}

/// One word for a state.
pub(super) fn word(state: &MachineState) -> &'static str {
    match state {
        MachineState::Stopped => "stopped",
        MachineState::Starting { .. } => "starting",
        MachineState::Running => "running",
        MachineState::Paused => "paused",
        MachineState::Stopping => "stopping",
        MachineState::Failed { .. } => "failed",
    }
}

fn describe(status: &MachineStatus) -> Vec<(&'static str, String)> {
    let word = word(&status.state);
    let state = match (&status.state, status.uptime_s) {
        (MachineState::Starting { stage }, _) => format!("{word} ({stage})"),
        (MachineState::Failed { error, .. }, _) => format!("{word}: {}", error.message),
        (MachineState::Running, Some(uptime)) => {
            format!("{word} for {}", time::words(Duration::from_secs(uptime.max(1))))
        }
        _ => word.to_owned(),
    };
    let memory_size = size::about(u64::from(status.memory_mib) << 20);
    let memory = match status.memory_on_host {
        Some(taken) => format!("{memory_size}, {} taken on this computer", size::about(taken)),
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
                size::about(status.disk_size),
                size::about(status.disk_on_host)
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

#[cfg(test)]
mod tests {
    use super::*;
    use cove_api::{BackendReport, Endpoint};
    use std::path::Path;

    #[test]
    fn a_status_has_the_same_keys_with_a_daemon_and_without() {
        let status = MachineStatus {
            name: "default".into(),
            state: MachineState::Stopped,
            backend: BackendReport {
                kind: "emulated".into(),
                reason: String::new(),
            },
            endpoint: Endpoint {
                docker_host: String::new(),
                socket: "/x".into(),
                context: "cove".into(),
            },
            cpus: 1,
            memory_mib: 1,
            disk_size: 1,
            disk_on_host: 1,
            uptime_s: None,
            engine_version: None,
            memory_on_host: None,
            timings: Vec::new(),
            notices: Vec::new(),
        };
        let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let mut with = serde_json::to_value(&status).unwrap();
        with["daemon"] = "running".into();
        let without = stopped(&Dirs::below(Path::new("/home")), &MachineName::default());
        let (mut with_keys, mut without_keys) = (keys(&with), keys(&without));
        with_keys.sort();
        without_keys.sort();
        assert_eq!(with_keys, without_keys);
        assert_eq!(keys(&with["endpoint"]).len(), keys(&without["endpoint"]).len());
    }
}
