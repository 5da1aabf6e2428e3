//! machine list, create, reclaim, delete.

use super::{Session, status};
use crate::{args, exit::Exit, failure::Failure, output, terminal};
use cove_api::{NewMachine, size};
use std::{
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
};

pub(super) async fn run(session: &Session, what: args::Machine) -> anyhow::Result<ExitCode> {
    match what {
        args::Machine::List => list(session).await,
        args::Machine::Create {
            name,
            cpus,
            memory,
            disk,
        } => {
            let wanted = NewMachine {
                name,
                cpus,
                memory_mib: memory,
                disk_gib: disk,
            };
            let client = session.daemon().await?;
            let creating = client.create_machine(&wanted);
            let status = session.during("Creating the machine", creating).await?;
            session.say(&format!(
                "created machine `{0}`; start it with: cove start --machine {0}",
                status.name
            ));
            if session.json {
                output::json(&status)?;
            }
            Ok(Exit::Done.into())
        }
        args::Machine::Reclaim => reclaim(session).await,
        args::Machine::Delete { name, confirm } => delete(session, &name, confirm).await,
    }
}

async fn list(session: &Session) -> anyhow::Result<ExitCode> {
    let machines = session.daemon().await?.machines().await?;
    if session.json {
        output::json(&machines)?;
        return Ok(Exit::Done.into());
    }
    let rows: Vec<[String; 6]> = machines
        .iter()
        .map(|machine| {
            [
                machine.name.clone(),
                status::word(&machine.state).to_owned(),
                machine.backend.kind.clone(),
                machine.cpus.to_string(),
                size::about(u64::from(machine.memory_mib) << 20),
                size::about(machine.disk_on_host),
            ]
        })
        .collect();
    output::table(["NAME", "STATE", "BACKEND", "CPUS", "MEMORY", "DISK USED"], &rows)?;
    Ok(Exit::Done.into())
}

async fn reclaim(session: &Session) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let reclaiming = client.reclaim(&session.machine);
    let reclaimed = session
        .during("Having the machine discard what it does not use", reclaiming)
        .await?;
    session.say(&format!(
        "the disk of machine `{}` takes {} of this computer, after {}",
        session.machine,
        size::about(reclaimed.after),
        size::about(reclaimed.before)
    ));
    if session.json {
        output::json(&reclaimed)?;
    }
    Ok(Exit::Done.into())
}

async fn delete(session: &Session, name: &str, confirm: Option<String>) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let status = client.machine(name).await?;
    let confirmed = match confirm {
        Some(confirmed) => confirmed,
        None if terminal::is_interactive() => ask(name, status.disk_on_host)?,
        None => String::new(),
    };
    if confirmed != name {
        return Err(Failure::new(
            Exit::NotConfirmed,
            format!("machine `{name}` was not deleted: its name was not confirmed"),
            format!(
                "to delete its containers, images and volumes: cove machine delete {name} --confirm {name}"
            ),
        )
        .into());
    }
    let deleting = client.delete_machine(name, &confirmed);
    session.during("Deleting the machine", deleting).await?;
    session.say(&format!("deleted machine `{name}`"));
    Ok(Exit::Done.into())
}

fn ask(name: &str, bytes: u64) -> io::Result<String> {
    let mut shown = io::stderr().lock();
    writeln!(
        shown,
        "This deletes machine `{name}` with all its containers, images and volumes ({}).",
        size::about(bytes)
    )?;
    write!(shown, "Its name, to confirm: ")?;
    shown.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
