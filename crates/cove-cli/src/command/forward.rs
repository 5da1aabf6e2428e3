//! forward: a TCP port of this computer that leads into the guest, for as long as the command runs.
//!
//! For ports that nobody published; those of `docker run -p` need no command.

use super::Session;
use crate::{args::Route, exit::Exit, failure::Failure, output};
use anyhow::Context as _;
use cove_api::{Client, MachineState};
use cove_wire::Dial;
use std::{io, process::ExitCode, time::Duration};
use tokio::net::{TcpListener, TcpStream};

/// Pause after a failed accept, which is what running out of file descriptors looks like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(session: &Session, route: Route) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    look_for(&client, &session.machine).await?;
    let listener = TcpListener::bind(route.listen).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port; choose another one, or port 0 for a free one"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
            io::ErrorKind::AddrNotAvailable => {
                "this computer has no such address; leave it out for 127.0.0.1"
            }
            _ => "",
        };
        Failure::new(
            Exit::Failed,
            format!("cannot listen on {}: {error}", route.listen),
            hint,
        )
    })?;
    let listen = listener.local_addr().context("cannot tell the port")?;
    if session.json {
        output::line(
            serde_json::json!({ "listen": listen.to_string(), "target": route.target.to_string() })
                .to_string(),
        )?;
    } else {
        output::line(format!("{listen} -> {}", route.target))?;
    }
    let quiet = session.quiet;
    loop {
        let peer = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done.into()),
        };
        match peer {
            Ok((peer, _)) => {
                let client = client.clone();
                let machine = session.machine.clone();
                tokio::spawn(async move {
                    if let Err(error) = carry(&client, &machine, peer, route).await
                        && !quiet
                    {
                        output::note(format_args!("note: {error:#}"));
                    }
                });
            }
            Err(error) => {
                session.say(&format!("note: cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Fails where no machine would take a connection, which otherwise each client would learn by being turned away. One
/// that is starting will.
async fn look_for(client: &Client, machine: &str) -> anyhow::Result<()> {
    let (how, hint) = match client.machine(machine).await?.state {
        MachineState::Running | MachineState::Starting { .. } => return Ok(()),
        MachineState::Stopped => ("is stopped".to_owned(), "start it with: cove start".to_owned()),
        MachineState::Stopping => (
            "is stopping".to_owned(),
            "start it again with: cove start".to_owned(),
        ),
        MachineState::Paused => (
            "is paused".to_owned(),
            "let it go on with: cove resume".to_owned(),
        ),
        MachineState::Failed { error, .. } => (format!("has failed: {}", error.message), error.hint),
    };
    Err(Failure::new(Exit::NotRunning, format!("machine `{machine}` {how}"), hint).into())
}

async fn carry(client: &Client, machine: &str, peer: TcpStream, route: Route) -> anyhow::Result<()> {
    // What is said in small pieces is not to wait for more; where that cannot be set, it is only slower.
    let _ = peer.set_nodelay(true);
    let dial = Dial {
        address: route.target,
        namespace: None,
    };
    // A peer that resets its connection is everyday life, not something to tell.
    cove_api::carry_tcp(peer, client.dial(machine, &dial)).await?;
    Ok(())
}
